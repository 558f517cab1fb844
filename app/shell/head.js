// The head of the page: the base and its state, light or dark, and news of what others change.
const $ = selector => element.querySelector(selector);
const CALM = 4000, BUSY = 700, SCHEME = "spectral-fusion.scheme", PLACE = "spectral-fusion.place";
let seen = null, sure = false, loading = false, timer = null;

// How it stands with the base; a phone shows its name alone once it is ready.
function words(state) {
  if (state.kind === "ready") return state.next ? ` · loading ${state.next}` : " · ready";
  return state.kind === "loading" ? " · loading" : ` · failed: ${state.message}`;
}

async function look() {
  clearTimeout(timer);
  let news = null;
  try { news = await server.look(null); } catch { /* told below */ }
  document.body.classList.toggle("lost", !news || Boolean(news.detail));
  if (news && !news.detail && !news.error) {
    const status = $("#status"), name = news.state.base, text = words(news.state);
    if (status.textContent !== name + text) status.replaceChildren(name, Object.assign(document.createElement("span"), {className: "stands", textContent: text}));
    status.className = `state ${news.state.next ? "loading" : news.state.kind}`;
    $(".device").textContent = news.device;
    if (loading && !news.loading) loaded(news.problem);
    $("#base-list").replaceChildren(...news.bases.map(name => Object.assign(document.createElement("option"), {value: name})));
    const now = JSON.stringify([news.base, news.library, news.trainings]);
    if (seen !== null && now !== seen) {
      document.dispatchEvent(new CustomEvent("spectral-fusion:library"));
    }
    seen = now;
    timer = setTimeout(look, loading || news.state.kind === "loading" || news.state.next ? BUSY : CALM);
  } else timer = setTimeout(look, CALM / 2);
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

// The dialog stays while another base is loaded: what goes wrong is said beside its name.
function setLoading(on) {
  loading = on;
  $("#load-base").disabled = on;
  $("#load-base").textContent = on ? "Loading …" : "Load it";
}

function loaded(problem) {
  setLoading(false);
  $(".problem").textContent = problem;
  if (!problem) $(".bases").close();
}

async function load() {
  let answer;
  try { answer = await server.load({base: $("#base-name").value, sure}); } catch { /* told below */ }
  if (!answer || answer.detail) answer = {error: "The server does not answer. Try again when the connection is back."};
  sure = Boolean(answer.confirm);
  $("#load-base").textContent = sure ? "Load it all the same" : "Load it";
  $(".problem").textContent = answer.error ?? answer.confirm ?? "";
  if (answer.error || answer.confirm) return;
  setLoading(true);
  look();
}

$("#base").addEventListener("click", () => { sure = false; if (!loading) { setLoading(false); $(".problem").textContent = ""; } $(".bases").showModal(); });
$("#leave-base").addEventListener("click", () => $(".bases").close());
$("#load-base").addEventListener("click", load);
$("#base-name").addEventListener("keydown", event => { if (event.key === "Enter" && !loading) load(); });

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
// A page that is loaded again shows the place that it showed before.
const lastPlace = () => { try { return sessionStorage.getItem(PLACE) ?? ""; } catch { return ""; } };
document.addEventListener("click", event => {
  const place = event.target.closest?.('[role="tab"], .overflow-dropdown button')?.textContent.trim().toLowerCase();
  if (place) try { sessionStorage.setItem(PLACE, place); } catch { /* it begins with Create */ }
});
function goBack(place) {
  if (!document.getElementById("tab-create-button")) requestAnimationFrame(() => goBack(place));
  else document.dispatchEvent(new CustomEvent("spectral-fusion:place", {detail: place}));
}
if (["train", "library", "lab"].includes(lastPlace())) goBack(lastPlace());
look();
