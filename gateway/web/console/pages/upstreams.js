// The model servers: health, circuits, and how requests to them went.
import { html, useState } from "../vendor/htm-preact.js";
import { useData } from "../lib/api.js";
import { Chart, Legend } from "../lib/charts.js";
import * as format from "../lib/format.js";
import { Badge, Card, Chips, Empty, Loaded, Page, Segmented, Table, Time } from "../lib/ui.js";
import { UpstreamState } from "./overview.js";

export function Upstreams({ api }) {
  const [minutes, setMinutes] = useState(60);
  const found = useData(() => Promise.all([api.get("/upstreams"), api.get(`/traffic?minutes=${minutes}`)]).then(([upstreams, traffic]) => ({ upstreams: upstreams.data, samples: traffic.data })), `upstreams ${minutes}`);
  const choice = html`<${Segmented} label="Window of attempts" value=${minutes} onChange=${setMinutes} options=${[[60, "1 hour"], [180, "3 hours"], [360, "6 hours"]]} />`;
  return html`<${Page} title="Upstreams" actions=${choice}>
    <${Loaded} from=${found}>${({ upstreams, samples }) => upstreams.length
      ? upstreams.map((upstream) => html`<${Upstream} key=${upstream.name} upstream=${upstream} samples=${samples} minutes=${minutes} />`)
      : html`<${Card}><${Empty} title="No upstream is configured" /><//>`}<//>
  <//>`;
}

// By outcome, most frequent first; "ok" is what everybody wants.
function outcomes(samples, name) {
  const found = {};
  for (const sample of samples) for (const [outcome, n] of Object.entries(sample.attempts[name] || {})) found[outcome] = (found[outcome] || 0) + n;
  return Object.entries(found).map(([outcome, n]) => ({ outcome, n })).sort((a, b) => b.n - a.n);
}

// A number alone, beside a count, reads as another count.
const named = (outcome) => (/^\d{3}$/.test(outcome) ? `HTTP ${outcome}` : outcome);

const counted = (reasons) => Object.entries(reasons).map(([reason, n]) => `${n} × ${named(reason)}`).join(", ");

const toneOf = (outcome) => (/^2/.test(outcome) ? "s1" : /^(4(?!29)|abandoned|stale)/.test(outcome) ? "s0" : "");

function Upstream({ upstream, samples, minutes }) {
  const attempts = outcomes(samples, upstream.name);
  const total = attempts.reduce((sum, each) => sum + each.n, 0);
  const cooling = upstream.circuits.flatMap((circuit) => circuit.cooling.map((each) => ({ ...each, model: circuit.model })));
  return html`<${Card} title=${upstream.name} data-row=${upstream.name} tools=${html`<span class="small muted"><span data-column="in_flight" data-value=${upstream.in_flight}>${format.count(upstream.in_flight)}</span> in flight</span><${UpstreamState} upstream=${upstream} />`}>
    <div class="stack">
      ${Object.keys(upstream.failed_checks).length > 0 && html`<p class="small warn">Its health checks fail: ${counted(upstream.failed_checks)}.</p>`}
      <div class="row"><span class="muted small">Serves</span><${Chips} of=${upstream.models} none="no model" /></div>
      <div class="grid2">
        <div><h3>Circuits</h3>
          <${Circuits} circuits=${upstream.circuits} />
          ${cooling.map((each) => html`<p class="small warn" key=${each.team + each.model}>Team ${each.team} is kept away from ${each.model} until <${Time} at=${each.until} />, as the server asked.</p>`)}
        </div>
        <div><h3>Attempts in the last ${minutes === 60 ? "hour" : `${minutes / 60} hours`}</h3>
          <${Attempts} ...${{ attempts, total, samples, name: upstream.name, minutes }} />
        </div>
      </div>
    </div><//>`;
}

// Of a circuit that is not closed: since when, what it lets pass, and when it is tried.
const standing = (circuit) => [
  circuit.opened_at && html`opened <${Time} at=${circuit.opened_at} />`,
  circuit.share < 1 && `takes ${format.percent(circuit.share, 1)} of its traffic`,
  circuit.next_try_at && html`next try <${Time} at=${circuit.next_try_at} />`,
].filter(Boolean);

const STATES = { closed: ["good", "closed"], open: ["bad", "open"], half_open: ["warn", "half open"], recovering: ["warn", "recovering"] };

function Circuits({ circuits }) {
  if (!circuits.length) return html`<p class="muted">No request has gone there yet: a model has a circuit from its first request on.</p>`;
  return html`<ul class="stack">${circuits.map((circuit) => html`
    <li key=${`${circuit.model} ${circuit.key} ${circuit.state}`}>
      <div class="row"><${Badge} tone=${STATES[circuit.state][0]}>${STATES[circuit.state][1]}<//><span class="mono">${circuit.model}</span>
        ${circuit.key && html`<span class="small muted">for key <a href=${`#/keys?id=${circuit.key}`}>${circuit.key}</a> alone</span>`}
        ${circuit.workers && circuit.state !== "closed" && html`<span class="small muted">in worker ${circuit.workers.join(", ")}</span>`}</div>
      ${circuit.state !== "closed" && html`<div class="small muted">${standing(circuit).map((each, place) => [place > 0 && ", ", each])}</div>`}
      ${Object.keys(circuit.why).length > 0 && html`<div class="small">${circuit.state === "closed" ? html`last opened <${Time} at=${circuit.opened_at} />, after ` : "before it opened: "}${counted(circuit.why)}</div>`}
    </li>`)}</ul>`;
}

function Attempts({ attempts, total, samples, name, minutes }) {
  if (!total) return html`<p class="muted">None.</p>`;
  const width = minutes / 60, now = Math.floor(Date.now() / 60_000), starts = [];
  for (let start = now - minutes + 1; start <= now; start += width) starts.push(start);
  const tones = ["s5", "s3", "s4", "s7", "s6", "s2"];
  let bad = 0;
  const series = attempts.map(({ outcome }) => ({
    outcome, name: named(outcome), tone: toneOf(outcome) || tones[bad++ % tones.length],
    values: starts.map((start) => samples.filter((each) => { const at = Math.floor(new Date(each.at) / 60_000); return at >= start && at < start + width; }).reduce((sum, each) => sum + ((each.attempts[name] || {})[outcome] || 0), 0)),
  }));
  return html`<div class="stack">
    <${Chart} label=${`Attempts at ${name}`} height=${120} points=${starts.map((start) => format.clock(start * 60_000))} series=${series} show=${format.count} axis=${format.short} />
    <ul class="legend">${series.map((each, place) => html`<li key=${each.name}><i class=${`dot ${each.tone}`}></i>${each.name}: <span data-column=${`attempts.${each.outcome}`} data-value=${attempts[place].n}>${format.count(attempts[place].n)}</span> (${format.percent(attempts[place].n, total)})</li>`)}</ul>
  </div>`;
}
