// Every team: what it spends, and how much of its tightest quota is used.
import { html } from "../vendor/htm-preact.js";
import { useData } from "../lib/api.js";
import * as format from "../lib/format.js";
import { Card, Empty, Loaded, Meter, Page, RunsOut, Table } from "../lib/ui.js";

const QUOTAS = new Set(["day", "week", "month", "total"]);

export function Teams({ api }) {
  const found = useData(() => Promise.all([api.get("/teams"), api.get("/limits?scope=team"), api.get("/usage?by=team&since=month")]).then(joined), "teams");
  return html`<${Page} title="Teams">
    <${Card} flush title="All teams" tools=${html`<span class="small muted">Figures are of this month</span>`}>
      <${Loaded} from=${found}>${(rows) => html`<${List} rows=${rows} />`}<//>
    <//>
  <//>`;
}

function joined([teams, limits, usage]) {
  const used = new Map(usage.rows.map((row) => [row.team, row]));
  const every = new Map(teams.data.map((team) => [team.name, team]));
  // A team that was removed keeps what it used.
  for (const row of usage.rows) if (!every.has(row.team)) every.set(row.team, { name: row.team, keys: [], models: [], removed: true });
  return [...every.values()].map((team) => ({
    ...team,
    requests: 0, usd: 0, tokens: 0,
    ...sums(used.get(team.name)),
    tightest: tightest(limits.data.filter((limit) => limit.scope === "team" && limit.subject === team.name)),
  }));
}

const sums = (row) => row && { requests: row.requests, usd: row.usd, tokens: row.input_tokens + row.output_tokens };

// The quota to look at: one that is used up, else the one that runs out first, else the one of which most is used.
export function tightest(limits) {
  const quotas = limits.filter((limit) => QUOTAS.has(limit.per) && limit.amount);
  const rank = (limit) => (limit.left <= 0 ? 0 : limit.runs_out_at ? 1 : 2);
  return quotas.sort((a, b) => rank(a) - rank(b) || (rank(a) === 1 ? new Date(a.runs_out_at) - new Date(b.runs_out_at) : b.used / b.amount - a.used / a.amount))[0];
}

function List({ rows }) {
  const digits = format.columnDigits(rows.map((row) => row.usd));
  const none = html`<${Empty} title="No team is configured">Add one below <code>teams:</code> in the configuration, with a key or without: keys can be made here.<//>`;
  return html`<${Table} label="Teams" rows=${rows} rowKey=${(row) => row.name} sort="usd" empty=${none} columns=${[
    { name: "name", label: "Team", show: (row) => html`<div><a href=${`#/teams/${encodeURIComponent(row.name)}`}>${row.name || "(no team)"}</a>
      ${row.removed ? html`<div class="sub">not configured any more</div>` : row.owner || row.cost_center ? html`<div class="sub">${[row.owner, row.cost_center && `cost center ${row.cost_center}`].filter(Boolean).join(" · ")}</div>` : ""}</div>` },
    { name: "tightest", label: "Tightest quota", value: (row) => (row.tightest ? row.tightest.used / row.tightest.amount : 0),
      show: (row) => (row.tightest ? html`<div><${Meter} limit=${row.tightest} /><span class="sub">${row.tightest.name}${row.tightest.mode === "shadow" ? ", not enforced" : ""}</span></div>` : html`<span class="muted">no quota</span>`) },
    { name: "runs_out", label: "Runs out", value: (row) => row.tightest && row.tightest.runs_out_at, show: (row) => (row.tightest ? html`<${RunsOut} limit=${row.tightest} />` : html`<span class="muted">–</span>`) },
    { name: "requests", label: "Requests", number: true, show: (row) => format.count(row.requests) },
    { name: "tokens", label: "Tokens", number: true, show: (row) => format.count(row.tokens) },
    { name: "usd", label: "Spend", number: true, show: (row) => format.money(row.usd, digits) },
  ]} />`;
}
