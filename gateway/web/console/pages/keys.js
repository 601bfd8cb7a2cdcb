// Keys: those of the configuration and those of the store, which can be made, changed and ended here.
import { html, useState } from "../vendor/htm-preact.js";
import { all, query, useData } from "../lib/api.js";
import * as format from "../lib/format.js";
import { Badge, Card, Chips, Confirm, Copy, Dialog, Empty, Loaded, Note, Page, Select, Table, Time } from "../lib/ui.js";

const TONES = { active: "good", expired: "warn", disabled: "", revoked: "bad" };
export const KeyStatus = ({ of }) => html`<${Badge} tone=${TONES[of.status]}>${of.status}<//>`;

export function Keys({ api, parameters }) {
  const [team, setTeam] = useState(parameters.team || "");
  const [status, setStatus] = useState("");
  const [unused, setUnused] = useState("");
  const [dialog, setDialog] = useState(parameters.new ? { kind: "create" } : parameters.id ? { kind: "show", id: parameters.id } : null);
  const teams = useData(() => api.get("/teams").then((page) => page.data.map((each) => each.name)), "teams", { poll: false });
  const keys = useData(() => all(api.get, "/keys", clean({ team, status, unused })), `keys ${team} ${status} ${unused}`);
  const names = teams.data || [];
  const done = (result) => {
    keys.reload();
    setDialog(result && result.key ? { kind: "secret", key: result } : null);
  };
  const close = () => setDialog(null);
  return html`<${Page} title="Keys" actions=${html`<button class="primary" onClick=${() => setDialog({ kind: "create" })} disabled=${!names.length}>Create a key</button>`}>
    ${teams.error && html`<${Note} tone="bad" action=${html`<button onClick=${teams.reload}>Try again</button>`}>The teams are not known, so no key can be created: ${teams.error.message}<//>`}
    <div class="filters">
      <${Select} label="Team" value=${team} onChange=${setTeam} options=${[["", "All teams"], ...names.map((each) => [each, each])]} />
      <${Select} label="Status" value=${status} onChange=${setStatus} options=${[["", "Any status"], ...Object.keys(TONES).map((each) => [each, each])]} />
      <${Select} label="Use" value=${unused} onChange=${setUnused} options=${[["", "Used or not"], ["7d", "Unused for 7 days"], ["30d", "Unused for 30 days"], ["90d", "Unused for 90 days"]]} />
    </div>
    <${Card} title="Keys" flush>
      <${Loaded} from=${keys}>${({ data, more }) => html`<${List} keys=${data} open=${setDialog} filtered=${team || status || unused} />
        ${more && html`<div class="table-foot">These are the first ${format.count(data.length)} keys. Choose a team or a status above to see the others.</div>`}`}<//>
    <//>
    ${dialog && html`<${KeyDialog} key=${`${dialog.kind} ${dialog.id || (dialog.key && dialog.key.id)}`} ...${{ api, dialog, names, team, done, close, open: setDialog }} />`}
  <//>`;
}

const clean = (given) => Object.fromEntries(Object.entries(given).filter(([, value]) => value));

function List({ keys, open, filtered }) {
  const none = filtered
    ? html`<${Empty} title="No key fits">Choose other filters above.<//>`
    : html`<${Empty} title="There is no key yet">Create one: its secret is shown once, and the gateway keeps its hash alone.<//>`;
  return html`<${Table} label="Keys" rows=${keys} rowKey=${(row) => row.id} filter=${true} sort="created_at" empty=${none} columns=${[
    { name: "name", label: "Key", value: (row) => `${row.name} ${row.id}`, show: (row) => html`<div><button class="link" onClick=${() => open({ kind: "show", id: row.id })}>${row.name}</button><div class="sub mono">${row.id}</div></div>` },
    { name: "team", label: "Team", show: (row) => html`<a href=${`#/teams/${encodeURIComponent(row.team)}`}>${row.team}</a>` },
    { name: "status", label: "Status", show: (row) => html`<${KeyStatus} of=${row} />` },
    { name: "last_used_at", label: "Last used", show: (row) => html`<${Time} at=${row.last_used_at} relative none=${row.source === "config" ? "not recorded" : "never"} />` },
    { name: "expires_at", label: "Expires", show: (row) => html`<${Time} at=${row.expires_at} none="never" />` },
    { name: "created_at", label: "Created", show: (row) => html`<${Time} at=${row.created_at} none="in the file" />` },
    { name: "actions", label: "", actions: true, show: (row) => (row.source === "config" || row.status === "revoked" ? "" : html`<div class="row">
      <button class="quiet" aria-label=${`Rotate ${row.name}`} onClick=${() => open({ kind: "rotate", key: row })}>Rotate</button>
      <button class="quiet" aria-label=${`${row.status === "disabled" ? "Enable" : "Disable"} ${row.name}`} onClick=${() => open({ kind: "disable", key: row })}>${row.status === "disabled" ? "Enable" : "Disable"}</button>
      <button class="quiet danger" aria-label=${`Revoke ${row.name}`} onClick=${() => open({ kind: "revoke", key: row })}>Revoke</button></div>`) },
  ]} />`;
}

function KeyDialog({ api, dialog, names, team, done, close, open }) {
  const { kind, key } = dialog;
  if (kind === "create") return html`<${Create} ...${{ api, names, team, done, close }} />`;
  if (kind === "secret") return html`<${Secret} created=${key} close=${close} />`;
  if (kind === "show") return html`<${Show} ...${{ api, id: dialog.id, close, open }} />`;
  const at = `/keys/${key.id}`;
  if (kind === "rotate") {
    return html`<${Confirm} title=${`Rotate ${key.name}`} verb="Rotate" onClose=${close} onDone=${done} act=${(form) => api.ask("POST", `${at}/rotate`, { body: { overlap: form.get("overlap") } })}>
      <p>A new secret takes the place of this one. Limits go on from what was used.</p>
      <label class="field">The old secret works for<select name="overlap"><option value="0s">no longer</option><option value="1h">1 hour</option><option value="24h" selected>24 hours</option><option value="7d">7 days</option></select></label><//>`;
  }
  if (kind === "disable") {
    const disabled = key.status !== "disabled";
    return html`<${Confirm} title=${`${disabled ? "Disable" : "Enable"} ${key.name}?`} verb=${disabled ? "Disable" : "Enable"} onClose=${close} onDone=${() => done()} act=${() => api.ask("PATCH", at, { body: { disabled } })}>
      <p>${disabled ? "Requests with it are refused within a second, until it is enabled again." : "Requests with it are answered again."}</p><//>`;
  }
  return html`<${Confirm} title=${`Revoke ${key.name}?`} verb="Revoke permanently" danger onClose=${close} onDone=${() => done()} act=${() => api.ask("DELETE", at)}>
    <p>Requests with it are refused within a second, in every gateway. This cannot be undone; to take a key out of use for a while, disable it.</p><//>`;
}

const list = (text) => text.split(/[\s,]+/).filter(Boolean);

// `requests=60/minute`, a line each, as the command line takes them.
export function limitsOf(text) {
  return text.split("\n").map((line) => line.trim()).filter(Boolean).map((line) => {
    const found = /^(\w+)\s*=\s*(\d[\d_]*(?:\.\d+)?)(?:\s*\/\s*(\w+))?$/.exec(line);
    if (!found) throw new Error(`“${line}” is not a limit. Write it as requests=60/minute, usd=50/month or concurrent=4.`);
    return { [found[1]]: Number(found[2].replaceAll("_", "")), ...(found[3] ? { per: found[3] } : {}) };
  });
}

function Create({ api, names, team, done, close }) {
  function create(form) {
    const body = { team: form.get("team"), name: form.get("name").trim() };
    if (form.get("expires")) body.expires_at = form.get("expires");
    if (list(form.get("models")).length) body.models = list(form.get("models"));
    if (list(form.get("networks")).length) body.networks = list(form.get("networks"));
    if (form.get("limits").trim()) body.limits = limitsOf(form.get("limits"));
    return api.ask("POST", "/keys", { body });
  }
  return html`<${Confirm} title="Create a key" verb="Create" onClose=${close} onDone=${done} act=${create}>
    <div class="pair">
      <label class="field">Team<select name="team" required>${names.map((each) => html`<option key=${each} value=${each} selected=${each === team}>${each}</option>`)}</select></label>
      <label class="field">Name<input name="name" required maxlength="64" autocomplete="off" placeholder="search-batch" /></label>
    </div>
    <label class="field">Expires<select name="expires"><option value="30d">in 30 days</option><option value="90d" selected>in 90 days</option><option value="365d">in a year</option><option value="">never</option></select></label>
    <details><summary>Restrict it further</summary><div class="form">
      <label class="field">Models<input name="models" autocomplete="off" placeholder="openai/* qwen/*" /><small>Left empty: all of the team's.</small></label>
      <label class="field">Networks<input name="networks" autocomplete="off" placeholder="10.0.0.0/8" /><small>From where it may be used. Left empty: from everywhere.</small></label>
      <label class="field">Limits of its own<textarea name="limits" rows="3" placeholder=${"requests=60/minute\nusd=50/month"}></textarea><small>One a line, beside those of the team.</small></label>
    </div></details>
  <//>`;
}

function Secret({ created, close }) {
  return html`<${Dialog} title=${`${created.name} is ready`} onClose=${close}>
    <${Note} tone="warn">This is the only time that the secret is shown. The gateway keeps its hash alone.<//>
    <div class="secret"><code>${created.key}</code><${Copy} text=${created.key} /></div>
    <p class="small muted">Its holder can sign in with it at <code>/me</code> of the gateway: limits, usage, and how to point each client at it.</p>
    <div class="buttons"><button class="primary" onClick=${close}>I have it</button></div>
  <//>`;
}

function Show({ api, id, close, open }) {
  const found = useData(() => Promise.all([api.get(`/keys/${encodeURIComponent(id)}`), api.get(`/usage${query({ key: id, since: "30d" })}`)]).then(([key, usage]) => ({ key, usage: usage.total })), id, { poll: false });
  const title = found.data ? found.data.key.name : id;
  return html`<${Dialog} title=${title} onClose=${close}>
    <${Loaded} from=${found}>${({ key, usage }) => html`<dl class="definition">
      <dt>Id</dt><dd class="mono">${key.id}</dd>
      <dt>Team</dt><dd><a href=${`#/teams/${encodeURIComponent(key.team)}`}>${key.team}</a></dd>
      <dt>Status</dt><dd><${KeyStatus} of=${key} /></dd>
      <dt>Kept in</dt><dd>${key.source === "config" ? "the configuration: change it there" : "the store"}</dd>
      <dt>Models</dt><dd><${Chips} of=${key.models} none="all" /></dd>
      <dt>Limits of its own</dt><dd><${Chips} of=${key.limits.map(format.terms)} none="none" /></dd>
      <dt>Networks</dt><dd><${Chips} of=${key.networks} none="everywhere" /></dd>
      ${Object.keys(key.metadata).length > 0 && html`<dt>Metadata</dt><dd><${Chips} of=${Object.entries(key.metadata).map(([name, value]) => `${name}=${value}`)} /></dd>`}
      <dt>Created</dt><dd><${Time} at=${key.created_at} none="not recorded" /></dd>
      <dt>Expires</dt><dd><${Time} at=${key.expires_at} none="never" /></dd>
      <dt>Last used</dt><dd><${Time} at=${key.last_used_at} relative none=${key.source === "config" ? "not recorded" : "never"} /></dd>
      <dt>Last 30 days</dt><dd>${format.count(usage.requests)} requests, ${format.money(usage.usd)} <a href=${`#/usage?key=${key.id}&since=30d`}>explore</a></dd>
    </dl>`}<//>
    <div class="buttons">
      ${found.data && found.data.key.source === "store" && found.data.key.status !== "revoked" && html`<button onClick=${() => open({ kind: "rotate", key: found.data.key })}>Rotate</button>`}
      <button onClick=${close}>Close</button>
    </div>
  <//>`;
}
