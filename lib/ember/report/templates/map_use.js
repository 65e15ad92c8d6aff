// What a reader does: pointer, wheel, keys, panel.

// ---- Rows: the card, the selection ---------------------------------------------------------

function card(row, largest) {
  const parts = [];
  const each = tile(row);
  if (each && each.image.ready) {
    const grown = Math.min(largest / Math.max(each.width, each.height), each.width > TINY ? 2.2 : 12);
    const shown = make("canvas", Math.max(each.width, each.height) > TINY ? "shown" : "shown tiny");
    shown.width = each.width;
    shown.height = each.height;
    shown.style.width = `${Math.round(each.width * grown)}px`;
    shown.style.height = `${Math.round(each.height * grown)}px`;
    shown.getContext("2d").drawImage(each.image, each.x, each.y, each.width, each.height, 0, 0, each.width, each.height);
    parts.push(shown);
  }
  if (data.texts && data.texts[row]) parts.push(make("p", "words", data.texts[row]));
  parts.push(make("p", "key", data.ids[row]));
  if (colors.length) {
    const list = make("dl", "values");
    for (const color of colors) list.append(make("dt", "", color.name), make("dd", "", valueOf(color, row)));
    parts.push(list);
  }
  return parts;
}
function hover(row, left, top) {
  const tip = at("tip");
  if (row !== hovered) {
    hovered = row;
    tip.hidden = row < 0;
    if (row >= 0) {
      tip.dataset.row = row;
      tip.replaceChildren(...card(row, 144));
      if (byKeys) at("spoken").textContent = tip.innerText;
    }
    ask(1);
  }
  if (row < 0) return;
  const [wide, high] = [tip.offsetWidth, tip.offsetHeight];
  tip.style.left = `${left + 16 + wide > size.width ? Math.max(4, left - 16 - wide) : left + 16}px`;
  tip.style.top = `${Math.max(4, Math.min(top + 12, size.height - high - 4))}px`;
}
function hoverAt(left, top, reach = 12) {
  hover(nearest(fromX(left), fromY(top), reach / view.scale), left, top);
}
function pin(row) {
  pinned = row;
  at("one").hidden = row < 0;
  if (row >= 0) at("card").replaceChildren(...card(row, 260));
  ask(1);
}

const collator = new Intl.Collator(undefined, { numeric: true });
function select(rows) {
  marked = rows && new Uint8Array(count);
  if (rows) for (const row of rows) marked[row] = 1;
  at("ids").value = rows ? rows.map((row) => data.ids[row]).sort(collator.compare).join("\n") : "";
  tell();
  frame();
}
function tell() {
  const chosen = [];
  if (marked) marked.forEach((each, row) => { if (each) chosen.push(row); });
  at("chosen").hidden = !marked;
  at("selected").textContent = marked
    ? `${chosen.length.toLocaleString("en")} of ${count.toLocaleString("en")} rows`
    : "None. Drag with Shift to select a region.";
  const mix = at("mix");
  mix.replaceChildren();
  if (!marked || !current || current.kind === "number") return;
  const totals = new Map();
  for (const row of chosen) totals.set(valueOf(current, row), (totals.get(valueOf(current, row)) || 0) + 1);
  for (const [name, total] of [...totals].sort((one, other) => other[1] - one[1]).slice(0, 5)) {
    const line = make("li");
    line.append(make("span", "", name), make("span", "", `${total.toLocaleString("en")}, ${((100 * total) / chosen.length).toFixed(0)}%`));
    mix.append(line);
  }
}
function inside(x, y, corners) {
  let odd = false;
  for (let n = 0, before = corners.length - 1; n < corners.length; before = n++) {
    const [[x1, y1], [x2, y2]] = [corners[n], corners[before]];
    if (y1 > y !== y2 > y && x < ((x2 - x1) * (y - y1)) / (y2 - y1) + x1) odd = !odd;
  }
  return odd;
}
function selectRegion(corners) {
  const rows = [];
  for (let row = 0; row < count; row++) {
    if (visible(row) && inside(toX(xs[row]), toY(ys[row]), corners)) rows.push(row);
  }
  select(rows.length ? rows : null);
}

// ---- Pointer, wheel, keys ------------------------------------------------------------------

const touching = new Map();
let dragged = 0;
const choosing = () => at("lasso").getAttribute("aria-pressed") === "true";
function place(event) {
  const box = upper.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
}
upper.addEventListener("pointerdown", (event) => {
  if (event.button) return;
  byKeys = false;
  upper.setPointerCapture(event.pointerId);
  touching.set(event.pointerId, place(event));
  dragged = 0;
  region = touching.size === 1 && (event.shiftKey || choosing()) ? [place(event)] : null;
  if (!region) upper.classList.add("moving");
});
upper.addEventListener("pointermove", (event) => {
  const [left, top] = place(event);
  const before = touching.get(event.pointerId);
  if (!before) {
    byKeys = false;
    hoverAt(left, top);
    return;
  }
  touching.set(event.pointerId, [left, top]);
  dragged += Math.abs(left - before[0]) + Math.abs(top - before[1]);
  if (region) {
    region.push([left, top]);
    ask(1);
  } else if (touching.size === 1) {
    if (dragged > 4) hover(-1);
    move(left - before[0], top - before[1]);
  } else {
    const [other] = [...touching].filter(([id]) => id !== event.pointerId).map(([, each]) => each);
    const far = (one) => Math.hypot(one[0] - other[0], one[1] - other[1]) || 1;
    const middle = (one) => [(one[0] + other[0]) / 2, (one[1] + other[1]) / 2];
    const [from, to] = [middle(before), middle([left, top])];
    move(to[0] - from[0], to[1] - from[1]);
    zoom(far([left, top]) / far(before), ...to);
  }
});
function lifted(event) {
  if (!touching.delete(event.pointerId)) return;
  upper.classList.remove("moving");
  if (region) {
    const corners = region;
    region = null;
    if (dragged > 8) selectRegion(corners);
    ask(1);
  } else if (dragged <= 4 && event.type === "pointerup") {
    hoverAt(...place(event), event.pointerType === "touch" ? 22 : 12);
    pin(hovered);
  }
}
upper.addEventListener("pointerup", lifted);
upper.addEventListener("pointercancel", lifted);
upper.addEventListener("pointerleave", () => { if (!byKeys) hover(-1); });
stage.addEventListener("wheel", (event) => {
  event.preventDefault();
  const lines = event.deltaMode ? 30 : 1;
  const step = Math.min(Math.max(event.deltaY * lines * (event.ctrlKey ? 0.01 : 0.0018), -0.7), 0.7);
  zoom(Math.exp(-step), ...place(event));
  if (!byKeys) hover(-1);
}, { passive: false });
upper.addEventListener("keydown", (event) => {
  if (event.metaKey || event.altKey || event.ctrlKey) return;
  const step = event.shiftKey ? 240 : 48;
  const ways = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
  if (ways[event.key]) move(...ways[event.key]);
  else if (event.key === "+" || event.key === "=") zoom(1.35);
  else if (event.key === "-" || event.key === "−") zoom(1 / 1.35);
  else if (event.key === "0") showAll();
  else if (event.key === "Enter") pin(hovered);
  else if (event.key === "Escape") { select(null); pin(-1); hover(-1); return; }
  else return;
  event.preventDefault();
  if (event.key === "Enter") return;
  byKeys = true;
  hoverAt(size.width / 2, size.height / 2, 60);
});
upper.addEventListener("blur", () => { byKeys = false; hover(-1); ask(1); });

// ---- The panel -----------------------------------------------------------------------------

const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
const system = matchMedia("(prefers-color-scheme: dark)");
const theme = at("theme");
function dress() {
  theme.textContent = isDark() ? "Light" : "Dark";
  shades.clear();
  paintbox();
  legend();
  frame();
}
theme.addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  dress();
});
system.addEventListener("change", dress);
theme.hidden = false;

at("in").addEventListener("click", () => zoom(1.5));
at("out").addEventListener("click", () => zoom(1 / 1.5));
at("whole").addEventListener("click", showAll);
at("lasso").addEventListener("click", () => {
  at("lasso").setAttribute("aria-pressed", String(!choosing()));
  upper.classList.toggle("choosing", choosing());
});
for (const name of ["names", "pictures"]) at(name).addEventListener("change", () => ask(1));
const picker = at("color");
colors.forEach((color, n) => {
  const option = make("option", "", color.name);
  option.value = n;
  picker.append(option);
});
picker.addEventListener("change", () => choose(Number(picker.value)));
picker.parentElement.parentElement.hidden = !colors.length;

const texts = data.ids.map((id, row) => `${id}\n${(data.texts && data.texts[row]) || ""}`.toLowerCase());
at("find").addEventListener("input", () => {
  const words = at("find").value.toLowerCase().split(/\s+/).filter(Boolean);
  matching = words.length ? Uint8Array.from(texts, (text) => Number(words.every((word) => text.includes(word)))) : null;
  const total = matching ? matching.reduce((sum, each) => sum + each, 0) : 0;
  at("found").textContent = matching ? `${total.toLocaleString("en")} rows; Enter selects them` : "";
  frame();
});
at("find").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !matching) return;
  const rows = [];
  matching.forEach((each, row) => { if (each && visible(row)) rows.push(row); });
  if (rows.length) select(rows);
});
at("view").addEventListener("click", () => selectRegion(
  [[0, 0], [size.width, 0], [size.width, size.height], [0, size.height]]));
at("clear").addEventListener("click", () => select(null));
at("copy").addEventListener("click", async () => {
  at("ids").select();
  try {
    await navigator.clipboard.writeText(at("ids").value);
    at("copy").textContent = "Copied";
    setTimeout(() => { at("copy").textContent = "Copy ids"; }, 1500);
  } catch { /* they are marked, to be copied by hand */ }
});
at("save").addEventListener("click", () => {
  const link = make("a");
  link.href = URL.createObjectURL(new Blob([`${at("ids").value}\n`], { type: "text/plain" }));
  link.download = "ids.txt";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
});

at("withPictures").hidden = !widths;
at("pictures").checked = Boolean(widths);
at("names").checked = true;
at("names").parentElement.hidden = !colors.some((color) => color.kind !== "number");
choose(0);
dress();
new ResizeObserver(fit).observe(stage);
