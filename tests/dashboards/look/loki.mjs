// A stand-in for Loki that answers what the pages ask, of lines that a server wrote: Grafana's own grammar reads the
// expression, and whatever is not known here is an error and not an empty panel.
import { readFileSync } from "node:fs";
import { first, tree, walk } from "./grammar.mjs";

const UNITS = { ms: 1e-3, s: 1, m: 60, h: 3600 };
const seconds = (text) => Number.parseFloat(text) * UNITS[text.replace(/[\d.]/g, "")];
const unquoted = (text) => (text[0] === "`" ? text.slice(1, -1) : JSON.parse(text));
const unknown = (node) => { throw new Error(`not known here: ${node.name} ${node.text}`); };

// As `| json` names what it finds: nested keys joined by _, lists left out, null empty.
function* labels(object, prefix = "") {
  for (const [key, value] of Object.entries(object)) {
    if (Array.isArray(value)) continue;
    if (value !== null && typeof value === "object") yield* labels(value, `${prefix}${key}_`);
    else yield [prefix + key, value === null ? "" : String(value)];
  }
}

// Entries {time, line, stream, found} of files of JSON lines, as the collector hands them to Loki: a stream is a service.
export function read(paths) {
  const entries = [];
  for (const path of paths) {
    for (const line of readFileSync(path, "utf8").split("\n")) {
      if (!line.startsWith("{")) continue;
      const object = JSON.parse(line);
      const found = Object.fromEntries(labels(object));
      entries.push({ time: Date.parse(object.timestamp) / 1000, line, stream: { service_name: object.service_name }, found });
    }
  }
  return entries.sort((a, b) => a.time - b.time);
}

const COMPARED = {
  Eq: (a, b) => a === b, Neq: (a, b) => a !== b,
  Re: (a, b) => new RegExp(`^(?:${b})$`).test(a), Nre: (a, b) => !new RegExp(`^(?:${b})$`).test(a),
  Gtr: (a, b) => a > b, Gte: (a, b) => a >= b, Lss: (a, b) => a < b, Lte: (a, b) => a <= b,
};

function matcher(node) {
  const [name, operator, value] = node.children;
  const compare = COMPARED[operator.name] ?? unknown(node);
  if (node.name === "Matcher") {
    const wanted = unquoted(value.text);
    return (known) => compare(known[name.text] ?? "", wanted);
  }
  const wanted = Number(value.text);
  return (known) => name.text in known && compare(Number(known[name.text]), wanted);
}

function stage(node) {
  const [, inner] = node.children;
  if (inner.name === "LabelParser" && inner.text === "json") return (entry) => ({ ...entry, known: { ...entry.known, ...entry.found } });
  if (inner.name === "LabelFilter") {
    const passes = matcher(first(inner, "Matcher", "NumberFilter") ?? unknown(inner));
    return (entry) => (passes(entry.known) ? entry : null);
  }
  if (inner.name === "LineFormatExpr") {
    const template = unquoted(first(inner, "String").text);
    return (entry) => ({ ...entry, line: template.replace(/{{\s*\.(\w+)\s*}}/g, (_, name) => entry.known[name] ?? "") });
  }
  return unknown(inner);
}

function filtered(entries, node) {
  const matchers = [...walk(first(node, "Selector"))].filter((one) => one.name === "Matcher").map(matcher);
  const stages = [...walk(node)].filter((one) => one.name === "PipelineStage").map(stage);
  return entries.flatMap((entry) => {
    if (!matchers.every((passes) => passes(entry.stream))) return [];
    let now = { ...entry, known: entry.stream };
    for (const one of stages) if (now) now = one(now);
    return now ? [now] : [];
  });
}

const QUANTILE = (share) => (values) => {
  const sorted = values.toSorted((a, b) => a - b), place = share * (sorted.length - 1), low = Math.floor(place);
  return sorted[low] + (sorted[Math.min(low + 1, sorted.length - 1)] - sorted[low]) * (place - low);
};

// Series [{metric, values: [[time, text]...]}] of a range or vector aggregation, as Prometheus' matrix.
function matrix(entries, node, { from, to, step }) {
  const inside = first(node, "RangeAggregationExpr"), range = seconds(first(inside, "Duration").text);
  const operator = first(inside, "RangeOp").text, outer = first(node, "VectorOp")?.text;
  if (outer && outer !== "sum") unknown(node);
  const share = operator === "quantile_over_time" ? Number(first(inside, "Number").text) : null;
  const reduce = { rate: (values) => values.length / range, quantile_over_time: QUANTILE(share) }[operator] ?? unknown(inside);
  const unwrap = first(inside, "UnwrapExpr"), field = unwrap && first(unwrap, "Identifier").text;
  const grouping = first(node, "Labels");
  const by = grouping ? [...walk(grouping)].filter((one) => one.name === "Identifier").map((one) => one.text) : [];
  const groups = new Map();
  for (const entry of filtered(entries, first(inside, "LogRangeExpr"))) {
    const metric = Object.fromEntries(by.map((name) => [name, entry.known[name] ?? ""]));
    const key = JSON.stringify(metric);
    if (!groups.has(key)) groups.set(key, { metric, points: [] });
    groups.get(key).points.push([entry.time, field ? Number(entry.known[field]) : 1]);
  }
  return [...groups.values()].map(({ metric, points }) => {
    const values = [];
    for (let time = from; time <= to; time += step) {
      const here = points.filter(([at]) => at > time - range && at <= time).map(([, value]) => value);
      if (here.length) values.push([time, String(reduce(here))]);
    }
    return { metric, values };
  });
}

// What `query_range` answers: a matrix, or the newest lines [{time, line, level}].
export function ask(entries, expr, frame) {
  const asked = tree("logql", expr);
  const broken = [...walk(asked)].find((node) => node.broken);
  if (broken) throw new Error(`not LogQL: ${expr}`);
  if (first(asked, "MetricExpr")) return { matrix: matrix(entries, asked, frame) };
  const lines = filtered(entries, asked).filter(({ time }) => time >= frame.from && time <= frame.to);
  return { lines: lines.reverse().slice(0, 1000).map(({ time, line, known }) => ({ time, line, level: known.level })) };
}
