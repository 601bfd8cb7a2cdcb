// Steps in a real Chromium whose answers a script gives, while the page's clock is its own: nothing waits for real time.
import assert from "node:assert/strict";
import { launch, opened, signIn } from "./browser.mjs";

export const failures = [];
export let page = null;
let at = null;
let browser = null;

// `api`: what the paths of its requests begin with. Its session is always the gateway's, unless a step answers for it.
export async function begin(origin, path, secret, api) {
  at = { origin, path, secret, api };
  browser = await launch();
}

export async function end() {
  await browser.close();
  process.stdout.write(JSON.stringify(failures));
}

export async function step(name, work, options = {}) {
  page = await opened(browser, { origin: at.origin, ...options });
  try {
    if (options.clock) await page.clock.install();
    await signIn(page, at.origin + at.path, at.secret);
    await work();
    const scripts = page.complaints.filter((each) => each.startsWith("script:") || each.includes("policy:"));
    assert.deepEqual(scripts, []);
  } catch (error) {
    failures.push(`${name}: ${error.message.split("\n").slice(0, 8).join(" ")}`);
  }
  await page.context().close();
}

export const json = (route, body, status = 200) => route.fulfill({ status, contentType: "application/json", body: JSON.stringify(body) });
export const refused = (route, status, message, code = "x") => json(route, { error: { message, type: "server_error", param: null, code } }, status);
export const listed = (data, next = null) => ({ data, next });

// Answers `path` of the API, whatever its query, by `answer(route, query)`.
export const answer = (path, give) => page.route((url) => url.pathname === `${at.api}/${path}`, (route) => give(route, new URL(route.request().url()).searchParams));
export const everything = (give) => page.route((url) => url.pathname.startsWith(`${at.api}/`) && url.pathname !== `${at.api}/session`, give);

// Does `act`, and waits for the request of `path` that it makes the page send: the page has sent it before it is heard of here.
export const sends = (path, act) => Promise.all([page.waitForRequest((request) => new URL(request.url()).pathname === `${at.api}/${path}`), act()]);
// Until all that the page has sent is heard of here, as far as requests come in the order in which they are sent.
export const heard = () => page.evaluate(() => fetch(location.href).then((given) => given.text()));

export const text = (locator) => page.locator(locator).allInnerTexts();

export const usageOf = (rows) => {
  const names = ["requests", "input_tokens", "cached_input_tokens", "output_tokens", "estimated_tokens", "usd"];
  const filled = rows.map((row) => ({ ...Object.fromEntries(names.map((name) => [name, 0])), ...row }));
  return { rows: filled, total: Object.fromEntries(names.map((name) => [name, filled.reduce((sum, row) => sum + row[name], 0)])) };
};

export const FAILURES = {
  "an error of the gateway": [(route) => refused(route, 500, "The gateway failed."), "The gateway failed."],
  "a store that is out": [(route) => refused(route, 503, "The store does not answer."), "The store does not answer."],
  "a proxy's page": [(route) => route.fulfill({ status: 502, contentType: "text/html", body: "<h1>Bad Gateway</h1>" }), "The gateway answered 502."],
  "nobody there": [(route) => route.abort("connectionrefused"), "The gateway does not answer."],
};
