// The console while the admin API fails, hangs or has very little or very much to say: prints what did not work, by step.
// Answers are the script's own, and so is the time: nothing waits for a clock.
// node states.mjs ORIGIN TOKEN
import assert from "node:assert/strict";
import { defects, overflow, settled } from "./browser.mjs";
import { FAILURES, answer, begin, end, everything, heard, json, listed, page, refused, sends, step, text, usageOf } from "./scripted.mjs";

const [origin, token] = process.argv.slice(2);
const PAGES = ["overview", "teams", "teams/search", "keys", "models", "upstreams", "usage", "requests", "requests/abc", "losses", "notifications", "configuration", "audit"];
const AT = "2026-03-01T23:30:15.000Z";
await begin(origin, "/console", token, "/admin/v1");

async function show(name) {
  await page.evaluate((hash) => { location.hash = hash; }, `#/${name}`);
  await page.evaluate(() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn))));
}

const focused = () => page.evaluate(() => document.activeElement.getAttribute("aria-label") || document.activeElement.innerText || document.activeElement.placeholder || "");

const keyOf = (number, more = {}) => ({
  id: number.toString(16).padStart(12, "0"), name: `key-${number}`, team: "search", models: [], limits: [], networks: [], metadata: {},
  created_at: new Date(Date.parse(AT) + number * 1000).toISOString(), expires_at: null, last_used_at: null, status: "active", source: "store", ...more,
});
await step("every page says what is wrong, and goes on when asked again", async () => {
  const kinds = Object.entries(FAILURES);
  for (const [place, name] of PAGES.entries()) {
    const [what, [fail, words]] = kinds[place % kinds.length];
    await everything(fail);
    await show(name);
    await page.locator("main [role=alert]", { hasText: words }).first().waitFor();
    await settled(page);
    assert.deepEqual(await text("main .loading"), [], `${name}, ${what}`);
    assert.ok((await page.locator("h1").innerText()).length > 0, name);
    await page.unrouteAll({ behavior: "wait" });
    if (name === "requests/abc") continue; // There is none: that is another error.
    for (let left = await page.getByRole("button", { name: "Try again" }).count(); left > 0; left--) {
      await page.getByRole("button", { name: "Try again" }).first().click();
      await page.waitForFunction((n) => document.querySelectorAll("main [role=alert]").length < n, left);
    }
    await settled(page);
  }
});

await step("a session that has ended elsewhere leads to the sign-in, which says so", async () => {
  for (const name of ["overview", "teams/search", "audit"]) {
    await show(name);
    await settled(page);
    await everything((route) => refused(route, 401, "Send the admin token."));
    await page.reload();
    await page.getByText("Your session is over. Sign in again.").waitFor();
    assert.deepEqual(await text("nav"), [], name);
    await page.unrouteAll({ behavior: "wait" });
    await page.reload();
    await page.locator("nav").waitFor();
  }
});

await step("an address that means nothing is a page that says so", async () => {
  for (const hash of ["#/nothing", "#/teams/%", "#/usage?since=%"]) {
    await page.evaluate((wanted) => { location.hash = wanted; }, hash);
    await page.reload();
    await page.waitForFunction(() => document.querySelector("main#main")?.innerText.trim() && !document.querySelector(".loading"));
    assert.ok((await page.locator("h1").innerText()).length > 0, hash);
  }
});

await step("what does not come is said to be loading, and then to be late; nothing is asked twice meanwhile", async () => {
  const asked = [];
  await answer("notifications", (route) => { asked.push(route); });
  await sends("notifications", () => show("notifications"));
  await page.locator("main .loading").waitFor();
  await page.clock.runFor(35_000);
  await heard();
  assert.equal(asked.length, 1);
  await json(asked[0], { ...listed([]), waiting: 0 });
  await page.getByText("Nothing waits").waitFor();
  await sends("notifications", () => page.clock.runFor(10_000));
  assert.deepEqual(await text("main .loading"), []);
  await page.clock.runFor(61_000);
  await page.locator("main [role=alert]", { hasText: "did not answer within 60 seconds" }).waitFor();
  assert.ok(await page.getByText("Nothing waits").isVisible());
}, { clock: true });

await step("a sorted column keeps its order and the focus while data changes", async () => {
  let more = 0;
  await answer("keys", (route) => json(route, listed([1, 2, 3, 10, ...Array.from({ length: more }, (_, place) => 20 + place)].map((n) => keyOf(n)))));
  await show("keys");
  await page.locator("tbody tr").first().waitFor();
  const head = page.getByRole("columnheader", { name: "Key" }).getByRole("button");
  await head.focus();
  await page.keyboard.press("Enter");
  assert.deepEqual(await text("tbody td:first-child button"), ["key-1", "key-2", "key-3", "key-10"]);
  assert.equal(await focused(), "Key");
  more = 1;
  await page.clock.runFor(10_000);
  await page.locator("tbody tr").nth(4).waitFor();
  assert.deepEqual(await text("tbody td:first-child button"), ["key-1", "key-2", "key-3", "key-10", "key-20"]);
  assert.equal(await page.locator("th[aria-sort=ascending]").innerText(), "Key");
  assert.equal(await focused(), "Key");
  await page.keyboard.press("Enter");
  assert.equal((await text("tbody td:first-child button"))[0], "key-20");
  await page.getByRole("button", { name: "Disable key-3" }).focus();
  more = 2;
  await page.clock.runFor(10_000);
  await page.locator("tbody tr").nth(5).waitFor();
  assert.equal(await focused(), "Disable key-3");
}, { clock: true });

await step("a filter and what is typed into it survive new data", async () => {
  let count = 30;
  await answer("keys", (route) => json(route, listed([...Array(count).keys()].map((n) => keyOf(n)))));
  await show("keys");
  const filter = page.getByPlaceholder("Filter");
  await filter.waitFor();
  await filter.focus();
  await page.keyboard.type("key-2");
  assert.equal(await page.locator("tbody tr").count(), 11);
  count = 31;
  await page.clock.runFor(10_000);
  await page.keyboard.type("9");
  assert.equal(await filter.inputValue(), "key-29");
  assert.deepEqual(await text("tbody td:first-child button"), ["key-29"]);
  await page.keyboard.type("x");
  await page.getByText("Nothing fits the filter").waitFor();
  await page.getByRole("button", { name: "Clear it" }).click();
  await page.waitForFunction((n) => document.querySelectorAll("tbody tr").length === n, count);
}, { clock: true });

await step("no key, one key and ten thousand keys are shown, and it is said when not all are", async () => {
  let count = 0;
  await answer("keys", (route, query) => {
    const begin = Number(query.get("cursor") || 0), end = Math.min(count, begin + 1000);
    return json(route, listed([...Array(end - begin).keys()].map((n) => keyOf(begin + n)), end < count ? String(end) : null));
  });
  await show("keys");
  await page.getByText("There is no key yet").waitFor();
  for (const [now, rows, words] of [[1, 1, ""], [10_000, 200, "200 of 5,000 rows"]]) {
    count = now;
    await show("teams");
    await settled(page);
    await show("keys");
    await page.waitForFunction((n) => document.querySelectorAll("tbody tr").length === n, rows);
    if (words) await page.getByText(words).waitFor();
  }
  await page.getByText("These are the first 5,000 keys. Choose a team or a status above to see the others.").waitFor();
  await page.getByRole("button", { name: "Show more" }).click();
  assert.equal(await page.locator("tbody tr").count(), 400);
});

await step("what takes several requests is asked again after as many times the interval", async () => {
  const pages = 3;
  let asked = 0;
  await answer("keys", (route, query) => {
    const turn = Math.floor(asked++ / pages), place = Number(query.get("cursor") || 0);
    return json(route, listed([keyOf(place, { name: `turn-${turn}-${place}` })], place + 1 < pages ? String(place + 1) : null));
  });
  await show("keys");
  await page.getByText("turn-0-2").waitFor();
  await page.clock.runFor(20_000);
  await heard();
  assert.equal(asked, pages);
  await page.clock.runFor(10_000);
  await page.getByText("turn-1-2").waitFor();
  assert.equal(asked, 2 * pages);
}, { clock: true });

await step("the digits of a long column are found", async () => {
  const digits = await page.evaluate(() => import("/console/lib/format.js").then((format) => format.columnDigits(Array(200_000).fill(0.004))));
  assert.equal(digits, 4);
});

await step("long names stay within the window", async () => {
  const long = "x".repeat(64);
  await answer("keys", (route) => json(route, listed([keyOf(1, { name: long, team: long })])));
  await answer("teams", (route) => json(route, listed([{ name: long, keys: [], models: ["m".repeat(200)], owner: `${long}@${long}`, cost_center: long, key_limits: [], user_limits: [] }])));
  await answer("usage", (route) => json(route, usageOf([{ team: long, model: "m".repeat(200), day: "2026-03-01", usd: 1 }])));
  await answer("limits", (route) => json(route, listed([])));
  for (const [name, shown] of [["keys", long], ["teams", long], ["usage", long]]) {
    await show(name);
    await page.locator("main", { hasText: shown }).waitFor();
    await settled(page);
    assert.deepEqual(await overflow(page), [], name);
  }
}, { width: 360, height: 780 });

await step("a long id, name or message in a wide window is on its lines, and inside of its card", async () => {
  const long = "x".repeat(64), model = `accounts/${long}/models/${long}`;
  const one = { id: "y".repeat(128), process: "p", state: "answering", age_s: 5, endpoint: "chat.completions", team: long, key_name: long, user: long, model, upstream: long, output_tokens: 1 };
  await answer("teams", (route) => json(route, listed([{ name: long, keys: [], models: [], key_limits: [], user_limits: [] }])));
  await answer("requests", (route) => json(route, { ...listed([one]), total: 1, processes: { asked: 2, answered: 1 }, problem: "1 of 2 gateway processes did not answer in time." }));
  await show("requests");
  await page.locator("td", { hasText: one.id }).waitFor();
  assert.deepEqual(await overflow(page), []);
  const inside = await page.evaluate(() => {
    const [card, note, wrap] = ["section[aria-label='In flight']", "section[aria-label='In flight'] .note", ".table-wrap"].map((each) => document.querySelector(each));
    const [outer, inner] = [card, note].map((each) => each.getBoundingClientRect());
    return [wrap.scrollWidth - wrap.clientWidth, inner.left - outer.left >= 12, outer.right - inner.right >= 12];
  });
  assert.deepEqual(inside, [0, true, true]);
  assert.ok((await page.getByLabel("Team").boundingBox()).width <= 280);
  assert.deepEqual(await defects(page), []);
});

const lossesOf = (counts, more = {}) => {
  const data = [["settlements_parked", "lost"], ["streams_broken", "broken"], ["settlements_journaled", "late"], ["estimated_tokens", "estimated"]]
    .map(([kind, of]) => ({ kind, class: of, what: `The ${kind}`, meaning: "Why.", last_day: counts[kind] || 0, total: counts[kind] || 0, last_at: counts[kind] ? AT : null, times: counts[kind] ? [{ at: AT, number: counts[kind] }] : [] }));
  const lost = counts.settlements_parked || 0;
  return {
    ...listed(data), at: "2026-03-02T05:00:00.000Z", counted_since: AT, last_day_since: AT, lost: { last_day: lost, total: lost }, journal_fails: false,
    waiting: { now: 0, highest: 0, highest_at: null }, store: { problem: null, out_s: 0, times: [] },
    charged_tokens: { last_day: 1000, total: 1000 }, processes: { asked: 1, answered: 1 }, problem: null, ...more,
  };
};
const notes = () => text("main .note").then((found) => found.map((each) => each.trim()));

await step("a quiet night is one line, and a bad one says the worst first, when, and how much", async () => {
  let report = lossesOf({});
  await answer("losses", (route) => json(route, report));
  await show("losses");
  await page.getByText("Nothing was lost since").waitFor();
  assert.equal((await notes()).length, 1);
  assert.equal(await page.locator(".chart").count(), 0);
  assert.equal(await page.locator("section[aria-label='None so far'] dt").count(), 4);
  report = lossesOf({ settlements_parked: 2, streams_broken: 3, settlements_journaled: 118, estimated_tokens: 20 }, {
    waiting: { now: 12, highest: 118, highest_at: AT }, store: { problem: "does not answer", out_s: 94, times: [{ at: AT, seconds: 94 }] }, journal_fails: true,
  });
  await show("teams");
  await show("losses");
  await page.locator("tbody tr").first().waitFor();
  const words = await notes();
  assert.match(words[0], /^Lost in the last 24 hours: the settlements_parked \(2\)\.$/);
  assert.match(words[1], /^A journal cannot be written\./);
  assert.deepEqual(words.slice(2), ["The store does not answer.", "12 settlements wait for the store. They are charged once it takes them.", "Clients did not get all of their answers in the last 24 hours: the streams_broken (3)."]);
  assert.deepEqual(await text(".tiles dd.value"), ["2", "12", "94 s", "2.0%"]);
  assert.equal(await page.locator("section[aria-label='None so far']").count(), 0);
  await page.locator(".chart").focus();
  for (let pressed = 0; pressed < 33; pressed++) await page.keyboard.press("ArrowLeft");
  // 23:30 in UTC, in the ten minutes of the slot and not an hour away.
  assert.match(await page.locator("figure [aria-live]").innerText(), /^00:40: Lost 0, Broken 0, Late 0$|^00:30: Lost 2, Broken 3, Late 118$/);
});

await step("what a person has to look at is at the top of the overview, and a quiet day at its end", async () => {
  const samples = { ...listed([]), buckets: { duration: [1], first_token: [1] } };
  const some = { rows: [], total: { requests: 0, usd: 0 } };
  let losses = lossesOf({ settlements_parked: 1 });
  const parts = { today: { ...some }, days: { ...some }, teams: { ...some }, limits: listed([]), problem: null };
  let more = parts;
  await answer("overview", (route) => json(route, { at: AT, traffic: samples, upstreams: listed([]), ...more, losses }));
  await show("teams");
  await show("overview");
  await page.getByText("Lost in the last 24 hours").waitFor();
  const placeOf = () => page.evaluate(() => [...document.querySelectorAll("main > .stack > *")].findIndex((each) => each.matches(".note:has(a[href='#/losses'])")));
  assert.equal(await placeOf(), 0);
  losses = lossesOf({});
  await show("teams");
  await show("overview");
  await page.getByText("Nothing was lost since").waitFor();
  assert.ok(await placeOf() > 2);
  [losses, more] = [lossesOf({}, { store: { problem: "does not answer", out_s: 4, times: [] } }), { today: null, days: null, teams: null, limits: null, problem: "The store does not answer." }];
  await show("teams");
  await show("overview");
  await page.getByText("What it knows is missing here").waitFor();
  assert.equal((await notes()).filter((each) => each.startsWith("The store does not answer")).length, 1);
  assert.equal(await page.evaluate(() => { const card = document.querySelector("section[aria-label=Upstreams]"); return Math.round(card.parentElement.clientWidth - card.offsetWidth); }), 0);
});

await step("the buttons of a dialog that is higher than its window are in sight", async () => {
  await answer("keys", (route) => json(route, listed([keyOf(1)])));
  await answer(`keys/${keyOf(1).id}`, (route) => json(route, keyOf(1, { models: Array.from({ length: 40 }, (_, n) => `model-${n}`) })));
  await show("keys");
  await page.getByRole("button", { name: "key-1" }).first().click();
  await page.locator("dialog", { hasText: "model-39" }).waitFor();
  const [foot, dialog] = [await page.getByRole("button", { name: "Close" }).boundingBox(), await page.locator("dialog").boundingBox()];
  assert.ok(await page.locator("dialog").evaluate((each) => each.scrollHeight > each.clientHeight));
  assert.ok(foot.y + foot.height <= dialog.y + dialog.height, JSON.stringify([foot, dialog]));
}, { width: 360, height: 640 });

await step("times are the viewer's, and UTC where one points", async () => {
  await answer("keys", (route) => json(route, listed([keyOf(0, { expires_at: AT })])));
  await show("keys");
  const time = page.locator("tbody [data-label=Expires] time");
  await time.waitFor();
  assert.equal(await time.getAttribute("datetime"), AT);
  assert.equal(await time.getAttribute("title"), "2026-03-01 23:30:15 UTC");
  assert.match(await time.innerText(), /2 Mar/); // An hour later in Berlin, that is the next day.
});

await step("money has the digits that say something, and what is not nothing is not shown as nothing", async () => {
  const amounts = [12345.678901, 0.0004, 0];
  await answer("usage", (route) => json(route, usageOf(amounts.map((usd, place) => ({ team: `t${place}`, day: "2026-03-01", usd })))));
  await answer("limits", (route) => json(route, listed([])));
  await show("usage");
  await page.locator("tbody tr").first().waitFor();
  assert.deepEqual(await text("tbody [data-column=usd]"), ["$12,345.68", "<$0.01", "$0.00"]);
  amounts.splice(0, 3, 0.000123, 0.0000001, 0);
  await show("teams");
  await settled(page);
  await show("usage");
  await page.waitForFunction(() => document.querySelector("tbody [data-column=usd]")?.innerText === "$0.000123");
  assert.deepEqual(await text("tbody [data-column=usd]"), ["$0.000123", "<$0.000001", "$0.000000"]);
});

const limitOf = (more = {}) => ({
  name: "tokens-per-day", scope: "team", subject: "search", meter: "tokens", per: "day", amount: 9000, used: 2000, held: 0, left: 7000,
  resets_at: null, runs_out_at: null, mode: "enforce", ...more,
});
const teamOf = (limits) => Promise.all([
  answer("limits", (route) => json(route, listed(limits))),
  answer("teams", (route) => json(route, listed([{ name: "search", keys: [], models: [], key_limits: [], user_limits: [] }]))),
]);

await step("what is used, held and left of a limit is its amount", async () => {
  await teamOf([
    limitOf({ held: 1500, left: 5500 }),
    limitOf({ name: "concurrent", meter: "concurrent", per: null, amount: 64, used: 0, held: 3, left: 61 }),
    limitOf({ name: "of-a-key", scope: "key", subject: keyOf(7).id, held: 0 }),
  ]);
  await answer("keys", (route) => json(route, listed([keyOf(7)])));
  await show("teams/search");
  const cells = page.locator("section[aria-label=Limits] tbody [data-column=used]");
  await cells.first().waitFor();
  const words = await cells.locator(".words").allInnerTexts();
  assert.match(words[0], /^2,000 of 9,000 tokens, 1,500 held/);
  assert.match(words[1], /^3 of 64 at a time/);
  await page.locator("section[aria-label=Limits] tbody", { hasText: "key key-7" }).waitFor();
});

await step("a dialog is no wider than its window, and says the unit of what is granted", async () => {
  await teamOf([limitOf({ name: "x".repeat(64) }), limitOf({ name: "dollars", meter: "usd", amount: 5 })]);
  await show("teams/search");
  await page.getByRole("button", { name: "Grant more" }).click();
  assert.deepEqual(await page.locator("dialog").evaluate((dialog) => [dialog.scrollWidth - dialog.clientWidth, dialog.getBoundingClientRect().right <= innerWidth]), [0, true]);
  await page.getByText("How much more, in tokens").waitFor();
  await page.locator("dialog select").selectOption("dollars");
  await page.getByText("How much more, in USD").waitFor();
}, { width: 360, height: 780 });

await step("a chart has every day that was asked for, and an axis that can be read", async () => {
  const days = await page.evaluate(() => import("/console/lib/by_day.js").then(({ daysShown }) => [
    daysShown({ since: "7d", until: "2026-03-08" }, [{ day: "2026-03-05" }]),
    daysShown({ since: "", until: "", month: "2026-02" }, []),
    daysShown({ since: "2026-03-01", until: "2026-03-03" }, [{ day: "2026-03-03" }]),
    daysShown({ since: "2020-01-01", until: "2026-03-08" }, [{ day: "2026-03-05" }]),
  ].map((each) => [each[0], each[each.length - 1], each.length])));
  assert.deepEqual(days, [["2026-03-01", "2026-03-07", 7], ["2026-02-01", "2026-02-28", 28], ["2026-03-01", "2026-03-03", 3], ["2026-03-05", "2026-03-05", 1]]);
  const ticks = await page.evaluate(() => import("/console/lib/format.js").then(({ moneyTick }) => [0, 0.5, 0.025, 2.5, 4, 2500, 12_500, 0.0002].map(moneyTick)));
  assert.deepEqual(ticks, ["$0", "$0.50", "$0.025", "$2.50", "$4", "$2,500", "$12.5K", "$0.0002"]);
});

await step("an upstream says why it is down, a circuit since when it is open, and one attempt makes an axis of two ticks", async () => {
  const circuit = { model: "m", key: null, state: "half_open", share: 1, opened_at: AT, next_try_at: null, why: { 503: 12 }, cooling: [] };
  const at = new Date().toISOString();
  await answer("upstreams", (route) => json(route, listed([
    { name: "a", up: true, failed_checks: {}, in_flight: 0, models: ["m"], circuits: [circuit] },
    { name: "b", up: false, failed_checks: { 404: 3 }, in_flight: 0, models: ["m"], circuits: [] },
  ])));
  await answer("traffic", (route) => json(route, listed([{ at, attempts: { a: { 503: 1 } } }])));
  await show("upstreams");
  await page.getByText("12 × HTTP 503").waitFor();
  await page.getByText("Its health checks fail: 3 × HTTP 404.").waitFor();
  assert.match(await page.locator("li .muted", { hasText: "opened" }).innerText(), /^opened 2 Mar/);
  assert.deepEqual(await page.locator(".chart svg g text").allTextContents(), ["0", "1"]);
});

await step("usage by key has the names of keys", async () => {
  await answer("keys", (route) => json(route, listed([keyOf(7)])));
  await answer("usage", (route) => json(route, usageOf([{ key: keyOf(7).id, day: "2026-03-01", usd: 1 }, { key: "000000000bad", day: "2026-03-01", usd: 2 }])));
  await show("usage?by=key");
  await page.locator("tbody", { hasText: "key-7" }).waitFor();
  assert.deepEqual(await text("tbody [data-column=key] a"), ["000000000bad", "key-7"]);
  assert.deepEqual(await text(".legend li"), ["000000000bad", `key-7 (${keyOf(7).id})`]);
});

await step("filters of usage are cleared at once", async () => {
  const teams = [];
  await answer("usage", (route, query) => { teams.push(query.get("team")); return json(route, usageOf([{ team: "search", day: "2026-03-01", usd: 1 }])); });
  await show("usage?team=search");
  await page.getByRole("button", { name: "Clear filters" }).click();
  await page.getByRole("button", { name: "Clear filters" }).waitFor({ state: "detached" });
  await settled(page);
  assert.equal(teams[0], "search");
  assert.equal(teams[teams.length - 1], null);
});

await step("a request in flight is cancelled on its own page", async () => {
  let running = true;
  const one = { id: "abc", process: "p", state: "answering", age_s: 5, team: "search", key_name: "search-prod", model: "m", upstream: "a", output_tokens: 1234 };
  await answer("requests/abc", (route) => {
    if (route.request().method() === "DELETE") running = false;
    return json(route, { in_flight: running ? [one] : [], records: [] });
  });
  await show("requests/abc");
  await page.getByText("1,234").waitFor();
  await page.getByRole("button", { name: "Cancel it" }).click();
  await page.locator("dialog").getByRole("button", { name: "Cancel it" }).click();
  await page.getByText("1,234").waitFor({ state: "detached" });
  assert.equal(running, false);
});

await end();
