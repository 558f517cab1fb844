// Library: cards, one concept at a time, import, bin.
let concepts = [], chosen = null, shownAs = "null";

function problem(text, field) {
  for (const node of $$(".problem")) node.textContent = "";
  if (!text) return;
  const place = $(`[data-field="${field}"] .problem`) ?? $(`[data-problem="${field}"]`);
  place.textContent = sentence(text);
  place.closest("details")?.setAttribute("open", "");
}

const words = one => [one.name, one.trigger, one.class, one.base, ...one.tags].join(" ").toLowerCase();

function draw() {
  const wanted = $("#library-search").value.trim().toLowerCase(), by = $("#library-sort").value;
  const order = (a, b) => typeof a[by] === "number" ? a[by] - b[by] : a[by].localeCompare(b[by]);
  const found = concepts.filter(one => words(one).includes(wanted)).sort(order);
  $("#shelf").replaceChildren(...found.map(card));
  $(".all .empty").hidden = concepts.length > 0;
  $(".all .none").hidden = found.length > 0 || !concepts.length;
}

function card(one) {
  const node = make("button", {type: "button", className: "concept", onclick: () => { choose(one.name); $("#concept").scrollIntoView({block: "nearest"}); }},
    one.icon ? make("img", {src: one.icon, alt: ""}) : make("span", {className: "blank"}),
    make("b", {}, one.name), make("span", {}, one.lora ? `LoRA ${one.trigger}` : `${one.trigger} ${one.class}`),
    make("span", {}, `${one.base}${one.fits ? "" : ", not loaded"} · ${one.size}`),
    one.tags.length ? make("span", {className: "tags"}, one.tags.join(" · ")) : null);
  node.setAttribute("role", "option");
  node.setAttribute("aria-selected", String(one.name === chosen));
  node.dataset.name = one.name;
  return node;
}

function choose(name) {
  chosen = name;
  problem("");
  shownAs = JSON.stringify(concepts.find(other => other.name === name) ?? null);
  const one = concepts.find(other => other.name === name);
  for (const node of $$(".concept")) node.setAttribute("aria-selected", String(node.dataset.name === name));
  $("#concept").hidden = !one;
  if (!one) return;
  $("#concept h2").textContent = one.name;
  $("#concept .sub").textContent = one.lora ? `LoRA of another program${one.trigger ? `: write ${one.trigger}` : ", without words of its own"}` : `${one.trigger} ${one.class}`;
  for (const node of $$("#concept .field")) node.hidden = Boolean(one.lora);
  $("#open-concept").hidden = !one.fits;
  $("#concept-name").value = one.name;
  $("#concept-trigger").value = one.trigger;
  $("#concept-tags").value = one.tags.join(", ");
  $("#concept-notes").value = one.notes;
  $("#exported").replaceChildren();
  $("#concept .facts").replaceChildren(...Object.entries(one.facts).flatMap(([key, value]) => [make("dt", {}, key), make("dd", {}, value)]));
}

async function load(name = chosen) {
  const answer = await ask("library");
  if (!answer || answer.error) return;
  concepts = answer.concepts;
  draw();
  $("#bands").innerHTML = answer.bands;
  $(".room").hidden = !answer.bands;
  const broken = Object.entries(answer.unreadable);
  $("#broken").hidden = !broken.length;
  $("#broken ul").replaceChildren(...broken.map(([name, why]) => make("li", {}, make("b", {}, name), ` ${why} `,
    make("button", {type: "button", className: "link", onclick: () => change("remove", name, "broken")}, "Delete"))));
  $("#bin").hidden = !answer.removed.length;
  $("#bin ul").replaceChildren(...answer.removed.map(gone => make("li", {}, gone, " ",
    make("button", {type: "button", className: "link", onclick: () => bringBack(gone)}, "Bring back"))));
  const writing = element.contains(document.activeElement) && document.activeElement.matches("input, textarea");
  const now = JSON.stringify(concepts.find(one => one.name === name) ?? null);
  const there = concepts.some(one => one.name === name), gone = name && name === chosen && !there;
  if (name !== chosen || gone || now !== shownAs && !writing) choose(there ? name : null);
  if (gone) problem(`${name} is not here any more: somebody has renamed or deleted it.`, "gone");
}

// One request, its error beside the field, and the library anew.
async function change(name, data, field, after = null) {
  problem("");
  const answer = await ask(name, data);
  if (!answer) return problem(LOST, field);
  if (answer.error) return problem(answer.error, field);
  chosen = after;
  await load(answer.name);
  document.dispatchEvent(new CustomEvent("spectral-fusion:library"));
}

const bringBack = name => change("restore", name, "bin");

async function take(file) {
  let sent;
  try { sent = await upload(file); } catch { return problem(`${file.name} could not be sent: it is too large, or the server has no room for it`, "import"); }
  await change("add", {path: sent.path, name: $("#import-name").value, trigger: $("#import-trigger").value, replace: $("#import-replace").checked}, "import");
}

async function keepNotes() {
  const answer = await ask("note", {name: chosen, notes: $("#concept-notes").value, tags: $("#concept-tags").value});
  if (!answer) return problem(LOST, "note");
  if (answer?.error) return problem(answer.error, "note");
  const one = concepts.find(other => other.name === chosen);
  one.notes = $("#concept-notes").value;
  one.tags = $("#concept-tags").value.split(",").map(tag => tag.trim()).filter(Boolean);
  draw();
}

// When the place comes into view, and only then.
function whenShown(action) {
  let seen = false;
  new ResizeObserver(() => {
    const now = Boolean(element.offsetParent);
    if (now && !seen) action();
    seen = now;
  }).observe(element);
}

const actions = {
  browse: () => $("#import-file").click(),
  all: () => { $("#library-search").value = ""; draw(); $("#library-search").focus(); },
  open: () => {
    document.dispatchEvent(new CustomEvent("spectral-fusion:open", {detail: chosen}));
    document.dispatchEvent(new CustomEvent("spectral-fusion:place", {detail: "create"}));
  },
  rename: () => change("rename", {name: chosen, to: $("#concept-name").value}, "name", chosen),
  retrigger: () => change("retrigger", {name: chosen, trigger: $("#concept-trigger").value}, "trigger"),
  remove: () => change("remove", chosen, "remove"),
  export: async () => {
    problem("");
    const answer = await ask("export", {name: chosen, to: $("#concept-format").value});
    if (!answer || answer.error) return problem(answer?.error ?? LOST, "export");
    drawFiles($("#exported"), answer.files);
  },
};

element.addEventListener("click", event => {
  const button = event.target.closest("[data-do], [data-place]");
  if (button?.dataset.do) actions[button.dataset.do]?.();
  if (button?.dataset.place) document.dispatchEvent(new CustomEvent("spectral-fusion:place", {detail: button.dataset.place}));
});
$("#library-search").addEventListener("input", draw);
$("#library-sort").addEventListener("change", draw);
$("#concept-notes").addEventListener("change", keepNotes);
$("#concept-tags").addEventListener("change", keepNotes);
$("#import-file").addEventListener("change", event => { const [file] = event.target.files; event.target.value = ""; if (file) take(file); });
$("#library-drop").addEventListener("dragover", event => event.preventDefault());
$("#library-drop").addEventListener("drop", event => { event.preventDefault(); const [file] = event.dataTransfer.files; if (file) take(file); });
document.addEventListener("spectral-fusion:library", () => load());
whenShown(load);
