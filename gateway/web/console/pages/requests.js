// What is in flight, and what happened to one request.
import { html, useState } from "../vendor/htm-preact.js";
import { query, useData } from "../lib/api.js";
import * as format from "../lib/format.js";
import { Badge, Card, Confirm, Empty, Loaded, Note, Page, Select, Table, Time, go } from "../lib/ui.js";

const at = (id) => `/requests/${encodeURIComponent(id)}`;

export function Requests({ api, subject }) {
  return html`<${Page} title=${subject ? "Request" : "Requests"} crumb=${subject && html`<a href="#/requests">Requests</a>`}>
    <${LookUp} id=${subject} />
    ${subject ? html`<${One} api=${api} id=${subject} />` : html`<${InFlight} api=${api} />`}
  <//>`;
}

function LookUp({ id }) {
  function submit(event) {
    event.preventDefault();
    const wanted = new FormData(event.target).get("id").trim();
    if (wanted) go(`#/requests/${encodeURIComponent(wanted)}`);
  }
  return html`<${Card} title="Look a request up"><form class="filters" onSubmit=${submit}>
    <label class="whole">Request id<input name="id" class="mono" size="40" value=${id} autocomplete="off" spellcheck="false" placeholder="x-request-id of the answer, or of the log" /></label>
    <button type="submit">Look up</button></form><//>`;
}

function InFlight({ api }) {
  const [team, setTeam] = useState("");
  const [ending, setEnding] = useState(null);
  const teams = useData(() => api.get("/teams").then((page) => page.data.map((each) => each.name)), "teams", { poll: false });
  const found = useData(() => api.get(`/requests${query({ team })}`), `requests ${team}`);
  const filters = html`<div class="filters"><${Select} label="Team" value=${team} onChange=${setTeam} options=${[["", "All teams"], ...(teams.data || []).map((each) => [each, each])]} /></div>`;
  return html`<${Card} title="In flight" flush>
    <${Loaded} from=${found}>${(page) => html`
      ${page.problem && html`<${Note} tone="warn">${page.problem}<//>`}
      <${Table} label="Requests in flight" rows=${page.data} rowKey=${(row) => `${row.id} ${row.process}`} sort="age_s" tools=${filters}
        empty=${html`<${Empty} title="Nothing is in flight">This list is asked for each ten seconds, of every process of every gateway that shares the store. Look an ended request up by its id.<//>`} columns=${[
    { name: "id", label: "Request", show: (row) => html`<div><a class="mono" href=${`#/requests/${encodeURIComponent(row.id)}`}>${row.id}</a><div class="sub">${row.endpoint}${row.stream ? ", stream" : ""}</div></div>` },
    { name: "state", label: "State", show: (row) => html`<${Badge} tone=${row.state === "answering" ? "good" : ""}>${row.state}<//>` },
    { name: "team", label: "Team", value: (row) => `${row.team || ""} ${row.key_name || ""} ${row.user || ""}`, show: (row) => html`<div>${row.team ? html`<a href=${`#/teams/${encodeURIComponent(row.team)}`}>${row.team}</a>` : "–"}<div class="sub">${[row.key_name, row.user].filter(Boolean).join(", ")}</div></div>` },
    { name: "model", label: "Model", value: (row) => `${row.model || ""} ${row.upstream || ""}`, show: (row) => html`<div><span class="mono">${row.model || "–"}</span><div class="sub">${row.upstream || ""}</div></div>` },
    { name: "age_s", label: "Age", number: true, show: (row) => format.seconds(row.age_s) },
    { name: "output_tokens", label: "Tokens so far", number: true, show: (row) => (row.output_tokens === null ? "–" : format.count(row.output_tokens)) },
    { name: "actions", label: "", actions: true, show: (row) => html`<button class="quiet danger" aria-label=${`Cancel ${row.id}`} onClick=${() => setEnding(row)}>Cancel</button>` },
  ]} />
      ${page.total > page.data.length && html`<div class="table-foot">The oldest ${format.count(page.data.length)} of ${format.count(page.total)}</div>`}`}<//>
    ${ending && html`<${Cancel} api=${api} request=${ending} close=${() => setEnding(null)} done=${() => { setEnding(null); found.reload(); }} />`}
  <//>`;
}

function Cancel({ api, request, close, done }) {
  return html`<${Confirm} title="Cancel this request?" verb="Cancel it" danger onClose=${close} onDone=${done} act=${() => api.ask("DELETE", at(request.id) + query({ team: request.team }))}>
    <p><span class="mono">${request.id}</span> of ${request.team || "an unknown team"}. Its client gets an error, and what was delivered is charged.</p><//>`;
}

function One({ api, id }) {
  const [ending, setEnding] = useState(null);
  const found = useData(() => api.get(at(id)), id);
  if (found.error && found.error.status === 404) return html`<${Card} title=${id}><${Empty} title="There is no record of this request">${found.error.message}<//><//>`;
  return html`<${Loaded} from=${found}>${(page) => html`
    ${page.problem && html`<${Note} tone="warn">${page.problem}<//>`}
    ${page.in_flight.map((each) => html`<${Card} title="In flight" key=${each.process} tools=${html`<button class="danger" onClick=${() => setEnding(each)}>Cancel it</button>`}><dl class="definition">
      <dt>State</dt><dd><${Badge} tone="good">${each.state}<//></dd><dt>Age</dt><dd>${format.seconds(each.age_s)}</dd>
      <dt>Team</dt><dd>${each.team ? html`<a href=${`#/teams/${encodeURIComponent(each.team)}`}>${each.team}</a>` : "–"}${each.key_name && `, key ${each.key_name}`}</dd>
      <dt>Model</dt><dd class="mono">${each.model || "–"}</dd><dt>Upstream</dt><dd>${each.upstream || "–"}</dd>
      <dt>Tokens so far</dt><dd>${each.output_tokens === null ? "–" : format.count(each.output_tokens)}</dd></dl><//>`)}
    ${ending && html`<${Cancel} api=${api} request=${ending} close=${() => setEnding(null)} done=${() => { setEnding(null); found.reload(); }} />`}
    ${page.records.map((each, place) => html`<${Record} key=${place} record=${each} />`)}`}<//>`;
}

const VERDICTS = { passed: "", refused: "bad", would_refuse: "warn" };

function Record({ record }) {
  const error = record.error;
  const explained = Array.isArray(record.explanation) ? record.explanation : record.explanation ? [record.explanation] : [];
  return html`
    <${Card} title="What happened" tools=${html`<${Badge} tone=${record.status < 400 && !error ? "good" : "bad"}>${record.status}${error ? ` ${error.code}` : ""}<//>`}>
      <div class="stack">
        ${explained.length > 0 && html`<ul class="lines">${explained.map((line) => html`<li key=${line}>${line}</li>`)}</ul>`}
        <dl class="definition">
          <dt>Began</dt><dd><${Time} at=${record.began_at || record.at} seconds /></dd>
          <dt>Team</dt><dd>${record.team ? html`<a href=${`#/teams/${encodeURIComponent(record.team)}`}>${record.team}</a>` : "–"}${record.key && html`, key <a href=${`#/keys?id=${record.key}`}>${record.key_name || record.key}</a>`}${record.user && `, ${record.user}`}</dd>
          <dt>Asked for</dt><dd><span class="mono">${record.model || "–"}</span> at ${record.endpoint}${record.client_ip && `, from ${record.client_ip}`}</dd>
          <dt>Took</dt><dd>${format.seconds(record.duration_s)}${record.upstream_s !== undefined && record.upstream_s !== null && `, of it ${format.seconds(record.upstream_s)} waiting for upstreams`}</dd>
          ${record.usd !== undefined && record.usd !== null && html`<dt>Cost</dt><dd>${format.money(record.usd)}</dd>`}
          <dt>Served by</dt><dd>${[record.process, record.version && `version ${record.version}`, record.config && `configuration ${record.config}`].filter(Boolean).join(", ")}</dd>
        </dl>
      </div>
    <//>
    ${(record.limits || []).length > 0 && html`<${Card} title="Limits at the decision" flush><${Table} label="Limits at the decision" rows=${record.limits} filter=${false} columns=${[
      { name: "name", label: "Limit", show: (row) => html`<div>${row.name}<div class="sub">${row.scope} ${row.subject}</div></div>` },
      { name: "verdict", label: "Verdict", show: (row) => html`<${Badge} tone=${VERDICTS[row.verdict]}>${row.verdict.replace("_", " ")}<//>` },
      { name: "needed", label: "Needed", number: true, show: (row) => format.amount(row.meter, row.needed) },
      { name: "left", label: "Left", number: true, show: (row) => format.amount(row.meter, row.left) },
      { name: "amount", label: "Amount", number: true, show: (row) => format.amount(row.meter, row.amount) },
    ]} /><//>`}
    ${(record.attempts || []).length > 0 && html`<${Card} title="Attempts" flush><${Table} label="Attempts" rows=${record.attempts} filter=${false} columns=${[
      { name: "upstream", label: "Upstream" },
      { name: "outcome", label: "Outcome", value: (row) => String(row.outcome ?? row.status ?? row.reason ?? "") },
    ]} /><//>`}
    <details class="card"><summary class="body">All that is kept of it</summary><pre class="code-block" tabindex="0">${JSON.stringify(record, null, 2)}</pre></details>`;
}
