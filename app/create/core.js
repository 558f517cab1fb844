// What all scripts of Create share: the state, small helpers, and asking the server.
const $ = (selector, root = element) => root.querySelector(selector);
const $$ = (selector, root = element) => [...root.querySelectorAll(selector)];
const FORM_KEY = "spectral-fusion.form", PRESET_KEY = "spectral-fusion.presets";
const COLOURS = ["#b45309", "#1d4ed8", "#be185d", "#15803d", "#7e22ce", "#0e7490", "#b91c1c", "#4d7c0f"];

const state = {
  desk: null,        // what the server says of itself: concepts, samplers, limits
  form: null,        // what is asked for
  pictures: [],      // of the strip
  chosen: null,      // name of the picture in the viewer
  jobs: [],
  lastSeed: "",
  drawing: false,
  starred: false,
};

function make(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style" || name === "dataset") Object.assign(node[name], value);
    else if (name in node && name !== "list") node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children.filter(child => child !== null && child !== undefined));
  return node;
}

function remember(key, value) {
  try { localStorage.setItem(key, JSON.stringify(value)); } catch { /* a browser that keeps nothing */ }
}

function recall(key) {
  try { return JSON.parse(localStorage.getItem(key)); } catch { return null; }
}

// The answer, or null where there is none: then the page says that the connection is lost, and goes on when it is back.
async function ask(name, data = null) {
  try {
    const answer = await server[name](data);  // undefined where it was not reached; null where it has nothing to say
    if (answer !== undefined && answer?.detail === undefined) {
      document.body.classList.remove("lost");
      return answer ?? {};
    }
  } catch { /* below */ }
  document.body.classList.add("lost");
  return null;
}

// Text in which case and Unicode form make no difference, as the server compares triggers.
const fold = text => text.normalize("NFC").toLowerCase();

// With a capital, unless it begins with the name of a file.
const sentence = text => !text || /^\S+[./]\w/.test(text) ? text : text[0].toUpperCase() + text.slice(1);

function problem(text, field = "") {
  for (const node of $$(".problem")) node.textContent = "";
  for (const node of $$("[aria-invalid]")) node.removeAttribute("aria-invalid");
  if (!text) return;
  const holder = field && $(`[data-field="${field}"]`);
  const place = (holder && $(".problem", holder)) || $(`[data-problem="${field}"]`) || $('[data-problem=""]');
  place.textContent = sentence(text);
  place.closest("details")?.setAttribute("open", "");
  const input = holder && $("input, textarea, select", holder);
  if (input) {
    input.setAttribute("aria-invalid", "true");
    input.focus({preventScroll: false});
    const wrong = text.match(/<[\w-]+>/);
    const at = wrong && input.value ? fold(input.value).indexOf(fold(wrong[0])) : -1;
    if (at >= 0 && input.setSelectionRange) input.setSelectionRange(at, at + wrong[0].length);
  }
  place.scrollIntoView({block: "nearest"});
}

function concept(name) { return state.desk.concepts.find(one => one.name === name); }

function colour(name) {
  const at = state.desk.concepts.findIndex(one => one.name === name);
  return at < 0 ? "#52525b" : COLOURS[at % COLOURS.length];
}

// Other children in place of those that are there; the button that has the focus keeps it.
function redraw(holder, nodes) {
  const all = () => [...holder.querySelectorAll("button")], told = node => node?.ariaLabel || node?.textContent;
  const at = all().indexOf(document.activeElement), name = told(document.activeElement);
  holder.replaceChildren(...nodes);
  if (at >= 0) (told(all()[at]) === name ? all()[at] : all().find(node => told(node) === name) ?? all()[at])?.focus({preventScroll: true});
}
