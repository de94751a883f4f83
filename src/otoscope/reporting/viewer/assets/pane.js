// A pane: one head, its map with the strips along both axes, and what stands beside it.

const panes = [];
const BESIDE = 225; // pixels that relations, profile and numbers take at least
let activePane = 0;

function buildPane(number) {
  const element = document.createElement("article");
  element.className = "pane";
  element.innerHTML =
    '<header><b></b><span class="badge" hidden></span><span class="of"></span><span class="grain"></span></header>' +
    '<div class="stage"><canvas class="base"></canvas><canvas class="over" tabindex="0" role="img"></canvas></div>' +
    '<div class="details"><div class="relations"><h3>Relations of phones</h3><canvas role="img"></canvas><div class="told"></div></div>' +
    '<div class="profile"><h3>Relative profile (ms)</h3><canvas role="img"></canvas><div class="told"></div></div><div class="numbers"></div></div>';
  const find = (selector) => element.querySelector(selector);
  const pane = {
    number, element, head: null, map: null, side: 0, stage: find(".stage"), base: find(".base"), over: find(".over"), turn: 0,
  };
  panes.push(pane);
  listen(pane);
  return pane;
}

/** Shows a head in a pane: its averages at once, exact weights as they come. */
async function show(pane, head) {
  const turn = ++pane.turn;
  pane.head = head;
  const map = await mapOf(head);
  if (turn !== pane.turn) return; // another head was chosen meanwhile
  pane.map = map;
  describe(pane);
  drawPane(pane);
  document.documentElement.dataset.first ??= Math.round(performance.now());
  await drawDetails(pane);
}

function describe(pane) {
  const { head, map, element } = pane;
  const model = about.models[head.model];
  const category = valuesOf(head.model, "category")[head.key]?.label;
  element.querySelector("header b").textContent = `Head ${head.key}`;
  const mark = element.querySelector("header .badge");
  mark.hidden = !category;
  if (category) {
    badge(mark, category);
    mark.textContent = `${CATEGORY[category]?.letter ?? ""} ${category}`;
  }
  element.querySelector("header .of").textContent = about.models.length > 1 ? model.name : "";
  const averages = `averages over ${model.span} \u00d7 ${model.span} frames`;
  const whole = map.exact !== null && map.missing === 0;
  const grain = whole || (model.span === 1 && !hasExact(head)) ? "" : averages;
  element.querySelector("header .grain").textContent =
    whole ? "exact weights" : hasExact(head) ? `${grain || "one byte a weight"}; exact weights are on their way` : `${grain || "one byte a weight"}; exact weights are not in this file`;
  const words = [`Attention map of head ${head.key} of ${model.name}`, category, whole ? "exact" : grain].filter(Boolean);
  pane.over.setAttribute("aria-label", `${words.join(", ")}. Shift and arrows move the crosshair, space plays it.`);
}

function resizePane(pane) {
  // Side by side the page decides the height; else the map takes what is left.
  const pair = panes.length > 1;
  const wide = pane.element.clientWidth - 24, high = pane.stage.clientHeight;
  const beside = innerWidth > 900 ? wide - BESIDE : wide;
  const room = pair ? Math.min(wide, Math.max(260, innerHeight - 300)) : Math.min(beside, high > 60 ? high : beside);
  pane.side = Math.max(120, Math.floor(room - BORDER - EDGE));
  const size = pane.side + BORDER + EDGE;
  pane.stage.style.width = `${size}px`;
  if (pair || high <= 60) pane.stage.style.height = `${size}px`;
  const ratio = devicePixelRatio || 1;
  for (const canvas of [pane.base, pane.over]) {
    canvas.width = canvas.height = Math.round(size * ratio);
    canvas.style.width = canvas.style.height = `${size}px`;
  }
}

function drawPane(pane) {
  if (!pane.map || !spectrogramImage) return;
  if (!pane.side) resizePane(pane);
  const ratio = devicePixelRatio || 1;
  const context = pane.base.getContext("2d");
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, pane.base.width, pane.base.height);
  const corner = Math.round(BORDER * ratio), pixels = Math.round(pane.side * ratio);
  paintMap(context, pane.map, corner, corner, pixels);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  drawStrips(context, view.x, pane.side, false);
  drawStrips(context, view.y, pane.side, true);
  drawColourBar(context, pane);
  drawOver(pane);
  askExact(pane);
}

function askExact(pane) {
  const { map } = pane;
  const { queries, keys } = framesInView(map.model);
  exactTiles(map, queries, keys, () => {
    if (pane.map !== map) return;
    describe(pane);
    drawPane(pane);
    tellPoint();
  }).catch(wrong);
}

/** In the corner: which weight has which colour. */
function drawColourBar(context, pane) {
  const left = 4, top = BORDER - 24, width = Math.min(BORDER - 14, 110);
  for (let x = 0; x < width; x++) {
    context.fillStyle = css(MAP_COLOURS[Math.round(255 * shade(x / (width - 1), display.scale))]);
    context.fillRect(left + x, top, 1.2, 7);
  }
  context.fillStyle = paint("soft");
  context.font = "10px system-ui, sans-serif";
  context.textBaseline = "alphabetic";
  context.textAlign = "left";
  context.fillText("0", left, top + 17);
  context.textAlign = "right";
  context.fillText(`${shortWeight(ceilingOf(pane.map))}+`, left + width, top + 17);
  context.textAlign = "left";
  context.fillText("weight", left, top - 4);
}

/** Crosshair, and where the sound is. */
function drawOver(pane) {
  const ratio = devicePixelRatio || 1;
  const context = pane.over.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  const size = pane.side + BORDER + EDGE;
  context.clearRect(0, 0, size, size);
  const x = (sample) => BORDER + ((sample - view.x) / view.w) * pane.side;
  const y = (sample) => BORDER + ((sample - view.y) / view.w) * pane.side;
  const inside = (place) => place >= BORDER - 0.5 && place <= BORDER + pane.side + 0.5;
  const line = (place, across, colour, width, dash) => {
    if (!inside(place)) return;
    context.beginPath();
    if (across) { context.moveTo(0, place); context.lineTo(size, place); }
    else { context.moveTo(place, 0); context.lineTo(place, size); }
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.setLineDash(dash);
    context.stroke();
  };
  const both = (at, dash) => {
    for (const [colour, width] of [[paint("paper"), 2.6], [null, 1.2]]) {
      if (at.query !== null) line(y(at.query), true, colour ?? paint("query"), width, dash);
      if (at.key !== null) line(x(at.key), false, colour ?? paint("key"), width, dash);
    }
  };
  if (cross.pin) both(cross.pin, [5, 4]);
  if (cross.hover) both(cross.hover, []);
  const now = soundingNow();
  if (now) {
    context.globalAlpha = 0.28;
    context.fillStyle = paint("mark");
    const band = (place, from) => [Math.max(BORDER, place(from)), Math.min(BORDER + pane.side, place(now.end))];
    const [left, right] = band(x, now.start), [top, bottom] = band(y, now.start);
    if (now.role !== "query" && right > left) context.fillRect(left, 0, right - left, BORDER);
    if (now.role !== "key" && bottom > top) context.fillRect(0, top, BORDER, bottom - top);
    context.globalAlpha = 1;
    if (now.role !== "query") line(x(now.sample), false, paint("ink"), 1.5, []);
    if (now.role !== "key") line(y(now.sample), true, paint("ink"), 1.5, []);
  }
}

async function drawDetails(pane) {
  const { head, element } = pane;
  const relations = element.querySelector(".relations");
  const told = (part) => element.querySelector(`.${part} .told`);
  if (about.models[head.model].labels.length) {
    await drawRelations(relations.querySelector("canvas"), told("relations"), head);
  } else {
    relations.querySelector("canvas").hidden = true;
    told("relations").textContent = "This utterance has no phone times.";
  }
  if (pane.head !== head) return;
  await drawProfile(element.querySelector(".profile canvas"), told("profile"), head);
  if (pane.head === head) showNumbers(element.querySelector(".numbers"), head);
}

/** What lies under the pointer: query and key in samples; null for the one whose strip is not meant. */
function pointOf(pane, event) {
  const x = event.offsetX - BORDER, y = event.offsetY - BORDER;
  const key = x < 0 ? null : view.x + (Math.min(x, pane.side) / pane.side) * view.w;
  const query = y < 0 ? null : view.y + (Math.min(y, pane.side) / pane.side) * view.w;
  return { key, query, strip: x < 0 ? stripAt(event.offsetX) : y < 0 ? stripAt(event.offsetY) : null };
}

function listen(pane) {
  let from = null;
  const { over } = pane;
  over.addEventListener("pointerdown", (event) => {
    activate(pane.number);
    from = { x: event.offsetX, y: event.offsetY, moved: false };
    over.setPointerCapture(event.pointerId);
  });
  over.addEventListener("pointermove", (event) => {
    if (from && (from.moved || Math.hypot(event.offsetX - from.x, event.offsetY - from.y) > 4)) {
      const scale = view.w / pane.side;
      pan((from.x - event.offsetX) * scale, (from.y - event.offsetY) * scale);
      from = { x: event.offsetX, y: event.offsetY, moved: true };
      over.classList.add("dragging");
      redraw();
      return;
    }
    const at = pointOf(pane, event);
    cross.hover = at.key === null && at.query === null ? null : at;
    redrawOver();
    tellPoint();
  });
  over.addEventListener("pointerup", (event) => {
    const click = from && !from.moved;
    from = null;
    over.classList.remove("dragging");
    if (click) clicked(pointOf(pane, event));
  });
  over.addEventListener("pointerleave", () => {
    cross.hover = null;
    redrawOver();
    tellPoint();
  });
  over.addEventListener("wheel", (event) => {
    event.preventDefault();
    const at = pointOf(pane, event);
    zoom(2 ** (event.deltaY / 400), at.key ?? undefined, at.query ?? undefined);
    redraw();
  }, { passive: false });
}

/** A click on the map pins the crosshair and plays query and key; on a strip it plays that row or column. */
function clicked(at) {
  if (at.key === null && at.query === null) return;
  const tier = at.strip?.tier ? at.strip.name : pieceTier;
  if (at.key !== null && at.query !== null) {
    cross.pin = { query: at.query, key: at.key };
    hear(["query", "key"]);
  } else {
    const role = at.key === null ? "query" : "key";
    play([pieceAt(at[role], tier, role)]).then(animate, wrong);
  }
  redrawOver();
}
