// Usage of the ledger as bars by day.
import { html } from "../vendor/htm-preact.js";
import { Chart, Legend } from "./charts.js";
import * as format from "./format.js";

export const FIGURES = [["usd", "Spend"], ["requests", "Requests"], ["tokens", "Tokens"]];

const figureOf = (row, figure) => (figure === "tokens" ? row.input_tokens + row.output_tokens : row[figure]);
const shown = (figure) => (figure === "usd" ? (n) => format.money(n) : format.count);
const shortly = (figure) => (figure === "usd" ? format.moneyTick : format.short);

export function daysBetween(first, last) {
  const names = [];
  for (let at = new Date(`${first}T00:00:00Z`); at <= new Date(`${last}T00:00:00Z`) && names.length < 400; at = new Date(+at + 86_400_000)) names.push(at.toISOString().slice(0, 10));
  return names;
}

// Bars by day, of the largest groups by themselves and of the others together.
export function ByDay({ days, groups, by, figure, label }) {
  const largest = [...groups.rows].sort((a, b) => figureOf(b, figure) - figureOf(a, figure)).slice(0, 6).map((row) => row[by]);
  const dates = days.rows.map((row) => row.day).sort();
  const names = dates.length ? daysBetween(dates[0], dates[dates.length - 1]) : [];
  const place = new Map(names.map((each, at) => [each, at]));
  const blank = () => names.map(() => 0);
  const sums = new Map(largest.map((each) => [each, blank()]));
  const others = blank();
  for (const row of days.rows) (sums.get(row[by]) || others)[place.get(row.day)] += figureOf(row, figure);
  const series = largest.map((each, at) => ({ name: each || "(none)", tone: `s${at + 1}`, values: sums.get(each) }));
  if (others.some((n) => n > 0)) series.push({ name: "others", tone: "s0", values: others });
  return html`<div class="stack"><${Chart} label=${label} points=${names.map(format.day)} series=${series} show=${shown(figure)} axis=${shortly(figure)} /><${Legend} series=${series} /></div>`;
}
