// Lab: overlaps, fusing into files, evaluations and their reports.
const KEY = "spectral-fusion.lab", BUSY_MS = 1500, CALM_MS = 6000;
const kept = recall(KEY);
let names = [], icons = {}, chosen = kept.chosen ?? [], weights = kept.weights ?? {}, shownReport = null, timer = null, asked = 0;

function problem(text, field) {
  for (const node of $$(".problem")) node.textContent = "";
  if (!text) return;
  const place = $(`[data-field="${field}"] .problem`) ?? $(`[data-problem="${field}"]`);
  place.textContent = sentence(text);
  place.closest("details")?.setAttribute("open", "");
}

function drawChips() {
  $(".choose .empty").hidden = names.length > 0;
  $(".choose .hint").hidden = $(".save").hidden = !names.length;
  $("#fuse-concepts").replaceChildren(...names.map(name => {
    const picture = icons[name] ? make("img", {src: icons[name], alt: ""}) : make("span", {className: "blank"});
    const node = make("button", {type: "button", id: `fuse-${name}`, onclick: () => toggle(name)}, picture, name);
    node.setAttribute("aria-pressed", String(chosen.includes(name)));
    return node;
  }));
  const there = new Map($$(".weights > *").map(node => [node.dataset.name, node]));
  $(".weights").replaceChildren(...chosen.map(name => there.get(name) ?? weight(name)));
}

function weight(name) {
  const set = event => {
    weights[name] = Number(event.target.value);
    remember(KEY, {chosen, weights});
    for (const input of $$("input", row)) if (input !== event.target) input.value = event.target.value;
  };
  const slider = make("input", {type: "range", min: -1, max: 2, step: 0.05, value: weights[name] ?? 1, ariaLabel: `Weight of ${name}`, oninput: set});
  const exact = make("input", {type: "number", step: 0.05, id: `fuse-weight-${name}`, value: weights[name] ?? 1, ariaLabel: `Weight of ${name}, as a number`, oninput: set});
  const row = make("div", {className: "card"}, make("b", {}, name), slider, exact);
  row.dataset.name = name;
  return row;
}

async function toggle(name) {
  chosen = chosen.includes(name) ? chosen.filter(other => other !== name) : [...chosen, name];
  remember(KEY, {chosen, weights});
  drawChips();
  $(`#fuse-${CSS.escape(name)}`).focus();
  await check();
}

async function check() {
  problem("");
  const turn = ++asked;
  if (!chosen.length) { $("#fuse-check").replaceChildren(); $("#overlap-row").hidden = true; return; }
  const answer = await ask("check", chosen);
  if (!answer || turn !== asked) return;
  if (answer.error) { $("#fuse-check").replaceChildren(); return problem(answer.error, "check"); }
  $("#fuse-check").innerHTML = answer.html;
  $("#overlap-row").hidden = answer.disjoint;
  if (answer.disjoint) $("#fuse-overlap").checked = false;
}

const given = () => ({weights: Object.fromEntries(chosen.map(name => [name, weights[name] ?? 1])), overlap: $("#fuse-overlap").checked});

async function saveLora() {
  problem("");
  $("#fused-files").replaceChildren();
  const answer = await ask("lora", {...given(), to: $("#lora-format").value});
  if (!answer || answer.error) return problem(answer?.error ?? LOST, "lora");
  drawFiles($("#fused-files"), answer.files);
}

async function saveFolder() {
  problem("");
  $("#fuse-saved").textContent = "";
  let answer = await ask("save", {...given(), folder: $("#fuse-name").value, replace: $("#fuse-replace").checked});
  if (!answer || answer.error) return problem(answer?.error ?? LOST, "folder");
  const id = answer.id;
  do {
    await new Promise(done => setTimeout(done, 400));
    answer = await ask("saved", id);
    if (answer?.error) return problem(answer.error, "folder");
    if (answer) $("#fuse-saved").textContent = answer.before ? `waiting, ${answer.before} before this` : "saving";
  } while (!answer || ["waiting", "running", "stopping"].includes(answer.state));
  $("#fuse-saved").textContent = answer.path ? `Saved on the server in ${answer.path}` : "This was cancelled; nothing was written.";
}

async function evaluate() {
  problem("");
  const methods = $$(".methods input:checked").map(input => input.value);
  const answer = await ask("evaluate", {names: chosen, methods, seeds: $("#evaluate-seeds").value, steps: $("#evaluate-steps").value});
  if (!answer || answer.error) return problem(answer?.error ?? LOST, "evaluate");
  await load();
}

function drawEvaluations(list) {
  redraw($("#evaluations"), list.slice(0, 20).map(one => {
    const row = make("li", {}, make("span", {className: "name"}, one.title), make("span", {className: "how"}, one.words, one.error ? `: ${one.error}` : ""));
    row.dataset.state = one.state;
    if (one.active) row.append(make("button", {type: "button", className: "quiet", onclick: () => ask("stop", one.id).then(load)}, "Stop"));
    if (one.report) row.append(make("button", {type: "button", className: "link", onclick: () => show(one.id)}, "Report"));
    return row;
  }));
  if (!list.length) $("#evaluations").append(make("li", {className: "hint"}, "What you compare is listed here, with its report."));
  const fresh = list.find(one => one.report);
  if (fresh && shownReport === null) show(fresh.id, false);
}

// The report is a page of its own that may run no scripts; its frame is as tall as it is.
async function show(id, scroll = true) {
  shownReport = id;
  const answer = await ask("report", id);
  if (!answer || answer.error || !answer.html) return;
  const frame = make("iframe", {title: "Report", srcdoc: answer.html});
  frame.setAttribute("sandbox", "allow-same-origin");
  // Of what is in it: its scroll height is never less than the frame's own, and would grow with it for ever.
  const fit = () => { frame.style.height = `${frame.contentDocument.documentElement.offsetHeight + 8}px`; };
  frame.addEventListener("load", () => { fit(); new ResizeObserver(fit).observe(frame); });
  $("#report").hidden = false;
  $("#report").replaceChildren(make("h2", {}, "Report"), make("p", {}, ...answer.files.map(file => make("a", {href: file.url, download: file.name}, "Download it as one file"))), frame);
  if (scroll) $("#report").scrollIntoView({block: "start"});
}

async function load() {
  clearTimeout(timer);
  let busy = false;
  if (element.offsetParent) {
    const answer = await ask("lab");
    if (answer && !answer.error) {
      busy = answer.evaluations.some(one => one.active);
      const first = !$(".methods input");
      if (first || JSON.stringify(answer.concepts) !== JSON.stringify(names)) {
        names = answer.concepts;
        icons = answer.icons;
        chosen = chosen.filter(name => names.includes(name));
        drawChips();
        check();
      }
      if (first) $(".methods").append(...answer.methods.map((method, at) => make("label", {className: "check"}, make("input", {type: "checkbox", value: method.name, checked: at === 0}), make("span", {}, method.words))));
      drawEvaluations(answer.evaluations);
      $(".evaluate").hidden = !names.length && !answer.evaluations.length;
    }
  }
  timer = setTimeout(load, busy ? BUSY_MS : CALM_MS);
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

const actions = {lora: saveLora, save: saveFolder, evaluate};
element.addEventListener("click", event => {
  const button = event.target.closest("[data-do], [data-place]");
  if (button?.dataset.do) actions[button.dataset.do]?.();
  if (button?.dataset.place) document.dispatchEvent(new CustomEvent("spectral-fusion:place", {detail: button.dataset.place}));
});
document.addEventListener("spectral-fusion:library", load);
whenShown(load);
