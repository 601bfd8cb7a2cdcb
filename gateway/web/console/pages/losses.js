// What was lost or is at risk, and when: the first page after a bad night.
import { html } from "../vendor/htm-preact.js";
import { useData } from "../lib/api.js";
import { Chart, Legend } from "../lib/charts.js";
import * as format from "../lib/format.js";
import { Badge, Card, Figure, Loaded, Note, Page, Table, Tile, Tiles, Time } from "../lib/ui.js";

const SLOT_MS = 600_000, SLOTS = 145;
const CLASSES = {
  lost: { tone: "bad", series: "Lost", mark: "p-upstream" },
  broken: { tone: "warn", series: "Broken", mark: "p-policy" },
  late: { tone: "", series: "Late", mark: "p-caller" },
  estimated: { tone: "", series: "Estimated" },
};
const SHOWN = ["lost", "broken", "late"];

export function Losses({ api }) {
  const found = useData(() => api.get("/losses"), "losses");
  const actions = found.data && html`<span class="small muted">as of <${Time} at=${found.data.at} seconds /></span>`;
  return html`<${Page} title="Losses" actions=${actions}><${Loaded} from=${found}>${(report) => html`
    ${report.problem && html`<${Note} tone="warn">${report.problem}<//>`}
    <${Verdict} report=${report} />
    <${State} report=${report} />
    <${When} report=${report} />
    <${Kinds} report=${report} />`}<//><//>`;
}

const today = (report, wanted) => report.data.filter((kind) => kind.class === wanted && kind.last_day > 0);
const named = (kinds) => kinds.map((kind) => `${kind.what.toLowerCase()} (${format.count(kind.last_day)})`).join(", ");

// Whether a person has to look now.
export const isSerious = (report) => today(report, "lost").length > 0 || report.waiting.now > 0 || report.journal_fails;

// In words, the worst first. `action`: what follows the first of them. `trouble`: why the store does not answer, unless the
// page says that already.
export function Verdict({ report, action, trouble = report.store.problem }) {
  const lost = today(report, "lost"), broken = today(report, "broken");
  const { waiting } = report;
  const day = html`in the last 24 hours`;
  return html`
    ${lost.length > 0 && html`<${Note} tone="bad" action=${action}>Lost ${day}: ${named(lost)}.<//>`}
    ${report.journal_fails && html`<${Note} tone="bad">A journal cannot be written. What waits is only in memory, and ends with its process. Look at the disk of <code>store.journal</code>.<//>`}
    ${trouble && html`<${Note} tone="bad">The store ${trouble.replace(/\.$/, "")}.<//>`}
    ${waiting.now > 0 && html`<${Note} tone="warn" action=${!lost.length && action}>${format.count(waiting.now)} ${waiting.now === 1 ? "settlement waits" : "settlements wait"} for the store. They are charged once it takes them.<//>`}
    ${broken.length > 0 && html`<${Note} tone="warn" action=${!lost.length && !waiting.now && action}>Clients did not get all of their answers ${day}: ${named(broken)}.<//>`}
    ${!lost.length && !report.journal_fails && !report.store.problem && !waiting.now && html`<${Note} tone="good" action=${!broken.length && action}>${report.lost.total ? html`Nothing was lost ${day}.` : html`Nothing was lost since <${Time} at=${report.counted_since} />.`}<//>`}`;
}

function State({ report }) {
  const { waiting, store, lost, charged_tokens: charged } = report;
  const estimated = report.data.find((kind) => kind.kind === "estimated_tokens").last_day;
  const last = store.times[store.times.length - 1];
  return html`<${Tiles}>
    <${Tile} label="Lost" tone=${lost.last_day ? "bad" : ""} note=${`last 24 hours; ${format.count(lost.total)} in all`}><${Figure} of="losses.lost" value=${lost.last_day}>${format.short(lost.last_day)}<//><//>
    <${Tile} label="Settlements that wait" tone=${waiting.now ? "warn" : ""} note=${waiting.highest ? html`at most ${format.count(waiting.highest)}, at <${Time} at=${waiting.highest_at} />` : "none in 24 hours"}><${Figure} of="losses.waiting" value=${waiting.now}>${format.short(waiting.now)}<//><//>
    <${Tile} label="Without the store" tone=${store.problem ? "bad" : ""} note=${last ? html`last at <${Time} at=${last.at} />` : "last 24 hours"}><${Figure} of="losses.store_out" value=${store.out_s}>${format.count(store.out_s)} s<//><//>
    <${Tile} label="Estimated tokens" note=${`${format.short(estimated)} of ${format.short(charged.last_day)}`}><${Figure} of="losses.estimated" value=${estimated}>${format.percent(estimated, charged.last_day)}<//><//>
  <//>`;
}

const slotOf = (at) => Math.floor(Date.parse(at) / SLOT_MS) * SLOT_MS;

function When({ report }) {
  const end = slotOf(report.at);
  const times = Array.from({ length: SLOTS }, (_, place) => end - (SLOTS - 1 - place) * SLOT_MS);
  const place = new Map(times.map((at, position) => [at, position]));
  const series = SHOWN.map((name) => {
    const values = times.map(() => 0);
    for (const kind of today(report, name)) for (const each of kind.times) values[place.get(slotOf(each.at))] += each.number;
    return { name: CLASSES[name].series, tone: CLASSES[name].mark, values };
  });
  if (series.every((each) => each.values.every((value) => !value))) return null;
  return html`<${Card} title="When, each ten minutes of the last 24 hours"><div class="stack">
    <${Chart} label="Losses over time" points=${times.map(format.clock)} series=${series} show=${format.count} axis=${format.short} />
    <${Legend} series=${series} /></div><//>`;
}

function Kinds({ report }) {
  const worst = Object.keys(CLASSES);
  const [some, none] = [report.data.filter((kind) => kind.total), report.data.filter((kind) => !kind.total)];
  return html`
    ${some.length > 0 && html`<${Card} title="What is counted" flush><${Table} label="What is counted" rows=${some} rowKey=${(row) => row.kind} filter=${false} columns=${[
    { name: "what", label: "What", show: (row) => html`<div>${row.what}<div class="sub">${row.meaning}</div></div>` },
    { name: "class", label: "It is", value: (row) => worst.indexOf(row.class), show: (row) => html`<${Badge} tone=${row.last_day ? CLASSES[row.class].tone : ""}>${row.class}<//>` },
    { name: "last_day", label: "Last 24 hours", number: true, show: (row) => format.count(row.last_day) },
    { name: "total", label: "In all", number: true, show: (row) => html`<span title=${`Since ${format.utc(report.counted_since)}`}>${format.count(row.total)}</span>` },
    { name: "last_at", label: "Last at", show: (row) => html`<${Time} at=${row.last_at} />` },
  ]} /><//>`}
    ${none.length > 0 && html`<${Card} title="None so far"><dl class="definition">${none.map((kind) => html`<dt key=${kind.kind}>${kind.what}</dt><dd>${kind.meaning}</dd>`)}</dl><//>`}`;
}
