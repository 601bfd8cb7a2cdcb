// Two kinds of chart in SVG: stacked bars and lines over the same points. Left and right move the cursor by keyboard;
// what it is on is read out.
import { html, useEffect, useLayoutEffect, useRef, useState } from "../vendor/htm-preact.js";

const HEIGHT = 180, LEFT = 52, RIGHT = 8, TOP = 10, BOTTOM = 22;

// `points`: labels of the x axis. `series`: {name, tone, values}, from the bottom up. `kind`: "bars" or "lines".
export function Chart({ label, points, titles, series, kind = "bars", show, axis = show, height = HEIGHT }) {
  const box = useRef(null);
  const [width, setWidth] = useState(640);
  const [at, setAt] = useState(null);
  useLayoutEffect(() => {
    const observer = new ResizeObserver(([entry]) => setWidth(Math.max(200, Math.round(entry.contentRect.width))));
    observer.observe(box.current);
    return () => observer.disconnect();
  }, []);
  const inner = width - LEFT - RIGHT;
  const step = inner / Math.max(1, points.length);
  const x = (place) => LEFT + step * (place + 0.5);
  const top = ceiling(highest(series, points.length, kind));
  const y = (value) => TOP + (height - TOP - BOTTOM) * (1 - value / top);
  const half = axis(top / 2);
  const ticks = [0, top / 2, top].filter((tick) => tick !== top / 2 || ![axis(0), axis(top)].includes(half));
  const every = Math.max(1, Math.ceil(points.length / Math.max(2, Math.floor(inner / 72))));
  const move = (event) => {
    const place = Math.floor((event.clientX - box.current.getBoundingClientRect().left - LEFT) / step);
    setAt(place >= 0 && place < points.length ? place : null);
  };
  const key = (event) => {
    const steps = { ArrowLeft: -1, ArrowRight: 1 };
    if (event.key === "Escape") setAt(null);
    if (!(event.key in steps)) return;
    event.preventDefault();
    setAt((before) => Math.min(points.length - 1, Math.max(0, before === null ? points.length - 1 : before + steps[event.key])));
  };
  return html`
    <figure class="chart" ref=${box} tabindex="0" role="group" aria-label=${`${label}. Left and right read its points.`}
      onPointerMove=${move} onPointerLeave=${() => setAt(null)} onKeyDown=${key} onBlur=${() => setAt(null)}>
      <svg width=${width} height=${height} viewBox=${`0 0 ${width} ${height}`} aria-hidden="true">
        ${ticks.map((tick) => html`<g key=${tick}>
          <line class="rule" x1=${LEFT} x2=${width - RIGHT} y1=${y(tick)} y2=${y(tick)} />
          <text x=${LEFT - 6} y=${y(tick) + 4} text-anchor="end">${axis(tick)}</text></g>`)}
        ${points.map((point, place) => (points.length - 1 - place) % every === 0 && html`
          <text key=${place} x=${x(place)} y=${height - 6} text-anchor=${anchor(x(place), width)}>${point}</text>`)}
        ${at !== null && html`<rect class="hover" x=${LEFT + step * at} y=${TOP} width=${step} height=${height - TOP - BOTTOM} />`}
        ${kind === "bars" ? html`<${Bars} ...${{ series, points, x, y, step }} />` : html`<${Lines} ...${{ series, x, y }} />`}
      </svg>
      ${at !== null && html`<${Tip} ...${{ at, x: x(at), width, title: (titles || points)[at], series, show, kind }} />`}
      <span class="hidden-label" aria-live="polite">${at !== null && `${(titles || points)[at]}: ${series.map((each) => `${each.name} ${each.values[at] === null ? "none" : show(each.values[at])}`).join(", ")}`}</span>
    </figure>`;
}

function Bars({ series, points, x, y, step }) {
  const wide = Math.max(1, Math.min(36, step > 6 ? step * 0.72 : step - 0.5));
  return points.map((_, place) => {
    let below = 0;
    return series.map((each) => {
      const value = each.values[place] || 0;
      const upper = y(below + value), lower = y(below);
      below += value;
      return value > 0 && html`<rect key=${`${place} ${each.name}`} class=${`mark ${each.tone}`} x=${x(place) - wide / 2} y=${upper} width=${wide} height=${Math.max(0.75, lower - upper)} />`;
    });
  });
}

function Lines({ series, x, y }) {
  return series.map((each) => {
    let path = "", pen = false;
    each.values.forEach((value, place) => {
      if (value === null || value === undefined) { pen = false; return; }
      // A point without neighbours is a short dash.
      path += `${pen ? "L" : "M"}${x(place).toFixed(1)},${y(value).toFixed(1)}${pen ? "" : "h1.5"}`;
      pen = true;
    });
    return html`<path key=${each.name} class=${`line ${each.tone}`} d=${path || "M0,0"} />`;
  });
}

function Tip({ at, x, width, title, series, show, kind }) {
  const ref = useRef(null);
  useEffect(() => {
    const tip = ref.current;
    const left = x + 12 + tip.offsetWidth > width ? x - 12 - tip.offsetWidth : x + 12;
    tip.style.left = `${Math.max(0, left)}px`;
  }, [at, x, width]);
  const shown = series.filter((each) => kind === "lines" || each.values[at]);
  return html`<div class="tip" ref=${ref} aria-hidden="true"><strong>${title}</strong>
    ${[...shown].reverse().map((each) => html`<div key=${each.name}><span><i class=${`dot ${each.tone}`}></i> ${each.name}</span><span>${each.values[at] === null ? "–" : show(each.values[at])}</span></div>`)}
    ${shown.length === 0 && html`<div><span>nothing</span></div>`}</div>`;
}

export const Legend = ({ series }) => html`<ul class="legend">${series.map((each) => html`<li key=${each.name}><i class=${`dot ${each.tone}`}></i>${each.name}</li>`)}</ul>`;

function highest(series, points, kind) {
  let most = 0;
  for (let place = 0; place < points; place++) {
    const values = series.map((each) => each.values[place] || 0);
    most = Math.max(most, kind === "bars" ? values.reduce((a, b) => a + b, 0) : Math.max(0, ...values));
  }
  return most;
}

// The next round number.
function ceiling(most) {
  if (!(most > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 4, 5, 6, 8, 10].map((each) => each * power).find((each) => each >= most * 0.999);
}

function anchor(x, width) {
  return x > width - 40 ? "end" : "middle";
}
