// The wall: a thumbnail for every head of a model, sorted and coloured by a metric or by category.

const wall = { model: 0, sort: "place", descending: true, colour: "none", show: "all", order: [] };
const wallElement = document.getElementById("wall");
const thumbnails = new Map(); // "model/index" -> element

function metricNames(model) {
  return about.models[model].metrics.map((one) => one.name);
}

function valuesOf(model, metric) {
  return about.models[model].values[metric] ?? {};
}

/** Whether a measure puts heads into the categories; words of other measures stand beside their numbers. */
function isCategory(model, metric) {
  const found = Object.values(valuesOf(model, metric));
  return found.length > 0 && found.every((one) => one.label in CATEGORY);
}

async function buildWall() {
  const { model: number } = wall;
  const model = about.models[number];
  const bytes = new Uint8Array(await block(`m${number}/thumbnails`));
  if (number !== wall.model) return; // another model was chosen meanwhile
  for (const head of model.heads) {
    const name = `${head.model}/${head.index}`;
    if (!thumbnails.has(name)) thumbnails.set(name, thumbnail(head, model.thumbnail.cells, bytes));
  }
  wallElement.replaceChildren();
  arrangeWall();
}

/** Draws a thumbnail when it first comes into view, lest hundreds of them hold up the first picture. */
const inView = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) continue;
    inView.unobserve(target);
    target.draw();
  }
}, { root: wallElement, rootMargin: "200px" });

function thumbnail(head, cells, bytes) {
  const element = document.createElement("div");
  element.className = "head";
  element.role = "option";
  element.id = `head-${head.model}-${head.layer}-${head.head}`;
  element.tabIndex = -1;
  element.setAttribute("aria-selected", "false");
  const canvas = document.createElement("canvas");
  element.draw = () => {
    canvas.width = canvas.height = cells;
    const context = canvas.getContext("2d");
    const image = context.createImageData(cells, cells);
    const out = new Uint32Array(image.data.buffer);
    const own = bytes.subarray(head.index * cells * cells, (head.index + 1) * cells * cells);
    // Bytes are square roots of shares, and are drawn as such, whatever the scale of the maps.
    const brightest = brightByte(own);
    for (let k = 0; k < own.length; k++) out[k] = MAP_COLOURS[Math.min(255, Math.round((255 * own[k]) / brightest))];
    context.putImageData(image, 0, 0);
    element.dataset.drawn = "";
  };
  inView.observe(element);
  const tone = document.createElement("div");
  tone.className = "tone";
  const name = document.createElement("div");
  name.className = "name";
  element.append(canvas, tone, name);
  element.addEventListener("click", () => choose(head));
  return element;
}

/** Sorts, colours and names the thumbnails. */
function arrangeWall() {
  const model = about.models[wall.model];
  const values = valuesOf(wall.model, wall.sort);
  const words = Object.keys(CATEGORY);
  const grouped = isCategory(wall.model, wall.sort);
  const rank = (head) => {
    const found = values[head.key];
    if (!found) return [1, 0, 0];
    if (grouped) return [0, words.indexOf(found.label), -(found.value ?? 0)];
    return found.value === undefined ? [1, 0, 0] : [0, 0, -found.value];
  };
  const turned = wall.descending ? 1 : -1;
  const compare = (one, other) => {
    if (wall.sort === "place") return turned * (one.index - other.index);
    const [a, b] = [rank(one), rank(other)];
    // Heads without a value come last, whichever way round.
    return a[0] - b[0] || turned * (a[1] - b[1] || a[2] - b[2]) || one.index - other.index;
  };
  wall.order = [...model.heads].sort(compare).filter(isShown);
  const shown = new Set(wall.order);
  const tones = tonesOf(wall.model, wall.colour);
  const metric = wall.colour !== "none" ? wall.colour : wall.sort;
  for (const head of model.heads) thumbnails.get(`${head.model}/${head.index}`).hidden = !shown.has(head);
  const elements = wall.order.map((head) => {
    const element = thumbnails.get(`${head.model}/${head.index}`);
    nameThumbnail(element, head, metric, tones);
    return element;
  });
  wallElement.append(...elements);
  drawLegend();
  markChosen();
}

function isShown(head) {
  if (wall.show === "all") return true;
  const [kind, name] = wall.show.split(":");
  return kind === "layer" ? String(head.layer) === name : valuesOf(head.model, "category")[head.key]?.label === name;
}

/** For a metric, what colour each head has. */
function tonesOf(model, metric) {
  const values = valuesOf(model, metric);
  const numbers = Object.values(values).map((one) => one.value).filter((value) => value !== undefined);
  const low = Math.min(...numbers), high = Math.max(...numbers);
  const grouped = isCategory(model, metric);
  return {
    low, high,
    of(key) {
      const found = values[key];
      if (grouped) return CATEGORY[found?.label]?.colour ?? null;
      if (found?.value === undefined) return null;
      return css(VALUE_COLOURS[Math.round(255 * (high > low ? (found.value - low) / (high - low) : 0.5))]);
    },
  };
}

function nameThumbnail(element, head, metric, tones) {
  const found = valuesOf(head.model, metric)[head.key];
  const category = valuesOf(head.model, "category")[head.key]?.label;
  element.querySelector(".tone").style.background = tones.of(head.key) ?? "";
  const name = element.querySelector(".name");
  name.textContent = head.key;
  const beside = document.createElement("span");
  if (found?.value !== undefined && !isCategory(head.model, metric)) beside.textContent = short(found.value);
  else if (category) badge(beside, category);
  name.append(beside);
  const words = [`head ${head.key}`];
  if (category) words.push(category);
  if (found && !isCategory(head.model, metric)) words.push(`${metric} ${worded(found)}`);
  element.setAttribute("aria-label", words.join(", "));
  element.title = words.join("\n");
}

function badge(element, category) {
  element.className = "badge";
  element.textContent = CATEGORY[category]?.letter ?? "?";
  element.style.background = CATEGORY[category]?.colour ?? "";
  element.title = category;
}

function drawLegend() {
  const legend = document.getElementById("legend");
  legend.replaceChildren();
  const { model, colour } = wall;
  if (isCategory(model, colour)) {
    const labels = Object.values(valuesOf(model, colour)).map((one) => one.label);
    for (const [name, { colour: tone, letter }] of Object.entries(CATEGORY)) {
      const entry = document.createElement("span");
      const mark = document.createElement("i");
      mark.style.background = tone;
      mark.textContent = letter;
      entry.append(mark, `${name} ${labels.filter((one) => one === name).length}`);
      legend.append(entry);
    }
  } else if (colour !== "none") {
    const { low, high } = tonesOf(model, colour);
    const bar = document.createElement("canvas");
    bar.width = 256;
    bar.height = 1;
    const context = bar.getContext("2d");
    const image = context.createImageData(256, 1);
    new Uint32Array(image.data.buffer).set(VALUE_COLOURS);
    context.putImageData(image, 0, 0);
    const fact = about.models[model].metrics.find((one) => one.name === colour);
    const entry = document.createElement("span");
    entry.append(short(low), bar, short(high));
    entry.title = [fact.tells, fact.unit].filter(Boolean).join("; ");
    legend.append(entry, fact.unit);
  } else legend.textContent = `${about.models[model].heads.length} heads, layer.head`;
}

function markChosen() {
  const active = panes[activePane]?.head;
  for (const [name, element] of thumbnails) {
    const chosen = Boolean(active) && name === `${active.model}/${active.index}`;
    const beside = panes.some((pane) => pane.head && name === `${pane.head.model}/${pane.head.index}`);
    element.setAttribute("aria-selected", String(chosen));
    element.classList.toggle("beside", beside && !chosen);
    element.tabIndex = chosen ? 0 : -1;
  }
  const selected = wallElement.querySelector('[aria-selected="true"]:not([hidden])');
  const first = wall.order[0]; // of the model whose wall stands, also while another's is on its way
  if (!selected && first) thumbnails.get(`${first.model}/${first.index}`).tabIndex = 0;
}

/** How many thumbnails stand in a row. */
function wallColumns() {
  return Math.max(1, getComputedStyle(wallElement).gridTemplateColumns.split(" ").length);
}

/** The head that is `by` places on in the order of the wall. */
function headAfter(head, by) {
  const place = wall.order.indexOf(head);
  if (place < 0) return wall.order[0];
  return wall.order[place + by] ?? head;
}
