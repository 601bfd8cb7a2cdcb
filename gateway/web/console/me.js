// A key holder's own page: what is left, what was used, and how to point each client at this gateway.
import { html, render, useEffect, useState } from "./vendor/htm-preact.js";
import { SIGNED_OUT, client, query, useData } from "./lib/api.js";
import { ByDay, FIGURES } from "./lib/by_day.js";
import * as format from "./lib/format.js";
import { SignIn, ended } from "./lib/sign_in.js";
import { Badge, Card, Chips, Empty, Figure, Loaded, Loading, Meter, Note, Page, RunsOut, Segmented, Select, Snippet, Table, Tile, Tiles, Time } from "./lib/ui.js";

const api = client("/me");

function Me() {
  const [session, setSession] = useState(undefined);
  const [problem, setProblem] = useState("");
  useEffect(() => {
    api.get("/session").then(setSession, (error) => setProblem(error.message));
    const left = (event) => setSession((before) => ended(before, event.detail));
    window.addEventListener(SIGNED_OUT, left);
    return () => window.removeEventListener(SIGNED_OUT, left);
  }, []);
  if (problem) return html`<main class="gate"><h1>My key</h1><${Note} tone="bad" action=${html`<button onClick=${() => location.reload()}>Try again</button>`}>${problem}<//></main>`;
  if (session === undefined) return html`<main><${Loading} /></main>`;
  if (!session.signed_in) {
    return html`<${SignIn} title="My key" what="API key" over=${session.over} hint="It begins with gw_. This browser stays signed in for 12 hours; the key itself is not kept in it."
      signIn=${(token) => api.ask("POST", "/session", { token }).then(setSession)} />`;
  }
  const signOut = () => api.ask("DELETE", "/session").then(setSession, (error) => error.status === 401 || setProblem(`You may still be signed in. ${error.message}`));
  return html`<div class="me"><header class="top"><span class="brand"><img src="/me/icon.svg" alt="" />inducta-gateway</span><button onClick=${signOut}>Sign out</button></header>
    <main id="main"><${Own} /></main></div>`;
}

function Own() {
  const key = useData(() => api.get("/key"), "key", { poll: false });
  const limits = useData(() => api.get("/limits"), "limits");
  if (!key.data) return html`<${Page} title="My key"><${Loaded} from=${key} /><//>`;
  return html`<${Loaded} from=${key}>${(about) => html`<${Page} title=${about.name} crumb=${`Team ${about.team} · key ${about.id}`}
    actions=${about.expires_at ? html`<${Badge} tone=${new Date(about.expires_at) - Date.now() < 7 * 86_400_000 ? "warn" : ""} plain>expires <${Time} at=${about.expires_at} /><//>` : ""}>
      <${Spent} />
      <${Card} title="What is left" flush><${Loaded} from=${limits}>${({ data }) => html`<${Limits} limits=${data} />`}<//><//>
      <${Usage} />
      <${Clients} about=${about} />
      <${Card} title="Models that this key may use"><${Chips} of=${about.models} none="none: ask your platform team" /><//>
    <//>`}<//>`;
}

function Spent() {
  const found = useData(() => Promise.all([api.get("/usage?by=day&since=1d"), api.get("/usage?by=day&since=month")]).then(([today, month]) => ({ today: today.total, month: month.total })), "spent");
  return html`<${Loaded} from=${found}>${({ today, month }) => html`<${Tiles}>
    <${Tile} label="Spend today"><${Figure} of="me.today.usd" value=${today.usd}>${format.money(today.usd)}<//><//>
    <${Tile} label="Spend this month"><${Figure} of="me.month.usd" value=${month.usd}>${format.money(month.usd)}<//><//>
    <${Tile} label="Requests this month"><${Figure} of="me.month.requests" value=${month.requests}>${format.short(month.requests)}<//><//>
    <${Tile} label="Tokens this month"><${Figure} of="me.month.tokens" value=${month.input_tokens + month.output_tokens}>${format.short(month.input_tokens + month.output_tokens)}<//><//>
  <//>`}<//>`;
}

function Limits({ limits }) {
  const whose = { organisation: "the whole organisation's", model: "the model's", team: "your team's", key: "this key's", user: "each end user's" };
  return html`<${Table} label="Limits" rows=${limits} rowKey=${(row) => `${row.scope} ${row.subject} ${row.name}`} filter=${false} empty=${html`<${Empty} title="Nothing limits this key" />`} columns=${[
    { name: "name", label: "Limit", show: (row) => html`<div>${format.terms({ ...row, [row.meter]: row.amount })}<div class="sub">${whose[row.scope]}: ${row.name}${row.mode === "shadow" ? ", not enforced" : ""}</div></div>` },
    { name: "used", label: "Used", value: (row) => (row.amount ? row.used / row.amount : 0), show: (row) => html`<${Meter} limit=${row} />` },
    { name: "left", label: "Left", number: true, show: (row) => format.amount(row.meter, row.left) },
    { name: "resets_at", label: "Resets", show: (row) => html`<${Time} at=${row.resets_at} none=${row.per === "total" ? "never" : "–"} />` },
    { name: "runs_out_at", label: "Runs out", show: (row) => html`<${RunsOut} limit=${row} />` },
  ]} />`;
}

function Usage() {
  const [figure, setFigure] = useState("usd");
  const [since, setSince] = useState("30d");
  const found = useData(() => Promise.all([api.get(`/usage${query({ by: "day,model", since })}`), api.get(`/usage${query({ by: "model", since })}`)]).then(([days, groups]) => ({ days, groups })), `usage ${since}`);
  return html`<${Card} title="Usage by day"><div class="stack">
    <div class="filters"><${Segmented} label="Figure" value=${figure} onChange=${setFigure} options=${FIGURES} />
      <${Select} label="Since" value=${since} onChange=${setSince} options=${[["7d", "7 days"], ["30d", "30 days"], ["90d", "90 days"], ["month", "This month"]]} /></div>
    <${Loaded} from=${found}>${({ days, groups }) => (groups.rows.length
      ? html`<${ByDay} days=${days} groups=${groups} by="model" span=${{ since }} figure=${figure} label="Usage by day" />`
      : html`<${Empty} title="Nothing was used in this time">Point a client at the gateway, as below, and send a first request.<//>`)}<//>
  </div><//>`;
}

// Lines to paste. The key is never in them: a person who looks over a shoulder, or at a shared screen, sees none.
function snippets(about) {
  const url = Object.fromEntries(about.clients.map((each) => [each.key, each.base_url]));
  const model = about.models[0] || "MODEL";
  const found = [];
  if (url.openai) {
    found.push(["OpenAI's SDKs and most tools", `export OPENAI_BASE_URL=${url.openai}\nexport OPENAI_API_KEY=YOUR_KEY`]);
    found.push(["curl", `curl ${url.openai}/chat/completions -H "authorization: Bearer YOUR_KEY" -H "content-type: application/json" \\\n  -d '{"model": ${JSON.stringify(model)}, "messages": [{"role": "user", "content": "Hello"}]}'`]);
    found.push(["Python", `from openai import OpenAI\n\nclient = OpenAI(base_url=${JSON.stringify(url.openai)}, api_key="YOUR_KEY")\nanswer = client.chat.completions.create(\n    model=${JSON.stringify(model)}, messages=[{"role": "user", "content": "Hello"}]\n)\nprint(answer.choices[0].message.content)`]);
  }
  if (url.anthropic) found.push(["Claude Code and Anthropic's SDKs", `export ANTHROPIC_BASE_URL=${url.anthropic}\nexport ANTHROPIC_AUTH_TOKEN=YOUR_KEY\nexport ANTHROPIC_MODEL=${model}`]);
  if (url.gemini) found.push(["Gemini CLI and Google's SDKs", `export GOOGLE_GEMINI_BASE_URL=${url.gemini}\nexport GEMINI_API_KEY=YOUR_KEY`]);
  if (url.azure_openai) found.push(["Azure OpenAI clients", `export AZURE_OPENAI_ENDPOINT=${url.azure_openai}\nexport AZURE_OPENAI_API_KEY=YOUR_KEY`]);
  return found;
}

function Clients({ about }) {
  const every = snippets(about);
  const [chosen, setChosen] = useState(0);
  return html`<${Card} title="Point a client at the gateway"><div class="stack">
    <div class="filters"><${Select} label="Client" value=${String(chosen)} onChange=${(value) => setChosen(Number(value))} options=${every.map(([name], place) => [String(place), name])} /></div>
    <${Snippet} key=${chosen} text=${every[chosen][1]} />
    <p class="small muted">Put your key in the place of YOUR_KEY.</p>
  </div><//>`;
}

render(html`<${Me} />`, document.getElementById("root"));
