// How it goes right now, and what it costs.
import { html, useState } from "../vendor/htm-preact.js";
import { useData } from "../lib/api.js";
import { daysShown } from "../lib/by_day.js";
import { Chart, Legend } from "../lib/charts.js";
import * as format from "../lib/format.js";
import { Badge, Card, Empty, Figure, Loaded, Meter, Note, Page, RunsOut, Segmented, Table, Tile, Tiles, Time, scopeText } from "../lib/ui.js";
import { Verdict, isSerious } from "./losses.js";

const PARTIES = [["caller", "Caller"], ["policy", "Limits"], ["upstream", "Upstream"], ["gateway", "Gateway"]];

export function Overview({ api }) {
  const [minutes, setMinutes] = useState(60);
  const found = useData(() => api.get(`/overview?minutes=${minutes}`).then((data) => ({ ...data, minutes })), `overview ${minutes}`, { keep: true });
  const actions = html`${found.data && html`<span class="small muted">as of <${Time} at=${found.data.at} seconds /></span>`}
    <${Segmented} label="Window" value=${minutes} onChange=${setMinutes} options=${[[60, "1 hour"], [180, "3 hours"], [360, "6 hours"]]} />`;
  return html`<${Page} title="Overview" actions=${actions}><${Loaded} from=${found}>${(data) => html`
    ${data.problem && html`<${Note} tone="bad">${data.problem} What it knows is missing here: spend, teams and quotas.<//>`}
    ${isSerious(data.losses) && html`<${Lost} report=${data.losses} />`}
    <${Traffic} report=${data.traffic} usage=${data.days && data} minutes=${data.minutes} />
    ${data.days && html`<div class="grid2 wide-left">
      <${Card} title="Spend this month, by day"><${Spend} days=${data.days} /><//>
      <${Card} title="Teams this month" flush tools=${html`<a class="small" href="#/usage?by=team&since=month&figure=usd">Explore</a>`}><${TopTeams} rows=${data.teams.rows} /><//>
    </div>`}
    <div class="grid2 wide-left">
      ${data.limits && html`<${Card} title="Quotas that run out" flush><${Nearly} rows=${data.limits.data} /><//>`}
      <${Card} title="Upstreams" flush tools=${html`<a class="small" href="#/upstreams">Details</a>`}><${Up} upstreams=${data.upstreams.data} /><//>
    </div>
    ${isSerious(data.losses) || html`<${Lost} report=${data.losses} />`}`}<//><//>`;
}

// Above everything where a person has to look, and below it on a quiet day.
const Lost = ({ report }) => html`<${Verdict} report=${report} trouble="" action=${html`<a class="small" href="#/losses">Details</a>`} />`;

const sum = (samples, of) => samples.reduce((total, sample) => total + of(sample), 0);

function Traffic({ report, usage, minutes }) {
  const samples = report.data;
  const requests = sum(samples, (each) => each.requests);
  const failed = Object.fromEntries(PARTIES.map(([party]) => [party, sum(samples, (each) => each.failed[party])]));
  const ours = failed.upstream + failed.gateway;
  const span = minutes === 60 ? "last hour" : `last ${minutes / 60} hours`;
  const running = samples.length ? samples[samples.length - 1].in_flight : 0;
  const tokens = sum(samples, (each) => each.input_tokens + each.output_tokens);
  const p95 = quantile(report.buckets.duration, samples.map((each) => each.duration.counts), 0.95);
  const first = quantile(report.buckets.first_token, samples.map((each) => each.first_token.counts), 0.95);
  return html`
    <${Tiles}>
      <${Tile} label="Requests" note=${span}><${Figure} of="traffic.requests" value=${requests}>${format.short(requests)}<//><//>
      <${Tile} label="Failed, upstream or gateway" tone=${requests && ours / requests > 0.02 ? "bad" : ""} note=${`${format.count(ours)} of ${format.count(requests)}`}>
        <${Figure} of="traffic.failed" value=${ours}>${format.percent(ours, requests)}<//><//>
      <${Tile} label="Duration, 95th percentile" note="whole request"><${Figure} of="traffic.p95" value=${p95}>${format.seconds(p95)}<//><//>
      <${Tile} label="First token, 95th percentile" note="streams"><${Figure} of="traffic.first_token" value=${first}>${format.seconds(first)}<//><//>
      <${Tile} label="In flight" note="now"><${Figure} of="traffic.in_flight" value=${running}>${format.count(running)}<//><//>
      <${Tile} label="Tokens" note=${span}><${Figure} of="traffic.tokens" value=${tokens}>${format.short(tokens)}<//><//>
      <${Tile} label="Spend today" note=${usage ? `${format.short(usage.today.total.requests)} requests` : ""}>
        <${Figure} of="usage.today" value=${usage && usage.today.total.usd}>${usage ? format.money(usage.today.total.usd) : "–"}<//><//>
      <${Tile} label="Spend this month" note=${usage ? `${format.short(usage.days.total.requests)} requests` : ""}>
        <${Figure} of="usage.month" value=${usage && usage.days.total.usd}>${usage ? format.money(usage.days.total.usd) : "–"}<//><//>
    <//>
    <div class="grid2">
      <${Requests} samples=${samples} minutes=${minutes} failed=${failed} />
      <${Latency} samples=${samples} minutes=${minutes} buckets=${report.buckets} />
    </div>`;
}

// Every minute of the window, those without a sample too; of a long one, several minutes are one point.
function timeline(samples, minutes) {
  const width = minutes / 60, now = Math.floor(Date.now() / 60_000);
  const by = new Map(samples.map((each) => [Math.floor(new Date(each.at) / 60_000), each]));
  const points = [];
  for (let start = now - minutes + 1; start <= now; start += width) {
    const group = [];
    for (let minute = start; minute < start + width; minute++) if (by.has(minute)) group.push(by.get(minute));
    points.push({ at: start * 60_000, samples: group });
  }
  return points;
}

function Requests({ samples, minutes, failed }) {
  const points = timeline(samples, minutes);
  const per = (of) => points.map((point) => sum(point.samples, of));
  const all = (each) => PARTIES.reduce((total, [party]) => total + each.failed[party], 0);
  const series = [
    { name: "Answered", tone: "p-ok", values: per((each) => Math.max(0, each.requests - all(each))) },
    ...PARTIES.map(([party, name]) => ({ name, tone: `p-${party}`, values: per((each) => each.failed[party]) })),
  ];
  const width = minutes / 60;
  return html`<${Card} title=${`Requests, each ${width === 1 ? "minute" : `${width} minutes`}`}>
    <div class="stack">
      <${Chart} label="Requests over time" points=${points.map((each) => format.clock(each.at))} series=${series} show=${format.count} axis=${format.short} />
      <ul class="legend">
        <li><i class="dot p-ok"></i>Answered</li>
        ${PARTIES.map(([party, name]) => html`<li key=${party}><i class=${`dot p-${party}`}></i>Failed, ${name.toLowerCase()}: <${Figure} of=${`traffic.failed.${party}`} value=${failed[party]}>${format.count(failed[party])}<//></li>`)}
      </ul>
    </div><//>`;
}

function Latency({ samples, minutes, buckets }) {
  const points = timeline(samples, minutes);
  const line = (name, which) => points.map((point) => quantile(buckets[name], point.samples.map((each) => each[name].counts), which));
  const series = [
    { name: "Duration, median", tone: "s7", values: line("duration", 0.5) },
    { name: "Duration, 95th", tone: "s1", values: line("duration", 0.95) },
    { name: "First token, 95th", tone: "s3", values: line("first_token", 0.95) },
  ];
  return html`<${Card} title="Latency">
    <div class="stack">
      <${Chart} label="Latency over time" kind="lines" points=${points.map((each) => format.clock(each.at))} series=${series} show=${format.seconds} />
      <${Legend} series=${series} />
    </div><//>`;
}

// As the admin API computes it: linear within a bucket.
export function quantile(bounds, every, which) {
  const counts = [];
  for (const each of every) each.forEach((n, place) => { counts[place] = (counts[place] || 0) + n; });
  const total = counts.reduce((a, b) => a + b, 0);
  if (!total) return null;
  const rank = which * total;
  let lower = 0, before = 0;
  for (let place = 0; place < bounds.length; place++) {
    const n = counts[place] || 0;
    if (n && before + n >= rank) return lower + ((bounds[place] - lower) * (rank - before)) / n;
    before += n;
    lower = bounds[place];
  }
  return bounds[bounds.length - 1];
}

function Spend({ days }) {
  if (!days.rows.length) return html`<${Empty} title="Nothing was used this month">What requests cost is here as soon as the first has been answered.<//>`;
  const found = new Map(days.rows.map((row) => [row.day, row]));
  const names = daysShown({ since: "month" }, days.rows);
  const series = [{ name: "Spend", tone: "s1", values: names.map((name) => (found.get(name) || { usd: 0 }).usd) }];
  return html`<${Chart} label="Spend by day" points=${names.map(format.day)} series=${series} show=${(usd) => format.money(usd)} axis=${format.moneyTick} />`;
}

function TopTeams({ rows }) {
  const digits = format.columnDigits(rows.map((row) => row.usd));
  return html`<${Table} label="Teams this month" rows=${rows} rowKey=${(row) => row.team} filter=${false} sort="usd" empty=${html`<${Empty} title="No team has used anything" />`} columns=${[
    { name: "team", label: "Team", show: (row) => html`<a href=${`#/teams/${encodeURIComponent(row.team)}`}>${row.team}</a>` },
    { name: "requests", label: "Requests", number: true, show: (row) => format.count(row.requests) },
    { name: "usd", label: "Spend", number: true, show: (row) => format.money(row.usd, digits) },
  ]} />`;
}

function Nearly({ rows }) {
  const name = (limit) => `${scopeText(limit)} ${limit.name} ${limit.per}`;
  return html`<${Table} label="Quotas that run out" rows=${rows} rowKey=${name} filter=${false} sort="used" empty=${html`<${Empty} title="No quota runs out">None is over 80%, or will be used up before it resets at the present pace. All are on the pages of their <a href="#/teams">teams</a>.<//>`} columns=${[
    { name: "limit", label: "Limit", value: name, show: (limit) => html`<div>${limit.scope === "team" ? html`<a href=${`#/teams/${encodeURIComponent(limit.subject)}`}>${limit.subject}</a>` : limit.scope === "key" ? html`<a href=${`#/keys?id=${limit.subject}`}>${scopeText(limit)}</a>` : scopeText(limit)}<div class="sub">${limit.name}</div></div>` },
    { name: "used", label: "Used", value: (limit) => limit.used / limit.amount, show: (limit) => html`<${Meter} limit=${limit} />` },
    { name: "runs_out_at", label: "Runs out", show: (limit) => html`<${RunsOut} limit=${limit} />` },
  ]} />`;
}

function Up({ upstreams }) {
  return html`<${Table} label="Upstreams" rows=${upstreams} rowKey=${(row) => row.name} filter=${false} empty=${html`<${Empty} title="No upstream is configured" />`} columns=${[
    { name: "name", label: "Upstream" },
    { name: "up", label: "State", show: (row) => html`<${UpstreamState} upstream=${row} />` },
    { name: "in_flight", label: "In flight", number: true, show: (row) => format.count(row.in_flight) },
  ]} />`;
}

export function UpstreamState({ upstream }) {
  if (!upstream.up) return html`<${Badge} tone="bad">down<//>`;
  const open = upstream.circuits.filter((circuit) => circuit.state !== "closed");
  return open.length ? html`<${Badge} tone="warn">${open.length} of ${upstream.circuits.length} circuits not closed<//>` : html`<${Badge} tone="good">up<//>`;
}
