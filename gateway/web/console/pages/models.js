// The models that clients can ask for, where each is served, and at what price.
import { html } from "../vendor/htm-preact.js";
import { query, useData } from "../lib/api.js";
import * as format from "../lib/format.js";
import { Badge, Card, Chips, Empty, Loaded, Page, Table } from "../lib/ui.js";

export function Models({ api }) {
  const found = useData(() => Promise.all([api.get("/models"), api.get("/upstreams"), api.get("/usage?by=model&since=month")])
    .then(([models, upstreams, usage]) => ({ models: models.data, upstreams: upstreams.data, usage: new Map(usage.rows.map((row) => [row.model, row])) })), "models");
  return html`<${Page} title="Models and routes">
    <${Loaded} from=${found}>${({ models, upstreams, usage }) => html`
      <${Card} flush title="Models" tools=${html`<span class="small muted">Requests and spend are of this month</span>`}>
        <${List} models=${models} usage=${usage} />
      <//>
      <${Card} flush title="Routes"><${Routes} models=${models} upstreams=${upstreams} /><//>`}<//>
  <//>`;
}

function List({ models, usage }) {
  const used = (model, figure) => (usage.get(model.name) || {})[figure] || 0;
  const digits = format.columnDigits([...usage.values()].map((row) => row.usd));
  return html`<${Table} label="Models" rows=${models} rowKey=${(row) => row.name} empty=${html`<${Empty} title="No model is configured" />`} columns=${[
    { name: "name", label: "Model", show: (row) => html`<div><a class="mono" href=${`#/usage${query({ model: row.name, since: "month" })}`}>${row.name}</a>${row.aliases.length > 0 && html`<div class="sub">also ${row.aliases.join(", ")}</div>`}</div>` },
    { name: "context_window", label: "Context, tokens", number: true, show: (row) => (row.context_window ? format.count(row.context_window) : "–") },
    { name: "max_output_tokens", label: "Max. output, tokens", number: true, show: (row) => (row.max_output_tokens ? format.count(row.max_output_tokens) : "–") },
    { name: "limits", label: "Limits", sortable: false, value: (row) => row.limits.map(format.terms).join(" "), show: (row) => html`<${Chips} of=${row.limits.map(format.terms)} none="none" />` },
    { name: "requests", label: "Requests", number: true, value: (row) => used(row, "requests"), show: (row) => format.count(used(row, "requests")) },
    { name: "usd", label: "Spend", number: true, value: (row) => used(row, "usd"), show: (row) => format.money(used(row, "usd"), digits) },
  ]} />`;
}

function Routes({ models, upstreams }) {
  const states = new Map(upstreams.flatMap((upstream) => upstream.circuits.filter((circuit) => !circuit.key).map((circuit) => [`${upstream.name} ${circuit.model}`, circuit.state])));
  const up = new Map(upstreams.map((upstream) => [upstream.name, upstream.up]));
  const rows = models.flatMap((model) => model.routes.map((route, place) => ({ ...route, place, of: model.name, state: up.get(route.upstream) ? states.get(`${route.upstream} ${route.model}`) || "unused" : "down" })));
  return html`<${Table} label="Routes" rows=${rows} rowKey=${(row) => `${row.of} ${row.place}`} empty=${html`<${Empty} title="No model has a route" />`} columns=${[
    { name: "of", label: "Model", show: (row) => html`<span class="mono">${row.of}</span>` },
    { name: "upstream", label: "Upstream", show: (row) => html`<div><a href="#/upstreams">${row.upstream}</a>${row.model !== row.of && html`<div class="sub mono">${row.model}</div>`}</div>` },
    { name: "state", label: "State", show: (row) => html`<${RouteState} state=${row.state} />` },
    { name: "priority", label: "Priority", number: true },
    { name: "weight", label: "Weight", number: true },
    { name: "price", label: "USD per million tokens", sortable: false, value: (row) => priceText(row.price), show: (row) => html`<${Price} of=${row.price} />` },
  ]} />`;
}

const TONES = { closed: "good", unused: "", recovering: "warn", half_open: "warn", open: "bad", down: "bad" };
const WORDS = { closed: "healthy", unused: "not used yet", recovering: "recovering", half_open: "probing", open: "circuit open", down: "down" };
export const RouteState = ({ state }) => html`<${Badge} tone=${TONES[state]}>${WORDS[state] || state}<//>`;

const dollars = (n) => n.toLocaleString("en-US", { maximumFractionDigits: 6, minimumFractionDigits: n < 1 && n > 0 ? 2 : 0 });

function priceText(price) {
  if (!price) return "no price";
  const { above, tiers, regions, tokens, ...plain } = price;
  return Object.entries(plain).map(([name, n]) => `${name.replaceAll("_", " ")} ${dollars(n)}`).join(" · ");
}

function Price({ of }) {
  if (!of) return html`<span class="muted">no price</span>`;
  const more = [...(of.above || []).map((step) => `above ${format.short(step.tokens)} tokens: ${priceText(step)}`), ...Object.entries(of.tiers || {}).map(([name, tier]) => `${name}: ${priceText(tier)}`), ...Object.entries(of.regions || {}).map(([name, factor]) => `in ${name}: × ${factor}`)];
  return html`<div>${priceText(of)}${more.map((line) => html`<div class="sub" key=${line}>${line}</div>`)}</div>`;
}
