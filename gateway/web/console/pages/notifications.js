// What waits to be delivered, what fails and why, and what became of the last notifications.
import { html } from "../vendor/htm-preact.js";
import { useData } from "../lib/api.js";
import * as format from "../lib/format.js";
import { Badge, Card, Empty, Loaded, Note, Page, Table, Time } from "../lib/ui.js";

const TONES = { waiting: "", failing: "bad", sent: "good", given_up: "bad", parked: "bad" };
const WAITS = new Set(["waiting", "failing"]);

export function Notifications({ api }) {
  const found = useData(() => api.get("/notifications"), "notifications");
  return html`<${Page} title="Notifications"><${Loaded} from=${found}>${({ data, waiting }) => {
    const [queue, past] = [data.filter((each) => WAITS.has(each.state)), data.filter((each) => !WAITS.has(each.state))];
    return html`
      ${queue.some((each) => each.state === "failing") && html`<${Note} tone="warn">A receiver does not take notifications. Check its address below <code>notify:</code> in the configuration, and try it with <code>gateway notify test</code>.<//>`}
      <${Card} title="Waiting" flush tools=${waiting > queue.length && html`<span class="small muted">the first ${format.count(queue.length)} of ${format.count(waiting)}</span>`}>
        <${List} label="Waiting" rows=${queue} times=${[["due_at", "Next try"], ["tried_at", "Last try"]]} empty=${html`<${Empty} title="Nothing waits">What is sent is tried again for three days where its receiver does not take it.<//>`} />
      <//>
      <${Card} title="Last ones" flush>
        <${List} label="Last ones" rows=${past} most=${20} times=${[["tried_at", "Ended"]]} empty=${html`<${Empty} title="Nothing was delivered lately">Receivers are below <code>notify:</code> in the configuration; <code>gateway notify test</code> tries them.<//>`} />
      <//>`;
  }}<//><//>`;
}

function List({ label, rows, times, empty, most = 200 }) {
  return html`<${Table} label=${label} rows=${rows.map((row, place) => ({ ...row, place }))} rowKey=${(row) => `${row.id} ${row.place}`} most=${most} empty=${empty} columns=${[
    { name: "state", label: "State", show: (row) => html`<${Badge} tone=${TONES[row.state]}>${row.state.replace("_", " ")}<//>` },
    { name: "channel", label: "Receiver", value: (row) => `${row.channel || ""} ${row.type || ""}`, show: (row) => html`<div>${row.channel || "–"}<div class="sub">${row.type || ""}</div></div>` },
    { name: "at", label: "Happened", show: (row) => html`<${Time} at=${row.at} />` },
    ...times.map(([name, head]) => ({ name, label: head, show: (row) => html`<${Time} at=${row[name]} />` })),
    { name: "message", label: "Message", value: (row) => `${row.problem || ""} ${row.message}`, show: (row) => html`<div class="message">${row.problem && html`<div class="bad">${row.problem}</div>`}${row.message}</div>` },
  ]} />`;
}
