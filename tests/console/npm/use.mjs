// The console used by keyboard alone: prints what did not work, by step.
// node use.mjs CONSOLE_ORIGIN TOKEN ME_ORIGIN KEY RUNNING_REQUEST
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { launch, opened, settled } from "./browser.mjs";

const [origin, token, meOrigin, key, running] = process.argv.slice(2);
const failures = [];
const browser = await launch();
let page = null;

async function step(name, work) {
  try {
    await work();
  } catch (error) {
    if (page) await page.keyboard.press("Escape");
    failures.push(`${name}: ${error.message.split("\n").slice(0, 6).join(" ")}`);
  }
}

const focused = (page) => page.evaluate(() => {
  const on = document.activeElement;
  const label = on.getAttribute("aria-label") || (on.labels && on.labels[0] && on.labels[0].innerText) || on.innerText || "";
  return { label: label.trim(), tag: on.tagName, name: on.getAttribute("name") || "" };
});

// Presses Tab until the focus is on what has this label.
async function tabTo(page, label, { most = 120 } = {}) {
  for (let pressed = 0; pressed < most; pressed++) {
    const on = await focused(page);
    if (typeof label === "string" ? on.label.split("\n")[0] === label : label.test(on.label)) return on;
    await page.keyboard.press("Tab");
  }
  throw new Error(`the focus never reaches ${label}`);
}

async function open(page, name) {
  await page.evaluate(() => document.querySelector(".skip").focus());
  await tabTo(page, name);
  await page.keyboard.press("Enter");
  await page.waitForFunction((text) => document.querySelector(`nav a[aria-current]`)?.innerText === text, name);
  await settled(page);
}

const heading = (page) => page.locator("h1").innerText();

page = await opened(browser, { origin, acceptDownloads: true });
await page.goto(`${origin}/console`);
await page.locator("input[name=secret]").waitFor();

await step("the field of the token has the focus, and a wrong token is said to be wrong", async () => {
  assert.equal((await focused(page)).name, "secret");
  await page.keyboard.type("a wrong token");
  await page.keyboard.press("Enter");
  await page.getByRole("alert").filter({ hasText: "not the right admin token" }).waitFor();
  page.complaints.length = 0;
});

await step("the right token opens the overview", async () => {
  await page.keyboard.type(token);
  await page.keyboard.press("Enter");
  await page.locator("nav").waitFor();
  assert.equal(await heading(page), "Overview");
  await settled(page);
});

// A key pressed as soon as a dialog is seen is lost if the dialog is opened later than it is put into the page.
await page.evaluate(() => {
  window.openedLate = [];
  const watch = (changes) => {
    for (const { addedNodes } of changes) for (const node of addedNodes) {
      if (node.nodeType !== Node.ELEMENT_NODE) continue;
      const dialog = node.matches("dialog") ? node : node.querySelector("dialog");
      if (dialog && !dialog.open) window.openedLate.push(dialog.getAttribute("aria-label"));
    }
  };
  new MutationObserver(watch).observe(document.body, { childList: true, subtree: true });
});

await step("nothing of the token is left in the browser but the session's cookie", async () => {
  const kept = await page.evaluate(() => JSON.stringify([Object.entries(localStorage), Object.entries(sessionStorage), document.cookie, location.href]));
  assert.equal(kept, JSON.stringify([[], [], "", `${origin}/console`]));
  const [cookie, ...others] = await page.context().cookies(`${origin}/admin/v1/teams`);
  assert.deepEqual([others.length, cookie.httpOnly, cookie.sameSite, cookie.path], [0, true, "Strict", "/admin/v1"]);
});

await step("the first stop of Tab skips the navigation", async () => {
  await page.evaluate(() => document.activeElement.blur());
  await page.keyboard.press("Tab");
  assert.equal((await focused(page)).label, "Skip to the page");
  await page.keyboard.press("Enter");
  assert.equal((await focused(page)).tag, "MAIN");
});

await step("a chart is read by its arrows", async () => {
  await tabTo(page, /^Requests over time/);
  await page.keyboard.press("ArrowLeft");
  await page.keyboard.press("ArrowLeft");
  assert.match(await page.locator("figure [aria-live]").first().innerText(), /^\d\d:\d\d: Answered \d+/);
});

await step("a table is sorted by its heads", async () => {
  await open(page, "Teams");
  assert.equal(await page.locator("th[aria-sort=descending]").innerText(), "Spend");
  await tabTo(page, "Team");
  await page.keyboard.press("Enter");
  const names = await page.locator("tbody td:first-child a").allInnerTexts();
  assert.deepEqual(names, [...names].sort());
});

await step("a team is opened and its usage regrouped", async () => {
  await tabTo(page, "search");
  await page.keyboard.press("Enter");
  await page.locator("h1", { hasText: "search" }).waitFor();
  await settled(page);
  await tabTo(page, /^By/);
  await page.keyboard.press("e");
  await page.locator("section[aria-label=Usage] tbody td", { hasText: "ada@example.com" }).first().waitFor();
});

await step("a limit is raised for a while, and the grant ended", async () => {
  await tabTo(page, "Grant more");
  await page.keyboard.press("Enter");
  await tabTo(page, /^How much more/);
  await page.keyboard.type("500");
  await tabTo(page, /^Until/);
  // Whether day or month comes first is the system's matter.
  await page.locator("dialog input[name=until]").fill(new Date(Date.now() + 3 * 86_400_000).toISOString().slice(0, 10));
  await tabTo(page, /^Why/);
  await page.keyboard.type("product launch");
  await page.keyboard.press("Enter");
  await page.locator("section[aria-label=Grants] td", { hasText: "product launch" }).waitFor();
  await tabTo(page, /^End the grant/);
  await page.keyboard.press("Enter");
  await tabTo(page, "End it");
  await page.keyboard.press("Enter");
  await page.locator("section[aria-label=Grants]", { hasText: "No grant is in force" }).waitFor();
});

let secret = "";
await step("a key is made, and its secret shown once", async () => {
  await open(page, "Keys");
  await tabTo(page, "Create a key");
  await page.keyboard.press("Enter");
  await page.locator("dialog[open]").waitFor();
  await tabTo(page, "Name");
  await page.keyboard.type("by-keyboard");
  await page.keyboard.press("Enter");
  secret = await page.locator("dialog .secret code").innerText();
  assert.match(secret, /^gw_[\w-]{43}$/);
  await page.keyboard.press("Escape");
  await page.locator("dialog").waitFor({ state: "detached" });
  await page.locator("td", { hasText: "by-keyboard" }).first().waitFor();
  assert.ok(!(await page.content()).includes(secret));
});

await step("what a person writes wrong is said in the dialog, and nothing is lost", async () => {
  await tabTo(page, "Create a key");
  await page.keyboard.press("Enter");
  await tabTo(page, "Name");
  await page.keyboard.type("not made");
  await tabTo(page, "Restrict it further");
  await page.keyboard.press("Enter");
  await tabTo(page, /^Limits of its own/);
  await page.keyboard.type("many requests");
  await tabTo(page, "Create");
  await page.keyboard.press("Enter");
  await page.locator("dialog [role=alert]", { hasText: "is not a limit" }).waitFor();
  assert.equal(await page.locator("dialog input[name=name]").inputValue(), "not made");
  await page.keyboard.press("Escape");
  await page.locator("dialog").waitFor({ state: "detached" });
});

await step("a key is rotated, disabled and revoked", async () => {
  await tabTo(page, "Rotate by-keyboard");
  await page.keyboard.press("Enter");
  await tabTo(page, "Rotate");
  await page.keyboard.press("Enter");
  const next = await page.locator("dialog .secret code").innerText();
  assert.notEqual(next, secret);
  await tabTo(page, "I have it");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.querySelectorAll("[aria-label='Disable by-keyboard']").length === 2);
  await tabTo(page, "Disable by-keyboard");
  await page.keyboard.press("Enter");
  await tabTo(page, "Disable");
  await page.keyboard.press("Enter");
  await page.locator("tr", { hasText: "by-keyboard" }).filter({ hasText: "disabled" }).first().waitFor();
  for (let left = 2; left > 0; left--) {
    await tabTo(page, "Revoke by-keyboard");
    await page.keyboard.press("Enter");
    await tabTo(page, "Revoke permanently");
    await page.keyboard.press("Enter");
    await page.waitForFunction((n) => document.querySelectorAll("[aria-label='Revoke by-keyboard']").length === n, left - 1);
  }
});

await step("a dialog that is left with Escape does nothing and gives the focus back", async () => {
  await tabTo(page, "Revoke search-batch");
  await page.keyboard.press("Enter");
  await page.locator("dialog[open]").waitFor();
  await page.keyboard.press("Escape");
  await page.locator("dialog").waitFor({ state: "detached" });
  assert.equal((await focused(page)).label, "Revoke search-batch");
});

await step("usage is filtered, its address kept, and a file of it saved", async () => {
  await open(page, "Usage");
  await tabTo(page, "Team");
  await page.keyboard.type("search");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.querySelectorAll("[aria-label='Usage by group, table'] tbody tr").length === 1);
  assert.match(page.url(), /#\/usage\?team=search$/);
  await page.evaluate(() => document.querySelector("main").focus());
  await tabTo(page, "Download CSV");
  const [saved] = await Promise.all([page.waitForEvent("download"), page.keyboard.press("Enter")]);
  const [head, row, end] = readFileSync(await saved.path(), "utf8").split("\r\n");
  assert.equal(saved.suggestedFilename(), "usage-by-team.csv");
  assert.ok(head.startsWith("team,requests,input_tokens,"));
  const shown = await page.locator("[aria-label='Usage by group, table'] tbody td[data-column=usd]").getAttribute("data-value");
  assert.deepEqual([row.split(",")[0], row.split(",").at(-1), end], ["search", shown, ""]);
});

await step("a request in flight is seen and cancelled", async () => {
  await open(page, "Requests");
  await page.locator("td", { hasText: running }).first().waitFor();
  await tabTo(page, `Cancel ${running}`);
  await page.keyboard.press("Enter");
  await tabTo(page, "Cancel it");
  await page.keyboard.press("Enter");
  await page.locator("section", { hasText: "Nothing is in flight" }).first().waitFor();
});

await step("what happened to a request is looked up", async () => {
  await page.evaluate(() => document.querySelector("main").focus());
  await tabTo(page, "Request id");
  await page.keyboard.type(running);
  await page.keyboard.press("Enter");
  await page.locator("section[aria-label='What happened']", { hasText: "request_cancelled" }).waitFor();
});

await step("a pasted configuration is compared", async () => {
  await open(page, "Configuration");
  const text = await page.locator("pre.code-block").innerText();
  await tabTo(page, "Text of the other file");
  await page.keyboard.insertText(text.replace("tokens: 9000", "tokens: 12000").replace("(redacted)", "${TOKEN}"));
  await tabTo(page, "Check and compare");
  await page.keyboard.press("Enter");
  const row = page.locator("tr", { hasText: "teams.search.limits.tokens-per-day.tokens" });
  await row.waitFor();
  assert.match(await row.innerText(), /changed\s+9000\s+12000/);
});

await step("what was done is in the audit", async () => {
  await open(page, "Audit");
  const actions = await page.locator("td[data-column=action]").allInnerTexts();
  for (const action of ["key.create", "key.rotate", "key.disable", "key.revoke", "request.cancel", "console.sign_in"]) assert.ok(actions.includes(action), action);
});

await step("every dialog was open from the moment it was in the page", async () => {
  assert.deepEqual(await page.evaluate(() => window.openedLate), []);
});

await step("no script failed and the policy was kept", async () => assert.deepEqual(page.complaints, []));

await step("an open page asks at most each ten seconds, and a hidden one not at all", async () => {
  await page.clock.install();
  await open(page, "Teams");
  let asked = 0;
  page.on("request", () => { asked++; });
  await page.evaluate(() => Object.defineProperty(document, "hidden", { value: true, configurable: true }));
  await page.clock.runFor(120_000);
  await page.waitForLoadState("networkidle");
  assert.equal(asked, 0);
  await page.evaluate(() => Object.defineProperty(document, "hidden", { value: false, configurable: true }));
  await Promise.all([page.waitForRequest("**/admin/v1/**"), page.clock.runFor(60_000)]);
  await page.waitForLoadState("networkidle");
  assert.ok(asked <= 6 * 3, `${asked} requests in a minute`);
});

await step("a session that ended elsewhere is noticed", async () => {
  const other = await page.context().newPage();
  await other.goto(`${origin}/console`);
  await other.evaluate(() => fetch("/admin/v1/session", { method: "DELETE", headers: { "x-gateway-console": "1" } }));
  await other.close();
  await page.clock.runFor(11_000);
  await page.locator("[role=status]", { hasText: "Your session is over" }).waitFor();
});

await step("whoever signs out is asked for the token again", async () => {
  const again = await opened(browser, { origin });
  await again.goto(`${origin}/console`);
  await again.locator("input[name=secret]").waitFor();
  await again.keyboard.type(token);
  await again.keyboard.press("Enter");
  await again.locator("nav").waitFor();
  await tabTo(again, "Sign out");
  await again.keyboard.press("Enter");
  await again.locator("input[name=secret]").waitFor();
  await again.reload();
  await again.locator("input[name=secret]").waitFor();
});

await step("the holder of a key sees its own page and the lines to paste", async () => {
  const me = await opened(browser, { origin: meOrigin });
  await me.goto(`${meOrigin}/me`);
  await me.locator("input[name=secret]").waitFor();
  await me.keyboard.type(key);
  await me.keyboard.press("Enter");
  await me.locator("h1", { hasText: "search-prod" }).waitFor();
  await settled(me);
  await tabTo(me, /^Client/);
  await me.keyboard.press("C");
  await me.keyboard.press("l");
  await me.locator(".snippet", { hasText: `ANTHROPIC_BASE_URL=${meOrigin}` }).waitFor();
  assert.ok(!(await me.content()).includes(key));
  await me.evaluate(() => document.activeElement.blur());
  await tabTo(me, "Sign out");
  await me.keyboard.press("Enter");
  await me.locator("input[name=secret]").waitFor();
  assert.deepEqual(me.complaints, []);
});

process.stdout.write(JSON.stringify(failures));
await browser.close();
