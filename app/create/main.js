// Start, buttons and keys.
const actions = {
  cancel: () => ask("cancel", null).then(look),
  draw: () => setDrawing(!state.drawing),
  "add-region": () => addRegion(null),
  "last-seed": () => { field("seed").value = state.form.seed = state.lastSeed; changed(); },
  "new-seed": () => { field("seed").value = state.form.seed = ""; changed(); },
  "save-preset": savePreset,
  "save-recipe": saveRecipe,
  "open-file": () => $(".file").click(),
  "clear-form": () => showForm({}),
  reuse, variations, star, edit,
  refine: () => finish("refine"),
  upscale: () => finish("upscale"),
  "start-here": startHere,
  "start-file": () => $("#start-file").click(),
  "paint-start": () => brush.target?.start ? stopPainting() : paint({start: true}),
  "unpaint-start": () => { stopPainting(); state.form.start.mask = null; changed(); },
  "forget-start": () => { state.form.start = null; changed(); },
  "control-here": controlHere,
  "control-file": () => $("#control-file").click(),
  "forget-control": () => { state.form.control = null; changed(); },
  brush: () => setErase(false),
  erase: () => setErase(true),
  "undo-paint": undoPaint,
  "done-paint": stopPainting,
  delete: removePicture,
  starred: () => {
    state.starred = !state.starred;
    $("#starred").setAttribute("aria-pressed", String(state.starred));
    loadPictures();
  },
  welcome: () => {
    const {names, ...form} = state.desk.welcome;
    showForm(form);
    $(".welcome").hidden = true;
    submit(state.form);
  },
};

function goTo(place) { document.dispatchEvent(new CustomEvent("spectral-fusion:place", {detail: place})); }

function keys(event) {
  if (!element.offsetParent) return;  // another place is shown
  const list = $(".completion");
  if (event.target === field("prompt") && !list.hidden && list.found?.length) {
    if (event.key === "Tab" || event.key === "Enter" && !event.ctrlKey) { event.preventDefault(); return accept(list.found[0]); }
    if (event.key === "Escape") { list.hidden = true; return; }
  }
  const writing = event.target.matches?.("input, textarea, select");
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); submit(state.form); }
  else if (event.key === "Escape" && painting()) stopPainting();
  else if (painting() && !event.target.matches?.("textarea, select, input:not([type=range])") && brushKey(event)) event.preventDefault();
  else if (event.key === "Escape" && state.drawing) setDrawing(false);
  else if (event.key === "Escape" && !$("#cancel").disabled && !document.querySelector("dialog[open]")) actions.cancel();
  else if (event.key === "?" && !writing) $(".keys").showModal();
}

async function start(first = true) {
  const desk = await ask("desk");
  if (!desk || desk.error) return setTimeout(() => start(first), 1500);
  const before = state.desk?.defaults;
  state.desk = desk;
  field("sampler").replaceChildren(...desk.samplers.map(name => make("option", {value: name}, name)));
  for (const [name, most] of [["steps", desk.limits.steps], ["width", desk.limits.edge], ["height", desk.limits.edge], ["pictures", desk.limits.pictures]]) field(name).max = most;
  $("#controlnets").replaceChildren(...desk.control.models.map(name => make("option", {value: name})));
  field("prompt").maxLength = desk.limits.prompt;
  $(".cards").replaceChildren();
  drawChips();
  const kept = state.form ?? recall(FORM_KEY) ?? {};
  const asBefore = before && kept.width === before.width && kept.height === before.height;  // of the base, or of none yet
  const other = asBefore || (state.baseSeen && state.baseSeen !== desk.base);
  try { showForm(other ? {...kept, width: desk.defaults.width, height: desk.defaults.height} : kept); }
  catch { showForm({}); }  // what an older page kept
  state.baseSeen = desk.base;
  $(".welcome").hidden = !desk.welcome;
  drawPresets();
  fitFrame();
  element.firstElementChild.classList.add("ready");
  if (first) look();
}

element.addEventListener("click", event => {
  const button = event.target.closest("[data-do], [data-place]");
  if (button?.dataset.do) actions[button.dataset.do]?.();
  if (button?.dataset.place) goTo(button.dataset.place);
});
$(".form").addEventListener("input", readField);
$(".form").addEventListener("change", readField);
$(".form").addEventListener("submit", event => { event.preventDefault(); submit(state.form); });
$(".strip").addEventListener("keydown", stripKey);
$(".frame").addEventListener("pointerdown", startStroke);
$(".frame img").addEventListener("load", fitFrame);
$("#f-strength").addEventListener("input", event => { state.form.start.strength = Number(event.target.value); changed(); });
$("#start-file").addEventListener("change", event => { const [file] = event.target.files; event.target.value = ""; if (file) startFile(file); });
$("#control-file").addEventListener("change", event => { const [file] = event.target.files; event.target.value = ""; if (file) controlFile(file); });
$("#f-control-model").addEventListener("input", event => controlBy("model", event.target.value));
$("#f-control-scale").addEventListener("input", event => controlBy("scale", Number(event.target.value)));
for (const name of ["start", "end"]) $(`#f-control-${name}`).addEventListener("input", event => controlBy(name, Number(event.target.value) / 100));
$("#preset-name").addEventListener("keydown", event => { if (event.key === "Enter" && !event.ctrlKey) { event.preventDefault(); savePreset(); } });
$("#redraw").addEventListener("change", event => { setRedraw(event.target.checked); changed(); });
$("#made").addEventListener("toggle", () => $("#made").open && showMade());
$(".file").addEventListener("change", event => { const [file] = event.target.files; event.target.value = ""; if (file) openFile(file); });
element.addEventListener("dragover", event => event.preventDefault());
element.addEventListener("drop", event => { event.preventDefault(); const [file] = event.dataTransfer.files; if (file) (event.target.closest("#start") ? startFile : event.target.closest("#control") ? controlFile : openFile)(file); });
document.addEventListener("keydown", keys);
new ResizeObserver(() => { if (state.form) { fitFrame(); refreshSize(); } }).observe($(".viewer"));
document.addEventListener("spectral-fusion:library", () => start(false));
document.addEventListener("spectral-fusion:open", event => { const add = () => { if (concept(event.detail)) insert(event.detail); }; concept(event.detail) ? add() : start(false).then(add); });
start();
