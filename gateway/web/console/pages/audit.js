// Who changed what.
import { html, useState } from "../vendor/htm-preact.js";
import { query, useData } from "../lib/api.js";
import { Card, Empty, Loaded, Note, Page, Table, Time } from "../lib/ui.js";

export function Audit({ api }) {
  const [older, setOlder] = useState({ entries: [], next: undefined, error: "" });
  const first = useData(() => api.get("/audit?limit=100"), "audit");
  async function more(cursor) {
    try {
      const page = await api.get(`/audit${query({ limit: 200, cursor })}`);
      setOlder((before) => ({ entries: [...before.entries, ...page.data], next: page.next, error: "" }));
    } catch (error) {
      setOlder((before) => ({ ...before, error: error.message }));
    }
  }
  return html`<${Page} title="Audit">
    <${Card} title="Changes, the newest first" flush>
      <${Loaded} from=${first}>${(page) => {
        const seen = new Set(page.data.map((entry) => entry.id));
        const rows = [...page.data, ...older.entries.filter((entry) => !seen.has(entry.id))];
        const next = older.next === undefined ? page.next : older.next;
        return html`<${List} entries=${rows} />
          ${older.error && html`<${Note} tone="bad">${older.error}<//>`}
          ${next && html`<div class="table-foot"><button onClick=${() => more(next)}>Load older ones</button></div>`}`;
      }}<//>
    <//>
  <//>`;
}

const none = html`<${Empty} title="Nothing was changed yet">Keys that are created or revoked, reloads of the configuration and sign-ins to this console are noted here.<//>`;

function List({ entries }) {
  return html`<${Table} label="Audit" rows=${entries} rowKey=${(row) => row.id} filter=${true} sort="at" most=${300} empty=${none} columns=${[
    { name: "at", label: "Time", show: (row) => html`<${Time} at=${row.at} seconds />` },
    { name: "action", label: "Action", show: (row) => html`<span class="mono">${row.action}</span>` },
    { name: "subject", label: "Subject", show: (row) => html`<${Subject} entry=${row} />` },
    { name: "actor", label: "Actor" },
    { name: "change", label: "Change", sortable: false, value: (row) => JSON.stringify([row.before, row.after]), show: (row) => html`<${Change} entry=${row} />` },
  ]} />`;
}

function Subject({ entry }) {
  const name = (entry.after || entry.before || {}).name;
  if (entry.action.startsWith("key.") && /^[0-9a-f]{12}$/.test(entry.subject)) return html`<a href=${`#/keys?id=${entry.subject}`}>${name || entry.subject}</a>`;
  return html`<span class="mono">${entry.subject}</span>`;
}

// What differs between before and after, by member.
function Change({ entry }) {
  const before = entry.before || {}, after = entry.after || {};
  const names = [...new Set([...Object.keys(before), ...Object.keys(after)])].filter((name) => JSON.stringify(before[name]) !== JSON.stringify(after[name]));
  if (!names.length) return html`<span class="muted">–</span>`;
  const shown = (value) => (value === undefined ? "–" : typeof value === "string" ? value : JSON.stringify(value));
  const lines = names.map((name) => `${name}: ${entry.before ? `${shown(before[name])} → ` : ""}${shown(after[name])}`);
  const text = lines.join("\n");
  if (lines.length <= 2 && text.length < 100) return html`<span class="small">${lines.map((line) => html`<div key=${line}>${line}</div>`)}</span>`;
  return html`<details><summary>${names.length} ${names.length === 1 ? "field" : "fields"}</summary><pre class="small">${text}</pre></details>`;
}
