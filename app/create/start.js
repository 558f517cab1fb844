// A picture to start from: its card in the form, and the buttons below a finished picture that go on with it.
const STRENGTH = 0.6, EDIT_STRENGTH = 0.8;

function strengthWords(strength) {
  const words = strength === 0 ? "nothing" : strength < 0.35 ? "a little" : strength < 0.7 ? "half" : strength < 1 ? "a lot" : "everything";
  return `${Math.round(strength * 100)} %, ${words}`;
}

function drawStart() {
  const {start} = state.form;
  $("#start .count").textContent = start ? "(1)" : "";
  $(".start-row").hidden = !start;
  if (!start) { if (brush.target?.start) stopPainting(); return; }
  const image = $(".start-thumb img");
  if (image.getAttribute("src") !== start.url) image.src = start.url;
  $(".start-thumb").style.aspectRatio = `${state.form.width || 1} / ${state.form.height || 1}`;
  $("#f-strength").value = start.strength;
  $("#strength-words").textContent = strengthWords(start.strength);
  $("#unpaint-start").disabled = !start.mask;
  const canvas = $(".start-thumb canvas");
  canvas.hidden = !start.mask;
  if (start.mask) tintMask(canvas, {mask: start.mask, colour: CHANGES});
}

// The picture itself in the viewer, cut as the new one will be.
function showStart() {
  $(".frame img").classList.add("cover");
  showImage(state.form.start.url, "The picture to start from", [Number(state.form.width), Number(state.form.height)]);
  fitFrame();
}

function startFrom(kept, strength = state.form.start?.strength ?? STRENGTH) {
  state.form.start = {...kept, strength, mask: null};
  $("#start").open = true;
  changed();
}

async function keepStart(data) {
  problem("");
  const kept = await ask("begin", data);
  if (!kept || kept.error) { problem(kept?.error ?? "The server does not answer; try again when the connection is back.", "start"); return null; }
  return kept;
}

async function startHere() {
  if (!state.chosen) return problem("There is no picture yet; make one, or open a file.", "start");
  const kept = await keepStart({name: state.chosen});
  if (kept) startFrom(kept);
}

async function startFile(file) {
  let sent;
  try { sent = await upload(file); } catch { return problem(`${file.name} could not be sent: it is too large, or the server has no room for it`, "start"); }
  const kept = await keepStart({path: sent.path});
  if (kept) startFrom(kept);
}

// Edit: the form of the shown picture, which starts from it; the brush is in hand.
async function edit() {
  const form = await chosenForm(), picture = state.pictures.find(one => one.name === state.chosen);
  const kept = form && await keepStart({name: picture.name});
  if (!kept) return;
  takeForm({...form, axes: [], pictures: 1, seed: "", upscale: 1, detail: 0, composite: 0, width: picture.width, height: picture.height, start: null});
  startFrom(kept, EDIT_STRENGTH);
  fitFrame();
  await paint({start: true});
  status("Paint where the picture may change, say in the prompt what comes there, then Create.");
}

async function finish(how) {
  problem("");
  const {detail, upscale, upscale_strength} = state.form, regions = state.form.regions;
  const more = how === "refine" ? {strength: detail || null, regions} : {by: upscale > 1 ? upscale : null, strength: upscale_strength};
  const answer = await ask("finish", {name: state.chosen, how, ...more});
  if (!answer) return problem("The server does not answer; nothing was asked for. Try again when the connection is back.", "tools");
  if (answer.error) return problem(answer.error, "tools");
  await look();
}
