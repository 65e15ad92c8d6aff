// Where rows are, and how they are drawn.

// ---- Where things are ----------------------------------------------------------------------

const bounds = xs.reduce((box, x, row) => ({
  left: Math.min(box.left, x), right: Math.max(box.right, x),
  top: Math.min(box.top, ys[row]), bottom: Math.max(box.bottom, ys[row]),
}), { left: Infinity, right: -Infinity, top: Infinity, bottom: -Infinity });
const span = Math.max(bounds.right - bounds.left, bounds.bottom - bounds.top) || 1;

// Cells of about two rows each; `first` is where the rows of a cell begin in `order`.
const side = Math.max(1, Math.ceil(Math.sqrt(count / 2)));
const cellOf = (value, low) => Math.min(side - 1, Math.max(0, Math.floor(((value - low) / span) * side)));
const first = new Uint32Array(side * side + 1);
const order = new Uint32Array(count);
{
  const cells = Uint32Array.from(xs, (x, row) => cellOf(ys[row], bounds.top) * side + cellOf(x, bounds.left));
  cells.forEach((cell) => first[cell + 1]++);
  for (let cell = 0; cell < side * side; cell++) first[cell + 1] += first[cell];
  const next = first.slice();
  cells.forEach((cell, row) => { order[next[cell]++] = row; });
}
function nearest(x, y, reach) {
  let found = -1;
  let best = reach * reach;
  const [left, right] = [x - reach, x + reach].map((value) => cellOf(value, bounds.left));
  const [top, bottom] = [y - reach, y + reach].map((value) => cellOf(value, bounds.top));
  for (let line = top; line <= bottom; line++) {
    const end = first[line * side + right + 1];
    for (let place = first[line * side + left]; place < end; place++) {
      const row = order[place];
      const far = (xs[row] - x) ** 2 + (ys[row] - y) ** 2;
      if (visible(row) && (far < best || (far === best && row < found))) { best = far; found = row; }
    }
  }
  return found;
}

const toX = (x) => (x - view.x) * view.scale + size.width / 2;
const toY = (y) => (y - view.y) * view.scale + size.height / 2;
const fromX = (left) => (left - size.width / 2) / view.scale + view.x;
const fromY = (top) => (top - size.height / 2) / view.scale + view.y;

function showAll() {
  const wide = Math.max(bounds.right - bounds.left, span / 1e3);
  const high = Math.max(bounds.bottom - bounds.top, span / 1e3);
  view.whole = Math.min((size.width - 60) / wide, (size.height - 60) / high);
  view.scale = view.whole;
  view.x = (bounds.left + bounds.right) / 2;
  view.y = (bounds.top + bounds.bottom) / 2;
  frame();
}
function zoom(factor, left = size.width / 2, top = size.height / 2) {
  const [x, y] = [fromX(left), fromY(top)];
  view.scale = Math.min(Math.max(view.scale * factor, view.whole / 2), view.whole * 2000);
  view.x = x - (left - size.width / 2) / view.scale;
  view.y = y - (top - size.height / 2) / view.scale;
  frame();
}
function move(left, top) {
  view.x -= left / view.scale;
  view.y -= top / view.scale;
  frame();
}

// ---- Drawing: the points, pixel by pixel, since that is fast on any machine ----------------

function radius() {
  const room = Math.sqrt((size.width * size.height) / Math.max(count, 1));
  const small = Math.min(Math.max(0.27 * room, 1.35), 5);
  return Math.min(small * (view.scale / view.whole) ** 0.3, Math.max(small, 7.5));
}
// How much of each pixel a point covers, for 16 places within a pixel.
let stamps = { of: 0 };
function stamp(reach) {
  if (stamps.of === reach) return stamps;
  const wide = 2 * Math.ceil(reach + 1) + 1;
  const middle = (wide - 1) / 2;
  const made = { of: reach, wide, middle, disc: [], square: [], triangle: [] };
  const edge = (far) => Math.min(Math.max(far + 0.5, 0), 1);
  for (let place = 0; place < 16; place++) {
    const [right, down] = [(place % 4) / 4 + 0.125 - 0.5, Math.floor(place / 4) / 4 + 0.125 - 0.5];
    const masks = SHAPES.map(() => new Uint8Array(wide * wide));
    for (let n = 0; n < wide * wide; n++) {
      const [x, y] = [(n % wide) - middle - right, Math.floor(n / wide) - middle - down];
      masks[0][n] = 255 * edge(reach - Math.hypot(x, y));
      masks[1][n] = 255 * edge(0.88 * reach - Math.abs(x)) * edge(0.88 * reach - Math.abs(y));
      const slope = (1.05 * reach + y) * 0.447 - Math.abs(x) * 0.894; // far from a leg of slope 2
      masks[2][n] = 255 * edge(slope) * edge(0.95 * reach - y);
    }
    SHAPES.forEach((name, each) => made[name].push(masks[each]));
  }
  stamps = made;
  return made;
}
const packed = ([red, green, blue]) => (255 << 24) | (blue << 16) | (green << 8) | red;

// One point, `strength` of 256, mixed into what is there.
function press(masks, wide, middle, left, top, tint, strength) {
  const [column, line] = [Math.floor(left), Math.floor(top)];
  const mask = masks[Math.floor((top - line) * 4) * 4 + Math.floor((left - column) * 4)];
  const [width, height, target] = [lower.width, lower.height, pixels.words];
  const [x0, y0] = [column - middle, line - middle];
  const from = Math.max(0, -x0);
  const to = Math.min(wide, width - x0);
  const redBlue = tint & 0xff00ff;
  const green = tint & 0x00ff00;
  for (let y = Math.max(0, -y0), end = Math.min(wide, height - y0); y < end; y++) {
    let place = (y0 + y) * width + x0 + from;
    for (let x = from, n = y * wide + from; x < to; x++, n++, place++) {
      if (!mask[n]) continue;
      const much = ((mask[n] + 1) * strength) >> 8;
      const old = target[place];
      target[place] = 0xff000000
        | (((Math.imul(old & 0xff00ff, 256 - much) + Math.imul(redBlue, much)) >>> 8) & 0xff00ff)
        | (((Math.imul(old & 0x00ff00, 256 - much) + Math.imul(green, much)) >>> 8) & 0x00ff00);
    }
  }
}

function drawPoints() {
  const { ratio } = size;
  const reach = Math.round(radius() * ratio * 8) / 8;
  const made = stamp(reach);
  const [wide, middle] = [made.wide, made.middle];
  const tints = palette.map(packed);
  const masks = palette.map((_, entry) => made[shape(entry)]);
  const faint = packed(rgb("rest"));
  const everyone = !marked && !matching && pointed < 0;
  const scale = view.scale * ratio;
  const [left, top] = [lower.width / 2 - view.x * scale, lower.height / 2 - view.y * scale];
  pixels.words.fill(packed(rgb("paper")));
  for (const strong of everyone ? [true] : [false, true]) {
    for (let row = 0; row < count; row++) {
      const [x, y] = [xs[row] * scale + left, ys[row] * scale + top];
      if (x < -wide || y < -wide || x > lower.width + wide || y > lower.height + wide) continue;
      const entry = code[row];
      if (hidden.has(entry) || (!everyone && lit(row) !== strong)) continue;
      press(masks[entry], wide, middle, x, y,
        strong ? tints[entry] : faint, strong ? 215 : 80);
    }
  }
  ink.putImageData(pixels.image, 0, 0);
}

// ---- Drawing: what lies above the points ---------------------------------------------------

// Pictures grow as one comes nearer, and leave room for the points between them.
const pictureSide = () => Math.min(Math.max(25 * (view.scale / view.whole) ** 0.45, 25), 72);
const spread = new Map(); // by zoom, the rows whose pictures have room
function withRoom() {
  const level = Math.round(2 * Math.log2(view.scale / view.whole));
  if (spread.has(level)) return spread.get(level);
  const cell = (pictureSide() * 1.5) / (view.whole * 2 ** (level / 2));
  const best = new Map();
  for (let row = 0; row < count; row++) {
    if (!widths[row] || !visible(row)) continue;
    const [column, line] = [Math.floor(xs[row] / cell), Math.floor(ys[row] / cell)];
    const far = Math.hypot(xs[row] / cell - column - 0.5, ys[row] / cell - line - 0.5);
    const key = `${column} ${line}`;
    const before = best.get(key);
    if (!before || far < before.far) best.set(key, { row, far });
  }
  const rows = Uint32Array.from([...best.values()], (each) => each.row);
  spread.set(level, rows);
  return rows;
}
function drawPictures() {
  const side = pictureSide();
  for (const row of withRoom()) {
    const [x, y] = [toX(xs[row]), toY(ys[row])];
    if (x < -side || y < -side || x > size.width + side || y > size.height + side) continue;
    const each = tile(row);
    if (!each.image.ready) continue;
    const grown = side / Math.max(each.width, each.height);
    const [wide, high] = [each.width * grown, each.height * grown];
    pen.globalAlpha = lit(row) ? 1 : 0.15;
    pen.fillStyle = css(palette[code[row]]);
    pen.fillRect(x - wide / 2 - 2, y - high / 2 - 2, wide + 4, high + 4);
    pen.imageSmoothingEnabled = Math.max(each.width, each.height) > TINY;
    pen.drawImage(each.image, each.x, each.y, each.width, each.height, x - wide / 2, y - high / 2, wide, high);
  }
  pen.globalAlpha = 1;
}

// Of each category the place where most of its rows are.
let anchors = null;
function places() {
  if (anchors || !current || current.kind === "number") return anchors || [];
  const fine = 28;
  const totals = Array.from({ length: MOST }, () => new Map());
  for (let row = 0; row < count; row++) {
    if (code[row] >= MOST || !visible(row)) continue;
    const key = Math.floor(((xs[row] - bounds.left) / span) * fine) * 1000 + Math.floor(((ys[row] - bounds.top) / span) * fine);
    const cell = totals[code[row]].get(key) || { n: 0, x: 0, y: 0 };
    cell.n++; cell.x += xs[row]; cell.y += ys[row];
    totals[code[row]].set(key, cell);
  }
  anchors = totals.flatMap((cells, entry) => {
    const around = (key) => [-1001, -1000, -999, -1, 0, 1, 999, 1000, 1001]
      .map((step) => cells.get(key + step)).filter(Boolean)
      .reduce((sum, each) => ({ n: sum.n + each.n, x: sum.x + each.x, y: sum.y + each.y }));
    const best = [...cells.keys()].map(around).sort((one, other) => other.n - one.n)[0];
    return best ? [{ entry, x: best.x / best.n, y: best.y / best.n }] : [];
  });
  return anchors;
}
const family = getComputedStyle(document.body).fontFamily;
function drawNames() {
  const taken = [];
  pen.font = `600 14px ${family}`;
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  pen.lineJoin = "round";
  for (const { entry, x, y } of places()) {
    const whole = entryName(entry);
    const name = whole.length > 26 ? `${whole.slice(0, 25)}…` : whole;
    const [left, top, wide] = [toX(x), toY(y), pen.measureText(name).width / 2 + 4];
    if (left < 0 || top < 0 || left > size.width || top > size.height) continue;
    if (taken.some((each) => Math.abs(each.left - left) < each.wide + wide && Math.abs(each.top - top) < 17)) continue;
    taken.push({ left, top, wide });
    pen.lineWidth = 4;
    pen.strokeStyle = css(rgb("paper"));
    pen.strokeText(name, left, top);
    pen.fillStyle = css(rgb("ink"));
    pen.fillText(name, left, top);
  }
}
function ring(row, color) {
  pen.beginPath();
  pen.arc(toX(xs[row]), toY(ys[row]), radius() + 3.5, 0, 7);
  pen.lineWidth = 4;
  pen.strokeStyle = css(rgb("paper"));
  pen.stroke();
  pen.lineWidth = 2;
  pen.strokeStyle = css(rgb(color));
  pen.stroke();
}
function drawAbove() {
  pen.setTransform(size.ratio, 0, 0, size.ratio, 0, 0);
  pen.clearRect(0, 0, size.width, size.height);
  if (widths && at("pictures").checked) drawPictures();
  if (at("names").checked) drawNames();
  if (pinned >= 0) ring(pinned, "first");
  if (hovered >= 0) ring(hovered, "ink");
  if (byKeys) {
    const [x, y] = [size.width / 2, size.height / 2];
    pen.lineWidth = 1;
    pen.strokeStyle = css(rgb("faint"));
    pen.beginPath();
    pen.moveTo(x - 12, y); pen.lineTo(x - 4, y); pen.moveTo(x + 4, y); pen.lineTo(x + 12, y);
    pen.moveTo(x, y - 12); pen.lineTo(x, y - 4); pen.moveTo(x, y + 4); pen.lineTo(x, y + 12);
    pen.stroke();
  }
  if (region) {
    pen.beginPath();
    region.forEach(([x, y]) => pen.lineTo(x, y));
    pen.closePath();
    pen.globalAlpha = 0.12;
    pen.fillStyle = css(rgb("first"));
    pen.fill();
    pen.globalAlpha = 1;
    pen.lineWidth = 1.5;
    pen.strokeStyle = css(rgb("first"));
    pen.stroke();
  }
}

let asked = 0; // 1: what lies above, 2: the points, too
function ask(what) {
  if (!asked) requestAnimationFrame(() => {
    const wanted = asked;
    asked = 0;
    if (!size.width) return;
    if (wanted > 1) drawPoints();
    drawAbove();
    stage.dataset.view = `${view.x} ${view.y} ${view.scale}`;
  });
  asked = Math.max(asked, what);
}
const frame = () => ask(2);

function fit() {
  const box = stage.getBoundingClientRect();
  const before = size.width;
  const ratio = Math.min(devicePixelRatio || 1, 2);
  size = { width: stage.clientWidth, height: stage.clientHeight, ratio };
  for (const each of [lower, upper]) {
    each.width = Math.max(1, Math.round(size.width * ratio));
    each.height = Math.max(1, Math.round(size.height * ratio));
  }
  const image = ink.createImageData(lower.width, lower.height);
  pixels = { image, words: new Uint32Array(image.data.buffer) };
  if (before) frame(); else if (box.width) showAll();
}
