(() => {
  "use strict";
  // The papers: search, filters, sorting.
  const table = document.getElementById("papers");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const names = ["text", "family", "study", "verdict", "data", "scope"];
  const controls = names.map((name) => [name, document.getElementById("filter-" + name)]);
  const heads = Array.from(table.querySelectorAll("button[data-sort]"));
  const reset = document.getElementById("reset");
  const numeric = new Set(["reproduced", "minutes"]);
  const order = { state: ["works", "in progress", "not built"] };
  let sorted = ["", 1];

  const sort = (key, direction) => {
    const value = (row) => (numeric.has(key) ? Number(row.dataset[key]) : row.dataset[key]);
    const compare = (a, b) => {
      if (numeric.has(key)) return value(a) - value(b);
      if (order[key]) return order[key].indexOf(value(a)) - order[key].indexOf(value(b));
      return value(a).localeCompare(value(b), "en");
    };
    const found = key ? rows.slice().sort((a, b) => direction * compare(a, b)) : rows;
    found.forEach((row) => body.append(row));
    sorted = [key, direction];
    heads.forEach((head) => {
      const state = head.dataset.sort !== key ? "none" : direction > 0 ? "ascending" : "descending";
      head.closest("th").setAttribute("aria-sort", state);
    });
  };

  const filter = () => {
    const wanted = Object.fromEntries(controls.map(([name, control]) => [name, control.value]));
    const words = wanted.text.toLowerCase().split(/\s+/).filter(Boolean);
    const holds = (row, key, value) => !value || row.dataset[key].split("|").includes(value);
    let shown = 0;
    for (const row of rows) {
      const text = row.dataset.text.toLowerCase();
      const fits = words.every((word) => text.includes(word))
        && (!wanted.family || row.dataset.family === wanted.family)
        && (!wanted.study || row.dataset.study === wanted.study)
        && holds(row, "verdicts", wanted.verdict)
        && holds(row, "data", wanted.data)
        && holds(row, "scope", wanted.scope);
      row.hidden = !fits;
      shown += fits;
    }
    document.getElementById("shown").textContent =
      shown === rows.length ? `${shown} papers` : `${shown} of ${rows.length} papers`;
    document.getElementById("nothing").hidden = shown > 0;
    reset.hidden = controls.every(([, control]) => !control.value);
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
    const known = names.some((name) => state.has(name)) || state.has("sort");
    if (!known && location.hash.length > 1) return;
    controls.forEach(([name, control]) => {
      control.value = state.get(name) || "";
      if (control.selectedIndex < 0) control.value = "";
    });
    const key = (state.get("sort") || "").replace(/^-/, "");
    if (heads.some((head) => head.dataset.sort === key)) sort(key, (state.get("sort") || "").startsWith("-") ? -1 : 1);
    filter();
    return known;
  };

  heads.forEach((head) => head.addEventListener("click", () => {
    const key = head.dataset.sort;
    const first = numeric.has(key) ? -1 : 1;
    sort(key, sorted[0] === key ? -sorted[1] : first);
    remember();
  }));
  controls.forEach(([, control]) => control.addEventListener("input", () => { filter(); remember(); }));
  reset.addEventListener("click", () => {
    controls.forEach(([, control]) => { control.value = ""; });
    filter();
    remember();
    controls[0][1].focus();
  });
  addEventListener("hashchange", () => {
    if (recall()) document.getElementById("papers-title").scrollIntoView();
  });
  recall();
})();
(() => {
  "use strict";
  // A leaderboard: one entry stands out of its plots and rows.
  for (const board of document.querySelectorAll(".board")) {
    const buttons = Array.from(board.querySelectorAll("button[data-series]"));
    const rowsOf = (index) => board.querySelectorAll(`.rate .s${index}, tr[data-series="${index}"]`);
    const show = () => {
      const picked = buttons.filter((button) => button.getAttribute("aria-pressed") === "true");
      board.classList.toggle("picked", picked.length > 0);
      board.querySelectorAll(".on").forEach((element) => element.classList.remove("on"));
      picked.forEach((button) => rowsOf(button.dataset.series).forEach((element) => element.classList.add("on")));
    };
    buttons.forEach((button) => button.addEventListener("click", () => {
      button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
      show();
    }));
  }
  // What is folded away, or was not scrolled to, is printed too.
  addEventListener("beforeprint", () => {
    document.querySelectorAll("details:not([open])").forEach((part) => {
      part.open = true;
      part.dataset.printed = "";
    });
    document.querySelectorAll("img[loading=lazy]").forEach((image) => { image.loading = "eager"; });
  });
  addEventListener("afterprint", () => document.querySelectorAll("details[data-printed]").forEach((part) => {
    part.open = false;
    delete part.dataset.printed;
  }));
})();
