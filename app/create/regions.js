// Regions: parts of the picture that belong to a concept, drawn on the picture itself and listed with numbers.
const SMALLEST = 0.04, STEP = 0.01;
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const rounded = box => box.map(edge => Math.round(edge * 1000) / 1000);

function addRegion(box) {
  const most = state.desk.limits.regions;
  if (state.form.regions.length >= most) return problem(`${most} regions are the most; remove one first`, "regions");
  const taken = state.form.regions.map(region => region.concept);
  const free = used().find(name => !taken.includes(name)) ?? used()[0] ?? "";
  const at = state.form.regions.length;
  state.form.regions.push({concept: free, prompt: "", box: rounded(box ?? freePlace(at))});
  if (!at) setRedraw(true);
  $("#regions").open = true;
  changed();
}

// Where the base puts the next of so many subjects side by side.
function freePlace(at) {
  const places = state.desk.places[Math.max(used().length, at + 1)] ?? state.desk.places[2];
  return places?.[at] ?? [0.25, 0.25, 0.75, 0.75];
}

// Subjects with concepts are drawn apart and put together; a region of mere words gets a pass of its own.
function setRedraw(on) {
  const regions = state.form.regions, apart = regions.every(region => region.concept);
  if (!regions.length) on = false;
  state.form.composite = on && apart ? state.desk.composite : 0;
  field("detail").value = state.form.detail = on && !apart ? state.desk.redraw : 0;
}

// After a region has changed: the way in which its subject is drawn by itself may be another.
function settleRedraw() {
  if (state.form.composite > 0 && !state.form.regions.every(region => region.concept)) setRedraw(true);
}

function removeRegion(at) {
  stopPainting();
  state.form.regions.splice(at, 1);
  if (!state.form.regions.length) setRedraw(false);
  changed();
  ($(`.region[data-at="${Math.max(0, at - 1)}"]`) ?? $("#add-region")).focus();
}

function setBox(at, box) {
  let [left, top, right, bottom] = box;
  left = clamp(left, 0, 1 - SMALLEST); top = clamp(top, 0, 1 - SMALLEST);
  right = clamp(right, left + SMALLEST, 1); bottom = clamp(bottom, top + SMALLEST, 1);
  Object.assign(state.form.regions[at], {box: rounded([left, top, right, bottom]), mask: null});
  changed();
}

// How the place is told: by a box, by paint, or not at all, then the model finds it.
const PLACES = {box: "in a box", paint: "where I paint", found: "where the model finds it"};

function placeOf(region, at) {
  return region.mask || brush.target?.region === at ? "paint" : region.box ? "box" : "found";
}

function setPlace(at, place) {
  const region = state.form.regions[at];
  if (place === "paint") return paint({region: at});
  if (brush.target?.region === at) stopPainting();
  Object.assign(region, {box: place === "found" ? null : region.box ?? [0.25, 0.25, 0.75, 0.75], mask: null});
  changed();
}

function moveBox(at, x, y) {
  const [left, top, right, bottom] = state.form.regions[at].box;
  const dx = clamp(x, -left, 1 - right), dy = clamp(y, -top, 1 - bottom);
  setBox(at, [left + dx, top + dy, right + dx, bottom + dy]);
}

function title(region, at) { return region.concept || `region ${at + 1}`; }

function drawRegions() {
  const regions = state.form.regions;
  settleRedraw();
  $("#regions .count").textContent = regions.length ? `(${regions.length})` : "";
  $("#redraw-row").hidden = !regions.length;
  $("#redraw").checked = state.form.detail > 0 || state.form.composite > 0;
  keep($("#regions .rows"), regions, regionRow, showRow);
  keep($(".overlay"), regions, regionBox, showBox);
  drawPaints();
}

// As many children as regions, each brought up to date in place: what has the focus keeps it.
function keep(holder, regions, create, show) {
  while (holder.children.length > regions.length) holder.lastChild.remove();
  regions.forEach((region, at) => {
    if (!holder.children[at]) holder.append(create(at));
    show(holder.children[at], region, at);
  });
}

function regionRow(at) {
  const edge = (name, index) => make("label", {}, name, make("input", {type: "number", min: 0, max: 100, step: 1,
    className: "edge", oninput: event => {
      if (event.target.value === "" || !state.form.regions[at].box) return;
      const box = [...state.form.regions[at].box];
      box[index] = clamp(Number(event.target.value) / 100, 0, 1);
      if (box[0] < box[2] && box[1] < box[3]) { Object.assign(state.form.regions[at], {box: rounded(box), mask: null}); changed(); }
    }}));
  return make("div", {className: "region-row"},
    make("i", {className: "swatch"}),
    make("select", {id: `region-concept-${at}`, ariaLabel: `Concept of region ${at + 1}`,
      onchange: event => { state.form.regions[at].concept = event.target.value; changed(); }}),
    make("button", {type: "button", className: "quiet", id: `region-away-${at}`, ariaLabel: `Remove region ${at + 1}`, onclick: () => removeRegion(at)}, "✕"),
    make("input", {className: "words", id: `region-prompt-${at}`, ariaLabel: `Prompt of region ${at + 1}`, placeholder: "its own prompt, if not the picture's",
      oninput: event => { state.form.regions[at].prompt = event.target.value; changed(); }}),
    make("span", {className: "joined place"},
      make("select", {id: `region-place-${at}`, ariaLabel: `Place of region ${at + 1}`, onchange: event => setPlace(at, event.target.value)},
        ...Object.entries(PLACES).map(([value, text]) => make("option", {value}, text))),
      make("button", {type: "button", id: `region-paint-${at}`, ariaLabel: `Paint region ${at + 1}`,
        onclick: () => brush.target?.region === at ? stopPainting() : paint({region: at})}, "Paint")),
    make("span", {className: "edges"}, edge("left %", 0), edge("top %", 1), edge("right %", 2), edge("bottom %", 3)));
}

function showRow(row, region, at) {
  $(".swatch", row).style.background = colour(region.concept);
  const select = $("select", row), names = [...new Set([...used(), ...state.desk.concepts.map(one => one.name)])];
  const options = ["", ...names].join("\n");
  if (select.dataset.options !== options) {
    select.dataset.options = options;
    select.replaceChildren(make("option", {value: ""}, "no concept"), ...names.map(name => make("option", {value: name}, name)));
  }
  select.value = region.concept ?? "";
  const words = $(".words", row);
  if (document.activeElement !== words) words.value = region.prompt ?? "";
  const place = placeOf(region, at);
  $(".place select", row).value = place;
  $(".place button", row).setAttribute("aria-pressed", String(brush.target?.region === at));
  $(".edges", row).hidden = place !== "box";
  $$(".edge", row).forEach((input, index) => {
    if (place !== "box") return;
    if (document.activeElement !== input) input.value = Math.round(region.box[index] * 100);
  });
}

function regionBox(at) {
  const node = make("div", {className: "region", tabIndex: 0, role: "group", dataset: {at}}, make("span", {className: "tag"}));
  for (const corner of ["nw", "ne", "sw", "se"]) node.append(make("i", {className: `corner ${corner}`, dataset: {corner}}));
  node.addEventListener("pointerdown", grab);
  node.addEventListener("keydown", event => {
    const ways = {ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP]};
    if (event.key === "Delete" || event.key === "Backspace") { event.preventDefault(); return removeRegion(at); }
    if (!ways[event.key] || state.form.regions[at].mask) return;
    event.preventDefault();
    const [dx, dy] = ways[event.key];
    const [left, top, right, bottom] = state.form.regions[at].box;
    if (event.shiftKey) setBox(at, [left, top, right + dx, bottom + dy]);
    else moveBox(at, dx, dy);
  });
  return node;
}

function showBox(node, region, at) {
  node.hidden = !region.box;
  if (!region.box) return;
  node.classList.toggle("painted", Boolean(region.mask));
  const [left, top, right, bottom] = region.box.map(edge => edge * 100);
  Object.assign(node.style, {left: `${left}%`, top: `${top}%`, width: `${right - left}%`, height: `${bottom - top}%`});
  node.style.setProperty("--own", colour(region.concept));
  $(".tag", node).textContent = title(region, at);
  node.setAttribute("aria-label",
    `Region ${at + 1}, ${region.concept || "no concept"}: left ${Math.round(left)}, top ${Math.round(top)}, right ${Math.round(right)}, bottom ${Math.round(bottom)} percent`);
}

function follow(event, move, end = () => {}) {
  event.preventDefault();
  const area = $(".frame").getBoundingClientRect();
  const at = pointer => [clamp((pointer.clientX - area.left) / area.width, 0, 1), clamp((pointer.clientY - area.top) / area.height, 0, 1)];
  const start = at(event);
  const moved = pointer => move(start, at(pointer));
  const up = pointer => { window.removeEventListener("pointermove", moved); window.removeEventListener("pointerup", up); end(start, at(pointer)); };
  window.addEventListener("pointermove", moved);
  window.addEventListener("pointerup", up);
  return start;
}

function grab(event) {
  if (state.drawing || painting()) return;
  event.stopPropagation();
  event.currentTarget.focus({preventScroll: true});
  if (state.form.regions[event.currentTarget.dataset.at].mask) return;
  const at = Number(event.currentTarget.dataset.at), before = [...state.form.regions[at].box];
  const corner = event.target.dataset.corner;
  follow(event, ([x0, y0], [x, y]) => {
    const box = [...before], dx = x - x0, dy = y - y0;
    if (!corner) { state.form.regions[at].box = [...before]; return moveBox(at, dx, dy); }
    if (corner.includes("w")) box[0] = Math.min(before[0] + dx, before[2] - SMALLEST); else box[2] = before[2] + dx;
    if (corner.includes("n")) box[1] = Math.min(before[1] + dy, before[3] - SMALLEST); else box[3] = before[3] + dy;
    setBox(at, box);
  });
}

function setDrawing(on) {
  if (on) stopPainting();
  state.drawing = on;
  $("#draw-regions").setAttribute("aria-pressed", String(on));
  $(".frame").classList.toggle("drawing", on);
  if (on) $(".viewer").scrollIntoView({block: "nearest"});
  if (!busy()) status(on ? "Drag a box over the picture for each subject; Esc ends it." : shownWords());
}

function startStroke(event) {
  if (painting()) return paintStroke(event);
  if (!state.drawing) return;
  const band = make("div", {className: "band"});
  $(".overlay").after(band);
  const corners = ([x0, y0], [x, y]) => [Math.min(x0, x), Math.min(y0, y), Math.max(x0, x), Math.max(y0, y)];
  follow(event, (start, now) => {
    const [left, top, right, bottom] = corners(start, now).map(edge => edge * 100);
    Object.assign(band.style, {left: `${left}%`, top: `${top}%`, width: `${right - left}%`, height: `${bottom - top}%`});
  }, (start, now) => {
    band.remove();
    const box = corners(start, now);
    if (box[2] - box[0] >= SMALLEST && box[3] - box[1] >= SMALLEST) addRegion(box);
  });
}
