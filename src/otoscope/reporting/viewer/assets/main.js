// The page as a whole: what is chosen, buttons and keys.

const byId = (name) => document.getElementById(name);
let pieceTier = TIERS.some(([name]) => name === "word") ? "word" : (TIERS[0]?.[0] ?? "");

function wrong(error) {
  byId("status").textContent = error.message;
  byId("status").classList.add("wrong");
}

function say(text) {
  byId("status").textContent = text;
  byId("status").classList.remove("wrong");
}

/** Shows a head in the active pane. */
function choose(head, quietly = false) {
  if (!head) return;
  show(panes[activePane], head).catch(wrong);
  markChosen();
  const element = thumbnails.get(`${head.model}/${head.index}`);
  element?.scrollIntoView({ block: "nearest" });
  if (!quietly && wallElement.contains(document.activeElement)) element?.focus({ preventScroll: true });
  const category = valuesOf(head.model, "category")[head.key]?.label;
  say(`Head ${head.key}${category ? `, ${category}` : ""}`);
}

function activate(number) {
  if (number >= panes.length) return;
  activePane = number;
  panes.forEach((pane) => pane.element.classList.toggle("active", pane.number === number));
  const head = panes[number].head;
  if (head && head.model !== wall.model) useModel(head.model);
  markChosen();
}

let waiting = false;

/** Draws all panes with the next frame of the screen. */
function redraw() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    panes.forEach(drawPane);
    tellPoint();
  });
}

function redrawOver() {
  panes.filter((pane) => pane.map).forEach(drawOver);
}

function relayout() {
  panes.forEach((pane) => { pane.stage.style.height = pane.stage.style.width = ""; });
  panes.forEach(resizePane);
  redraw();
  panes.filter((pane) => pane.map).forEach((pane) => drawDetails(pane).catch(wrong));
}

/** Reads out the point under the pointer, else the pinned one. */
function tellPoint() {
  const at = cross.hover ?? cross.pin;
  byId("readout").textContent = at ? pointWords(at) : "Point at a map to read a weight.";
}

function pointWords(at) {
  const place = (sample) => {
    const labels = TIERS.map(([tier]) => intervalAt(tier, sample)?.label).filter(Boolean);
    return `${seconds(sample)} s${labels.length ? ` (${labels.join(", ")})` : ""}`;
  };
  const parts = [];
  if (at.query !== null) parts.push(`query ${place(at.query)}`);
  if (at.key !== null) parts.push(`${at.query !== null ? "\u2192 " : ""}key ${place(at.key)}`);
  if (at.query !== null && at.key !== null) {
    for (const pane of panes.filter((one) => one.map)) {
      const { map, head } = pane;
      const { weight, exact } = weightAt(map, frameOf(map.model, at.query), frameOf(map.model, at.key));
      const text = weight === 0 ? "0" : weight >= 1e-3 ? weight.toFixed(4) : weight.toExponential(1);
      parts.push(`\u00b7 ${panes.length > 1 ? `${head.key}: ` : ""}weight ${exact ? text : `about ${text}`}`);
    }
  }
  return parts.join(" ");
}

function hear(roles) {
  if (!cross.pin) {
    cross.pin = { query: view.y + view.w / 2, key: view.x + view.w / 2 };
    redrawOver();
  }
  play(roles.map((role) => pieceAt(cross.pin[role], pieceTier, role))).then(animate, wrong);
}

function hearAll() {
  if (anySound()) stop();
  else play([{ start: 0, end: LENGTH, role: "all" }]).then(animate, wrong);
}

let animating = false;

/** Moves the mark along while something sounds. */
function animate() {
  if (animating) return;
  animating = true;
  const step = () => {
    redrawOver();
    animating = anySound();
    if (animating) requestAnimationFrame(step);
  };
  step();
}

function fillSelect(element, options, value) {
  element.replaceChildren(...options.map(([name, text]) => new Option(text, name)));
  element.value = value;
}

/** Puts the wall of a model up, with the choices that its metrics allow. */
function useModel(number) {
  wall.model = number;
  const names = metricNames(number);
  const model = about.models[number];
  if (wall.sort !== "place" && !names.includes(wall.sort)) wall.sort = "place";
  if (wall.colour !== "none" && !names.includes(wall.colour)) wall.colour = names.includes("category") ? "category" : "none";
  fillSelect(byId("sort"), [["place", "layer, head"], ...names.map((name) => [name, name])], wall.sort);
  fillSelect(byId("colour"), [["none", "none"], ...names.map((name) => [name, name])], wall.colour);
  const layers = [...new Set(model.heads.map((head) => head.layer))];
  const categories = isCategory(number, "category") ? Object.keys(CATEGORY) : [];
  const shows = [
    ["all", "all"], ...categories.map((name) => [`category:${name}`, name]),
    ...layers.map((layer) => [`layer:${layer}`, `layer ${layer}`]),
  ];
  if (!shows.some(([name]) => name === wall.show)) wall.show = "all";
  fillSelect(byId("show"), shows, wall.show);
  for (const button of byId("wall-models").children) button.ariaPressed = String(Number(button.dataset.model) === number);
  return buildWall();
}

function setPair(on) {
  const wanted = on ? 2 : 1;
  while (panes.length > wanted) panes.pop().element.remove();
  document.body.classList.toggle("pair", on);
  if (panes.length < wanted) {
    const pane = buildPane(panes.length);
    byId("panes").append(pane.element);
    const from = panes[0].head;
    const other = about.models.length > 1 ? 1 - from.model : from.model;
    const heads = about.models[other].heads;
    const same = heads.find((head) => head.key === from.key) ?? heads[0];
    show(pane, other === from.model ? headAfter(from, 1) : same).catch(wrong);
  }
  byId("pair").ariaPressed = String(on);
  activate(Math.min(activePane, panes.length - 1));
  relayout();
}

function setWide(on) {
  document.body.classList.toggle("wide", on);
  byId("wide").ariaPressed = String(on);
  if (!on) relayout();
}

function cycle(select) {
  select.selectedIndex = (select.selectedIndex + 1) % select.options.length;
  select.dispatchEvent(new Event("change"));
}

function turnOrder() {
  wall.descending = !wall.descending;
  const button = byId("order");
  button.innerHTML = wall.descending ? "&darr;" : "&uarr;";
  button.ariaLabel = `Order: ${wall.descending ? "descending" : "ascending"}`;
  button.ariaPressed = String(!wall.descending);
  arrangeWall();
}

function zoomed(change) {
  change();
  redraw();
  say(`${seconds(view.w)} of ${seconds(LENGTH)} s in view`);
}

const KEYS = {
  "+": () => zoomed(() => zoomAtCross(1 / 1.5)),
  "=": () => zoomed(() => zoomAtCross(1 / 1.5)),
  "-": () => zoomed(() => zoomAtCross(1.5)),
  0: () => zoomed(fit),
  " ": () => { if (anySound()) stop(); else hear(["query", "key"]); },
  q: () => hear(["query"]),
  k: () => hear(["key"]),
  a: hearAll,
  s: () => { cycle(byId("sort")); say(`Sorted by ${byId("sort").selectedOptions[0].text}`); },
  c: () => { cycle(byId("colour")); say(`Coloured by ${byId("colour").selectedOptions[0].text}`); },
  r: turnOrder,
  d: () => setPair(panes.length === 1),
  x: () => { activate((activePane + 1) % panes.length); say(`Side ${activePane + 1}`); },
  "[": () => brighten(1 / 1.5),
  "]": () => brighten(1.5),
  w: () => setWide(!document.body.classList.contains("wide")),
  t: () => { turnTheme(); relayout(); },
  "?": () => byId("keys").showModal(),
};

function brighten(factor) {
  display.gain = Math.min(1000, Math.max(0.01, display.gain * factor));
  redraw();
  const { map } = panes[activePane];
  if (map) say(`Brightest colour from a weight of ${shortWeight(ceilingOf(map))} on; the largest is ${shortWeight(map.head.peak)}`);
}

const ARROWS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

function arrow(event, [down, right]) {
  const pane = panes[activePane];
  if (event.shiftKey) {
    const by = event.altKey ? 10 : 1;
    moveCross(about.models[pane.head.model], down * by, right * by);
    redraw();
    requestAnimationFrame(() => say(pointWords(cross.pin)));
    return;
  }
  choose(headAfter(pane.head, right + down * wallColumns()));
}

function listenToKeys() {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || byId("keys").open) return;
    const { tagName } = event.target;
    if (tagName === "SELECT" || (tagName === "BUTTON" && (event.key === " " || event.key === "Enter"))) return;
    const done = ARROWS[event.key];
    if (done) arrow(event, done);
    else if (KEYS[event.key] && !event.altKey) KEYS[event.key]();
    else return;
    event.preventDefault();
  });
}

function listenToButtons() {
  const on = (name, action) => byId(name).addEventListener("click", action);
  on("play", hearAll);
  on("zoom-in", KEYS["+"]);
  on("zoom-out", KEYS["-"]);
  on("zoom-fit", KEYS[0]);
  on("pair", KEYS.d);
  on("wide", KEYS.w);
  on("theme", KEYS.t);
  on("help", KEYS["?"]);
  on("order", turnOrder);
  byId("sort").addEventListener("change", (event) => { wall.sort = event.target.value; arrangeWall(); });
  byId("colour").addEventListener("change", (event) => { wall.colour = event.target.value; arrangeWall(); });
  byId("show").addEventListener("change", (event) => { wall.show = event.target.value; arrangeWall(); });
  byId("scale").addEventListener("change", (event) => { display.scale = event.target.value; redraw(); });
  byId("piece").addEventListener("change", (event) => { pieceTier = event.target.value; });
  systemDark.addEventListener("change", () => { useTheme(); relayout(); });
  addEventListener("resize", relayout);
}

function headline() {
  const names = about.models.map((model) => model.name).join(" and ");
  const { utterance } = about;
  const title = byId("heard");
  title.textContent = `${utterance.id} `;
  const more = document.createElement("span");
  more.textContent = `${seconds(LENGTH)} s in ${names}${utterance.transcript ? ` \u00b7 \u201c${utterance.transcript}\u201d` : ""}`;
  title.append(more);
  title.title = title.textContent;
  byId("note").textContent = about.note;
  byId("note").title = about.note;
}

async function begin() {
  useTheme();
  headline();
  fillSelect(byId("piece"), [...TIERS.map(([name]) => [name, name]), ["", "half a second"]], pieceTier);
  const models = byId("wall-models");
  models.hidden = about.models.length < 2;
  about.models.forEach((model, number) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = model.name;
    button.dataset.model = number;
    button.addEventListener("click", () => {
      const pane = panes.find((one) => one.head?.model === number);
      if (pane) activate(pane.number);
      else useModel(number).catch(wrong);
    });
    models.append(button);
  });
  listenToButtons();
  listenToKeys();
  if (metricNames(0).includes("category")) wall.colour = "category";
  byId("panes").append(buildPane(0).element);
  await Promise.all([useModel(0), loadStrips()]);
  const first = about.exact.find((name) => name.startsWith("0:"))?.slice(2);
  const heads = about.models[0].heads;
  const shown = show(panes[0], heads.find((head) => head.key === first) ?? heads[0]);
  activate(0);
  await shown;
  if (about.models.length > 1) setPair(true);
  document.documentElement.dataset.ready = Math.round(performance.now());
}

// For those who drive the page from outside: tests, and curious readers.
window.otoscope = { about, view, cross, wall, panes, display, heardPieces, weightAt, mapOf, choose };
begin().catch(wrong);
