// The line: what this visitor has asked for, found again after a reload, and how far it is.
const SOON_MS = 30, BUSY_MS = 250, CALM_MS = 4000;
const WAITS = ["waiting", "running", "stopping"];
const previews = {}, told = new Set();
let timer = null, newest = "", wasBusy = false, first = true;

const busy = () => state.jobs.some(job => WAITS.includes(job.state));

async function submit(form) {
  problem("");
  stopPainting();
  if (form.prompt.trim()) $(".welcome").hidden = true;  // at once: what moves later than the click would jump
  $("#generate").disabled = true;
  const answer = await ask("create", form);
  $("#generate").disabled = false;
  if (!answer) return problem("The server does not answer; nothing was asked for. Try again when the connection is back.");
  if (answer.error) return problem(answer.error, answer.field);
  state.lastSeed = String(answer.seed);
  if (answer.notes?.length) problem(answer.notes.join("; "), "prompt");
  await look();
}

function seconds(left) {
  if (left === null || left === undefined) return "";
  const minutes = Math.round(left / 60);
  if (left < 90) return `${Math.ceil(left)} s left`;
  return minutes < 90 ? `${minutes} min left` : `${Math.floor(minutes / 60)} h ${minutes % 60} min left`;
}

function words(job) {
  if (job.state === "waiting") return job.before ? `waiting, ${job.before} before this` : "starting";
  if (job.state === "stopping") return "stopping";
  if (job.state === "running" && job.step) {
    return [job.of > 1 ? `picture ${job.picture} of ${job.of}` : "",
      job.passes > 1 ? `pass ${job.pass} of ${job.passes}` : "", `step ${job.step} of ${job.steps}`, seconds(job.left)].filter(Boolean).join(" · ");
  }
  const made = job.pictures.length, count = made === 1 ? "1 picture" : `${made} pictures`;
  return {running: "starting", done: count, cancelled: made ? `stopped, ${count} kept` : "cancelled", failed: job.error}[job.state];
}

async function look() {
  clearTimeout(timer);
  const answer = await ask("jobs", previews);
  if (answer && !answer.error) show(answer);
  const left = Math.min(...state.jobs.filter(job => job.state === "running").map(job => 1000 * (job.left ?? 1)));
  timer = setTimeout(look, !busy() || !answer ? CALM_MS : clamp(left / 2, SOON_MS, BUSY_MS));
}

function show(answer) {
  state.jobs = answer.jobs;
  const active = state.jobs.filter(job => WAITS.includes(job.state));
  const current = active.find(job => job.state !== "waiting") ?? active[0];
  $("#cancel").disabled = !active.length;
  const bar = $(".bar");
  bar.hidden = !current;
  if (current) {
    if (current.fraction) bar.value = current.fraction; else bar.removeAttribute("value");
    status(words(current));
    if (current.preview && !brush.target?.start) {
      for (const id of Object.keys(previews)) delete previews[id];
      previews[current.id] = current.preview_id;
      showImage(current.preview, "The picture as far as it is", null);
      fitFrame();
    }
  }
  const over = state.jobs.filter(job => !WAITS.includes(job.state) && !told.has(job.id));
  for (const job of over) told.add(job.id);
  const made = first ? null : over.map(ended).filter(Boolean).at(-1) ?? null;
  if (answer.newest !== newest || made || first) loadPictures(made, Boolean(current));
  else if (wasBusy && !current && state.chosen) choose(state.chosen);
  newest = answer.newest;
  wasBusy = Boolean(current);
  first = false;
  if (answer.base !== state.desk.base) start(false);
  drawJobs(answer.others);
}

// Once for each job that is over: its error where it belongs; the picture to show, a grid's sheet or the first.
function ended(job) {
  if (job.state === "failed") { problem(job.error, job.field); status("Nothing was made."); return null; }
  if (!job.pictures.length) { status("Stopped."); return null; }
  return job.pictures.at(-1).endsWith("-grid.png") ? job.pictures.at(-1) : job.pictures[0];
}

function drawJobs(others) {
  const shown = [...state.jobs].reverse().slice(0, 12);
  const active = shown.filter(job => WAITS.includes(job.state)).length;
  $("#queue .count").textContent = active ? `(${active})` : "";
  $("#queue .others").textContent = others ? `${others} of other visitors` : "";
  const tool = (text, label, action) => make("button", {type: "button", className: "quiet", ariaLabel: label, onclick: action}, text);
  redraw($("#queue .jobs"), shown.map(job => {
    const name = job.label.slice(0, 80);
    const row = make("li", {dataset: {state: job.state}}, make("span", {className: "name"}, name), make("span", {className: "how"}, words(job)));
    if (job.state === "waiting") {
      row.append(tool("↑", `Earlier: ${name}`, () => ask("move", {id: job.id, places: -1}).then(look)),
        tool("↓", `Later: ${name}`, () => ask("move", {id: job.id, places: 1}).then(look)));
    }
    if (WAITS.includes(job.state)) row.append(tool("✕", `Cancel: ${name}`, () => ask("cancel", job.id).then(look)));
    return row;
  }));
  if (!shown.length) $("#queue .jobs").append(make("li", {className: "hint"}, "Nothing is asked for."));
}
