// One team: its limits and grants, its keys, and who uses what.
import { html, useState } from "../vendor/htm-preact.js";
import { all, query, useData } from "../lib/api.js";
import { ByDay, FIGURES } from "../lib/by_day.js";
import * as format from "../lib/format.js";
import { Badge, Card, Chips, Confirm, Empty, Loaded, Meter, Note, Page, RunsOut, Segmented, Select, Table, Time } from "../lib/ui.js";
import { KeyStatus } from "./keys.js";

const team = (name) => encodeURIComponent(name);

// Of a list of keys: their names by id. The ledger and the limits know ids alone.
export const namesOf = (keys) => new Map(keys ? keys.data.map((key) => [key.id, key.name]) : []);

export function Team({ api, subject: name }) {
  const about = useData(() => Promise.all([api.get("/teams"), api.get(`/limits?team=${team(name)}`)])
    .then(([teams, limits]) => ({ terms: teams.data.find((each) => each.name === name), limits: limits.data })), `team ${name}`);
  const keys = useData(() => all(api.get, "/keys", { team: name }), `keys ${name}`);
  const names = namesOf(keys.data);
  return html`<${Page} title=${name} crumb=${html`<a href="#/teams">Teams</a>`} actions=${html`<a class="button" href=${`#/usage?team=${team(name)}&since=30d`}>Explore usage</a>`}>
    <${Loaded} from=${about}>${({ terms, limits }) => html`
      ${terms && html`<${About} terms=${terms} />`}
      <${Card} title="Limits" flush><${Limits} limits=${limits} names=${names} /><//>
      <${Grants} api=${api} name=${name} limits=${limits} reload=${about.reload} />`}<//>
    <${UsageOf} api=${api} name=${name} names=${names} />
    <${Card} title="Keys" flush tools=${html`<a class="small" href=${`#/keys?team=${team(name)}`}>Manage</a>`}>
      <${Loaded} from=${keys}>${({ data }) => html`<${Table} label="Keys" rows=${data} rowKey=${(row) => row.id} empty=${html`<${Empty} title="This team has no key"><a href=${`#/keys?team=${team(name)}&new=1`}>Create one</a>, or add one to the configuration.<//>`} columns=${[
        { name: "name", label: "Key", show: (row) => html`<div><a href=${`#/keys?id=${row.id}`}>${row.name}</a><div class="sub mono">${row.id}</div></div>` },
        { name: "status", label: "Status", show: (row) => html`<${KeyStatus} of=${row} />` },
        { name: "last_used_at", label: "Last used", show: (row) => html`<${Time} at=${row.last_used_at} relative none=${row.source === "config" ? "not recorded" : "never"} />` },
        { name: "expires_at", label: "Expires", show: (row) => html`<${Time} at=${row.expires_at} none="never" />` },
      ]} />`}<//>
    <//>
  <//>`;
}

function About({ terms }) {
  return html`<${Card} title="Terms"><dl class="definition">
    <dt>Models</dt><dd><${Chips} of=${terms.models} none="none that is configured" /></dd>
    ${terms.owner && html`<dt>Owner</dt><dd>${terms.owner}</dd>`}
    ${terms.cost_center && html`<dt>Cost center</dt><dd>${terms.cost_center}</dd>`}
    ${terms.key_limits.length > 0 && html`<dt>Each key</dt><dd><${Chips} of=${terms.key_limits.map(format.terms)} /></dd>`}
    ${terms.user_limits.length > 0 && html`<dt>Each end user</dt><dd><${Chips} of=${terms.user_limits.map(format.terms)} /></dd>`}
  </dl><//>`;
}

export const limitKey = (limit) => `${limit.scope} ${limit.subject} ${limit.name}`;

function Limits({ limits, names }) {
  const rank = { team: 0, key: 1, organisation: 2, model: 3 };
  const rows = [...limits].sort((a, b) => rank[a.scope] - rank[b.scope]);
  return html`<${Table} label="Limits" rows=${rows} rowKey=${limitKey} empty=${html`<${Empty} title="Nothing limits this team">Add <code>limits:</code> to it in the configuration; try one first with <code>mode: shadow</code>.<//>`} columns=${[
    { name: "name", label: "Limit", show: (row) => html`<div>${row.name}<div class="sub">${row.scope === "team" ? "" : row.scope === "organisation" ? "whole organisation" : `${row.scope} ${names.get(row.subject) || row.subject}`}</div></div>` },
    { name: "mode", label: "Mode", show: (row) => (row.mode === "shadow" ? html`<${Badge} plain>shadow<//>` : html`<span class="muted">enforced</span>`) },
    { name: "used", label: "Used", value: (row) => (row.amount ? row.used / row.amount : 0), show: (row) => html`<${Meter} limit=${row} />` },
    { name: "left", label: "Left", number: true, show: (row) => format.amount(row.meter, row.left) },
    { name: "resets_at", label: "Resets", show: (row) => html`<${Time} at=${row.resets_at} />` },
    { name: "runs_out_at", label: "Runs out", show: (row) => html`<${RunsOut} limit=${row} />` },
  ]} />`;
}

// Temporary raises of its limits.
function Grants({ api, name, limits, reload }) {
  const [dialog, setDialog] = useState(null);
  const [chosen, setChosen] = useState("");
  const found = useData(() => api.get(`/grants${query({ team: name })}`).then((page) => page.data), `grants ${name}`);
  const changed = () => { setDialog(null); found.reload(); reload(); };
  const grantable = limits.filter((limit) => limit.scope === "team" && limit.meter !== "concurrent");
  const raised = grantable.find((limit) => limit.name === chosen) || grantable[0];
  return html`<${Card} title="Grants" flush tools=${grantable.length > 0 && html`<button onClick=${() => setDialog("new")}>Grant more</button>`}>
    <${Loaded} from=${found}>${(data) => html`<${Table} label="Grants" rows=${data} rowKey=${(row) => row.id} filter=${false} empty=${html`<${Empty} title="No grant is in force">A grant raises a limit until a day, and says why.<//>`} columns=${[
      { name: "limit", label: "Limit", show: (row) => html`<div>${row.limit}${row.scope !== "team" && html`<div class="sub">${row.scope} ${row.subject}</div>`}</div>` },
      { name: "amount", label: "More", number: true, show: (row) => `${format.amount(row.meter, row.amount)}${row.meter === "usd" ? "" : ` ${format.unit[row.meter]}`}` },
      { name: "until", label: "Until", show: (row) => html`<${Time} at=${row.until} />` },
      { name: "why", label: "Why" },
      { name: "granted_by", label: "By" },
      { name: "actions", label: "", actions: true, show: (row) => html`<button class="quiet danger" onClick=${() => setDialog(row)} aria-label=${`End the grant of ${row.limit}`}>End</button>` },
    ]} />`}<//>
    ${dialog === "new" && html`<${Confirm} title=${`Grant ${name} more`} verb="Grant" onClose=${() => setDialog(null)} onDone=${changed}
      act=${(form) => api.ask("POST", "/grants", { body: { team: name, limit: form.get("limit"), amount: Number(form.get("amount")), until: form.get("until"), why: form.get("why") } })}>
      <label class="field">Limit<select name="limit" required value=${raised && raised.name} onChange=${(event) => setChosen(event.target.value)}>${grantable.map((limit) => html`<option key=${limit.name} value=${limit.name} selected=${limit === raised}>${limit.name} (${format.terms({ ...limit, [limit.meter]: limit.amount })})</option>`)}</select></label>
      <div class="pair">
        <label class="field">How much more, in ${format.unit[raised.meter]}<input name="amount" type="number" min="0" step="any" required /></label>
        <label class="field">Until<input name="until" type="date" required /><small>It ends as this day begins.</small></label>
      </div>
      <label class="field">Why<input name="why" required maxlength="200" /><small>Kept in the audit.</small></label><//>`}
    ${dialog && dialog !== "new" && html`<${Confirm} title="End this grant?" verb="End it" danger onClose=${() => setDialog(null)} onDone=${changed}
      act=${() => api.ask("DELETE", `/grants/${encodeURIComponent(dialog.id)}`)}><p>The limit ${dialog.limit} is what the configuration says again, at once.</p><//>`}
  <//>`;
}

const GROUPS = [["model", "Model"], ["key", "Key"], ["user", "End user"], ["upstream", "Upstream"]];
function UsageOf({ api, name, names }) {
  const [by, setBy] = useState("model");
  const [figure, setFigure] = useState("usd");
  const [since, setSince] = useState("month");
  const found = useData(() => Promise.all([api.get(`/usage${query({ team: name, by: `day,${by}`, since })}`), api.get(`/usage${query({ team: name, by, since, sort: figure === "tokens" ? "output_tokens" : figure })}`)])
    .then(([days, groups]) => ({ days, groups })), `usage ${name} ${by} ${since} ${figure}`);
  return html`<${Card} title="Usage">
    <div class="stack">
      <div class="filters">
        <${Segmented} label="Figure" value=${figure} onChange=${setFigure} options=${FIGURES} />
        <${Select} label="By" value=${by} onChange=${setBy} options=${GROUPS} />
        <${Select} label="Since" value=${since} onChange=${setSince} options=${[["month", "This month"], ["7d", "7 days"], ["30d", "30 days"], ["90d", "90 days"]]} />
      </div>
      <${Loaded} from=${found}>${({ days, groups }) => (groups.rows.length
        ? html`<${ByDay} days=${days} groups=${groups} by=${by} span=${{ since }} figure=${figure} label=${`Usage of ${name} by day`} nameOf=${groupName(by, names)} />
          <${GroupTable} groups=${groups} by=${[by]} names=${names} />`
        : html`<${Empty} title="Nothing was used in this time">Choose a longer one, or see how to point a client at the gateway on its page <code>/me</code>.<//>`)}<//>
    </div>
  <//>`;
}

// Two keys may have one name: their ids tell them apart.
export const groupName = (by, names) => (group) => (by === "key" && names.has(group) ? `${names.get(group)} (${group})` : group || "(none)");

function Group({ by, of, names }) {
  if (of === "" || of === undefined) return html`<span class="muted">none</span>`;
  if (by === "team") return html`<a href=${`#/teams/${team(of)}`}>${of}</a>`;
  if (by === "key") return html`<div><a href=${`#/keys?id=${team(of)}`}>${names.get(of) || of}</a>${names.has(of) && html`<div class="sub mono">${of}</div>`}</div>`;
  return String(of);
}

export function GroupTable({ groups, by, names, tools, most }) {
  const digits = format.columnDigits(groups.rows.map((row) => row.usd));
  const heads = { day: "Day", month: "Month", team: "Team", key: "Key", model: "Model", user: "End user", upstream: "Upstream", cost_center: "Cost center", late: "Late" };
  const number = (name, head) => ({ name, label: head, number: true, show: (row) => format.count(row[name]) });
  const total = { ...groups.total, [by[0]]: "Total" };
  return html`<${Table} label="Usage by group" rows=${groups.rows} rowKey=${(row) => by.map((each) => row[each]).join(" ")} total=${total} tools=${tools} most=${most} sort=${by.includes("day") || by.includes("month") ? by.find((each) => each === "day" || each === "month") : "usd"} empty=${html`<${Empty} title="Nothing was used" />`} columns=${[
    ...by.map((each) => ({ name: each, label: heads[each], value: (row) => (each === "key" ? `${names.get(row.key) || ""} ${row.key}` : row[each]), show: (row) => html`<${Group} by=${each} of=${row[each]} names=${names} />` })),
    number("requests", "Requests"), number("input_tokens", "Input tokens"), number("cached_input_tokens", "of them cached"), number("output_tokens", "Output tokens"),
    { name: "estimated_tokens", label: "Estimated tokens", number: true, show: (row) => (row.estimated_tokens ? format.count(row.estimated_tokens) : "–") },
    { name: "usd", label: "Spend", number: true, show: (row) => format.money(row.usd, digits) },
  ]} />`;
}
