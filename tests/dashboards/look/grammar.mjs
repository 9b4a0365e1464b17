// Grafana's own grammars of LogQL and TraceQL, as trees of plain objects: {name, from, to, text, children, broken}.
import { parser as logql } from "@grafana/lezer-logql";
import { parser as traceql } from "@grafana/lezer-traceql";

const PARSERS = { logql, traceql };

export function tree(language, text) {
  const made = (node) => {
    const children = [];
    for (let child = node.firstChild; child; child = child.nextSibling) children.push(made(child));
    const { from, to, name } = node;
    return { name, from, to, text: text.slice(from, to), children, broken: node.type.isError };
  };
  return made(PARSERS[language].parse(text).topNode);
}

// Every node below this one, itself first.
export function* walk(node) {
  yield node;
  for (const child of node.children) yield* walk(child);
}

export const first = (node, ...names) => [...walk(node)].find((one) => names.includes(one.name));
