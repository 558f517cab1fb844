// A control picture: its card in the form, shown where the loaded base takes one.
const CONTROL = {model: "", scale: 1, start: 0, end: 1};

function drawControl() {
  const {control} = state.form;
  $("#control").hidden = !state.desk.control.possible && !control;
  $("#control .count").textContent = control ? "(1)" : "";
  $(".control-row").hidden = !control;
  if (!control) return;
  const image = $(".control-thumb img");
  if (image.getAttribute("src") !== control.url) image.src = control.url;
  $(".control-thumb").style.aspectRatio = `${state.form.width || 1} / ${state.form.height || 1}`;
  for (const [id, name] of [["model", "model"], ["scale", "scale"], ["start", "start"], ["end", "end"]]) {
    const input = $(`#f-control-${id}`), factor = id === "start" || id === "end" ? 100 : 1;
    const value = factor === 1 ? control[name] : Math.round(control[name] * factor);
    if (document.activeElement !== input) input.value = value;
  }
  $("#control-words").textContent = control.scale === 0 ? "not at all" : `${Math.round(control.scale * 100)} %`;
}

function controlBy(name, value) {
  if (!state.form.control || Number.isNaN(value)) return;
  state.form.control[name] = value;
  changed();
}

async function keepControl(data) {
  problem("");
  const kept = await ask("begin", data);
  if (!kept || kept.error) return problem(kept?.error ?? "The server does not answer; try again when the connection is back.", "control");
  const model = state.desk.control.models[0] ?? "";
  state.form.control = {...CONTROL, model, ...state.form.control, ...kept};
  $("#control").open = true;
  changed();
}

async function controlHere() {
  if (!state.chosen) return problem("There is no picture yet; make one, or open a file.", "control");
  await keepControl({name: state.chosen});
}

async function controlFile(file) {
  let sent;
  try { sent = await upload(file); } catch { return problem(`${file.name} could not be sent: it is too large, or the server has no room for it`, "control"); }
  await keepControl({path: sent.path});
}
