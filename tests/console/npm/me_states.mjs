// The page of a key while the gateway fails, hangs or has very little or very much to say: prints what did not work, by step.
// node me_states.mjs ORIGIN KEY
import assert from "node:assert/strict";
import { overflow, settled } from "./browser.mjs";
import { FAILURES, answer, begin, end, heard, json, listed, page, refused, sends, step, text, usageOf } from "./scripted.mjs";

const [origin, key] = process.argv.slice(2);
const EXPIRED = "The API key 'search-test' has expired. Ask your platform team for a new one.";
await begin(origin, "/me", key, "/me");

const about = (more = {}) => ({
  id: "0123456789ab", name: "search-prod", team: "search", expires_at: null, models: ["m"],
  clients: [{ key: "openai", name: "OpenAI", variable: "OPENAI_BASE_URL", base_url: `${origin}/v1` }], ...more,
});
const limitOf = (more = {}) => ({
  name: "requests-per-day", scope: "key", subject: "0123456789ab", meter: "requests", per: "day", amount: 100, used: 20, held: 0, left: 80,
  resets_at: null, runs_out_at: null, mode: "enforce", ...more,
});
// The page's own files are below /me, too.
const everything = (give) => Promise.all(["key", "limits", "usage"].map((path) => answer(path, give)));
const alerts = (words) => page.locator("main [role=alert]", { hasText: words });
const secret = () => page.locator("input[name=secret]");

await step("a page that cannot be shown says why, and is shown when asked again", async () => {
  for (const [what, [fail, words]] of Object.entries(FAILURES)) {
    await everything(fail);
    await page.reload();
    await alerts(words).first().waitFor();
    await settled(page);
    assert.equal(await page.locator("h1").innerText(), "My key", what);
    await page.unrouteAll({ behavior: "wait" });
    await page.getByRole("button", { name: "Try again" }).click();
    await page.getByRole("heading", { level: 1, name: "search-test" }).waitFor();
    await settled(page);
  }
});

await step("what the store does not answer is missing by itself, and comes when asked again", async () => {
  const failed = 3; // What is spent, what is left, and usage by day.
  const fail = (route) => refused(route, 503, "The store does not answer.");
  await answer("limits", fail);
  await answer("usage", fail);
  await page.reload();
  await page.waitForFunction((n) => document.querySelectorAll("main [role=alert]").length === n, failed);
  assert.ok(await page.locator("pre", { hasText: "OPENAI_BASE_URL" }).isVisible());
  await page.unrouteAll({ behavior: "wait" });
  for (let left = failed; left > 0; left--) {
    await page.getByRole("button", { name: "Try again" }).first().click();
    await page.waitForFunction((n) => document.querySelectorAll("main [role=alert]").length === n, left - 1);
  }
  await page.getByText("Nothing was used in this time").waitFor();
});

await step("a key that expires while the page is open leads to the sign-in, which says so", async () => {
  const fail = (route) => refused(route, 401, EXPIRED, "expired_api_key");
  await everything(fail);
  await page.clock.runFor(10_000);
  await page.getByText(EXPIRED).waitFor();
  assert.equal(await page.locator("main section").count(), 0);
  await answer("session", (route) => (route.request().method() === "POST" ? fail(route) : route.continue()));
  await secret().fill(key);
  await page.keyboard.press("Enter");
  await alerts(EXPIRED).waitFor();
  assert.deepEqual((await text("main [role=alert]")).map((words) => words.trim()), [EXPIRED]);
}, { clock: true });

await step("a key that is revoked while the page is open leads to the sign-in; a key that works opens the page again", async () => {
  await everything((route) => refused(route, 401, "Sign in with a key at /me.", "missing_api_key"));
  await page.clock.runFor(10_000);
  await page.getByText("Your session is over. Sign in again.").waitFor();
  await page.unrouteAll({ behavior: "wait" });
  await secret().fill("gw_not-a-key");
  await page.keyboard.press("Enter");
  await alerts("This is not the right api key.").waitFor();
  await secret().fill(key);
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { level: 1, name: "search-test" }).waitFor();
}, { clock: true });

await step("what does not come is said to be loading, and then to be late; nothing is asked twice meanwhile", async () => {
  const asked = [];
  const address = page.url();
  await page.goto("about:blank"); // The page before asks no more: only what this one asks is counted.
  await answer("limits", (route) => { asked.push(route); });
  await sends("limits", () => page.goto(address));
  const card = page.getByRole("region", { name: "What is left" });
  await card.locator(".loading").waitFor();
  await page.clock.runFor(35_000);
  await heard();
  assert.equal(asked.length, 1);
  await json(asked[0], listed([limitOf()]));
  await card.getByText("20 of 100 requests").waitFor();
  await sends("limits", () => page.clock.runFor(10_000));
  await page.clock.runFor(61_000);
  await card.getByText("did not answer within 60 seconds").waitFor();
  assert.ok(await card.getByText("20 of 100 requests").isVisible());
}, { clock: true });

await step("a new key has nothing yet, and every part says what that means", async () => {
  await answer("key", (route) => json(route, about({ models: [] })));
  await answer("limits", (route) => json(route, listed([])));
  await answer("usage", (route) => json(route, usageOf([])));
  await page.reload();
  for (const words of ["Nothing limits this key", "Nothing was used in this time", "none: ask your platform team"]) await page.getByText(words).waitFor();
  assert.ok((await text("main dl dd"))[0].includes("$0.00"));
});

await step("long names, other scripts, full limits and huge figures stay within the window", async () => {
  const long = "x".repeat(64), script = "Команда поиска 検索チーム فريق البحث";
  await answer("key", (route) => json(route, about({ name: long, team: script, models: ["m".repeat(200), script] })));
  await answer("limits", (route) => json(route, listed([
    limitOf({ name: long, meter: "tokens", amount: 9_000_000_000_000_000, used: 8_999_999_999_999_999, left: 1, models: ["m".repeat(200)] }),
    limitOf({ name: "usd", meter: "usd", per: "month", amount: 1_000_000_000, used: 1_000_000_000.25, left: 0 }),
    limitOf({ name: "concurrent", meter: "concurrent", per: null, amount: 4, used: 0, held: 4, left: 0 }),
  ])));
  await answer("usage", (route) => json(route, usageOf([{ day: "2026-03-01", model: script, requests: 9_007_199_254_740_991, input_tokens: 9_007_199_254_740_991, usd: 123_456_789.5 }])));
  await page.reload();
  await page.getByText("8,999,999,999,999,999 of 9,000,000,000,000,000").waitFor();
  await settled(page);
  assert.deepEqual(await overflow(page), []);
  assert.deepEqual(await text("td[data-column=runs_out_at]"), ["–", "used up", "full now"]);
}, { width: 360, height: 780 });

await step("a sign-out that fails is not taken for one", async () => {
  await answer("session", (route) => (route.request().method() === "DELETE" ? refused(route, 503, "The store does not answer.") : route.continue()));
  await page.getByRole("button", { name: "Sign out" }).click();
  await alerts("You may still be signed in. The store does not answer.").waitFor();
});

await step("a limit has the name that an error gives it", async () => {
  await answer("limits", (route) => json(route, listed([limitOf({ name: "usd-per-month:m", meter: "usd", per: "month" })])));
  await page.reload();
  await page.getByText("this key's: usd-per-month:m").waitFor();
});

await end();
