// The form: its fields, the cards of the concepts in use, grid and presets.
const FINISH = ["detail", "upscale", "upscale_strength"];
const NUMBERS = ["steps", "guidance", "width", "height", "pictures", ...FINISH];
const FIELDS = ["prompt", "negative", "sampler", "seed", ...NUMBERS];

function field(name) { return $(`#f-${name}`); }

// Names of the concepts in use, in the order of the prompt, then of the regions, then the pinned ones.
function used() {
  const text = fold([state.form.prompt, ...state.form.regions.map(region => region.prompt)].join("\n"));
  const places = state.desk.concepts.map(one => [one.name, one.trigger ? text.indexOf(fold(one.trigger)) : -1]);
  const named = places.filter(([, at]) => at >= 0).sort((a, b) => a[1] - b[1]).map(([name]) => name);
  const more = [...state.form.regions.map(region => region.concept), ...state.form.pinned];
  return [...new Set([...named, ...more.filter(name => concept(name))])];
}

function changed() {
  remember(FORM_KEY, state.form);
  drawCards();
  drawRegions();
  drawStart();
  drawControl();
  const passes = (state.form.detail > 0) + (state.form.upscale > 1);
  $("#finish .count").textContent = passes ? `(${passes})` : "";
  if (!$("#grid").contains(document.activeElement)) drawGrid();
}

function showForm(form) {
  const defaults = structuredClone(state.desk.defaults);
  stopPainting();
  state.form = {...defaults, ...form};
  for (const name of ["regions", "axes", "pinned"]) state.form[name] = state.form[name] ?? [];
  for (const name of ["concepts", "spans"]) state.form[name] = state.form[name] ?? {};
  $(".cards").replaceChildren();
  for (const name of FIELDS) field(name).value = state.form[name] ?? "";
  if (state.form.regions.length) $("#regions").open = true;
  if (state.form.axes.length) $("#grid").open = true;
  if (state.form.start) $("#start").open = true;
  if (state.form.control) $("#control").open = true;
  if (state.form.detail > 0 || state.form.upscale > 1) $("#finish").open = true;
  problem("");
  changed();
}

function readField(event) {
  const name = event.target.name;
  if (!FIELDS.includes(name)) return;
  const text = event.target.value;
  state.form[name] = NUMBERS.includes(name) ? (text === "" ? state.desk.defaults[name] : Number(text)) : text;
  if (event.target.getAttribute("aria-invalid")) problem("");
  if (name === "prompt") complete();
  if (name === "width" || name === "height") fitFrame();
  changed();
}

function insert(name) {
  const one = concept(name), prompt = state.form.prompt.replace(/[ ,]+$/, "");
  if (!one.trigger) {  // a LoRA without words of its own
    if (!state.form.pinned.includes(name)) state.form.pinned.push(name);
    return changed();
  }
  if (fold(prompt).includes(fold(one.trigger))) return;
  const phrase = `a ${one.trigger} ${one.class}`.trim();
  const open = /\b(of|and|with)$/.test(prompt);
  state.form.prompt = prompt ? `${prompt} ${open ? "" : "and "}${phrase}` : `a photo of ${phrase}`;
  field("prompt").value = state.form.prompt;
  changed();
}

// Without a concept: with the words that a press on its chip wrote, else its trigger alone, so that its kind stays.
function withoutConcept(text, {trigger, class: kind}) {
  if (!trigger) return text;
  const plain = words => words.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  const phrase = `a ${plain(trigger)}${kind ? ` ${plain(kind)}` : ""}(?![\\w-])`;
  if (new RegExp(`^(a photo of )?${phrase}$`, "i").test(text.trim())) return "";
  const written = new RegExp(`\\b${phrase} and (?=a )|(,| and) ${phrase}`, "i");
  return text.replace(written, "").replace(new RegExp(`\\s*${plain(trigger)}`, "gi"), "").trim();
}

function takeOut(name) {
  const without = text => withoutConcept(text.normalize("NFC"), concept(name));
  state.form.prompt = field("prompt").value = without(state.form.prompt);
  state.form.pinned = state.form.pinned.filter(other => other !== name);
  state.form.regions = state.form.regions.filter(region => region.concept !== name);
  if (!state.form.regions.length) setRedraw(false);
  for (const region of state.form.regions) region.prompt = without(region.prompt ?? "");
  delete state.form.concepts[name];
  delete state.form.spans[name];
  changed();
}

function drawChips() {
  const chips = $(".form .chips");
  const picture = one => one.icon ? make("img", {src: one.icon, alt: ""}) : make("span", {className: "blank"});
  const examples = (state.desk.welcome?.names ?? []).map(concept).filter(one => one?.icon);
  $(".welcome .who").replaceChildren(...examples.map(picture));
  chips.replaceChildren(...state.desk.concepts.map(one => make("button",
    {type: "button", id: `chip-${one.name}`, title: one.lora ? `LoRA ${one.trigger}` : `${one.trigger} ${one.class}`, onclick: () => used().includes(one.name) ? takeOut(one.name) : insert(one.name)},
    picture(one), one.name)));
  if (!state.desk.concepts.length && state.desk.base) {
    chips.replaceChildren(make("p", {className: "hint"}, "No concepts for this base yet. ",
      make("button", {type: "button", className: "link", dataset: {place: "train"}}, "Train one"), " or ",
      make("button", {type: "button", className: "link", dataset: {place: "library"}}, "import its file"), "."));
  }
}

function drawCards() {
  const cards = $(".cards"), names = used();
  $("#live-row").hidden = !names.length;
  for (const chip of $$(".form .chips [id^=chip-]")) chip.setAttribute("aria-pressed", String(names.includes(chip.id.slice(5))));
  const there = new Map([...cards.children].map(node => [node.dataset.name, node]));
  const nodes = names.map(name => there.get(name) ?? card(name));
  for (const [name, node] of there) if (!names.includes(name)) node.remove();
  nodes.forEach((node, at) => { if (cards.children[at] !== node) cards.insertBefore(node, cards.children[at] ?? null); });
  for (const node of nodes) {
    const weight = state.form.concepts[node.dataset.name] ?? 1;
    for (const input of $$("input:not(.when)", node)) if (document.activeElement !== input) input.value = weight;
  }
}

function card(name) {
  const one = concept(name);
  const set = event => {
    if (event.target.value === "" || Number.isNaN(Number(event.target.value))) return;
    state.form.concepts[name] = Math.min(10, Math.max(-10, Number(event.target.value)));
    changed();
  };
  const settle = () => $("#live").checked && submit(state.form);
  return make("div", {className: "card", dataset: {name}, style: {borderColor: colour(name)}},
    one.icon ? make("img", {src: one.icon, alt: ""}) : make("span", {className: "blank"}),
    make("b", {}, name),
    make("input", {type: "range", min: -1, max: 2, step: 0.05, ariaLabel: `Weight of ${name}`, oninput: set, onchange: settle}),
    make("input", {type: "number", id: `weight-${name}`, step: 0.05, ariaLabel: `Weight of ${name}, as a number`, oninput: set, onchange: settle}),
    make("button", {type: "button", className: "quiet", id: `span-${name}`, ariaLabel: `When ${name} acts`, title: "When it acts",
      onclick: event => { const row = $(".span", event.target.closest(".card")); row.hidden = !row.hidden; }}, "⋯"),
    make("button", {type: "button", className: "quiet", id: `away-${name}`, ariaLabel: `Take ${name} out`,
      onclick: () => takeOut(name)}, "✕"),
    make("span", {className: "span", hidden: !state.form.spans[name]}, "acts from", edgeOfSpan(name, 0), "to", edgeOfSpan(name, 1), "% of the steps"));
}

function edgeOfSpan(name, index) {
  const set = event => {
    const span = [...(state.form.spans[name] ?? [0, 1])];
    span[index] = Math.min(1, Math.max(0, Number(event.target.value) / 100));
    if (span[0] < span[1]) { state.form.spans[name] = span; changed(); }
  };
  const word = index ? "Last" : "First";
  return make("input", {type: "number", min: 0, max: 100, step: 5, value: Math.round((state.form.spans[name] ?? [0, 1])[index] * 100),
    className: "when", ariaLabel: `${word} part of the steps of ${name}, in percent`, oninput: set});
}

// A list of triggers while one is being written: `<re` offers `<rex>`.
function complete() {
  const area = field("prompt"), list = $(".completion");
  const begun = area.value.slice(0, area.selectionStart).match(/<(?:lora:)?([\w-]*)$/);
  const found = begun ? state.desk.concepts.filter(one => fold(one.name).startsWith(fold(begun[1]))) : [];
  list.hidden = !found.length;
  list.replaceChildren(...found.map((one, at) => make("li", {role: "option", ariaSelected: String(at === 0),
    onpointerdown: event => { event.preventDefault(); accept(one); }}, `${one.trigger} ${one.class}`)));
  list.found = found;
}

function accept(one) {
  const area = field("prompt"), end = area.selectionStart;
  const before = area.value.slice(0, end);
  const lora = /<lora:[\w-]*$/.test(before);
  const head = before.replace(/<(?:lora:)?[\w-]*$/, lora ? `<lora:${one.name}:1>` : one.trigger || one.name);
  area.value = head + area.value.slice(end);
  area.setSelectionRange(head.length, head.length);
  $(".completion").hidden = true;
  state.form.prompt = area.value;
  changed();
}

function drawGrid() {
  const names = () => [...state.desk.grid, ...used().map(name => state.desk.of_concept + name)];
  const row = at => {
    const axis = state.form.axes[at] ?? {setting: "", values: ""};
    const store = () => {
      state.form.axes[at] = {setting: select.value, values: values.value};
      state.form.axes = state.form.axes.filter(one => one && one.setting);
      $("#grid .count").textContent = state.form.axes.length ? `(${state.form.axes.length})` : "";
      changed();
    };
    const options = [...new Set([...names(), axis.setting].filter(Boolean))];
    const select = make("select", {ariaLabel: at ? "Columns" : "Rows", id: `grid-${at}`, onchange: store},
      make("option", {value: ""}, at ? "columns: seeds" : "rows: none"), ...options.map(one => make("option", {value: one}, one)));
    select.value = axis.setting;
    const values = make("input", {ariaLabel: `Values of the ${at ? "columns" : "rows"}`, value: axis.values,
      placeholder: "0, 0.5, 1", id: `grid-values-${at}`, oninput: store});
    return make("div", {className: "axis"}, select, values);
  };
  $("#grid .rows").replaceChildren(row(0), row(1));
  $("#grid .count").textContent = state.form.axes.length ? `(${state.form.axes.length})` : "";
}

function drawPresets() {
  const presets = recall(PRESET_KEY) ?? {};
  const drop = name => { delete presets[name]; remember(PRESET_KEY, presets); drawPresets(); };
  $("#presets .rows").replaceChildren(...Object.keys(presets).sort().map(name => make("div", {className: "axis"},
    make("button", {type: "button", onclick: () => showForm({...state.form, ...presets[name]})}, name),
    make("button", {type: "button", className: "quiet", ariaLabel: `Forget preset ${name}`, onclick: () => drop(name)}, "✕"))));
}

function savePreset() {
  const name = $("#preset-name").value.trim();
  if (!name) return problem("the preset has no name; write one", "preset");
  problem("");
  const kept = Object.fromEntries(["negative", "sampler", ...NUMBERS].map(key => [key, state.form[key]]));
  remember(PRESET_KEY, {...recall(PRESET_KEY), [name]: kept});
  $("#preset-name").value = "";
  drawPresets();
}

function saveRecipe() {
  const text = JSON.stringify({"spectral-fusion": "recipe", form: {...state.form, seed: state.form.seed || state.lastSeed}}, null, 2);
  const link = make("a", {href: URL.createObjectURL(new Blob([text], {type: "application/json"})), download: "recipe.json"});
  link.click();
  URL.revokeObjectURL(link.href);
}

async function openFile(file) {
  problem("");
  if (file.name.toLowerCase().endsWith(".json")) {
    try {
      const recipe = JSON.parse(await file.text());
      if (recipe["spectral-fusion"] !== "recipe") throw new Error("no recipe");
      return showForm(recipe.form);
    } catch { return problem(`${file.name} is no recipe; open one that was saved here`, "restore"); }
  }
  let sent;
  try { sent = await upload(file); } catch { return problem(`${file.name} could not be sent: it is too large, or the server has no room for it`, "restore"); }
  const answer = await ask("restore", sent.path);
  if (!answer) return;
  if (answer.error) return problem(answer.error, "restore");
  takeForm(answer.form);
}

// A form that comes from a picture; what could not be carried over is named.
function takeForm(form) {
  const {missing, lost, lost_control: lostControl, left_out: leftOut, ...rest} = form;
  showForm(rest);
  const gone = leftOut?.length ? `Left out, as nothing here can do it: ${leftOut.join("; ")}.` : "";
  if (lost) problem(lost, "start");
  else if (lostControl) problem(lostControl, "control");
  if (missing?.length) problem(`No concept ${missing.join(", ")} fits this base; the picture will differ. ${gone}`.trim(), "prompt");
  else if (gone) problem(gone, "restore");
}
