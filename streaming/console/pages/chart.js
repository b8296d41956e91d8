// Charts: SVG, drawn here. Each says in words what it shows.

import { svg, number } from "./dom.js";

const WIDE = 720, LEFT = 72, RIGHT = 16, TOP = 14, BOTTOM = 28;

function frame(title, words, high, wide = WIDE) {
  return svg("svg", { class: "chart", viewBox: `0 0 ${wide} ${high}`, role: "img", "aria-label": `${title}. ${words}` });
}

const scale = (low, high, from, to) => value => (high === low ? (from + to) / 2 : from + ((value - low) / (high - low)) * (to - from));

function axes(node, y, ticks, high, wide, labels) {
  for (const tick of ticks) {
    node.append(svg("line", { class: "axis", x1: LEFT, x2: wide - RIGHT, y1: y(tick), y2: y(tick) }),
      svg("text", { x: LEFT - 6, y: y(tick) + 4, "text-anchor": "end" }, number(tick, 3)));
  }
  for (const [place, text, anchor] of labels) node.append(svg("text", { x: place, y: high - 8, "text-anchor": anchor }, text));
}

const line = points => points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");

function range(values, least) {
  const known = values.filter(value => value !== null && value !== undefined);
  const low = Math.min(...known), high = Math.max(...known);
  const more = Math.max((high - low) * 0.08, least);
  return [low - more, high + more];
}

// points: {x, y, low, high}; marks: x of vertical lines; crosses: {x, y}
export function curve({ title, words, points, marks = [], crosses = [], label, high = 240, wide = WIDE, dots = false, floor = null, ceiling = null }) {
  const node = frame(title, words, high, wide);
  if (!points.length) return node;
  const xs = points.map(p => p.x);
  let [low, top] = range([...points.flatMap(p => [p.y, p.low, p.high]), ...crosses.map(c => c.y)], 1e-3);
  low = floor ?? low; top = ceiling ?? top;
  const x = scale(Math.min(...xs), Math.max(...xs), LEFT, wide - RIGHT), y = scale(low, top, high - BOTTOM, TOP);
  axes(node, y, [low, (low + top) / 2, top], high, wide, xs.length > 1
    ? [[LEFT, label(xs[0]), "start"], [wide - RIGHT, label(xs.at(-1)), "end"]] : [[(LEFT + wide) / 2, label(xs[0]), "middle"]]);
  const banded = points.filter(p => p.low !== null && p.low !== undefined);
  if (dots) for (const p of banded) node.append(svg("line", { class: "reach", x1: x(p.x), x2: x(p.x), y1: y(p.low), y2: y(p.high) }));
  else if (banded.length > 1) {
    node.append(svg("path", { class: "band", d: line([...banded.map(p => [x(p.x), y(p.high)]), ...banded.map(p => [x(p.x), y(p.low)]).reverse()]) + "Z" }));
  }
  node.append(svg("path", { class: "curve", d: line(points.map(p => [x(p.x), y(p.y)])) }));
  if (dots || points.length === 1) for (const p of points) node.append(svg("circle", { class: "dot", cx: x(p.x), cy: y(p.y), r: 4 }));
  for (const c of crosses) node.append(svg("path", { class: "cross", d: `M${x(c.x) - 5} ${y(c.y) - 5}l10 10m0 -10l-10 10` }));
  for (const mark of marks) {
    if (mark >= Math.min(...xs) && mark <= Math.max(...xs)) node.append(svg("line", { class: "mark", x1: x(mark), x2: x(mark), y1: TOP, y2: high - BOTTOM }));
  }
  return node;
}

// parts: {kind, value}; one bar in shares
export function bar({ title, words, parts }) {
  const node = frame(title, words, 28);
  const total = parts.reduce((sum, part) => sum + part.value, 0);
  let from = 0;
  for (const part of parts) {
    const width = total ? (part.value / total) * WIDE : 0;
    node.append(svg("rect", { class: part.kind, x: from.toFixed(1), y: 4, width: width.toFixed(1), height: 20 }));
    from += width;
  }
  return node;
}
