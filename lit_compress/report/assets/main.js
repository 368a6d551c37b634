// The theme follows the system until somebody chooses; the choice is kept where the browser allows it.
const root = document.documentElement;
const KEY = "lit-compress-theme";

function stored() {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null;
  }
}

function setTheme(theme) {
  root.dataset.theme = theme;
  try {
    localStorage.setItem(KEY, theme);
  } catch {
    // Pages opened from disk may not keep anything.
  }
}

if (stored()) root.dataset.theme = stored();
document.getElementById("theme").addEventListener("click", () => {
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  setTheme(dark ? "light" : "dark");
});

// A tap beside all plots takes away what the last one has shown.
document.addEventListener("pointerdown", (event) => event.target.closest(".plot") || unpoint());

document.querySelectorAll("[data-table]").forEach(setUpTable);
document.querySelectorAll("[data-legend]").forEach(drawLegend);
document.querySelectorAll("[data-scatter]").forEach(setUpScatter);
const choice = document.getElementById("run");
if (choice) setUpCurves(document.getElementById("curves"), choice);
