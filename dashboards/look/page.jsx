// A dashboard of the classic schema, drawn with the components of @grafana/ui and data of a live Prometheus.
//
// What Grafana's server and its application shell do is done here in little: variables are replaced, queries sent,
// frames made, field options applied. The heatmap is not part of @grafana/ui: a plain stand-in draws it.
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
const ESCAPE = { job: ".+", instance: ".+", route: ".+", method: ".+", ws_route: ".+", service: ".+", worker: ".+" };
const timeRange = { from: dateTime(from * 1000), to: dateTime(to * 1000), raw: { from: "now-1h", to: "now" } };

const filled = (expr, scoped) =>
  expr.replaceAll("$__rate_interval", interval)
    .replace(/\$(\w+)/g, (whole, name) => scoped[name] ?? ESCAPE[name] ?? ".+");

async function ask(path, parameters) {
  const reply = await fetch(`${prometheus}/api/v1/${path}?${new URLSearchParams(parameters)}`);
  const body = await reply.json();
  if (body.status !== "success") throw new Error(`${parameters.query}: ${body.error}`);
  return body.data.result;
}

const legend = (target, metric) => {
  const text = (target.legendFormat || "").replace(/{{\s*(\w+)\s*}}/g, (_, name) => metric[name] ?? "");
  return text || Object.entries(metric).map(([key, value]) => `${key}="${value}"`).join(" ") || "value";
};

async function series(panel, scoped) {
  const step = Math.max(1, Math.round((to - from) / 240));
  const all = await Promise.all(panel.targets.map(async (target) => {
    const expr = filled(target.expr, scoped);
    const found = await ask("query_range", { query: expr, start: from, end: to, step });
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
    const left = 52, bottom = 18, wide = (width - left) / (rows[0]?.shown.length || 1), tall = (height - bottom) / rows.length;
    paint.font = "12px Inter, sans-serif"; paint.fillStyle = theme.colors.text.primary;
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

function body(panel, data, width, height) {
  if (data.empty) return <div className="empty" style={{ padding: 20 }}>No data</div>;
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
  if (panel.datasource.type !== "prometheus") return { empty: true };
  const scoped = panel.scoped ?? {};
  if (panel.type === "table") {
    const answers = await Promise.all(panel.targets.map((one) => ask("query", { query: filled(one.expr, scoped), time: to })));
    return { frame: tabled(panel, answers), empty: !answers.flat().length };
  }
  const found = await series(panel, scoped);
  if (!found.some((one) => one.shown.some((value) => value !== null))) return { empty: true };
  return { found, frames: frames(panel, found) };
}

// A repeated panel stands once for each worker, beside each other.
function repeated(panels) {
  return panels.flatMap((panel) => {
    if (!panel.repeat) return [panel];
    return ["0", "1"].map((value, index) => ({
      ...panel, title: panel.title.replace(`$${panel.repeat}`, value), scoped: { [panel.repeat]: value },
      gridPos: { ...panel.gridPos, x: panel.gridPos.x + (index ? 12 : 0) },
    }));
  });
}

async function main() {
  await initPluginTranslations("obsserve");
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
