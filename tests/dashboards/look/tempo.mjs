// A stand-in for Tempo that answers what the pages ask, of spans that a collector received; see loki.mjs.
import { tree, walk } from "./grammar.mjs";

const KINDS = { server: 2, client: 3, internal: 1 };
const unknown = (node) => { throw new Error(`not known here: ${node.name} ${node.text}`); };

function value(node, span) {
  const inner = node.children[0];
  if (inner.name === "FieldExpression") return value(inner, span);
  if (inner.name === "AttributeField") {
    const [scope, name] = inner.children;
    return (scope.name === "Span" ? span.attributes : span.resource)[name.text];
  }
  if (inner.name === "IntrinsicField") {
    return { kind: span.kind, status: span.error ? "error" : "unset", duration: span.duration, name: span.name }[inner.text] ?? unknown(inner);
  }
  if (inner.name !== "Static") return unknown(inner);
  if (inner.text in KINDS) return KINDS[inner.text];
  const duration = inner.text.match(/^([\d.]+)(ms|s)$/);
  if (duration) return Number(duration[1]) * (duration[2] === "ms" ? 1 : 1000);
  return inner.text.startsWith('"') ? JSON.parse(inner.text) : inner.text;
}

function holds(node, span) {
  const parts = node.children;
  if (parts.length === 1) return holds(parts[0], span);
  const [left, operator, right] = parts;
  if (operator.name === "And") return holds(left, span) && holds(right, span);
  if (operator.name === "Or") return holds(left, span) || holds(right, span);
  const [a, b] = [value(left, span), value(right, span)];
  switch (operator.text) {
    case "=": return a === b;
    case "!=": return a !== b;
    case ">": return a > b;
    case "<": return a < b;
    case "=~": return a !== undefined && new RegExp(`^(?:${b})$`).test(a);
    default: return unknown(operator);
  }
}

function byTrace(spans) {
  const traces = new Map();
  for (const span of spans) traces.set(span.trace, [...(traces.get(span.trace) ?? []), span]);
  return [...traces.entries()];
}

// The newest traces with such a span, as the table of Grafana's Tempo source shows them.
export function search(spans, query, limit = 20) {
  const asked = tree("traceql", query);
  if ([...walk(asked)].some((node) => node.broken)) throw new Error(`not TraceQL: ${query}`);
  const condition = [...walk(asked)].find((node) => node.name === "FieldExpression");
  const found = byTrace(spans).filter(([, its]) => its.some((span) => holds(condition, span)));
  return found.map(([trace, its]) => {
    const root = its.find((span) => !its.some((other) => other.id === span.parent)) ?? its[0];
    const start = Math.min(...its.map((span) => span.start)), end = Math.max(...its.map((span) => span.start + span.duration));
    return { trace, start, service: root.resource["service.name"], name: root.name, duration: end - start };
  }).sort((a, b) => b.start - a.start).slice(0, limit);
}

// One trace, its spans in the order in which they began, each with its depth.
export function trace(spans, id) {
  const its = spans.filter((span) => span.trace === id).sort((a, b) => a.start - b.start);
  const depth = (span) => { const above = its.find(({ id: one }) => one === span.parent); return above ? depth(above) + 1 : 0; };
  return its.map((span) => ({ ...span, depth: depth(span) }));
}

// The trace with the most spans: the one to type into the page for its picture.
export const richest = (spans) =>
  byTrace(spans).sort(([, a], [, b]) => b.length - a.length)[0]?.[0] ?? "";
