(() => {
  "use strict";
  const table = document.getElementById("papers");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const controls = ["text", "family", "study", "verdict"].map((name) => [name, document.getElementById("filter-" + name)]);
  const heads = Array.from(table.querySelectorAll("button[data-sort]"));
  const numeric = new Set(["reproduced", "minutes"]);
  let sorted = ["", 1];

  const sort = (key, direction) => {
    const value = (row) => (numeric.has(key) ? Number(row.dataset[key]) : row.dataset[key]);
    const order = key ? rows.slice().sort((a, b) => {
      const [left, right] = [value(a), value(b)];
      return direction * (numeric.has(key) ? left - right : left.localeCompare(right, "en"));
    }) : rows;
    order.forEach((row) => body.append(row));
    sorted = [key, direction];
    heads.forEach((head) => {
      const state = head.dataset.sort !== key ? "none" : direction > 0 ? "ascending" : "descending";
      head.closest("th").setAttribute("aria-sort", state);
    });
  };

  const filter = () => {
    const wanted = Object.fromEntries(controls.map(([name, control]) => [name, control.value]));
    const words = wanted.text.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.dataset.text.toLowerCase();
      const fits = words.every((word) => text.includes(word))
        && (!wanted.family || row.dataset.family === wanted.family)
        && (!wanted.study || row.dataset.study === wanted.study)
        && (!wanted.verdict || row.dataset.verdicts.split("|").includes(wanted.verdict));
      row.hidden = !fits;
      shown += fits;
    }
    document.getElementById("shown").textContent =
      shown === rows.length ? `${shown} papers` : `${shown} of ${rows.length} papers`;
    document.getElementById("nothing").hidden = shown > 0;
  };

  // The view stands in the address, so that it can be sent to somebody and survives a reload.
  const remember = () => {
    const state = new URLSearchParams();
    controls.forEach(([name, control]) => control.value && state.set(name, control.value));
    if (sorted[0]) state.set("sort", (sorted[1] < 0 ? "-" : "") + sorted[0]);
    history.replaceState(null, "", "#" + state);
  };
  const recall = () => {
    const state = new URLSearchParams(location.hash.slice(1));
    controls.forEach(([name, control]) => {
      control.value = state.get(name) || "";
      if (control.selectedIndex < 0) control.value = "";
    });
    const key = (state.get("sort") || "").replace(/^-/, "");
    if (heads.some((head) => head.dataset.sort === key)) sort(key, (state.get("sort") || "").startsWith("-") ? -1 : 1);
    filter();
  };

  heads.forEach((head) => head.addEventListener("click", () => {
    const key = head.dataset.sort;
    const first = numeric.has(key) ? -1 : 1;
    sort(key, sorted[0] === key ? -sorted[1] : first);
    remember();
  }));
  controls.forEach(([, control]) => control.addEventListener("input", () => { filter(); remember(); }));
  document.getElementById("reset").addEventListener("click", () => {
    controls.forEach(([, control]) => { control.value = ""; });
    filter();
    remember();
    controls[0][1].focus();
  });
  addEventListener("hashchange", recall);
  recall();
})();
