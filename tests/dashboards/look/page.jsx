// A dashboard of the classic schema, drawn with the components of @grafana/ui and data of a live Prometheus.
//
// What Grafana's server and its application shell do is done here in little: variables are replaced, queries sent,
// frames made, field options applied. Heatmap, list of lines and view of a trace are not part of @grafana/ui: plain
// stand-ins draw them.
import React from "react";
import { createRoot } from "react-dom/client";
import "uplot/dist/uPlot.min.css";
import {
  FieldType, ThemeContext, createTheme, dateTime, getDisplayProcessor,
  reduceField,
} from "@grafana/data";
import { initPluginTranslations } from "@grafana/i18n";
import { BigValue, GlobalStyles, PanelChrome, Table, TimeSeries } from "@grafana/ui";

const { dashboard, prometheus, from, to, interval } = window.look;
const theme = createTheme({ colors: { mode: "dark" } });
const COLUMN = 1440 / 24, ROW = 38;
// What is chosen on a page when it is opened: All; of what one types, what stands there.
const CHOSEN = Object.fromEntries(dashboard.templating.list.map(({ name, type, allValue, query }) =>
  [name, type === "textbox" ? query : allValue ?? ".+"]));
const timeRange = { from: dateTime(from * 1000), to: dateTime(to * 1000), raw: { from: "now-1h", to: "now" } };

const filled = (expr, scoped) =>
  expr.replaceAll("$__rate_interval", interval)
    .replaceAll("$__auto", interval)
    .replace(/\$(\w+)/g, (whole, name) => scoped[name] ?? CHOSEN[name] ?? whole);

async function ask(path, parameters) {
  const reply = await fetch(`${prometheus}/api/v1/${path}?${new URLSearchParams(parameters)}`);
  const body = await reply.json();
  if (body.status !== "success") throw new Error(`${parameters.query}: ${body.error}`);
  return body.data.result;
}

async function kept(path, parameters) {
  const body = await (await fetch(`/${path}?${new URLSearchParams(parameters)}`)).json();
  if (body.error) throw new Error(`${JSON.stringify(parameters)}: ${body.error}`);
  return body;
}

const legend = (target, metric) => {
  const text = (target.legendFormat || "").replace(/{{\s*(\w+)\s*}}/g, (_, name) => metric[name] ?? "");
  return text || Object.entries(metric).map(([key, value]) => `${key}="${value}"`).join(" ") || "value";
};

async function series(panel, scoped) {
  const step = Math.max(1, Math.round((to - from) / 240));
  const all = await Promise.all(panel.targets.map(async (target) => {
    const expr = filled(target.expr, scoped);
    const found = panel.datasource.type === "loki"
      ? (await kept("logql", { expr, from, to, step })).matrix
      : await ask("query_range", { query: expr, start: from, end: to, step });
    return found.map(({ metric, values }) => {
      const at = new Map(values.map(([time, value]) => [time, Number(value)]));
      const times = [], shown = [];
      for (let time = from; time <= to; time += step) {
        times.push(time * 1000);
        const value = at.get(time);
        shown.push(value === undefined || Number.isNaN(value) ? null : value);
      }
      return { name: legend(target, metric), metric, times, shown };
    });
  }));
  return all.flat();
}

// The options of a field: the panel's defaults and what its overrides say of a name.
function configured(panel, name) {
  const { defaults, overrides } = panel.fieldConfig;
  const config = structuredClone({ ...defaults, displayNameFromDS: name });
  for (const { matcher, properties } of overrides) {
    const hit = matcher.id === "byName" ? matcher.options === name : new RegExp(matcher.options.slice(1, -1)).test(name);
    if (!hit) continue;
    for (const { id, value } of properties) {
      if (id.startsWith("custom.")) config.custom[id.slice(7)] = value;
      else config[id] = value;
    }
  }
  for (const step of config.thresholds.steps) step.value ??= -Infinity;
  return config;
}

function displayed(field) {
  field.display = getDisplayProcessor({ field, theme, timeZone: "utc" });
  return field;
}

function range(values) {
  const numbers = values.filter((value) => value !== null);
  const [min, max] = [Math.min(...numbers), Math.max(...numbers)];
  return { min, max, delta: max - min };
}

function frames(panel, found) {
  return found.map(({ name, times, shown }, index) => ({
    refId: "A", length: times.length,
    fields: [
      displayed({ name: "Time", type: FieldType.time, config: {}, values: times }),
      displayed({
        name, type: FieldType.number, values: shown, config: configured(panel, name), labels: {},
        state: { seriesIndex: index, displayName: name, range: range(shown) },
      }),
    ],
  }));
}

function Heatmap({ found, width, height }) {
  const canvas = React.useRef(null);
  React.useEffect(() => {
    const paint = canvas.current.getContext("2d");
    const rows = found.map((one) => ({ le: Number(one.metric.le.replace("+Inf", "Infinity")), ...one })).sort((a, b) => a.le - b.le);
    const cells = rows.map((row, i) => row.shown.map((value, j) => Math.max(0, (value ?? 0) - (i ? rows[i - 1].shown[j] ?? 0 : 0))));
    const most = Math.max(1e-9, ...cells.flat());
    const left = 52, bottom = 22, wide = (width - left) / (rows[0]?.shown.length || 1), tall = (height - bottom) / rows.length;
    paint.font = "12px Inter, sans-serif"; paint.fillStyle = theme.colors.text.primary;
    const times = rows[0]?.times ?? [], apart = Math.ceil(times.length / 4);
    for (let j = apart; j < times.length; j += apart) {
      paint.fillText(new Date(times[j]).toISOString().slice(11, 19), left + j * wide - 24, height - 4);
    }
    cells.forEach((row, i) => {
      paint.fillStyle = theme.colors.text.primary;
      paint.fillText(rows[i].le === Infinity ? "+Inf" : `${rows[i].le}`, 4, height - bottom - (i + 0.3) * tall);
      row.forEach((value, j) => {
        if (value <= 1e-9) return;
        paint.fillStyle = `hsla(${38 - 24 * Math.sqrt(value / most)}, 95%, ${80 - 40 * Math.sqrt(value / most)}%, 1)`;
        paint.fillRect(left + j * wide, height - bottom - (i + 1) * tall, wide - 0.5, tall - 1);
      });
    });
  }, []);
  return <canvas ref={canvas} width={width} height={height} />;
}

function tabled(panel, answers) {
  const organize = panel.transformations.find((one) => one.id === "organize").options;
  const keys = [...new Set(answers.flat().flatMap(({ metric }) => Object.keys(metric)))];
  const rows = new Map();
  answers.forEach((found, place) => found.forEach(({ metric, value }) => {
    const key = JSON.stringify(metric);
    const row = rows.get(key) ?? { ...metric };
    row[answers.length > 1 ? `Value #${String.fromCharCode(65 + place)}` : "Value"] = Number(value[1]);
    rows.set(key, row);
  }));
  let list = [...rows.values()];
  const columns = Object.keys(organize.renameByName);
  const sort = panel.transformations.find((one) => one.id === "sortBy")?.options.sort[0];
  if (sort) {
    const key = columns.find((one) => organize.renameByName[one] === sort.field);
    list.sort((a, b) => (b[key] ?? -1) - (a[key] ?? -1));
  }
  list = list.slice(0, panel.transformations.find((one) => one.id === "limit")?.options.limitField || undefined);
  return {
    length: list.length,
    fields: columns.map((key) => {
      const name = organize.renameByName[key], text = keys.includes(key);
      return displayed({
        name, type: text ? FieldType.string : FieldType.number, values: list.map((row) => row[key] ?? (text ? "" : null)),
        config: { ...configured(panel, name), links: [] }, state: { displayName: name },
      });
    }),
  };
}

const LEVELS = { info: "green", warning: "orange", error: "red", critical: "purple" };

function Lines({ lines, width, height }) {
  return <div style={{ width, height, overflow: "hidden", fontFamily: "monospace", fontSize: 12, lineHeight: "19px" }}>
    {lines.slice(0, Math.floor(height / 19)).map(({ time, line, level }, index) =>
      <div key={index} style={{ whiteSpace: "nowrap", overflow: "hidden", textOverflow: "ellipsis" }}>
        <span style={{ background: theme.visualization.getColorByName(LEVELS[level] ?? "gray"), padding: "0 2px", marginRight: 6 }} />
        <span style={{ color: theme.colors.text.secondary }}>{new Date(time * 1000).toISOString().slice(11, 23)} </span>
        {line}
      </div>)}
  </div>;
}

function Trace({ spans, width }) {
  const begin = spans[0].start, whole = Math.max(...spans.map(({ start, duration }) => start + duration)) - begin;
  const name = 260, rest = width - name - 90;
  return <div style={{ fontSize: 12, lineHeight: "24px" }}>
    <div style={{ color: theme.colors.text.secondary }}>{spans[0].trace}</div>
    {spans.map(({ id, depth, start, duration, name: said, error }) =>
      <div key={id} style={{ display: "flex", alignItems: "center" }}>
        <span style={{ width: name, paddingLeft: depth * 16, boxSizing: "border-box" }}>{said}</span>
        <span style={{ width: rest, position: "relative", height: 10 }}>
          <span style={{ position: "absolute", height: 10, left: (start - begin) / whole * rest, width: Math.max(2, duration / whole * rest),
            background: theme.visualization.getColorByName(error ? "red" : "blue") }} />
        </span>
        <span style={{ paddingLeft: 8 }}>{duration.toFixed(2)} ms</span>
      </div>)}
  </div>;
}

// The columns of Grafana's Tempo source for a search whose tableType is traces.
function traces(panel, found) {
  const column = (name, type, values, config = {}) =>
    displayed({ name, type, values, config: { ...config, custom: panel.fieldConfig.defaults.custom ?? {} }, state: { displayName: name } });
  return {
    length: found.length,
    fields: [
      column("Trace ID", FieldType.string, found.map((one) => one.trace)),
      column("Start time", FieldType.time, found.map((one) => one.start)),
      column("Service", FieldType.string, found.map((one) => one.service)),
      column("Name", FieldType.string, found.map((one) => one.name)),
      column("Duration", FieldType.number, found.map((one) => one.duration), { unit: "ms" }),
    ],
  };
}

function body(panel, data, width, height) {
  if (data.empty) return <div className="empty" style={{ padding: 20 }}>No data</div>;
  if (panel.type === "logs") return <Lines lines={data.lines} width={width} height={height} />;
  if (panel.type === "traces") return <Trace spans={data.spans} width={width} />;
  if (panel.type === "heatmap") return <Heatmap found={data.found} width={width} height={height} />;
  if (panel.type === "table") return <Table data={data.frame} width={width} height={height} />;
  if (panel.type === "stat") {
    const each = width / data.frames.length;
    return <div style={{ display: "flex" }}>{data.frames.map((frame, index) => {
      const field = frame.fields[1];
      const last = reduceField({ field, reducers: ["lastNotNull"] }).lastNotNull;
      const value = field.display(last);
      if (panel.options.textMode === "name") value.title = field.name;
      const spark = panel.options.graphMode === "area" ? { y: field, x: frame.fields[0] } : undefined;
      return <BigValue key={index} value={value} width={each} height={height} theme={theme} sparkline={spark}
        colorMode={panel.options.colorMode} graphMode={panel.options.graphMode} textMode={panel.options.textMode} />;
    })}</div>;
  }
  return <TimeSeries frames={data.frames} width={width} height={height} timeRange={timeRange} timeZone="utc" legend={panel.options.legend} />;
}

function Framed({ panel, data }) {
  const { x, y, w, h } = panel.gridPos;
  const width = w * COLUMN - 8, height = h * ROW - 8;
  return <div style={{ position: "absolute", left: x * COLUMN, top: y * ROW, width, height }}>
    {panel.type === "row"
      ? <div style={{ color: theme.colors.text.primary, padding: 8, fontWeight: 500 }}>⌄ {panel.title}</div>
      : <PanelChrome title={panel.title} description={panel.description} width={width} height={height}>
          {(innerWidth, innerHeight) => body(panel, data, innerWidth, innerHeight)}
        </PanelChrome>}
  </div>;
}

async function load(panel) {
  if (panel.type === "row") return {};
  const scoped = panel.scoped ?? {};
  if (panel.type === "logs") {
    const { lines } = await kept("logql", { expr: filled(panel.targets[0].expr, scoped), from, to, step: 1 });
    return { lines, empty: !lines.length };
  }
  if (panel.type === "traces") {  // as if the id of the trace with the most spans were typed
    const { spans } = await kept("trace", { id: filled(panel.targets[0].query, scoped) });
    return { spans, empty: !spans.length };
  }
  if (panel.datasource.type === "tempo") {
    const { traces: found } = await kept("traceql", { query: filled(panel.targets[0].query, scoped) });
    return { frame: traces(panel, found), empty: !found.length };
  }
  if (panel.type === "table") {
    const answers = await Promise.all(panel.targets.map((one) => ask("query", { query: filled(one.expr, scoped), time: to })));
    return { frame: tabled(panel, answers), empty: !answers.flat().length };
  }
  const found = await series(panel, scoped);
  if (!found.some((one) => one.shown.some((value) => value !== null))) return { empty: true };
  return { found, frames: frames(panel, found) };
}

// A repeated panel stands once for each worker, beside each other, over the whole width as Grafana gives it to them.
function repeated(panels) {
  return panels.flatMap((panel) => {
    if (!panel.repeat) return [panel];
    return ["0", "1"].map((value, index) => ({
      ...panel, title: panel.title.replace(`$${panel.repeat}`, value), scoped: { [panel.repeat]: value },
      gridPos: { ...panel.gridPos, x: index * 12, w: 12 },
    }));
  });
}

async function main() {
  await initPluginTranslations("obsserve");
  await Promise.all([400, 500].map((weight) => document.fonts.load(`${weight} 12px Inter`)));
  const panels = repeated(dashboard.panels.flatMap((panel) => [panel, ...(panel.panels ?? [])]));
  const data = await Promise.all(panels.map(load));
  const bottom = Math.max(...panels.map(({ gridPos }) => gridPos.y + gridPos.h));
  document.body.style.height = `${bottom * ROW + 60}px`;
  createRoot(document.getElementById("root")).render(
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <div style={{ color: theme.colors.text.primary, fontSize: 20, padding: "12px 8px", height: 44 }}>{dashboard.title}</div>
      <div style={{ position: "relative" }}>{panels.map((panel, index) => <Framed key={index} panel={panel} data={data[index]} />)}</div>
    </ThemeContext.Provider>,
  );
  window.empty = panels.filter((panel, index) => data[index].empty).map((panel) => panel.title);
  setTimeout(() => { window.drawn = true; }, 1500);
}
main().catch((error) => { window.failed = String(error.stack); });
