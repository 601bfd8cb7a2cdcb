// A real Chromium at the pages, and what is wrong with each of them.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

export const launch = () => chromium.launch({ executablePath: process.env.CHROMIUM || "/usr/bin/chromium", args: ["--no-sandbox", "--disable-gpu", "--force-color-profile=srgb"] });

// A page that notes what browsers complain about: violations of the policy, errors in scripts, requests elsewhere.
export async function opened(browser, { width = 1440, height = 900, colorScheme = "light", origin, ...more }) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme, timezoneId: "Europe/Berlin", locale: "en-GB", reducedMotion: "reduce", ...more });
  context.setDefaultTimeout(60_000);
  const page = await context.newPage();
  const complaints = [];
  page.on("console", (message) => { if (["error", "warning"].includes(message.type())) complaints.push(`${message.type()}: ${message.text()}`); });
  page.on("pageerror", (error) => complaints.push(`script: ${error.message}`));
  page.on("request", (request) => { if (!request.url().startsWith(`${origin}/`)) complaints.push(`request to ${request.url()}`); });
  await page.addInitScript(() => document.addEventListener("securitypolicyviolation", (event) => console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`)));
  page.complaints = complaints;
  return page;
}

export async function signIn(page, address, secret) {
  await page.goto(address);
  await page.locator("input[name=secret]").fill(secret);
  await page.keyboard.press("Enter");
  await page.locator("input[name=secret]").waitFor({ state: "detached" });
  await page.locator("h1").waitFor();
}

// Until nothing is being loaded.
export async function settled(page) {
  await page.waitForFunction(() => document.querySelector("h1") && !document.querySelector(".loading"));
  await page.waitForLoadState("networkidle");
}

// What axe finds serious. It runs by the browser's own tools, which the page's policy does not bind.
export async function defects(page) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => window.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"] }));
  return violations.filter((each) => ["serious", "critical", "moderate"].includes(each.impact)).map((each) => `${each.id}: ${each.nodes.slice(0, 3).map((node) => node.html.slice(0, 160)).join(" | ")}`);
}

// Every figure of the page by where it comes from, as the page has it before it is written for people.
export const figures = (page) => page.evaluate(() => ({
  single: Object.fromEntries([...document.querySelectorAll("[data-figure]")].map((each) => [each.dataset.figure, each.dataset.value])),
  rows: [...document.querySelectorAll("[data-column][data-value]")].map((each) => {
    const of = each.closest("[data-row]");
    const card = each.closest("section.card");
    return { table: card ? card.getAttribute("aria-label") : "", row: of ? of.dataset.row : "", column: each.dataset.column, value: each.dataset.value };
  }),
}));

// What sticks out of the window; in a narrow one, where the rows of a table are blocks, also what sticks out of its table.
export const overflow = (page) => page.evaluate(() => {
  const tables = innerWidth <= 640 ? [...document.querySelectorAll(".table-wrap")] : [];
  const scrolled = tables.filter((each) => each.scrollWidth > each.clientWidth).map((each) => `${each.getAttribute("aria-label")}: ${each.scrollWidth} of ${each.clientWidth} pixels`);
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  if (wide <= 0) return scrolled;
  return [...document.querySelectorAll("main *, header *")].filter((each) => each.getBoundingClientRect().right > innerWidth + 1).slice(0, 3).map((each) => each.outerHTML.slice(0, 120));
});
