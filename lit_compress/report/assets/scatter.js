// Quality against cost: colour is the method, shape the runtime, the line the Pareto front.
const SHAPES = [
  (r) => `M${-r},0a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0`,
  (r) => `M${-r * 0.9},${-r * 0.9}h${r * 1.8}v${r * 1.8}h${-r * 1.8}z`,
  (r) => `M0,${-r * 1.2}L${r * 1.15},${r * 0.85}H${-r * 1.15}z`,
  (r) => `M0,${-r * 1.3}L${r * 1.3},0L0,${r * 1.3}L${-r * 1.3},0z`,
  (r) => `M0,${r * 1.2}L${r * 1.15},${-r * 0.85}H${-r * 1.15}z`,
  (r) => `M${-r * 0.4},${-r * 1.2}h${r * 0.8}v${r * 0.8}h${r * 0.8}v${r * 0.8}h${-r * 0.8}v${r * 0.8}h${-r * 0.8}v${-r * 0.8}h${-r * 0.8}v${-r * 0.8}h${r * 0.8}z`,
];
const COLOURS = 8;
const REACH = 26;

function styleOf(group, row) {
  const shape = SHAPES[Math.max(0, group.runtimes.indexOf(row.runtime)) % SHAPES.length];
  const colour = row.baseline ? "var(--ink)" : `var(--c${group.methods.indexOf(row.method) % COLOURS})`;
  return { shape, colour };
}

function drawMark(group, row, radius, parent) {
  const { shape, colour } = styleOf(group, row);
  if (row.baseline) draw("circle", { r: radius + 4, class: "halo", stroke: colour }, parent);
  return draw("path", { d: shape(radius), fill: colour, class: "mark" }, parent);
}

function drawLegend(element) {
  const group = data.groups[Number(element.dataset.legend)];
  const entry = (row, text) => {
    const svg = draw("svg", { width: 20, height: 20, viewBox: "-10 -10 20 20", "aria-hidden": "true" });
    drawMark(group, row, 5, svg);
    element.append(make("span", {}, svg, text));
  };
  for (const method of group.methods) entry({ method, runtime: group.runtimes[0] }, method);
  const baseline = Object.values(group.rows).find((row) => row.baseline);
  if (baseline) entry(baseline, `${baseline.name} (baseline)`);
  if (group.runtimes.length > 1) {
    element.append(make("i", {}));
    for (const runtime of group.runtimes) {
      const svg = draw("svg", { width: 20, height: 20, viewBox: "-10 -10 20 20", "aria-hidden": "true" });
      draw("path", { d: styleOf(group, { runtime, baseline: true }).shape(5), fill: "var(--muted)" }, svg);
      element.append(make("span", {}, svg, runtime));
    }
  }
}

function extent(plot) {
  const low = Math.min(...plot.points.map((p) => p[2]));
  const high = Math.max(...plot.points.map((p) => p[3]));
  const log = low > 0 && high > 4 * low;
  const pad = 0.07 * (high - low) || 0.1 * high;
  const x = log ? { low: low / 1.15, high: high * 1.15, log } : { low: Math.max(0, low - pad), high: high + pad, log };
  const values = plot.points.map((p) => p[4]);
  const [bottom, top] = [Math.min(...values), Math.max(...values)];
  const margin = 0.09 * (top - bottom) || 0.01;
  return [{ ...x, title: `${plot.title} (← better)` }, { low: bottom - margin, high: top + margin, title: `${plot.quality} (${plot.upward ? "↑" : "↓"} better)` }];
}

function drawFront(svg, plot, px, py, right) {
  let path = "";
  plot.front.forEach((index, n) => {
    const [x, y] = [px(plot.points[index][1]), py(plot.points[index][4])];
    path += n === 0 ? `M${x},${y}` : `H${x}V${y}`;
  });
  draw("path", { d: `${path}H${right}`, class: "front-line", "aria-hidden": "true" }, svg);
}

// Names of the front, each beside its point where it covers no point, no other name and not the line.
function nameFront(svg, plot, group, places, box) {
  const taken = places.map(({ x, y }) => ({ left: x - 7, right: x + 7, top: y - 7, bottom: y + 7 }));
  plot.front.forEach((index, n) => {
    const { x, y } = places[index];
    const next = places[plot.front[n + 1]] ?? { x: box.right, y };
    taken.push({ left: x, right: next.x, top: y - 1, bottom: y + 1 }, { left: next.x - 1, right: next.x + 1, top: next.y, bottom: y });
  });
  const free = (a) =>
    a.left >= box.left && a.right <= box.right + 4 && a.top >= box.top && a.bottom <= box.bottom &&
    !taken.some((b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom);
  for (const index of plot.front) {
    const { x, y } = places[index];
    const text = draw("text", { class: "name", "aria-hidden": "true" }, svg, group.rows[plot.points[index][0]].label);
    const { width } = text.getBBox();
    const gap = group.rows[plot.points[index][0]].baseline ? 15 : 10;
    const spots = [[-gap - width, -8], [gap, 16], [-gap - width, 5], [gap, -8], [-width / 2, -14], [-width / 2, 24], [12, 32], [-12 - width, -24]];
    const spot = spots.find(([dx, dy]) => free({ left: x + dx, right: x + dx + width, top: y + dy - 11, bottom: y + dy + 3 }));
    if (!spot) {
      text.remove();
      continue;
    }
    text.setAttribute("x", x + spot[0]);
    text.setAttribute("y", y + spot[1]);
    taken.push({ left: x + spot[0], right: x + spot[0] + width, top: y + spot[1] - 11, bottom: y + spot[1] + 3 });
  }
}

function unpoint() {
  hideTip();
  for (const mark of document.querySelectorAll(".lit")) mark.classList.remove("lit");
}

function setUpScatter(element) {
  const [groupNumber, index] = element.dataset.scatter.split(":").map(Number);
  const group = data.groups[groupNumber];
  const plot = group.scatters[index];
  let shown = null;
  let places = [];

  function redraw(width) {
    const height = Math.round(Math.max(280, Math.min(430, width * 0.62)));
    const box = { left: 52, right: width - 12, top: 28, bottom: height - 48 };
    const [x, y] = extent(plot);
    const svg = draw("svg", { width, height, role: "group", "aria-label": `${plot.quality} against ${plot.title}` });
    const [px, py] = frame(svg, box, x, y);
    drawFront(svg, plot, px, py, box.right);
    places = plot.points.map((point) => ({ point, x: px(point[1]), y: py(point[4]) }));
    for (const { point, y: at } of places) whisker(svg, px(point[2]), px(point[3]), at, point[0]);
    for (const place of places) {
      const row = group.rows[place.point[0]];
      const said = row.said.map((pair) => pair.join(" ")).join(", ");
      const label = `${row.label}, ${row.method}: ${said}`;
      place.mark = draw("g", { class: "point", transform: `translate(${place.x},${place.y})`, role: "img", tabindex: -1, "aria-label": label, "data-row": place.point[0] }, svg);
      drawMark(group, row, plot.front.includes(places.indexOf(place)) ? 6 : 5, place.mark);
    }
    // Text has a width only once it is on the page.
    element.replaceChildren(svg);
    nameFront(svg, plot, group, places, box);
    dim();
    listen(svg);
  }

  function whisker(svg, left, right, at, row) {
    if (right - left < 1) return;
    const d = `M${left},${at - 3}v6M${left},${at}H${right}M${right},${at - 3}v6`;
    draw("path", { d, class: "whisker", "data-row": row, "aria-hidden": "true" }, svg);
  }

  // Only points that the table shows can be reached, from left to right.
  const reachable = () => places.filter((p) => !shown || shown.has(p.point[0])).sort((a, b) => a.x - b.x);

  function dim() {
    for (const mark of element.querySelectorAll("[data-row]")) {
      mark.classList.toggle("dim", shown !== null && !shown.has(mark.dataset.row));
    }
    places.forEach((place) => place.mark.setAttribute("tabindex", -1));
    reachable()[0]?.mark.setAttribute("tabindex", 0);
  }

  function point(place) {
    unpoint();
    const row = group.rows[place.point[0]];
    const front = plot.front.includes(places.indexOf(place)) ? [["on the Pareto front", "✓"]] : [];
    showTip(place.mark, row.label, [["method", row.method], ...row.said, ...front]);
    for (const mark of document.querySelectorAll(`[data-row=${place.point[0]}]`)) {
      mark.classList.add("lit");
      // To the top, but for the plot in which it has the focus: moving an element takes that away.
      if (!element.contains(mark)) mark.parentNode.append(mark);
    }
    document.getElementById(place.point[0])?.classList.add("lit");
  }

  function nearest(event) {
    const at = element.querySelector("svg").getBoundingClientRect();
    const [x, y] = [event.clientX - at.left, event.clientY - at.top];
    let best = null;
    let distance = REACH;
    for (const place of reachable()) {
      const d = Math.hypot(place.x - x, place.y - y);
      if (d < distance) [best, distance] = [place, d];
    }
    return best;
  }

  function listen(svg) {
    const follow = (event) => {
      const place = nearest(event);
      if (place) point(place);
      else unpoint();
    };
    svg.addEventListener("pointermove", follow);
    svg.addEventListener("pointerdown", follow);
    // A finger that is lifted leaves the tooltip; the next touch elsewhere takes it away.
    svg.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && unpoint());
    svg.addEventListener("focusin", (event) => {
      const place = places.find((p) => p.mark === event.target);
      if (place) point(place);
    });
    svg.addEventListener("focusout", unpoint);
    svg.addEventListener("keydown", (event) => {
      const order = reachable();
      const at = order.findIndex((p) => p.mark === event.target);
      const to = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: order.length - 1 }[event.key];
      if (event.key === "Escape") unpoint();
      if (to === undefined || !order[to]) return;
      event.preventDefault();
      order[at]?.mark.setAttribute("tabindex", -1);
      order[to].mark.setAttribute("tabindex", 0);
      order[to].mark.focus();
    });
  }

  document.addEventListener("filtered", ({ detail }) => {
    if (detail.group !== groupNumber) return;
    shown = detail.points;
    unpoint();
    dim();
  });
  whenResized(element, redraw);
}
