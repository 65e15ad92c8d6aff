
(() => {
  "use strict";

  const root = document.documentElement;
  const theme = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const nameTheme = () => { theme.textContent = isDark() ? "Light" : "Dark"; };
  theme.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    nameTheme();
  });
  system.addEventListener("change", nameTheme);
  nameTheme();
  theme.hidden = false;

  const order = new Intl.Collator(undefined, { numeric: true });

  // Undefined numbers come last in both directions.
  function compare(a, b, direction) {
    if (a.dataset.value === undefined || b.dataset.value === undefined) {
      return direction * order.compare(a.textContent, b.textContent);
    }
    if (a.dataset.value === "" || b.dataset.value === "") {
      return (a.dataset.value === "") - (b.dataset.value === "");
    }
    return direction * (Number(a.dataset.value) - Number(b.dataset.value));
  }

  function sort(table, head) {
    const number = head.classList.contains("number");
    const before = head.getAttribute("aria-sort");
    const down = before === "none" ? number : before === "ascending";
    for (const other of table.tHead.rows[0].cells) {
      if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
    }
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const at = head.cellIndex;
    const rows = [...table.tBodies[0].rows];
    rows.sort((a, b) => compare(a.cells[at], b.cells[at], down ? -1 : 1));
    table.tBodies[0].append(...rows);
  }

  // Of a table the rows, of a collage its lines, that have all the words.
  function filter(rows, input, output) {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let left = 0;
    for (const row of rows) {
      const parts = row.cells || row.querySelectorAll("p, span");
      const text = [...parts].map((part) => part.textContent).join(" ").toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      left += row.hidden ? 0 : 1;
    }
    const name = output.dataset.name;
    output.textContent = words.length ? `${left} of ${rows.length} ${name}` : `${rows.length} ${name}`;
  }

  for (const view of document.querySelectorAll(".table, .gallery")) {
    const table = view.querySelector("table");
    const strips = view.querySelector(".strips");
    if (!table && !strips) continue;
    if (table) {
      for (const head of table.tHead.rows[0].cells) {
        const button = head.querySelector("button");
        if (button) button.addEventListener("click", () => sort(table, head));
      }
    }
    const box = view.querySelector(".filter");
    if (!box) continue;
    const input = box.querySelector("input");
    const output = box.querySelector("output");
    const rows = () => [...(table ? table.tBodies[0].rows : strips.children)];
    input.addEventListener("input", () => filter(rows(), input, output));
    box.hidden = false;
  }
})();
