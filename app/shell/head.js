// The head of the page: the base and its state, light or dark, and news of what others change.
const $ = selector => element.querySelector(selector);
const CALM = 4000, BUSY = 700, SCHEME = "spectral-fusion.scheme";
let seen = null, sure = false;

// How it stands with the base; a phone shows its name alone once it is ready.
function words(state) {
  if (state.kind === "ready") return state.next ? ` · loading ${state.next}` : " · ready";
  return state.kind === "loading" ? " · loading" : ` · failed: ${state.message}`;
}

async function look() {
  let news = null;
  try { news = await server.look(null); } catch { /* told below */ }
  document.body.classList.toggle("lost", !news || Boolean(news.detail));
  if (news && !news.detail && !news.error) {
    const status = $("#status"), name = news.state.base, text = words(news.state);
    if (status.textContent !== name + text) status.replaceChildren(name, Object.assign(document.createElement("span"), {className: "stands", textContent: text}));
    status.className = `state ${news.state.next ? "loading" : news.state.kind}`;
    $(".device").textContent = news.device;
    if (news.problem) $(".problem").textContent = news.problem;
    $("#base-list").replaceChildren(...news.bases.map(name => Object.assign(document.createElement("option"), {value: name})));
    const now = JSON.stringify([news.base, news.library, news.trainings]);
    if (seen !== null && now !== seen) {
      document.dispatchEvent(new CustomEvent("spectral-fusion:library"));
    }
    seen = now;
    setTimeout(look, news.state.kind === "loading" || news.state.next ? BUSY : CALM);
  } else setTimeout(look, CALM / 2);
}

function paint(scheme) {
  document.body.classList.toggle("dark", scheme === "dark");
  document.documentElement.style.colorScheme = scheme;
}

const kept = () => { try { return localStorage.getItem(SCHEME); } catch { return null; } };
const system = matchMedia("(prefers-color-scheme: dark)");
const scheme = () => kept() ?? (system.matches ? "dark" : "light");
paint(scheme());
system.addEventListener("change", () => paint(scheme()));
$("#scheme").addEventListener("click", () => {
  const other = scheme() === "dark" ? "light" : "dark";
  try { localStorage.setItem(SCHEME, other); } catch { /* for this visit only */ }
  paint(other);
});

$("#base").addEventListener("click", () => { sure = false; $(".problem").textContent = ""; $(".bases").showModal(); });
$("#leave-base").addEventListener("click", () => $(".bases").close());
$("#load-base").addEventListener("click", async () => {
  const answer = await server.load({base: $("#base-name").value, sure});
  sure = Boolean(answer.confirm);
  $("#load-base").textContent = sure ? "Load it all the same" : "Load it";
  $(".problem").textContent = answer.error ?? answer.confirm ?? "";
  if (!answer.error && !answer.confirm) { $(".bases").close(); look(); }
});

// Every place says on the body that the connection is lost. A style for it would not do: Gradio keeps those inside its container.
new MutationObserver(() => { $(".lost-note").hidden = !document.body.classList.contains("lost"); })
  .observe(document.body, {attributeFilter: ["class"]});

// Arrow keys move between the places, as in any list of tabs.
document.addEventListener("keydown", event => {
  const tab = event.target.closest?.('[role="tab"]'), way = {ArrowLeft: -1, ArrowRight: 1}[event.key];
  if (!tab || !way) return;
  const tabs = [...tab.closest('[role="tablist"]').querySelectorAll('[role="tab"]')].filter(one => one.offsetParent);
  const next = tabs[(tabs.indexOf(tab) + way + tabs.length) % tabs.length];
  event.preventDefault();
  next.click();
  next.focus();
});
// On a very narrow screen Gradio puts the last tabs into a menu, whose entries have no id.
document.addEventListener("spectral-fusion:place", event => {
  const label = event.detail[0].toUpperCase() + event.detail.slice(1);
  const hidden = [...document.querySelectorAll(".overflow-dropdown button")].find(one => one.textContent.trim() === label);
  (document.getElementById(`tab-${event.detail}-button`) ?? hidden)?.click();
});
look();
