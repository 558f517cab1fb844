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

