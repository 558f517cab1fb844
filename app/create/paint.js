// Painted masks: where a region is, or where the picture that one starts from may change. White is painted, black is not.
const MASK_SIDE = 128, UNDOS = 20, TINT = 0.55, CHANGES = "#e11d48";
const brush = {target: null, erase: false, canvas: null, past: []};

// What is painted now: {region: its number} or {start: true}.
const painting = () => brush.target !== null;

function maskSize() {
  const sides = [Number(state.form.width) || 64, Number(state.form.height) || 64], scale = MASK_SIDE / Math.max(...sides);
  return sides.map(side => Math.max(1, Math.round(side * scale)));
}

function pictureOf(mask) {
  const image = new Image();
  return new Promise((done, fail) => { image.onload = () => done(image); image.onerror = fail; image.src = `data:image/png;base64,${mask}`; });
}

// `to` shows `source`, a mask, as colour over the picture.
function tint(source, to, colour) {
  const width = source.naturalWidth || source.width, height = source.naturalHeight || source.height;
  Object.assign(to, {width, height});
  const context = to.getContext("2d", {willReadFrequently: true});
  context.drawImage(source, 0, 0);
  const data = context.getImageData(0, 0, width, height), rgb = [1, 3, 5].map(at => parseInt(colour.slice(at, at + 2), 16));
  for (let at = 0; at < data.data.length; at += 4) {
    data.data[at + 3] = data.data[at] * TINT;
    for (let part = 0; part < 3; part++) data.data[at + part] = rgb[part];
  }
  context.putImageData(data, 0, 0);
}

async function tintMask(canvas, {mask, colour}) {
  const shown = mask + colour;
  if (canvas.shown === shown) return;
  canvas.shown = shown;
  try {
    const image = await pictureOf(mask);
    if (canvas.shown === shown) tint(image, canvas, colour);
  } catch { canvas.width = canvas.width; }  // no mask: nothing is shown
}

// The masks of all regions but the one that is being painted, which has a canvas of its own.
function drawPaints() {
  const layers = state.form.regions.map((region, at) => ({at, mask: region.mask, colour: colour(region.concept)}))
    .filter(layer => layer.mask && brush.target?.region !== layer.at);
  keep($(".paints"), layers, () => make("canvas"), tintMask);
}

async function paint(target) {
  stopPainting();
  setDrawing(false);
  const [width, height] = maskSize(), canvas = make("canvas", {width, height});
  const context = canvas.getContext("2d", {willReadFrequently: true});
  Object.assign(brush, {target, canvas, past: [], erase: false});
  context.fillRect(0, 0, width, height);
  const kept = holderOf(target).mask;
  if (kept) try { context.drawImage(await pictureOf(kept), 0, 0, width, height); } catch { /* painted anew */ }
  if (brush.canvas !== canvas) return;
  $(".brush .what").textContent = target.start ? "Where it may change" : title(state.form.regions[target.region], target.region);
  $(".brush").hidden = $(".live").hidden = false;
  for (const part of [".frame", ".stage"]) $(part).classList.add("painting");
  if (target.start) showStart();
  changed();
  showBrush();
  $(".stage").scrollIntoView({block: "start"});  // the picture, and the brush below it
}

function holderOf(target) { return target.start ? state.form.start ?? {} : state.form.regions[target.region] ?? {}; }

function stopPainting() {
  if (!painting()) return;
  const {start} = brush.target;
  Object.assign(brush, {target: null, canvas: null, past: []});
  $(".brush").hidden = $(".live").hidden = true;
  for (const part of [".frame", ".stage"]) $(part).classList.remove("painting");
  $(".frame img").classList.remove("cover");
  if (start) choose(state.chosen);
  changed();
}

function showBrush() {
  $("#brush").setAttribute("aria-pressed", String(!brush.erase));
  $("#erase").setAttribute("aria-pressed", String(brush.erase));
  $("#undo-paint").disabled = !brush.past.length;
  tint(brush.canvas, $(".live"), brush.target.start ? CHANGES : colour(holderOf(brush.target).concept));
  $("#paint-start").setAttribute("aria-pressed", String(Boolean(brush.target.start)));
}

function setErase(on) { brush.erase = on; showBrush(); }

// One dab: the lighter, or when erasing the darker, of what is there and the brush, so that strokes do not add up.
function dab(x, y) {
  const {canvas} = brush, context = canvas.getContext("2d");
  const radius = Math.max(0.6, Number($("#brush-size").value) / 200 * Math.min(canvas.width, canvas.height));
  const hard = 1 - Number($("#brush-soft").value) / 100;
  const [inner, outer] = brush.erase ? ["#000", "#fff"] : ["#fff", "#000"];
  const shade = context.createRadialGradient(x, y, 0, x, y, radius);
  shade.addColorStop(0, inner);
  shade.addColorStop(hard, inner);
  if (hard < 1) shade.addColorStop(1, outer);
  context.globalCompositeOperation = brush.erase ? "darken" : "lighten";
  context.fillStyle = shade;
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fill();
}

function paintStroke(event) {
  const {canvas} = brush, context = canvas.getContext("2d");
  brush.past = [...brush.past.slice(1 - UNDOS), context.getImageData(0, 0, canvas.width, canvas.height)];
  const pixels = ([x, y]) => [x * canvas.width, y * canvas.height];
  let last = null;
  const to = place => {
    const [x, y] = pixels(place), [x0, y0] = last ?? [x, y];
    const dabs = Math.max(1, Math.ceil(Math.hypot(x - x0, y - y0)));
    for (let at = 1; at <= dabs; at++) dab(x0 + (x - x0) * at / dabs, y0 + (y - y0) * at / dabs);
    last = [x, y];
    if (brush.canvas === canvas) showBrush();
  };
  const begun = follow(event, (_, now) => to(now), () => brush.canvas === canvas && storePaint());
  to(begun);
}

// The box round what is painted, as fractions; null where nothing is.
function paintedBox(canvas) {
  const {width, height} = canvas, {data} = canvas.getContext("2d").getImageData(0, 0, width, height);
  let [left, top, right, bottom] = [width, height, 0, 0];
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) {
    if (data[4 * (y * width + x)] <= 127) continue;
    left = Math.min(left, x); right = Math.max(right, x + 1); top = Math.min(top, y); bottom = Math.max(bottom, y + 1);
  }
  return right ? rounded([left / width, top / height, right / width, bottom / height]) : null;
}

function storePaint() {
  const box = paintedBox(brush.canvas), holder = holderOf(brush.target);
  holder.mask = box && brush.canvas.toDataURL("image/png").split(",")[1];
  if (box && brush.target.region !== undefined) holder.box = box;
  changed();
}

function undoPaint() {
  const before = brush.past.pop();
  if (!before) return;
  const context = brush.canvas.getContext("2d");
  context.putImageData(before, 0, 0);
  showBrush();
  storePaint();
}

function brushKey(event) {
  const size = $("#brush-size"), by = {"[": -4, "]": 4}[event.key];
  if (by) size.value = Number(size.value) + by;
  else if (event.key.toLowerCase() === "e") setErase(!brush.erase);
  else return false;
  return true;
}
