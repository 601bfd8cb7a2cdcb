// Usage of the ledger as bars by day.
import { html } from "../vendor/htm-preact.js";
import { Chart, Legend } from "./charts.js";
import * as format from "./format.js";

export const FIGURES = [["usd", "Spend"], ["requests", "Requests"], ["tokens", "Tokens"]];

const figureOf = (row, figure) => (figure === "tokens" ? row.input_tokens + row.output_tokens : row[figure]);
const shown = (figure) => (figure === "usd" ? (n) => format.money(n) : format.count);
const shortly = (figure) => (figure === "usd" ? format.moneyTick : format.short);

const DAY_MS = 86_400_000, MOST_DAYS = 400;
const at = (day) => Date.parse(`${day}T00:00:00Z`);
const dayOf = (ms) => new Date(ms).toISOString().slice(0, 10);

function daysBetween(first, last) {
  const names = [];
  for (let ms = at(first); ms <= at(last) && names.length < MOST_DAYS; ms += DAY_MS) names.push(dayOf(ms));
  return names;
}

// Every day of the time that was asked for, those without use too, and every day of `rows`. The gateway's time zone may be
// a day before or behind UTC, so that the days of `rows` may be others.
export function daysShown({ since = "", until = "", month = "" }, rows) {
  const used = rows.map((row) => row.day).sort();
  const today = dayOf(Date.now());
  let first = used[0], last = today;
  if (month) [first, last] = [`${month}-01`, dayOf(new Date(`${month}-01`).setUTCMonth(Number(month.slice(5)), 0))];
  else {
    if (Number.isFinite(at(until))) last = dayOf(at(until) - DAY_MS);
    if (since === "month") first = `${last.slice(0, 8)}01`;
    else if (/^\d+d$/.test(since)) first = dayOf(at(last) - (parseInt(since, 10) - 1) * DAY_MS);
    else if (Number.isFinite(at(since))) first = since;
  }
  const every = [first, last < today ? last : today, ...used].filter(Boolean).sort();
  const [begin, end] = [every[0], every[every.length - 1]];
  return at(end) - at(begin) < MOST_DAYS * DAY_MS ? daysBetween(begin, end) : used.length ? daysBetween(used[0], used[used.length - 1]) : [];
}

// Bars by day, of the largest groups by themselves and of the others together. `span`: {since, until, month} as they were asked
// for. `nameOf`: how a group is called.
export function ByDay({ days, groups, by, figure, label, span, nameOf = (group) => group || "(none)" }) {
  const largest = [...groups.rows].sort((a, b) => figureOf(b, figure) - figureOf(a, figure)).slice(0, 6).map((row) => row[by]);
  const names = daysShown(span, days.rows);
  const place = new Map(names.map((each, position) => [each, position]));
  const blank = () => names.map(() => 0);
  const sums = new Map(largest.map((each) => [each, blank()]));
  const others = blank();
  for (const row of days.rows) (sums.get(row[by]) || others)[place.get(row.day)] += figureOf(row, figure);
  const series = largest.map((each, position) => ({ name: nameOf(each), tone: `s${position + 1}`, values: sums.get(each) }));
  if (others.some((n) => n > 0)) series.push({ name: "others", tone: "s0", values: others });
  return html`<div class="stack"><${Chart} label=${label} points=${names.map(format.day)} series=${series} show=${shown(figure)} axis=${shortly(figure)} /><${Legend} series=${series} /></div>`;
}
