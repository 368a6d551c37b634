// Shared by all parts of the page. Text from the data is only ever set as text, never as HTML.
const data = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";

function draw(name, attributes = {}, parent = null, text = null) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== null) element.textContent = text;
  if (parent) parent.append(element);
  return element;
}

function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

// A number with as many digits as an axis needs.
function short(value) {
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(1);
  return String(Number(value.toPrecision(4)));
}

function linearTicks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= rough) ?? 10 * power;
  const ticks = [];
  for (let n = Math.ceil(low / step); n * step <= high + step * 1e-9; n++) ticks.push(Number((n * step).toPrecision(12)));
  return ticks;
}

function logTicks(low, high) {
  const ticks = [];
  const steps = high / low < 30 ? [1, 1.5, 2, 3, 4, 6, 8] : [1, 2, 5];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
    for (const m of steps) {
      const tick = Number((m * 10 ** power).toPrecision(12));
      if (tick >= low && tick <= high) ticks.push(tick);
    }
  }
  return ticks;
}

// A frame with grid, ticks and titles; returns the functions from data to pixels.
function frame(svg, box, x, y) {
  const scale = (axis, from, to) => {
    const f = axis.log ? Math.log : (v) => v;
    const [low, high] = [f(axis.low), f(axis.high)];
    return (value) => from + ((f(value) - low) / (high - low || 1)) * (to - from);
  };
  const px = scale(x, box.left, box.right);
  const py = scale(y, box.bottom, box.top);
  const grid = draw("g", { class: "grid", "aria-hidden": "true" }, svg);
  const xTicks = x.log ? logTicks(x.low, x.high) : linearTicks(x.low, x.high, Math.max(3, (box.right - box.left) / 90));
  let end = -Infinity;
  for (const tick of xTicks) {
    // A label that would run into the one before it is left out with its line.
    if (px(tick) < end) continue;
    end = px(tick) + 34;
    draw("line", { x1: px(tick), x2: px(tick), y1: box.top, y2: box.bottom }, grid);
    draw("text", { x: px(tick), y: box.bottom + 18, "text-anchor": "middle" }, grid, short(tick));
  }
  for (const tick of linearTicks(y.low, y.high, 5)) {
    draw("line", { x1: box.left, x2: box.right, y1: py(tick), y2: py(tick) }, grid);
    draw("text", { x: box.left - 8, y: py(tick) + 4, "text-anchor": "end" }, grid, short(tick));
  }
  draw("text", { x: box.right, y: box.bottom + 38, "text-anchor": "end", class: "axis" }, grid, x.title);
  draw("text", { x: 0, y: 12, class: "axis" }, grid, y.title);
  return [px, py];
}

// One tooltip for the page; it follows the point that it speaks of.
const tip = make("div", { id: "tip", hidden: "" });
document.body.append(tip);

function showTip(anchor, title, lines) {
  tip.replaceChildren(make("strong", {}, title));
  for (const [term, text] of lines) {
    tip.append(make("div", {}, make("span", {}, term), make("b", {}, text)));
  }
  tip.hidden = false;
  const at = anchor.getBoundingClientRect();
  const own = tip.getBoundingClientRect();
  const wide = document.documentElement.clientWidth;
  let left = at.right + 12;
  if (left + own.width > wide - 8) left = at.left - own.width - 12;
  let top = at.top + at.height / 2 - own.height / 2;
  if (left < 8) {
    // No room beside the point on a phone: above it, or below.
    left = Math.max(8, Math.min(wide - own.width - 8, at.left + at.width / 2 - own.width / 2));
    top = at.top - own.height - 14 > 8 ? at.top - own.height - 14 : at.bottom + 14;
  }
  tip.style.left = `${left + scrollX}px`;
  tip.style.top = `${Math.max(8, top) + scrollY}px`;
}

function hideTip() {
  tip.hidden = true;
}

// Draws again when the width changes, and only then: a redraw loses the focus.
function whenResized(element, redraw) {
  let width = 0;
  new ResizeObserver(() => {
    if (element.clientWidth !== width && element.clientWidth > 0) {
      width = element.clientWidth;
      hideTip();
      redraw(width);
    }
  }).observe(element);
}
