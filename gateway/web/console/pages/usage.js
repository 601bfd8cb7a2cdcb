// The ledger: any group, any filter, as a chart, a table and a file.
import { html, useState } from "../vendor/htm-preact.js";
import { all, query, useData } from "../lib/api.js";
import { ByDay, FIGURES } from "../lib/by_day.js";
import { Card, Empty, Loaded, Page, Segmented, Select } from "../lib/ui.js";
import { GroupTable, groupName, namesOf } from "./team.js";

const GROUPS = [["team", "Team"], ["model", "Model"], ["key", "Key"], ["user", "End user"], ["upstream", "Upstream"], ["cost_center", "Cost center"]];
const FILTERS = [["team", "Team"], ["model", "Model"], ["key", "Key id"], ["user", "End user"], ["upstream", "Upstream"], ["cost_center", "Cost center"]];
const SPANS = [["7d", "7 days"], ["30d", "30 days"], ["90d", "90 days"], ["month", "This month"], ["range", "From … to"], ["one", "One month"]];

const DEFAULTS = { by: "team", and: "", figure: "usd", since: "30d" };

export function Usage({ api, parameters }) {
  const [asked, setAsked] = useState({ ...DEFAULTS, ...parameters, span: parameters.month ? "one" : parameters.until ? "range" : SPANS.some(([name]) => name === parameters.since) ? parameters.since : parameters.since ? "range" : "30d" });
  // What is looked at is in the address, so that it can be sent to others.
  function change(more) {
    const next = { ...asked, ...more };
    setAsked(next);
    const { span, ...kept } = next;
    history.replaceState(null, "", `#/usage${query(Object.fromEntries(Object.entries(kept).filter(([name, value]) => value !== DEFAULTS[name])))}`);
  }
  const filters = Object.fromEntries(FILTERS.map(([name]) => [name, asked[name] || ""]));
  const span = asked.span === "one" ? { month: asked.month } : asked.span === "range" ? { since: asked.since, until: asked.until } : { since: asked.span };
  const ready = asked.span !== "one" || /^\d{4}-\d\d$/.test(asked.month || "");
  const by = [asked.by, asked.and].filter((each, place, every) => each && every.indexOf(each) === place);
  const ask = (groups) => api.get(`/usage${query({ by: groups.join(","), ...span, ...filters })}`);
  const found = useData(() => Promise.all([ask(["day", asked.by]), ask([asked.by]), by.length > 1 && ask(by)]).then(([days, groups, table]) => ({ days, groups, table: table || groups })), ready ? `usage ${JSON.stringify([by, span, filters])}` : null);
  const keys = useData(() => all(api.get, "/keys"), by.includes("key") ? "keys" : null, { poll: false });
  const names = namesOf(keys.data);
  const choice = (name) => (value) => change({ [name]: value });
  return html`<${Page} title="Usage" actions=${html`<button disabled=${!found.data || !found.data.table.rows.length} onClick=${() => download(found.data.table, by)}>Download CSV</button>`}>
    <${Card} title="What is shown">
      <div class="stack">
        <div class="filters">
          <${Select} label="Time" value=${asked.span} onChange=${(value) => change(value === "one" ? { span: value, month: new Date().toISOString().slice(0, 7), since: "", until: "" } : value === "range" ? { span: value, month: "", since: new Date(Date.now() - 6 * 86_400_000).toISOString().slice(0, 10) } : { span: value, since: value, until: "", month: "" })} options=${SPANS} />
          ${asked.span === "range" && html`<label>From<input type="date" value=${asked.since} onChange=${(event) => change({ since: event.target.value })} /></label>
            <label>Until, exclusive<input type="date" value=${asked.until || ""} onChange=${(event) => change({ until: event.target.value })} /></label>`}
          ${asked.span === "one" && html`<label>Month<input type="month" value=${asked.month} onChange=${(event) => change({ month: event.target.value })} /></label>`}
          <${Select} label="By" value=${asked.by} onChange=${choice("by")} options=${GROUPS} />
          <${Select} label="and by" value=${asked.and} onChange=${choice("and")} options=${[["", "–"], ["day", "Day"], ["month", "Month"], ...GROUPS.filter(([name]) => name !== asked.by)]} />
          <${Segmented} label="Figure of the chart" value=${asked.figure} onChange=${choice("figure")} options=${FIGURES} />
        </div>
        <form class="filters" onSubmit=${(event) => { event.preventDefault(); change(Object.fromEntries(new FormData(event.target))); }} aria-label="Filters">
          ${FILTERS.map(([name, label]) => html`<label key=${name}>${label}<input name=${name} size="12" value=${asked[name] || ""} placeholder="any" autocomplete="off" /></label>`)}
          <button type="submit">Filter</button>
          ${Object.values(filters).some(Boolean) && html`<button type="button" onClick=${() => change(Object.fromEntries(FILTERS.map(([name]) => [name, ""])))}>Clear filters</button>`}
        </form>
      </div>
    <//>
    <${Card} title="Usage by day">
      <${Loaded} from=${found}>${({ days, groups }) => (groups.rows.length
        ? html`<${ByDay} days=${days} groups=${groups} by=${asked.by} span=${span} figure=${asked.figure} label="Usage by day" nameOf=${groupName(asked.by, names)} />`
        : html`<${Empty} title="Nothing was used in this time">Choose a longer time, or fewer filters.<//>`)}<//>
    <//>
    ${found.data && found.data.table.rows.length > 0 && html`<${Card} title="Figures" flush tools=${found.data.table.month && html`<span class="small muted">${found.data.table.month.final ? "This month is closed: its figures are final." : "This month is not closed: its figures can still change."}</span>`}><${GroupTable} key=${by.join()} groups=${found.data.table} by=${by} names=${names} /><//>`}
  <//>`;
}

// RFC 4180, with what a spreadsheet would run as a formula made text.
export function csv(report, by) {
  const names = [...by, ...Object.keys(report.total)];
  const cell = (value) => {
    let text = String(value ?? "");
    if (typeof value === "string" && /^[=+\-@\t\r\n＝＋－＠]/.test(text)) text = `'${text}`;
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [names, ...report.rows.map((row) => names.map((name) => row[name]))].map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

function download(report, by) {
  const address = URL.createObjectURL(new Blob([csv(report, by)], { type: "text/csv" }));
  const link = document.createElement("a");
  link.href = address;
  link.download = `usage-by-${by.join("-")}.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
