// The map of a head in pixels: exact weights where they are there, averages elsewhere.

const display = { scale: "root", gain: 1 };

/** The bin of the n-th largest of what is counted in bins. */
function nthLargest(bins, n) {
  let seen = 0, bin = bins.length;
  while (bin > 0 && seen < n) seen += bins[--bin];
  return bin;
}

/** Of a square of bytes the one that as many exceed as it has rows: an outlier does not leave all the rest dark. */
function brightByte(bytes) {
  const bins = new Uint32Array(256);
  for (const byte of bytes) bins[byte] += 1;
  return Math.max(1, nthLargest(bins, Math.sqrt(bytes.length)));
}

/** The weight that a query exceeds once on average. */
function brightWeight(map) {
  const peak = Math.max(...rowPeaks(map));
  const bins = new Uint32Array(4097);
  for (const weight of map.exact) bins[Math.round(4096 * Math.sqrt(weight / peak))] += 1;
  return peak * (Math.max(1, nthLargest(bins, map.model.frames)) / 4096) ** 2;
}

function rowPeaks({ exact, model }) {
  const peaks = new Float32Array(model.frames);
  for (let k = 0; k < exact.length; k++) {
    const row = Math.floor(k / model.frames);
    if (exact[k] > peaks[row]) peaks[row] = exact[k];
  }
  return peaks;
}

function shortWeight(weight) {
  return weight >= 1e-3 ? weight.toPrecision(2) : weight.toExponential(1);
}

/** The weight from which on the colour is the brightest. */
function ceilingOf(map) {
  if (map.exact !== null && map.missing === 0) return (map.bright ??= brightWeight(map)) * display.gain;
  return (map.brightMean ??= map.head.largest * (brightByte(map.cells) / 255) ** 2 || 1) * display.gain;
}

/** For each pixel along an axis its first frame and the one past its last; -1 where there is none. */
function framesOfPixels(model, from, extent, pixels) {
  const first = new Int32Array(pixels), last = new Int32Array(pixels);
  for (let p = 0; p < pixels; p++) {
    const a = (from + (p / pixels) * extent - model.begin) / model.grid.hop;
    const b = (from + ((p + 1) / pixels) * extent - model.begin) / model.grid.hop;
    const low = Math.floor(a + 1e-9);
    // As many whole frames as a pixel spans, one at least: what is finer than a pixel is averaged, not skipped.
    const high = Math.max(low + 1, Math.floor(b + 1e-9));
    const inside = low >= 0 && low < model.frames;
    first[p] = inside ? low : -1;
    last[p] = Math.min(high, model.frames);
  }
  return { first, last };
}

function paintMap(context, map, left, top, pixels) {
  const { model } = map;
  const { frames, span, cells } = model;
  const columns = framesOfPixels(model, view.x, view.w, pixels);
  const rows = framesOfPixels(model, view.y, view.w, pixels);
  const image = context.createImageData(pixels, pixels);
  const out = new Uint32Array(image.data.buffer);
  const table = shades(display.scale);
  const brightest = ceilingOf(map);
  const factor = 4096 / brightest;
  const ofCell = new Uint32Array(256);
  for (let q = 0; q < 256; q++) ofCell[q] = table[Math.min(4096, Math.round(map.head.largest * (q / 255) ** 2 * factor))];
  const tileOf = (frame) => Math.floor(frame / about.tile);
  for (let y = 0; y < pixels; y++) {
    const q0 = rows.first[y], q1 = rows.last[y];
    if (q0 < 0) continue;
    const tileRow = tileOf(q0) * map.tiles, cellRow = Math.floor(q0 / span) * cells;
    for (let x = 0; x < pixels; x++) {
      const k0 = columns.first[x];
      if (k0 < 0) continue;
      if (map.exact !== null && map.have[tileRow + tileOf(k0)]) {
        const k1 = columns.last[x];
        let sum = 0;
        for (let q = q0; q < q1; q++) for (let k = k0; k < k1; k++) sum += map.exact[q * frames + k];
        const share = (sum / ((q1 - q0) * (k1 - k0))) * factor;
        out[y * pixels + x] = table[share < 4096 ? Math.round(share) : 4096];
      } else {
        out[y * pixels + x] = ofCell[map.cells[cellRow + Math.floor(k0 / span)]];
      }
    }
  }
  context.putImageData(image, left, top);
}

/** The range of frames in view along each axis. */
function framesInView(model) {
  const range = (from) => [frameOf(model, from), frameOf(model, from + view.w) + 1];
  return { queries: range(view.y), keys: range(view.x) };
}
