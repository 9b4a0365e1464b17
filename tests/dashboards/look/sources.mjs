// The lines and spans that draw.py kept, and what the pages ask of them: JSON over HTTP, for page.jsx.
import { readFileSync } from "node:fs";
import * as loki from "./loki.mjs";
import * as tempo from "./tempo.mjs";

export function open(path) {
  const kept = JSON.parse(readFileSync(path, "utf8"));
  const lines = loki.read(kept.lines);
  const answers = {
    logql: ({ expr, from, to, step }) => loki.ask(lines, expr, { from: Number(from), to: Number(to), step: Number(step) }),
    traceql: ({ query }) => ({ traces: tempo.search(kept.spans, query) }),
    trace: ({ id }) => ({ spans: tempo.trace(kept.spans, id || tempo.richest(kept.spans)) }),
  };
  return (url) => {
    const { pathname, searchParams } = new URL(url, "http://127.0.0.1");
    const answer = answers[pathname.slice(1)];
    if (!answer) return null;
    try {
      return JSON.stringify(answer(Object.fromEntries(searchParams)));
    } catch (error) {
      return JSON.stringify({ error: String(error.message) });
    }
  };
}
