// node schema.mjs > FILE: the JSON Schema of a dashboard, made of the types of @grafana/schema (Apache-2.0).
import path from "node:path";
import { createGenerator } from "ts-json-schema-generator";

const types = path.join(process.cwd(), "node_modules/@grafana/schema/dist/types/raw/dashboard/x/types.gen.d.ts");
const schema = createGenerator({ path: types, type: "Dashboard", skipTypeCheck: true, additionalProperties: false })
  .createSchema("Dashboard");
console.log(JSON.stringify(schema, null, 1));
