// Every page at every width, in light and dark: prints what is wrong with each, its figures, and the answers that they came from.
// node look.mjs ORIGIN PATH SECRET PICTURES PAGE...   PICTURES: a folder, or "-"
import { defects, figures, launch, opened, overflow, settled, signIn } from "./browser.mjs";

const [origin, path, secret, pictures, ...pages] = process.argv.slice(2);
const VIEWS = [[1440, "light"], [360, "dark"], [360, "light"], [1440, "dark"]];

async function look(browser, [width, colorScheme]) {
  const page = await opened(browser, { width, height: width === 360 ? 780 : 900, colorScheme, origin });
  // Each page asks once: its figures are compared with the answer that they came from, not with a later one.
  await page.addInitScript(() => { window.setInterval = () => 0; });
  const answers = {};
  let read = Promise.resolve(); // When every answer so far has been read.
  const keep = async (answer) => {
    const { pathname, search } = new URL(answer.url());
    if (answer.status() === 200 && answer.request().method() === "GET" && answer.headers()["content-type"] === "application/json") {
      answers[pathname + search] = await answer.json().catch(() => null);
    }
  };
  page.on("response", (answer) => { read = Promise.all([read, keep(answer)]); });
  const found = [];
  await page.goto(origin + path);
  await page.locator("input[name=secret]").waitFor();
  found.push({ page: "sign-in", width, colorScheme, defects: await defects(page), overflow: await overflow(page), complaints: [...page.complaints] });
  await signIn(page, origin + path, secret);
  for (const name of pages) {
    page.complaints.length = 0;
    await page.evaluate((hash) => { location.hash = hash; }, `#/${name}`);
    await page.evaluate(() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn))));
    await settled(page);
    await read;
    if (pictures !== "-") await page.screenshot({ path: `${pictures}/${name.replace(/\W+/g, "-")}-${width}-${colorScheme}.png`, fullPage: width === 360 });
    found.push({
      page: name, width, colorScheme, defects: await defects(page), overflow: await overflow(page), figures: await figures(page),
      complaints: [...page.complaints], answers: { ...answers }, heading: await page.locator("h1").innerText(),
    });
  }
  await page.context().close();
  return found;
}

const browser = await launch();
try {
  const found = await Promise.all(VIEWS.map((view) => look(browser, view)));
  process.stdout.write(JSON.stringify(found.flat()));
} finally {
  await browser.close();
}
