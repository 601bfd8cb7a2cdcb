// The parts that pages are made of.
import { html, useEffect, useLayoutEffect, useRef, useState } from "../vendor/htm-preact.js";
import * as format from "./format.js";

export const go = (route) => { location.hash = route; };

// A page has one heading; the keyboard begins there.
export function Page({ title, crumb, actions, children }) {
  return html`
    <div class="head">
      <div>${crumb && html`<div class="crumb">${crumb}</div>`}<h1>${title}</h1></div>
      ${actions && html`<div class="row">${actions}</div>`}
    </div>
    <div class="stack">${children}</div>`;
}

export function Card({ title, tools, flush, children, ...rest }) {
  return html`
    <section class="card" aria-label=${title} ...${rest}>
      ${title && html`<header class=${tools ? "tools" : ""}><h2>${title}</h2>${tools && html`<div class="row">${tools}</div>`}</header>`}
      <div class=${flush ? "flush" : "body"}>${children}</div>
    </section>`;
}

// A figure with where it comes from: `of` names it for tests, which compare it with the admin API's.
export function Figure({ of, value, children }) {
  return html`<span data-figure=${of} data-value=${value === null || value === undefined ? "" : String(value)}>${children}</span>`;
}

export function Tile({ label, children, note, tone }) {
  return html`<div class="tile"><dt>${label}</dt><dd class=${`value ${tone || ""}`}>${children}</dd>${note && html`<dd class="hint">${note}</dd>`}</div>`;
}

export const Tiles = ({ children }) => html`<dl class="tiles">${children}</dl>`;

export const Badge = ({ tone, plain, children }) => html`<span class=${`badge ${tone || ""} ${plain ? "plain" : ""}`}>${children}</span>`;

export const Chips = ({ of, none }) => of.length
  ? html`<span class="chips">${of.map((each) => html`<span class="chip" key=${each}>${each}</span>`)}</span>`
  : html`<span class="muted">${none}</span>`;

export function Time({ at, relative, seconds, none = "–" }) {
  if (!at) return html`<span class="muted">${none}</span>`;
  return html`<time datetime=${at} title=${format.utc(at)} class="nowrap">${relative ? format.ago(at) : seconds ? format.timeSeconds(at) : format.time(at)}</time>`;
}

export const Money = ({ usd, digits }) => html`<span title=${`$${usd}`}>${format.money(usd, digits)}</span>`;

export function Empty({ title, children }) {
  return html`<div class="empty"><strong>${title}</strong>${children && html`<p>${children}</p>`}</div>`;
}

export const Loading = () => html`<p class="loading" role="status">Loading …</p>`;

export function Note({ tone, children, action }) {
  return html`<div class=${`note ${tone || ""}`} role=${tone === "bad" ? "alert" : "status"}><span>${children}</span>${action}</div>`;
}

// What a page shows of data that is not there yet, or cannot be had; else `children`, a function of the data.
export function Loaded({ from, children }) {
  const { data, error, reload } = from;
  const failure = error && html`<${Note} tone="bad" action=${html`<button onClick=${reload}>Try again</button>`}>${error.message}<//>`;
  if (data === undefined) return failure || html`<${Loading} />`;
  return html`${failure}${children(data)}`;
}

export function Meter({ limit, compact }) {
  // A place at a time is used by a request in flight: nothing is settled later.
  const [taken, pending] = limit.meter === "concurrent" ? [limit.used + limit.held, 0] : [limit.used, limit.held];
  const share = limit.amount ? taken / limit.amount : 0;
  const held = limit.amount ? pending / limit.amount : 0;
  const beside = [limit.granted && `${format.amount(limit.meter, limit.granted)} of it granted`, pending > 0 && `${format.amount(limit.meter, pending)} held`].filter(Boolean);
  const tone = share >= 1 ? "bad" : share + held >= 0.8 ? "warn" : "";
  const used = useWidth(Math.min(1, share));
  const reserved = useWidth(Math.min(held, Math.max(0, 1 - share)));
  return html`
    <div class=${`meter ${tone}`}>
      <div class="words">
        <span title=${pending > 0 ? "Held: charged in advance for requests in flight" : undefined}>${format.amount(limit.meter, taken)} <span class="muted">of ${[`${format.amount(limit.meter, limit.amount)}${limit.meter === "usd" ? "" : ` ${format.unit[limit.meter]}`}`, ...beside].join(", ")}</span></span>
        ${!compact && html`<span class=${tone || "muted"}>${format.percent(taken, limit.amount)}</span>`}
      </div>
      <div class="bar" aria-hidden="true"><i ref=${used}></i><i class="held" ref=${reserved}></i></div>
    </div>`;
}

const QUOTAS = new Set(["day", "week", "month", "total"]);

// A quota that is used up stays so until it resets; a rate or what runs at a time is free again soon.
export function RunsOut({ limit }) {
  if (limit.left <= 0) return QUOTAS.has(limit.per) ? html`<${Badge} tone="bad">used up<//>` : html`<${Badge} tone="warn">full now<//>`;
  if (!limit.runs_out_at) return html`<span class="muted">–</span>`;
  return html`<span class="warn"><${Time} at=${limit.runs_out_at} /></span>`;
}

// Sets a width by script: the policy of these pages allows no style in the markup.
export function useWidth(share) {
  const ref = useRef(null);
  useEffect(() => { if (ref.current) ref.current.style.width = `${(100 * share).toFixed(2)}%`; }, [share]);
  return ref;
}

// `columns`: {name, label, value(row), show(row), number, sortable}. `value` is what is sorted and searched by.
export function Table({ label, columns, rows, rowKey, sort, descending, empty, total, tools, filter = rows.length > 8, most = 200 }) {
  const [by, setBy] = useState({ name: sort, down: descending ?? true });
  const [words, setWords] = useState("");
  const [shown, setShown] = useState(most);
  const wanted = words.trim().toLowerCase();
  const valueOf = (column, row) => (column.value ? column.value(row) : row[column.name]);
  let found = wanted
    ? rows.filter((row) => columns.some((column) => String(valueOf(column, row) ?? "").toLowerCase().includes(wanted)))
    : rows;
  const column = columns.find((each) => each.name === by.name);
  if (column) {
    found = [...found].sort((a, b) => compare(valueOf(column, a), valueOf(column, b)) * (by.down ? -1 : 1));
  }
  const sortable = columns.filter((each) => each.label && each.sortable !== false);
  const press = (name) => setBy((before) => ({ name, down: before.name === name ? !before.down : Boolean(columns.find((each) => each.name === name).number) }));
  const filtered = filter || wanted;
  return html`
    ${(filtered || tools) && html`
      <div class="table-tools">
        ${filtered ? html`<label><span class="hidden-label">Filter ${label}</span>
          <input type="search" placeholder="Filter" value=${words} onInput=${(event) => setWords(event.target.value)} /></label>` : html`<span></span>`}
        ${tools}
      </div>`}
    ${found.length > 4 && sortable.length > 1 && html`
      <div class="table-tools sort-by">
        <label class="row">Sort by <select value=${by.name || ""} onChange=${(event) => press(event.target.value)}>
          ${!by.name && html`<option value="">as listed</option>`}
          ${sortable.map((each) => html`<option value=${each.name} key=${each.name}>${each.label}</option>`)}
        </select></label>
        ${by.name && html`<button type="button" onClick=${() => setBy((before) => ({ ...before, down: !before.down }))}>${by.down ? "Descending" : "Ascending"}</button>`}
      </div>`}
    ${found.length === 0
      ? wanted ? html`<${Empty} title="Nothing fits the filter"><button class="link" onClick=${() => setWords("")}>Clear it</button><//>` : empty
      : html`
      <div class="table-wrap" role="region" aria-label=${`${label}, table`} tabindex="0">
        <table class="narrow" role="table">
          <thead role="rowgroup"><tr role="row">${columns.map((each) => html`
            <th scope="col" role="columnheader" key=${each.name} class=${each.number ? "number" : ""}
              aria-sort=${by.name === each.name ? (by.down ? "descending" : "ascending") : undefined}>
              ${each.label && each.sortable !== false ? html`<button type="button" onClick=${() => press(each.name)}>${each.label}</button>` : each.label || html`<span class="hidden-label">Actions</span>`}
            </th>`)}</tr></thead>
          <tbody role="rowgroup">${found.slice(0, shown).map((row, place) => html`
            <tr role="row" key=${rowKey ? rowKey(row) : place} data-row=${rowKey ? rowKey(row) : place}>${columns.map((each) => html`
              <td role="cell" key=${each.name} class=${each.number ? "number" : each.actions ? "actions" : ""} data-label=${each.label || ""}
                data-column=${each.name} data-value=${each.number ? String(valueOf(each, row) ?? "") : undefined}>
                ${each.show ? each.show(row) : valueOf(each, row)}
              </td>`)}</tr>`)}
          </tbody>
          ${total && html`<tfoot role="rowgroup"><tr role="row" data-row="total">${columns.map((each) => html`
            <td role="cell" key=${each.name} class=${`${each.number ? "number" : ""} ${total[each.name] === undefined ? "blank" : ""}`} data-label=${each.label || ""}
              data-column=${each.name} data-value=${each.number ? String(total[each.name] ?? "") : undefined}>
              ${total[each.name] === undefined ? "" : each.number && each.show ? each.show(total) : total[each.name]}</td>`)}</tr></tfoot>`}
        </table>
      </div>
      ${found.length > shown && html`<div class="table-foot">${format.count(shown)} of ${format.count(found.length)} rows
        <button onClick=${() => setShown(shown + most)}>Show more</button></div>`}`}`;
}

function compare(a, b) {
  if (a === b) return 0;
  if (a === null || a === undefined || a === "") return -1;
  if (b === null || b === undefined || b === "") return 1;
  return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true });
}

export function Segmented({ label, value, options, onChange }) {
  return html`<div class="segmented" role="group" aria-label=${label}>${options.map(([name, text]) => html`
    <button type="button" key=${name} aria-pressed=${String(value === name)} onClick=${() => onChange(name)}>${text}</button>`)}</div>`;
}

export function Select({ label, value, options, onChange }) {
  return html`<label>${label}<select value=${value} onChange=${(event) => onChange(event.target.value)}>
    ${options.map(([name, text]) => html`<option key=${name} value=${name} selected=${name === value}>${text}</option>`)}</select></label>`;
}

// A native dialog: Escape closes it, focus stays in it and goes back to where it was. It is opened in the same task that
// puts it into the page: a key pressed right after it is seen is meant for it.
export function Dialog({ title, onClose, children }) {
  const ref = useRef(null);
  useLayoutEffect(() => {
    const dialog = ref.current;
    if (!dialog.open) dialog.showModal();
    // The event comes later: by then another dialog may be in the place of this one.
    return () => { ref.gone = true; dialog.close(); };
  }, []);
  return html`<dialog ref=${ref} aria-label=${title} onClose=${() => ref.gone || onClose()}><div><h2>${title}</h2>${children}</div></dialog>`;
}

// Asks before something is done, does it, and says what went wrong.
export function Confirm({ title, verb, danger, onDone, onClose, act, children }) {
  const [state, setState] = useState({ busy: false, error: "" });
  async function run(event) {
    event.preventDefault();
    setState({ busy: true, error: "" });
    try {
      const result = await act(new FormData(event.target));
      onDone(result);
    } catch (error) {
      setState({ busy: false, error: error.message });
    }
  }
  return html`<${Dialog} title=${title} onClose=${onClose}>
    <form class="form" onSubmit=${run}>
      ${children}
      ${state.error && html`<${Note} tone="bad">${state.error}<//>`}
      <div class="buttons">
        <button type="button" onClick=${onClose}>Cancel</button>
        <button type="submit" class=${danger ? "danger" : "primary"} disabled=${state.busy}>${verb}</button>
      </div>
    </form><//>`;
}

export function Copy({ text, label = "Copy" }) {
  const [done, setDone] = useState(false);
  async function copy() {
    await navigator.clipboard.writeText(text);
    setDone(true);
    setTimeout(() => setDone(false), 2000);
  }
  if (!navigator.clipboard) return null;
  return html`<button type="button" onClick=${copy}><span aria-live="polite">${done ? "Copied" : label}</span></button>`;
}

export const Snippet = ({ text }) => html`<div class="snippet"><pre tabindex="0">${text}</pre><${Copy} text=${text} /></div>`;

export const scopeText = (limit) => (limit.scope === "organisation" ? "organisation" : `${limit.scope} ${limit.subject}`);
