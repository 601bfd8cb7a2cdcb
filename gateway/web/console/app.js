// The console: sign-in, navigation, and which page is shown. Its pages use /admin/v1 and nothing else.
import { html, render, useEffect, useErrorBoundary, useRef, useState } from "./vendor/htm-preact.js";
import { SIGNED_OUT, client } from "./lib/api.js";
import { SignIn, ended } from "./lib/sign_in.js";
import { Loading, Note, Page } from "./lib/ui.js";
import { Audit } from "./pages/audit.js";
import { Configuration } from "./pages/configuration.js";
import { Keys } from "./pages/keys.js";
import { Losses } from "./pages/losses.js";
import { Models } from "./pages/models.js";
import { Notifications } from "./pages/notifications.js";
import { Overview } from "./pages/overview.js";
import { Requests } from "./pages/requests.js";
import { Team } from "./pages/team.js";
import { Teams } from "./pages/teams.js";
import { Upstreams } from "./pages/upstreams.js";
import { Usage } from "./pages/usage.js";

const api = client("/admin/v1");

const PAGES = [
  ["overview", "Overview", Overview],
  ["teams", "Teams", Teams],
  ["keys", "Keys", Keys],
  ["models", "Models", Models],
  ["upstreams", "Upstreams", Upstreams],
  ["usage", "Usage", Usage],
  ["requests", "Requests", Requests],
  ["losses", "Losses", Losses],
  ["notifications", "Notifications", Notifications],
  ["configuration", "Configuration", Configuration],
  ["audit", "Audit", Audit],
];

// `#/teams/search?since=7d`: the page, what it is about, and its parameters.
function routeOf(hash) {
  const [path, search = ""] = hash.replace(/^#\/?/, "").split("?");
  const [page, ...rest] = path.split("/").map(decoded);
  return { page: page || "overview", subject: rest.join("/"), parameters: Object.fromEntries(new URLSearchParams(search)) };
}

// What is not percent-encoded as it should be stays as it is: there is nothing of this name.
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function Console() {
  const [session, setSession] = useState(undefined);
  const [problem, setProblem] = useState("");
  const [route, setRoute] = useState(routeOf(location.hash));
  useEffect(() => {
    api.get("/session").then(setSession, (error) => setProblem(error.message));
    const left = (event) => setSession((before) => ended(before, event.detail));
    const moved = () => setRoute(routeOf(location.hash));
    window.addEventListener(SIGNED_OUT, left);
    window.addEventListener("hashchange", moved);
    return () => {
      window.removeEventListener(SIGNED_OUT, left);
      window.removeEventListener("hashchange", moved);
    };
  }, []);
  if (problem) return html`<main class="gate"><h1>Console</h1><${Note} tone="bad" action=${html`<button onClick=${() => location.reload()}>Try again</button>`}>${problem}<//></main>`;
  if (session === undefined) return html`<main><${Loading} /></main>`;
  if (!session.signed_in) {
    return html`<${SignIn} title="inducta-gateway" what="Admin token" over=${session.over}
      hint="The value of admin.token in the configuration. This browser stays signed in for 12 hours."
      signIn=${(token) => api.ask("POST", "/session", { token }).then(setSession)} />`;
  }
  return html`<${Shell} route=${route} session=${session} signOut=${() => api.ask("DELETE", "/session").then(setSession, (error) => error.status === 401 || setProblem(`You may still be signed in. ${error.message}`))} />`;
}

// A page that fails takes nothing else with it.
function Guarded({ shown: Shown, ...about }) {
  const [error] = useErrorBoundary();
  if (error) return html`<${Note} tone="bad" action=${html`<button onClick=${() => location.reload()}>Load it again</button>`}>${`This page failed: ${error.message}`}<//>`;
  return html`<${Shown} ...${about} />`;
}

function Shell({ route, session, signOut }) {
  const [open, setOpen] = useState(false);
  const main = useRef(null);
  const shell = useRef(null);
  const first = useRef(true);
  const found = PAGES.find(([name]) => name === route.page);
  const Shown = route.page === "teams" && route.subject ? Team : found && found[2];
  // The form of the sign-in, which had the focus, is gone: the next stop of Tab is the first of the page.
  useEffect(() => shell.current.focus({ preventScroll: true }), []);
  useEffect(() => {
    document.title = `${route.subject || (found ? found[1] : "Not found")} · inducta-gateway`;
    setOpen(false);
    if (!first.current) {
      window.scrollTo(0, 0);
      main.current.focus({ preventScroll: true });
    }
    first.current = false;
  }, [route.page, route.subject]);
  return html`
    <div class="shell" tabindex="-1" ref=${shell}>
      <a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); main.current.focus(); }}>Skip to the page</a>
      <header class=${`side ${open ? "open" : ""}`}>
        <a class="brand" href="#/overview"><img src="/console/icon.svg" alt="" />inducta-gateway</a>
        <button class="menu-button" aria-expanded=${String(open)} aria-controls="nav" onClick=${() => setOpen(!open)}>Menu</button>
        <nav id="nav" aria-label="Pages"><ul>${PAGES.map(([name, text]) => html`
          <li key=${name}><a href=${`#/${name}`} aria-current=${route.page === name ? "page" : undefined} onClick=${() => setOpen(false)}>${text}</a></li>`)}</ul></nav>
        <div class="foot"><span class="small muted">Version ${session.version}</span><button onClick=${signOut}>Sign out</button></div>
      </header>
      <main id="main" tabindex="-1" ref=${main}>
        ${Shown
          ? html`<${Guarded} key=${`${route.page} ${route.subject} ${JSON.stringify(route.parameters)}`} shown=${Shown} api=${api} subject=${route.subject} parameters=${route.parameters} />`
          : html`<${Page} title="Not found"><${Note} tone="warn">There is no page called ${route.page}. <a href="#/overview">Overview</a><//><//>`}
      </main>
    </div>`;
}

render(html`<${Console} />`, document.getElementById("root"));
