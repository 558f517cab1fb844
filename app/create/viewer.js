// The viewer: one picture, sharp at a whole multiple of its size; the strip below; how it was made.
const SMALL = 256;  // px: up to here a picture's own pixels are shown

function frameSize(width, height) {
  const area = $(".viewer"), across = area.clientWidth, down = area.clientHeight;
  const ratio = Math.min(across / width, down / height), dots = window.devicePixelRatio || 1;
  const scale = ratio >= 1 ? Math.floor(ratio * dots) / dots : ratio;  // whole dots of the screen: sharp on a phone too
  return {width: width * scale, height: height * scale, scale};
}

function fitFrame() {
  const image = $(".frame img"), shown = !image.hidden && image.naturalWidth;
  const width = shown ? image.naturalWidth : Number(state.form?.width) || 64;
  const height = shown ? image.naturalHeight : Number(state.form?.height) || 64;
  const known = shown && image.dataset.width ? [Number(image.dataset.width), Number(image.dataset.height)] : [width, height];
  const size = frameSize(...known);
  Object.assign($(".frame").style, {width: `${size.width}px`, height: `${size.height}px`});
  image.classList.toggle("sharp", Math.max(width, height) <= SMALL);
  return {...size, natural: known};
}

function showImage(url, alt, size = null) {
  const image = $(".frame img");
  if (size) Object.assign(image.dataset, {width: size[0], height: size[1]});
  else { delete image.dataset.width; delete image.dataset.height; }
  image.alt = alt;
  if (image.getAttribute("src") !== url) image.src = url;
  image.hidden = false;
  $(".frame").classList.toggle("finished", !url.startsWith("data:"));
  $(".frame .empty").hidden = true;
}

function sizeWords(picture) {
  const {scale} = frameSize(picture.width, picture.height);
  const shown = scale > 1 ? `, shown ${Math.round(scale * 10) / 10} times as large` : scale < 1 ? `, shown at ${Math.round(scale * 100)} %` : "";
  return `${picture.width} × ${picture.height} px${shown}`;
}

// Of the picture that is shown; nothing where none is.
function shownWords() {
  const picture = state.pictures.find(one => one.name === state.chosen);
  return picture ? sizeWords(picture) : "";
}

// The size in words again, after the window has changed.
function refreshSize() {
  const picture = state.pictures.find(one => one.name === state.chosen);
  if (picture && /px, shown|px$/.test($(".status").textContent)) status(sizeWords(picture));
}

function choose(name, focus = false) {
  state.chosen = name;
  if (brush.target?.start) return stopPainting();
  const picture = state.pictures.find(one => one.name === name);
  for (const node of $$(".strip [role=option]")) {
    const own = node.dataset.name === name;
    node.setAttribute("aria-selected", String(own));
    node.tabIndex = own ? 0 : -1;
    if (own && focus) node.focus();
    if (own) node.scrollIntoView({block: "nearest", inline: "nearest"});
  }
  $(".tools").hidden = !picture;
  if (!picture) return;
  showImage(picture.url, `Picture ${picture.name}`, [picture.width, picture.height]);
  $("#download").href = picture.url;
  $("#download").download = picture.name;
  $("#star").textContent = picture.starred ? "★ Starred" : "☆ Star";
  $("#star").setAttribute("aria-pressed", String(picture.starred));
  if (!busy()) status(sizeWords(picture));
  $("#made .facts").replaceChildren();
  if ($("#made").open) showMade();
}

// Pictures say it in the words of other programs; the form here in these.
const MADE_WORDS = {"CFG scale": "Guidance", Model: "Base", "Model hash": "Base hash", "Init image": "Started from",
  "Denoising strength": "How much changed", "Hires upscale": "Upscale", "Hires strength": "Upscale changes", "Detail strength": "Refined regions",
  "Composite strength": "Subjects drawn apart"};

function regionWords(region) {
  const edges = region.box?.map(edge => Math.round(edge * 100));
  const place = edges ? `left ${edges[0]}, top ${edges[1]}, right ${edges[2]}, bottom ${edges[3]} %` : "where the model finds it";
  return `${[region.concept, region.prompt].filter(Boolean).join(": ")} · ${place}${region.mask ? ", painted" : ""}`;
}

async function showMade() {
  const name = state.chosen;
  if (!name || $("#made .facts").children.length) return;
  const made = await ask("picture", name);
  if (!made || name !== state.chosen) return;
  if (made.error) return $("#made .facts").replaceChildren(make("dd", {}, made.error));
  const settings = Object.entries(made.settings).map(([key, value]) => [MADE_WORDS[key] ?? key, value]);
  const rows = {Prompt: made.prompt, "Negative prompt": made.negative, ...Object.fromEntries(settings), File: name};
  if (rows.Regions) rows.Regions = made.form.regions.map(regionWords).join("\n");
  if (rows.Mask) rows.Mask = "painted";
  $("#made .facts").replaceChildren(...Object.entries(rows).filter(([, value]) => value)
    .flatMap(([key, value]) => [make("dt", {}, key), make("dd", {}, value)]));
  const image = $(".frame img");
  if (image.getAttribute("src") === made.url) image.alt = made.prompt.slice(0, 300);
}

function drawStrip() {
  const strip = $(".strip"), there = new Map([...strip.children].map(node => [node.dataset.name, node]));
  const nodes = state.pictures.map(picture => there.get(picture.name) ?? thumb(picture));
  const held = strip.contains(document.activeElement) && document.activeElement;
  strip.replaceChildren(...nodes);
  if (held && held.isConnected) held.focus({preventScroll: true});  // a node that moves loses the focus
  for (const node of nodes) node.classList.toggle("starred", state.pictures.find(one => one.name === node.dataset.name).starred);
  if (state.pictures.length < state.count) strip.append(make("button", {type: "button", className: "more", onclick: older}, "Older"));
  $("#starred").hidden = !state.pictures.length && !state.starred;
  if (!state.pictures.length) strip.append(make("p", {className: "hint"}, state.starred ? "No picture has a star yet." : "Pictures stay here, the newest first."));
}

function thumb(picture) {
  return make("button", {type: "button", role: "option", tabIndex: -1, dataset: {name: picture.name}, ariaLabel: `Picture ${picture.name}`,
    onclick: () => choose(picture.name)}, make("img", {src: picture.url, alt: "", loading: "lazy", className: Math.max(picture.width, picture.height) <= SMALL ? "sharp" : ""}));
}

// busy: a preview is shown, which stays; the strip alone is drawn anew.
async function loadPictures(chosen = null, busy = false) {
  const answer = await ask("pictures", {starred: state.starred});
  if (!answer || answer.error) return;
  state.pictures = answer.pictures;
  state.count = answer.count;
  drawStrip();
  if (busy) return;
  const wanted = chosen ?? state.chosen ?? state.pictures[0]?.name;
  choose(state.pictures.some(one => one.name === wanted) ? wanted : state.pictures[0]?.name ?? null);
}

async function older() {
  const answer = await ask("pictures", {starred: state.starred, skip: state.pictures.length});
  if (!answer || answer.error) return;
  state.pictures.push(...answer.pictures);
  drawStrip();
}

function stripKey(event) {
  const way = {ArrowLeft: -1, ArrowRight: 1, Home: -1e6, End: 1e6}[event.key];
  if (!way || !state.pictures.length) return;
  event.preventDefault();
  const at = state.pictures.findIndex(one => one.name === state.chosen);
  choose(state.pictures[clamp(at + way, 0, state.pictures.length - 1)].name, true);
}

async function chosenForm() {
  const made = state.chosen && await ask("picture", state.chosen);
  if (!made) return null;
  if (made.error) { problem(made.error, "restore"); return null; }
  return made.form;
}

async function reuse() {
  const form = await chosenForm();
  if (form) { takeForm(form); status("The form holds this picture's settings."); }
}

// No larger than the base draws well, in the same shape.
function ownSize({width, height}) {
  const scale = Math.min(1, Math.max(state.desk.defaults.width, state.desk.defaults.height) / Math.max(width, height));
  return {width: Math.round(width * scale / 8) * 8, height: Math.round(height * scale / 8) * 8};
}

async function variations() {
  const form = await chosenForm();
  if (!form) return;
  const {missing, left_out: _, ...rest} = form;
  if (rest.start?.strength === 0) Object.assign(rest, {start: null, ...ownSize(rest)});  // refined or enlarged: drawn anew
  await submit({...rest, axes: [], seed: "", pictures: 4});
}

async function star() {
  const picture = state.pictures.find(one => one.name === state.chosen);
  const answer = await ask("star", {name: picture.name, on: !picture.starred});
  if (!answer || answer.error) return;
  picture.starred = !picture.starred;
  drawStrip();
  choose(picture.name);
}

async function removePicture() {
  const name = state.chosen, at = state.pictures.findIndex(one => one.name === name);
  const answer = await ask("remove", name);
  if (!answer || answer.error) return answer && problem(answer.error);
  state.pictures.splice(at, 1);
  drawStrip();
  choose(state.pictures[Math.min(at, state.pictures.length - 1)]?.name ?? null);
  if (!state.pictures.length) { $(".frame img").hidden = true; $(".frame .empty").hidden = false; }
  status("Deleted. ", make("button", {type: "button", className: "link", onclick: () => unremove(name)}, "Bring it back"));
}

async function unremove(name) {
  const answer = await ask("unremove", name);
  if (answer && !answer.error) await loadPictures(name);
}

function status(...parts) { $(".status").replaceChildren(...parts); }
