// node shoot.mjs FOLDER PROMETHEUS KEPT FROM TO INTERVAL DASHBOARD.json...: a picture of each page; panels without data are
// printed. KEPT names the files of lines and holds the spans, see sources.mjs.
import { build } from "esbuild";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import path from "node:path";
import { chromium } from "playwright-core";
import { open } from "./sources.mjs";

const [folder, prometheus, kept, from, to, interval, ...pages] = process.argv.slice(2);
const here = import.meta.dirname;
const sources = open(kept);
// Grafana measures texts in this font: with another one its axes are too narrow for what stands beside them.
const inter = await Promise.all([400, 500].map(async (weight) => {
  const file = await readFile(`node_modules/@fontsource/inter/files/inter-latin-${weight}-normal.woff2`, "base64");
  return `@font-face{font-family:Inter;font-weight:${weight};src:url(data:font/woff2;base64,${file})}`;
}));
// The CommonJS builds: in the others esbuild takes a default export for the whole module, as Node does.
const cjs = {
  name: "cjs",
  setup: (building) => building.onResolve({ filter: /^@grafana\/(data|i18n|schema|ui)(\/\w+)?$/ }, ({ path: wanted }) => {
    const [, name, part = "index"] = wanted.split("/");
    const base = path.join(process.cwd(), "node_modules/@grafana", name, "dist/cjs");
    return { path: [`${part}.cjs`, `${part}/index.cjs`].map((file) => path.join(base, file)).find(existsSync) };
  }),
};
const { outputFiles } = await build({
  entryPoints: [path.join(here, "page.jsx")], bundle: true, write: false, format: "iife", jsx: "automatic",
  define: { "process.env.NODE_ENV": '"production"', "process.env": "{}", global: "window" }, logLevel: "error",
  plugins: [cjs],
  loader: { ".svg": "text", ".woff2": "empty", ".woff": "empty", ".ttf": "empty", ".png": "empty" }, outdir: folder,
});
const text = (end) => outputFiles.find(({ path: name }) => name.endsWith(end)).text;
const [script, style] = [text(".js"), text(".css")];
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync"],
});
let failed = false;
for (const page of pages) {
  const dashboard = JSON.parse(await readFile(page, "utf8"));
  const look = JSON.stringify({ dashboard, prometheus, from: Number(from), to: Number(to), interval });
  const html = `<!doctype html><meta charset="utf-8"><style>${style}${inter.join("")}
    body{margin:0;background:#111217}</style><div id="root"></div><script>window.look=${look.replaceAll("<", "\\u003c")}</script><script src="/page.js"></script>`;
  const server = createServer((request, reply) => {
    const js = request.url === "/page.js", json = sources(request.url);
    reply.setHeader("content-type", json ? "application/json" : js ? "text/javascript" : "text/html");
    reply.end(json ?? (js ? script : request.url === "/" ? html : ""));
  }).listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const tab = await browser.newPage({ viewport: { width: 1440, height: 900 }, deviceScaleFactor: 0.8 });
  const said = [];
  tab.on("pageerror", (error) => said.push(String(error)));
  await tab.goto(`http://127.0.0.1:${server.address().port}/`);
  await tab.waitForFunction("window.drawn || window.failed", null, { timeout: 60000 });
  const problem = await tab.evaluate("window.failed");
  const empty = await tab.evaluate("window.empty");
  const name = path.basename(page, ".json");
  await tab.screenshot({ path: path.join(folder, `${name}.png`), fullPage: true });
  console.log(JSON.stringify({ page: name, problem, empty, said: said.slice(0, 3) }));
  failed ||= Boolean(problem);
  await tab.close();
  server.close();
}
await browser.close();
process.exit(failed ? 1 : 0);
