// Train in three steps: photos, settings, watch.
const KEY = "spectral-fusion.train", BUSY_MS = 1000, CALM_MS = 5000;
const given = {files: [], captions: {}, keys: {}};   // files: {path, name}; captions by the name of the photo
let desk = null, list = [], chosen = null, shown = {grids: 0, photos: false}, timer = null;

function problem(text, field = "") {
  for (const node of $$(".steps .problem")) node.textContent = "";
  for (const node of $$("[aria-invalid]")) node.removeAttribute("aria-invalid");
  if (!text) return;
  const holder = field && $(`[data-field="${field}"]`);
  const place = (holder && $(".problem", holder)) || $(`.steps [data-problem="${field}"]`) || $('.steps [data-problem=""]');
  place.textContent = sentence(text);
  place.closest("details")?.setAttribute("open", "");
  if (holder) { const input = $("input", holder); input?.setAttribute("aria-invalid", "true"); input?.focus(); }
  place.scrollIntoView({block: "nearest"});
}

const valueOf = input => input.type === "checkbox" ? input.checked : input.value;

function keepForm() {
  const values = {name: $("#train-name").value, class: $("#train-class").value, preset: $(".presets input:checked")?.value, files: given.files, captions: given.captions};
  values.settings = Object.fromEntries($$("[data-setting]").map(input => [input.dataset.setting, valueOf(input)]));
  remember(KEY, values);
  $("#train-trigger-hint").textContent = `<${values.name.trim() || "name"}>`;
}

// The photos of the last visit, as long as the server has them still.
async function findPhotos({files, captions}) {
  if (given.files.length || !files?.length) return;
  Object.assign(given, {files, captions: captions ?? {}});
  if (await drawPhotos()) return;
  given.files = [];
  problem("");
  keepForm();
}

// Photos of two folders may have one name: the second is told apart, with what belongs to it.
function ownName(name) {
  const taken = other => given.files.some(file => file.name === other);
  let own = name;
  for (let number = 2; taken(own); number++) own = name.replace(/(-mask\w*)?(\.[^.]*)?$/, (_, side = "", ending = "") => ` (${number})${side}${ending}`);
  return own;
}

async function takeFiles(files) {
  problem("");
  const before = given.files.length;
  $(".advice").textContent = `Sending ${files.length} file${files.length === 1 ? "" : "s"} …`;
  for (const file of files) {
    const name = ownName(file.name);
    try { given.files.push({path: (await upload(name === file.name ? file : new File([file], name, {type: file.type}))).path, name}); }
    catch { problem(`${file.name} could not be sent: it is too large, or the server has no room for it`, "photos"); }
  }
  const fine = await drawPhotos();
  keepForm();
  if (fine || given.files.length === before) return;
  given.files.length = before;  // nothing could be done with them: what was there is shown again
  keepForm();
  if (before) await drawPhotos();
}

// Whether they could be used.
async function drawPhotos() {
  const folder = $("#train-folder").value.trim();
  if (!given.files.length && !folder) {
    $(".photos").replaceChildren(); $(".warnings").replaceChildren(); $(".advice").textContent = "";
    return true;
  }
  const answer = await ask("photos", {files: given.files.map(file => file.path), folder, class: $("#train-class").value});
  if (!answer) { $(".advice").textContent = ""; problem("The server does not answer; try again when the connection is back.", "photos"); return false; }
  if (answer.error) { $(".advice").textContent = ""; $(".photos").replaceChildren(); problem(answer.error, "photos"); return false; }
  $(".advice").textContent = answer.advice;
  if (answer.class && !$("#train-class").value.trim()) $("#train-class").value = answer.class;
  $(".warnings").replaceChildren(...answer.warnings.map(text => make("li", {}, text)));
  given.keys = Object.fromEntries(answer.cards.map(card => [card.name, card.key]));
  $(".photos").replaceChildren(...answer.cards.map(photo));
  return true;
}

function photo(card) {
  const caption = make("textarea", {rows: 2, placeholder: "a caption, if you like", ariaLabel: `Caption of ${card.name}`,
    value: given.captions[card.name] ?? card.caption, oninput: event => { given.captions[card.name] = event.target.value; keepForm(); }});
  const away = make("button", {type: "button", className: "quiet", ariaLabel: `Leave ${card.name} out`, onclick: () => {
    given.files = given.files.filter(file => file.name !== card.name);
    keepForm();
    drawPhotos();
  }});
  return make("figure", {className: "photo"}, make("img", {src: card.url, alt: card.name}), given.files.length ? away : null,
    caption, ...card.warnings.map(text => make("p", {className: "warning"}, text)));
}

function drawSettings() {
  const kept = recall(KEY);
  if (!$("#train-name").value) $("#train-name").value = kept.name ?? "";
  if (!$("#train-class").value) $("#train-class").value = kept.class ?? "";
  $("#train-classes").replaceChildren(...desk.classes.map(value => make("option", {value})));
  const before = $(".presets input:checked")?.value ?? kept.preset ?? "balanced";
  $(".presets").replaceChildren(make("legend", {}, "Time to take"), ...desk.presets.map(one => make("label", {className: "preset"},
    make("input", {type: "radio", name: "preset", value: one.name, checked: one.name === before, onchange: keepForm}),
    make("b", {}, one.name), make("span", {}, `${one.steps} steps, ${one.time}`), make("span", {}, one.gives))));
  if (!$("#train-advanced .grid").children.length) $("#train-advanced .grid").append(...desk.settings.map(one => setting(one, kept.settings?.[one.name] ?? one.value)));
  findPhotos(kept);
  keepForm();
}

function setting(one, value) {
  const id = `train-${one.name.replaceAll("_", "-")}`;
  let input;
  if (one.kind === "choice") {
    input = make("select", {id}, ...one.choices.map(choice => make("option", {value: choice, selected: choice === value}, choice)));
  } else if (one.kind === "check") input = make("input", {id, type: "checkbox", checked: Boolean(value)});
  else input = make("input", {id, value: value ?? "", placeholder: "auto", inputMode: one.kind === "number" ? "decimal" : "text", autocomplete: "off"});
  input.dataset.setting = one.name;
  const field = make("div", {className: "field"}, make("label", {htmlFor: id}, one.label), input, make("p", {className: "hint"}, one.help));
  field.dataset.field = one.name;
  field.append(make("p", {className: "problem", role: "alert"}));
  return field;
}

// The field that a message is about: its own, the one that its first word names, or the photos.
function fieldOf({error, field}) {
  if (field === "trigger" && !$("#train-trigger").value) return "name";
  const first = error.split(" ")[0];
  return [field, first].find(name => name && $(`[data-field="${name}"]`)) ?? (/photo|picture|folder|files?\b/.test(error) ? "photos" : "");
}

async function train() {
  problem("");
  const settings = Object.fromEntries($$("[data-setting]").map(input => [input.dataset.setting, valueOf(input)]));
  const captions = Object.fromEntries(Object.entries(given.captions).filter(([name]) => given.keys[name]).map(([name, text]) => [given.keys[name], text]));
  $("#start-training").disabled = true;
  const answer = await ask("train", {files: given.files.map(file => file.path), folder: $("#train-folder").value, captions, settings,
    name: $("#train-name").value, class: $("#train-class").value, preset: $(".presets input:checked")?.value, replace: $("#train-replace").checked});
  $("#start-training").disabled = false;
  if (!answer) return problem(LOST);
  if (answer.error) {
    if (/replace it$/.test(answer.error)) $(".replace").hidden = false;
    return problem(answer.error, fieldOf(answer));
  }
  $("#train-replace").checked = false;
  $(".replace").hidden = true;
  await choose(answer.id);
  await look();
  $(".watch").scrollIntoView({block: "nearest"});
}

async function look() {
  clearTimeout(timer);
  if (element.offsetParent || list.length === 0) {
    const answer = await ask("trainings");
    if (answer && !answer.error) {
      list = answer.trainings;
      if (!list.some(one => one.id === chosen)) { chosen = list[0]?.id ?? null; shown = {grids: 0, photos: false}; clearShown(); }
      drawList();
      if (chosen) await drawChosen();
    }
  }
  timer = setTimeout(look, list.some(one => one.active) ? BUSY_MS : CALM_MS);
}

function drawList() {
  $(".watch .empty").hidden = list.length > 0;
  $(".shown").hidden = !list.length;
  redraw($(".list"), list.slice(0, 30).map(one => {
    const node = make("button", {type: "button", onclick: () => choose(one.id)}, make("b", {}, one.name), ` ${one.began} · ${one.state}`);
    node.setAttribute("role", "option");
    node.setAttribute("aria-selected", String(one.id === chosen));
    node.dataset.id = one.id;
    return node;
  }));
}

function sampleWords({step, likeness}) {
  return likeness === null || likeness === undefined ? `step ${step}` : `step ${step} · likeness ${likeness.toFixed(2)}`;
}

function clearShown() { $(".samples").replaceChildren(); $(".pair").replaceChildren(); $(".thumbs").replaceChildren(); $("#loss-curve").replaceChildren(); }

async function choose(id) {
  if (id !== chosen) { chosen = id; shown = {grids: 0, photos: false}; clearShown(); }
  drawList();
  await drawChosen();
}

async function drawChosen() {
  const id = chosen, seen = shown.grids, one = await ask("training", {id, ...shown});
  if (!one || one.field !== undefined || id !== chosen) return;  // a failed training has an error of its own
  const bar = $(".watch progress");
  bar.hidden = one.state === "finished" || one.state === "failed" || one.state === "stopped";
  if (one.steps) bar.value = one.step / one.steps; else bar.removeAttribute("value");
  $(".words").textContent = `${one.name}: ${one.words}`;
  $(".words").dataset.kind = one.state;
  $(".watch .error").textContent = one.error ?? "";
  $("#cancel-training").hidden = !one.active;
  $("#resume-training").hidden = !one.resumable;
  $("#remove-training").hidden = one.active;
  $("#open-trained").hidden = !one.can_create;
  if (one.photos) {
    $(".thumbs").replaceChildren(...one.photos.map(src => make("img", {src, alt: "photo"})));
    shown.photos = true;
  }
  $(".compare").hidden = !$(".thumbs").children.length;
  for (const grid of seen === shown.grids ? one.grids : []) {  // another answer may have brought them meanwhile
    $(".samples").prepend(make("figure", {}, make("img", {src: grid.url, alt: `samples at step ${grid.step}`}), make("figcaption", {}, sampleWords(grid))));
  }
  shown.grids = Math.max(shown.grids, one.count);
  const ends = one.state === "finished" && one.count > 1;
  $(".ends").hidden = !ends;
  if (ends && !$(".pair").children.length) $(".pair").append(...[".samples > :last-child", ".samples > :first-child"].map(end => $(end).cloneNode(true)));
  $(".likeness").hidden = !one.likeness;
  if ($("#likeness-curve").dataset.count !== one.count + id) { $("#likeness-curve").innerHTML = one.likeness; $("#likeness-curve").dataset.count = one.count + id; }
  $(".samples-title").hidden = !$(".samples").children.length;
  if ($("#loss-curve").dataset.step !== String(one.step) + id) { $("#loss-curve").innerHTML = one.curve; $("#loss-curve").dataset.step = String(one.step) + id; }
}

const actions = {
  browse: () => $("#train-files").click(),
  cancel: () => ask("cancel", chosen).then(look),
  resume: async () => { const answer = await ask("resume", chosen); if (answer?.error) $(".watch .error").textContent = answer.error; else look(); },
  remove: async () => { await ask("remove", chosen); chosen = null; look(); },
  open: () => {
    const name = list.find(one => one.id === chosen).name;
    document.dispatchEvent(new CustomEvent("spectral-fusion:open", {detail: name}));
    document.dispatchEvent(new CustomEvent("spectral-fusion:place", {detail: "create"}));
  },
};

// When the place comes into view, and only then.
function whenShown(action) {
  let seen = false;
  new ResizeObserver(() => {
    const now = Boolean(element.offsetParent);
    if (now && !seen) action();
    seen = now;
  }).observe(element);
}

async function start() {
  const answer = await ask("desk");
  if (!answer || answer.error || !answer.ready) setTimeout(start, 1500);
  if (!answer || answer.error) return;
  desk = answer;
  drawSettings();
}

element.addEventListener("click", event => { const button = event.target.closest("[data-do]"); if (button) actions[button.dataset.do]?.(); });
$(".steps").addEventListener("submit", event => { event.preventDefault(); train(); });
$(".steps").addEventListener("input", event => { if (event.target.getAttribute("aria-invalid")) problem(""); keepForm(); });
$("#train-advanced").addEventListener("change", keepForm);
$("#train-files").addEventListener("change", event => { const files = [...event.target.files]; event.target.value = ""; takeFiles(files); });
$("#train-folder").addEventListener("change", drawPhotos);
$("#train-drop").addEventListener("dragover", event => { event.preventDefault(); $("#train-drop").classList.add("over"); });
$("#train-drop").addEventListener("dragleave", () => $("#train-drop").classList.remove("over"));
$("#train-drop").addEventListener("drop", event => { event.preventDefault(); $("#train-drop").classList.remove("over"); takeFiles([...event.dataTransfer.files]); });
document.addEventListener("spectral-fusion:library", () => { start(); look(); });
whenShown(look);
start();
look();
