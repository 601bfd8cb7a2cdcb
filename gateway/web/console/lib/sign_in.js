import { html, useLayoutEffect, useRef, useState } from "../vendor/htm-preact.js";
import { Note } from "./ui.js";

const EXPIRED = "expired_api_key";

// The session after a request that was refused for want of one; the sign-in says why it is `over`.
export function ended(session, error) {
  if (!session) return session;
  const why = error.code === EXPIRED ? error.message : "Your session is over. Sign in again.";
  return { ...session, signed_in: false, over: session.over || (session.signed_in && why) };
}

// Takes a secret, and forgets it: what stays in the browser is the cookie of a session, which no script can read.
export function SignIn({ title, what, hint, over, signIn }) {
  const [state, setState] = useState({ busy: false, error: "" });
  const input = useRef(null);
  useLayoutEffect(() => input.current.focus(), []);
  async function submit(event) {
    event.preventDefault();
    const secret = input.current.value.trim();
    if (!secret) return;
    setState({ busy: true, error: "" });
    try {
      await signIn(secret);
    } catch (error) {
      setState({ busy: false, error: error.status === 401 && error.code !== EXPIRED ? `This is not the right ${what.toLowerCase()}. ${error.message}` : error.message });
      input.current.select();
    }
  }
  return html`
    <main class="gate">
      <div class="card">
        <h1><img src=${`${location.pathname.replace(/\/$/, "")}/icon.svg`} alt="" />${title}</h1>
        ${over && !state.error && html`<${Note} tone="warn">${over}<//>`}
        <form class="form" onSubmit=${submit}>
          <label class="field">${what}
            <input ref=${input} type="password" name="secret" autocomplete="current-password" autocapitalize="none" spellcheck="false" required aria-describedby="hint" />
            <small id="hint">${hint}</small></label>
          ${state.error && html`<${Note} tone="bad">${state.error}<//>`}
          <div><button class="primary" type="submit" disabled=${state.busy}>Sign in</button></div>
        </form>
      </div>
    </main>`;
}
