// What the scripts of Train, Library and Lab share: small helpers, and asking the server.
const $ = (selector, root = element) => root.querySelector(selector);
const $$ = (selector, root = element) => [...root.querySelectorAll(selector)];

function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children.filter(Boolean));
  return node;
}

async function ask(name, data = null) {
  try {
    const answer = await server[name](data);
    if (answer && answer.detail === undefined) return answer;
  } catch { /* below */ }
  document.body.classList.add("lost");
  return null;
}

// With a capital, unless it begins with the name of a file.
const sentence = text => !text || /^\S+[./]\w/.test(text) ? text : text[0].toUpperCase() + text.slice(1);

const LOST = "The server does not answer; nothing was done. Try again when the connection is back.";

// Links to files for other programs; what the small ones beside a LoRA are for is said.
function drawFiles(list, files) {
  const words = files.slice(1).filter(file => file.name.endsWith(".safetensors")).length;
  const others = words > 1 ? "The others are the words of the prompt: put them" : "The other is the word of the prompt: put it";
  list.replaceChildren(...files.map(file => make("li", {}, make("a", {href: file.url, download: file.name}, file.name))));
  if (words) list.append(make("li", {className: "hint"}, `The first is the LoRA. ${others} into your program's folder of embeddings.`));
}

// What is kept in this browser.
function recall(key) { try { return JSON.parse(localStorage.getItem(key)) ?? {}; } catch { return {}; } }
function remember(key, value) { try { localStorage.setItem(key, JSON.stringify(value)); } catch { /* for this visit only */ } }

// Other children in place of those that are there; the button that has the focus keeps it.
function redraw(holder, nodes) {
  const all = () => [...holder.querySelectorAll("button")], told = node => node?.ariaLabel || node?.textContent;
  const at = all().indexOf(document.activeElement), name = told(document.activeElement);
  holder.replaceChildren(...nodes);
  if (at >= 0) (told(all()[at]) === name ? all()[at] : all().find(node => told(node) === name) ?? all()[at])?.focus({preventScroll: true});
}
