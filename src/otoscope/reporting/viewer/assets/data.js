// What is shown: the description in the page, and blocks from the local server or from the page itself.

const about = JSON.parse(document.getElementById("about").textContent);
const RATE = about.utterance.rate;
const LENGTH = about.utterance.samples;
const TIERS = Object.entries(about.utterance.tiers);
const kept = new Map();

about.models.forEach((model, m) => {
  const seen = {};
  model.heads.forEach((head, index) => {
    seen[head.layer] = (seen[head.layer] ?? -1) + 1;
    Object.assign(head, { model: m, index, position: seen[head.layer], key: `${head.layer}.${head.head}` });
  });
  // Where frame 0 begins: a frame is drawn around the centre of what it hears.
  model.begin = model.grid.offset + model.grid.field / 2 - model.grid.hop / 2;
});

/** A named block as bytes; asked for once. */
function block(name) {
  if (!kept.has(name)) {
    const asked = about.live ? fetched(name) : unpacked(name);
    asked.catch(() => kept.delete(name));
    kept.set(name, asked);
  }
  return kept.get(name);
}

async function fetched(name) {
  let answer;
  try {
    answer = await fetch(name, { cache: "no-store" });
  } catch {
    throw new Error("The viewer's server does not answer. Start `otoscope view` again.");
  }
  if (answer.ok) return answer.arrayBuffer();
  const told = await answer.json().catch(() => ({ problem: `The server answered ${answer.status}` }));
  throw new Error(`${told.problem}. ${told.cure ?? ""}`.trim());
}

async function unpacked(name) {
  const element = document.getElementById(`block:${name}`);
  if (!element) throw new Error(`This file does not hold ${name}.`);
  const bytes = fromBase64(element.textContent);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

function fromBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let k = 0; k < bytes.length; k++) bytes[k] = letters.charCodeAt(k);
  return bytes;
}

/** Whether exact weights of a head can be had. */
function hasExact(head) {
  return about.live || about.exact.includes(`${head.model}:${head.key}`);
}

const maps = new Map();
const EXACT_KEPT = 6; // heads whose exact map stays in the page: 4 MB each for 20 s

/** The map of a head: `cells` are averages in bytes, `exact` weights as far as `have` says that their tiles came. */
async function mapOf(head) {
  const name = `${head.model}/${head.key}`;
  if (!maps.has(name)) {
    const model = about.models[head.model];
    const layer = new Uint8Array(await block(`m${head.model}/overview/${head.layer}`));
    const size = model.cells * model.cells;
    const tiles = Math.ceil(model.frames / about.tile);
    maps.set(name, {
      head, model, tiles, exact: null, have: new Uint8Array(tiles * tiles), missing: tiles * tiles, asked: new Set(),
      cells: layer.subarray(head.position * size, (head.position + 1) * size),
    });
  }
  const map = maps.get(name);
  maps.delete(name);
  maps.set(name, map); // the last asked for is the last to be dropped
  const whole = [...maps.values()].filter((one) => one.exact !== null);
  for (const old of whole.slice(0, Math.max(0, whole.length - EXACT_KEPT))) maps.delete(`${old.head.model}/${old.head.key}`);
  return map;
}

/** Asks for the exact tiles that lie in a range of queries and keys (frames); `drawn` is called as they come. */
async function exactTiles(map, queries, keys, drawn) {
  const { head, model, tiles } = map;
  if (!hasExact(head) || !map.missing) return;
  if (!about.live) {
    map.exact = fromPlanes(await block(`m${head.model}/exact/${head.key}`));
    map.have.fill(1);
    map.missing = 0;
    drawn();
    return;
  }
  const wanted = [];
  for (let row = 0; row < tiles; row++)
    for (let column = 0; column < tiles; column++) {
      const place = row * tiles + column;
      const inside = (range, k) => range[1] > k * about.tile && range[0] < (k + 1) * about.tile;
      if (inside(queries, row) && inside(keys, column) && !map.asked.has(place)) wanted.push([row, column, place]);
    }
  wanted.forEach(([, , place]) => map.asked.add(place));
  map.exact ??= new Float32Array(model.frames * model.frames);
  await Promise.all(wanted.map(async ([row, column, place]) => {
    try {
      const answer = await fetched(`m${head.model}/tile/${head.key}/${row}/${column}`);
      placeTile(map, row, column, new Float32Array(answer));
    } catch (error) {
      map.asked.delete(place);
      throw error;
    }
  }));
  if (wanted.length) drawn();
}

/** Numbers of which the file holds all first bytes, then all second ones, ... */
function fromPlanes(buffer) {
  const planes = new Uint8Array(buffer);
  const count = planes.length / 4;
  const bytes = new Uint8Array(planes.length);
  for (let plane = 0; plane < 4; plane++) for (let k = 0; k < count; k++) bytes[4 * k + plane] = planes[plane * count + k];
  return new Float32Array(bytes.buffer);
}

function placeTile(map, row, column, tile) {
  const { frames } = map.model;
  const width = Math.min(about.tile, frames - column * about.tile);
  for (let k = 0; k * width < tile.length; k++)
    map.exact.set(tile.subarray(k * width, (k + 1) * width), (row * about.tile + k) * frames + column * about.tile);
  map.have[row * map.tiles + column] = 1;
  map.missing -= 1;
}

/** The weight of query q and key k, and whether it is exact or the mean of its cell. */
function weightAt(map, q, k) {
  const { frames, span, cells } = map.model;
  const tile = Math.floor(q / about.tile) * map.tiles + Math.floor(k / about.tile);
  if (map.exact && map.have[tile]) return { weight: map.exact[q * frames + k], exact: true };
  const cell = map.cells[Math.floor(q / span) * cells + Math.floor(k / span)];
  return { weight: map.head.largest * (cell / 255) ** 2, exact: false };
}
