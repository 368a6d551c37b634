// Sorting, filtering and opening rows. Every row of figures is followed by its own row of details.
function setUpTable(card) {
  const body = card.querySelector("tbody");
  const heads = [...card.querySelectorAll("thead th")];
  const pairs = [];
  for (const row of body.rows) {
    if (row.classList.contains("detail")) pairs.at(-1).detail = row;
    else pairs.push({ row, detail: null });
  }

  function sort(column, direction) {
    const sign = direction === "ascending" ? 1 : -1;
    const value = (pair) => {
      const text = pair.row.cells[column].dataset.v;
      if (text === undefined || text === "") return null;
      return Number.isNaN(Number(text)) ? text : Number(text);
    };
    // What was not measured stays below, whatever the direction.
    pairs.sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === null || y === null) return (x === null) - (y === null);
      return sign * (typeof x === "string" || typeof y === "string" ? String(x).localeCompare(String(y)) : x - y);
    });
    heads.forEach((head, index) => head.setAttribute("aria-sort", index === column ? direction : "none"));
    for (const pair of pairs) body.append(...[pair.row, pair.detail].filter(Boolean));
  }

  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    button.addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      const other = now === "ascending" ? "descending" : "ascending";
      sort(column, now === "none" ? button.dataset.first : other);
    });
  });

  const filters = [...card.querySelectorAll("[data-filter]")];
  const checked = (name) => card.querySelector(`[data-check=${name}]`)?.checked ?? false;
  const matches = (row) =>
    filters.every(({ value, dataset: { filter } }) => {
      const own = row.dataset[filter] ?? "";
      return value === "" || (filter === "name" ? own.includes(value.toLowerCase()) : own === value);
    });

  function filter() {
    const [front, means] = [checked("front"), checked("means")];
    const points = new Set();
    let count = 0;
    for (const { row, detail } of pairs) {
      const mean = row.classList.contains("mean");
      const kept = matches(row) && (!front || "front" in row.dataset);
      // A mean stands for its members, and the other way round.
      row.hidden = !kept || (mean ? !means : means && "member" in row.dataset);
      if (!mean && kept) points.add(row.id);
      if (detail) detail.hidden = row.hidden || row.querySelector(".more").getAttribute("aria-expanded") !== "true";
      count += !row.hidden;
    }
    card.querySelector("output").textContent = `${count} row${count === 1 ? "" : "s"}`;
    document.dispatchEvent(new CustomEvent("filtered", { detail: { group: Number(card.dataset.table), points } }));
  }

  for (const field of card.querySelectorAll(".controls input, .controls select")) {
    field.addEventListener(field.type === "search" ? "input" : "change", filter);
  }
  for (const { row, detail } of pairs) {
    row.querySelector(".more")?.addEventListener("click", (event) => {
      const open = event.currentTarget.getAttribute("aria-expanded") !== "true";
      event.currentTarget.setAttribute("aria-expanded", open);
      detail.hidden = !open;
    });
  }
}
