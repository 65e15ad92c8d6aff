// The rows of the page, what they are colored by, and the legend.

// ---- What the page holds -------------------------------------------------------------------

const root = document.documentElement;
const at = (id) => document.getElementById(id);
const data = JSON.parse(at("data").textContent);
const buffer = (text) => Uint8Array.from(atob(text), (each) => each.charCodeAt(0)).buffer;
const xs = new Float32Array(buffer(data.x));
const ys = new Float32Array(buffer(data.y));
const count = xs.length;
const colors = data.colors.map((color) => color.kind === "number"
  ? { ...color, values: new Float32Array(buffer(color.values)) }
  : { ...color, codes: new Uint16Array(buffer(color.codes)) });
const NONE = 65535;
const SWATCHES = 8;
const SHAPES = ["disc", "square", "triangle"];
const MOST = 24; // categories with a mark of their own: eight colors in three shapes
const STEPS = 64; // of the ramp
const TINY = 32; // pixels of a picture that is shown as the pixels it has

const sheets = (data.tiles ? data.tiles.sheets : []).map((source) => {
  const image = new Image();
  if (!source) return image;
  image.src = source;
  image.decode().then(() => { image.ready = true; frame(); }, () => {});
  return image;
});
const widths = data.tiles ? new Uint8Array(buffer(data.tiles.widths)) : null;
const heights = data.tiles ? new Uint8Array(buffer(data.tiles.heights)) : null;

// Where in which sheet the picture of a row is; null where it has none.
function tile(row) {
  if (!widths || !widths[row]) return null;
  const { side, across } = data.tiles;
  const each = across * across;
  const place = row % each;
  return {
    image: sheets[Math.floor(row / each)],
    x: (place % across) * side, y: Math.floor(place / across) * side,
    width: widths[row], height: heights[row],
  };
}

// ---- State ---------------------------------------------------------------------------------

const stage = at("stage");
const lower = at("points");
const upper = at("above");
const ink = lower.getContext("2d", { alpha: false });
const pen = upper.getContext("2d");
const view = { x: 0, y: 0, scale: 1, whole: 1 };
let size = { width: 0, height: 0, ratio: 1 };
let pixels = null;
let current = null; // the color by which the points are drawn
const code = new Uint16Array(count); // of each row its entry in the legend
const hidden = new Set(); // entries that are switched off
let pointed = -1; // the entry under the pointer
let marked = null; // of each row whether it is selected; null: there is no selection
let matching = null; // of each row whether it is what is looked for
let hovered = -1;
let pinned = -1;
let byKeys = false;
let region = null; // a region that is being drawn, in CSS pixels
let palette = [];

const visible = (row) => !hidden.has(code[row]);
const lit = (row) => Boolean((!marked || marked[row]) && (!matching || matching[row])
  && (pointed < 0 || code[row] === pointed));

// ---- Colors and legend ---------------------------------------------------------------------

const probe = document.createElement("i");
probe.hidden = true;
document.body.append(probe);
const shades = new Map(); // of the theme, since asking for them takes longer than drawing
function rgb(name) {
  if (!shades.has(name)) {
    probe.style.color = `var(--${name})`;
    shades.set(name, getComputedStyle(probe).color.match(/[\d.]+/g).slice(0, 3).map(Number));
  }
  return shades.get(name);
}
// viridis, by van der Walt and Smith
const VIRIDIS = [[68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141],
  [39, 173, 129], [92, 200, 99], [170, 220, 50], [253, 231, 37]];
function ramp(share) {
  const dark = isDark(); // its ends are hard to see on a paper of their own lightness
  const place = (dark ? 0.14 + 0.86 * share : 0.92 * share) * (VIRIDIS.length - 1);
  const low = Math.min(Math.floor(place), VIRIDIS.length - 2);
  return VIRIDIS[low].map((from, n) => Math.round(from + (VIRIDIS[low + 1][n] - from) * (place - low)));
}
const css = (parts) => `rgb(${parts.join(" ")})`;

// Entries: those with a color of their own, then the rest (MOST or STEPS), then none (+ 1).
function paintbox() {
  const rest = rgb("rest");
  palette = current && current.kind === "number"
    ? Array.from({ length: STEPS }, (_, n) => ramp(n / (STEPS - 1)))
    : Array.from({ length: MOST }, (_, n) => rgb(`c${n % SWATCHES}`));
  if (!current) palette = [rgb("c0")];
  else palette.push(rest, rest);
}
const shape = (entry) => (current && current.kind !== "number" && entry < MOST
  ? SHAPES[Math.floor(entry / SWATCHES)] : SHAPES[0]);

function choose(index) {
  current = colors[index] || null;
  hidden.clear();
  pointed = -1;
  for (let row = 0; row < count; row++) code[row] = entryOf(row);
  paintbox();
  legend();
  anchors = null;
  tell();
  frame();
}
function entryOf(row) {
  if (!current) return 0;
  if (current.kind !== "number") {
    const each = current.codes[row];
    return each === NONE ? MOST + 1 : Math.min(each, MOST);
  }
  const value = current.values[row];
  if (Number.isNaN(value)) return STEPS + 1;
  const share = (value - current.low) / (current.high - current.low || 1);
  return Math.round(Math.min(Math.max(share, 0), 1) * (STEPS - 1));
}
const digits = (value) => String(Number(value.toPrecision(4))).replace("-", "−");
function valueOf(color, row) {
  if (color.kind === "number") return Number.isNaN(color.values[row]) ? "none" : digits(color.values[row]);
  return color.codes[row] === NONE ? "none" : color.names[color.codes[row]];
}
function entryName(entry) {
  if (entry === MOST + 1) return "none";
  if (entry < MOST) return current.names[entry];
  const others = current.names.length - MOST;
  return others === 1 ? current.names[MOST] : `${others.toLocaleString("en")}${current.more ? " and more" : ""} others`;
}

const make = (kind, name, text) => {
  const element = document.createElement(kind);
  if (name) element.className = name;
  if (text !== undefined) element.textContent = text;
  return element;
};
function legend() {
  const box = at("legend");
  box.replaceChildren();
  if (!current) return;
  if (current.kind === "number") {
    const bar = make("canvas");
    bar.id = "ramp";
    bar.width = STEPS;
    bar.height = 1;
    const brush = bar.getContext("2d");
    palette.slice(0, STEPS).forEach((parts, n) => {
      brush.fillStyle = css(parts);
      brush.fillRect(n, 0, 1, 1);
    });
    const ends = make("p", "ends note");
    ends.append(make("span", "", `${current.cutLow ? "≤ " : ""}${digits(current.low)}`),
      make("span", "", `${current.cutHigh ? "≥ " : ""}${digits(current.high)}`));
    box.append(bar, ends);
    const none = current.values.reduce((sum, value) => sum + Number.isNaN(value), 0);
    if (none) box.append(make("p", "note", `${none.toLocaleString("en")} rows have none (gray).`));
    return;
  }
  const totals = new Uint32Array(MOST + 2);
  for (let row = 0; row < count; row++) totals[code[row]]++;
  totals.forEach((total, entry) => { if (total) box.append(legendEntry(entry, total)); });
}
function legendEntry(entry, total) {
  const button = make("button", "entry");
  button.type = "button";
  button.dataset.entry = entry;
  button.setAttribute("aria-pressed", String(!hidden.has(entry)));
  button.title = "Switch off or on; with a double click show this one alone";
  const dot = make("canvas");
  dot.width = dot.height = 28;
  const brush = dot.getContext("2d");
  brush.fillStyle = css(palette[entry]);
  brush.beginPath();
  if (shape(entry) === "square") brush.rect(4, 4, 20, 20);
  else if (shape(entry) === "triangle") [[14, 2], [26, 24], [2, 24]].forEach((corner) => brush.lineTo(...corner));
  else brush.arc(14, 14, 11, 0, 7);
  brush.fill();
  button.append(dot, make("span", "", entryName(entry)), make("small", "", total.toLocaleString("en")));
  button.addEventListener("click", () => {
    if (hidden.has(entry)) hidden.delete(entry); else hidden.add(entry);
    switched();
  });
  button.addEventListener("dblclick", () => {
    const entries = [...at("legend").querySelectorAll(".entry")].map((each) => Number(each.dataset.entry));
    const alone = entries.every((each) => each === entry || hidden.has(each));
    hidden.clear();
    if (!alone) entries.forEach((each) => { if (each !== entry) hidden.add(each); });
    switched();
  });
  for (const [name, value] of [["pointerenter", entry], ["pointerleave", -1], ["focus", -1]]) {
    button.addEventListener(name, () => { pointed = value; frame(); });
  }
  return button;
}
function switched() {
  for (const button of at("legend").querySelectorAll(".entry")) {
    button.setAttribute("aria-pressed", String(!hidden.has(Number(button.dataset.entry))));
  }
  spread.clear();
  anchors = null;
  frame();
}
