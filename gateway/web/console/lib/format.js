// Numbers, money and times as people read them.
const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat("en-US", { notation: "compact", maximumSignificantDigits: 3 });

export const count = (n) => whole.format(n);
export const short = (n) => (Math.abs(n) < 10_000 ? whole.format(n) : compact.format(n));

// As many digits as say something: cents for what people pay, more for what is less than a cent. What they cannot say is
// written as less than the least that they can, not as nothing.
export function money(usd, digits) {
  if (digits === undefined) digits = moneyDigits(usd);
  const least = 10 ** -digits;
  if (usd > 0 && usd < least / 2) return `<${money(least, digits)}`;
  return usd.toLocaleString("en-US", { style: "currency", currency: "USD", minimumFractionDigits: digits, maximumFractionDigits: digits });
}

export function moneyDigits(usd) {
  const size = Math.abs(usd);
  return size === 0 || size >= 0.1 ? 2 : size >= 0.001 ? 4 : 6;
}

// At an axis: no more digits than tell its ticks apart.
export function moneyTick(usd) {
  const money = { style: "currency", currency: "USD" };
  if (usd >= 10_000) return usd.toLocaleString("en-US", { ...money, notation: "compact", minimumFractionDigits: 0, maximumFractionDigits: 1 });
  return usd.toLocaleString("en-US", { ...money, minimumFractionDigits: Number.isInteger(usd) ? 0 : 2, maximumFractionDigits: usd >= 0.1 ? 2 : 8 });
}

// Of a column, which may be long: as many digits as its largest amount needs.
export const columnDigits = (amounts) => moneyDigits(amounts.reduce((most, each) => Math.max(most, each), 0));

export function percent(part, of) {
  if (!of) return "0%";
  const share = (100 * part) / of;
  return `${share > 0 && share < 10 ? share.toFixed(1) : Math.round(share)}%`;
}

export function seconds(s) {
  if (s === null || s === undefined) return "–";
  if (s === 0) return "0";
  if (s < 1) return `${s < 0.0995 ? (s * 1000).toFixed(s < 0.00995 ? 1 : 0) : Math.round(s * 1000)} ms`;
  return s < 60 ? `${s.toFixed(s < 10 ? 2 : 1)} s` : duration(s * 1000);
}

export function duration(ms) {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  const days = Math.floor(s / 86_400);
  return days < 14 ? `${days} d ${Math.floor((s % 86_400) / 3600)} h` : `${days} days`;
}

export function amount(meter, n) {
  if (n === null || n === undefined) return "–";
  return meter === "usd" ? money(n, n !== 0 && Math.abs(n) < 1 ? 4 : 2) : count(n);
}

export const unit = { requests: "requests", tokens: "tokens", input_tokens: "input tokens", output_tokens: "output tokens", usd: "USD", concurrent: "at a time" };

const sameDay = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const otherDay = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const otherYear = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", year: "numeric" });

// A time in the viewer's zone.
export function time(rfc3339) {
  const at = new Date(rfc3339);
  const now = new Date();
  if (at.toDateString() === now.toDateString()) return sameDay.format(at);
  return Math.abs(at - now) < 300 * 86_400_000 ? otherDay.format(at) : otherYear.format(at);
}

export const clock = (at) => sameDay.format(new Date(at));

const withSeconds = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const dayWithSeconds = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });

// Where it matters which of two things was first.
export function timeSeconds(rfc3339) {
  const at = new Date(rfc3339);
  return (at.toDateString() === new Date().toDateString() ? withSeconds : dayWithSeconds).format(at);
}

export function ago(rfc3339) {
  const ms = Date.now() - new Date(rfc3339);
  return ms >= 0 ? `${duration(ms)} ago` : `in ${duration(-ms)}`;
}

export const utc = (rfc3339) => `${rfc3339.slice(0, 19).replace("T", " ")} UTC`;

const dayName = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", timeZone: "UTC" });
// A day of the ledger, which has no zone to be put into.
export const day = (text) => (text.length === 7 ? text : dayName.format(new Date(`${text}T00:00:00Z`)));

// A limit's terms as the configuration writes them, in one line.
export function terms(limit) {
  const meter = Object.keys(unit).find((name) => limit[name] !== undefined) || limit.meter;
  const size = limit[meter] ?? limit.amount;
  const text = `${meter === "usd" ? money(size, Number.isInteger(size) ? 0 : 2) : short(size)} ${meter === "usd" ? "" : unit[meter]}`.trim();
  const per = limit.per === "total" ? " in total" : limit.per ? ` per ${limit.per}` : "";
  const models = limit.models && limit.models.length ? ` on ${limit.models.join(", ")}` : "";
  return text + per + models;
}
