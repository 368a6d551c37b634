// One small plot per metric of the chosen run; other runs that have the metric are grey behind it.
function setUpCurves(element, choice) {
  const redraw = () => {
    hideTip();
    const run = choice.value;
    element.replaceChildren();
    for (const metric of Object.keys(data.curves[run])) {
      const box = make("div", { class: "plot" });
      element.append(make("figure", { class: "card" }, make("figcaption", {}, metric), box));
      whenResized(box, (width) => drawCurve(box, width, run, metric));
    }
  };
  choice.value = data.chosen;
  choice.addEventListener("change", redraw);
  redraw();
}

function drawCurve(element, width, run, metric) {
  const height = 220;
  const box = { left: 52, right: width - 12, top: 12, bottom: height - 44 };
  const own = data.curves[run][metric];
  const others = Object.entries(data.curves).filter(([name, all]) => name !== run && all[metric]).map(([, all]) => all[metric]);
  const all = [own, ...others].flat();
  const steps = all.map((p) => p[0]);
  const [low, high] = range(all.map((p) => p[1]));
  const margin = 0.06 * (high - low) || Math.abs(high) * 0.05 || 1;
  const first = own[0];
  const last = own.at(-1);
  const label = `${metric} of ${run}: ${short(first[1])} at step ${first[0]}, ${short(last[1])} at step ${last[0]}. Arrow keys walk along.`;
  const svg = draw("svg", { width, height, role: "img", tabindex: 0, "aria-label": label });
  const [from, to] = range(steps);
  const x = { low: from === to ? from - 1 : from, high: from === to ? to + 1 : to, title: "step" };
  const [px, py] = frame(svg, box, x, { low: low - margin, high: high + margin, title: "" });
  const path = (points) => points.map((p, n) => `${n ? "L" : "M"}${px(p[0]).toFixed(1)},${py(p[1]).toFixed(1)}`).join("");
  for (const points of others) draw("path", { d: path(points), class: "curve other" }, svg);
  draw("path", { d: path(own), class: "curve" }, svg);
  if (own.length < 20) for (const p of own) draw("circle", { cx: px(p[0]), cy: py(p[1]), r: 2.5, class: "dot" }, svg);
  const spot = draw("circle", { r: 5, class: "spot", visibility: "hidden" }, svg);
  element.replaceChildren(svg);
  read(svg, spot, own, px, py, run, metric);
}

// Not Math.min(...values): thousands of arguments overflow the stack.
function range(values) {
  return values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
}

function read(svg, spot, points, px, py, run, metric) {
  let at = points.length - 1;
  const show = () => {
    const [step, value] = points[at];
    spot.setAttribute("cx", px(step));
    spot.setAttribute("cy", py(value));
    spot.setAttribute("visibility", "visible");
    showTip(spot, run, [["step", String(step)], [metric, short(value)]]);
  };
  const hide = () => {
    spot.setAttribute("visibility", "hidden");
    hideTip();
  };
  const follow = (event) => {
    const x = event.clientX - svg.getBoundingClientRect().left;
    at = points.reduce((best, p, n) => (Math.abs(px(p[0]) - x) < Math.abs(px(points[best][0]) - x) ? n : best), 0);
    show();
  };
  svg.addEventListener("pointermove", follow);
  svg.addEventListener("pointerdown", follow);
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("blur", hide);
  svg.addEventListener("focus", () => svg.matches(":focus-visible") && show());
  svg.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide();
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    at = Math.max(0, Math.min(points.length - 1, at + step));
    show();
  });
}
