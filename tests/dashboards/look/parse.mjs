// node parse.mjs < [{language, text}...]: what the grammars find broken in each expression, and the names in it.
import { readFileSync } from "node:fs";
import { tree, walk } from "./grammar.mjs";

const answers = JSON.parse(readFileSync(0, "utf8")).map(({ language, text }) => {
  const nodes = [...walk(tree(language, text))];
  return {
    errors: nodes.filter((node) => node.broken).map(({ from, to }) => text.slice(Math.max(0, from - 10), to + 10)),
    names: [...new Set(nodes.filter((node) => node.name === "Identifier").map((node) => node.text))],
  };
});
console.log(JSON.stringify(answers));
