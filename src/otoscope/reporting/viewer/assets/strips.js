// What runs along both axes of a map: time, spectrogram, waveform and tiers of labels.

const STRIPS = [
  { name: "time", size: 17 },
  { name: "spectrogram", size: 40 },
  { name: "waveform", size: 24 },
  ...TIERS.map(([name]) => ({ name, size: 17, tier: true })).reverse(), // phones lie next to the map
];
const EDGE = 3;
const BORDER = STRIPS.reduce((sum, strip) => sum + strip.size, EDGE);
let spectrogramImage = null;
let waveform = null;
const BLOCK = 16; // samples that a step of the waveform's envelope spans

async function loadStrips() {
  const [sound, cells] = await Promise.all([block("audio"), block("spectrogram")]);
  const samples = new Int16Array(sound);
  const steps = Math.ceil(samples.length / BLOCK);
  waveform = { low: new Float32Array(steps), high: new Float32Array(steps), peak: 1 };
  for (let k = 0; k < steps; k++) {
    let low = 0, high = 0;
    for (const value of samples.subarray(k * BLOCK, (k + 1) * BLOCK)) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
    waveform.low[k] = low;
    waveform.high[k] = high;
    waveform.peak = Math.max(waveform.peak, -low, high);
  }
  drawSpectrogram(new Uint8Array(cells));
}

function drawSpectrogram(cells) {
  const { frames, bands } = about.spectrogram;
  spectrogramImage = document.createElement("canvas");
  spectrogramImage.width = frames;
  spectrogramImage.height = bands;
  const context = spectrogramImage.getContext("2d");
  const image = context.createImageData(frames, bands);
  const out = new Uint32Array(image.data.buffer);
  // Grey on the scheme's own paper would need two pictures; a single hue reads on both.
  for (let t = 0; t < frames; t++)
    for (let band = 0; band < bands; band++) out[(bands - 1 - band) * frames + t] = VALUE_COLOURS[cells[t * bands + band]];
  context.putImageData(image, 0, 0);
}

/** Draws all strips along one axis; with `down` the canvas is turned, so that time runs down at the left. */
function drawStrips(context, from, side, down) {
  context.save();
  if (down) context.transform(0, 1, 1, 0, 0, 0); // x and y change places
  let top = 0;
  for (const strip of STRIPS) {
    context.save();
    context.beginPath();
    context.rect(BORDER, top, side, strip.size);
    context.clip();
    const place = (sample) => BORDER + ((sample - from) / view.w) * side;
    if (strip.tier) drawTier(context, strip, top, from, place, down);
    else if (strip.name === "time") drawTime(context, strip, top, from, side, place, down);
    else if (strip.name === "spectrogram") drawSound(context, strip, top, from, side);
    else drawWave(context, strip, top, from, side);
    context.restore();
    top += strip.size;
  }
  context.restore();
}

function drawSound(context, strip, top, from, side) {
  const { hop } = about.spectrogram;
  // Frame t is centred on sample t * hop.
  const first = from / hop + 0.5, extent = view.w / hop;
  context.imageSmoothingEnabled = extent > side;
  context.drawImage(spectrogramImage, first, 0, extent, about.spectrogram.bands, BORDER, top, side, strip.size - 1);
}

function drawWave(context, strip, top, from, side) {
  const middle = top + strip.size / 2, half = strip.size / 2 - 2;
  context.fillStyle = paint("ink");
  for (let x = 0; x < side; x += 0.5) {
    const first = Math.floor((from + (x / side) * view.w) / BLOCK);
    const last = Math.max(first + 1, Math.floor((from + ((x + 0.5) / side) * view.w) / BLOCK));
    let low = 0, high = 0;
    for (let k = first; k < Math.min(last, waveform.low.length); k++) {
      low = Math.min(low, waveform.low[k]);
      high = Math.max(high, waveform.high[k]);
    }
    const up = (high / waveform.peak) * half, below = (low / waveform.peak) * half;
    context.fillRect(BORDER + x, middle - up, 0.5, Math.max(0.5, up - below));
  }
}

/** Text along a strip; letters stay upright where they fit across a strip that runs down. */
function drawText(context, text, x, y, room, across, down) {
  context.save();
  context.translate(x, y);
  const width = context.measureText(text).width;
  if (down) {
    context.transform(0, 1, 1, 0, 0, 0); // back to the screen's own axes
    if (width > across && width <= room) context.rotate(-Math.PI / 2);
    else if (width > across || room < 9) { context.restore(); return; }
  } else if (width > room) { context.restore(); return; }
  context.fillText(text, 0, 0.5);
  context.restore();
}

function drawTier(context, strip, top, from, place, down) {
  context.font = "11px system-ui, sans-serif";
  context.textAlign = "center";
  context.textBaseline = "middle";
  const intervals = about.utterance.tiers[strip.name];
  intervals.forEach(([start, end, label], k) => {
    if (end < from || start > from + view.w) return;
    const left = place(start), right = place(end);
    context.fillStyle = k % 2 ? paint("card") : paint("void");
    context.fillRect(left, top + 0.5, right - left, strip.size - 1);
    context.fillStyle = paint("line");
    context.fillRect(left, top + 0.5, 0.5, strip.size - 1);
    context.fillStyle = paint("ink");
    // The label of an interval that is cut by the edge stands in the part that is seen.
    const seen = [Math.max(left, BORDER), Math.min(right, place(from + view.w))];
    drawText(context, label, (seen[0] + seen[1]) / 2, top + strip.size / 2, seen[1] - seen[0] - 2, strip.size - 1, down);
  });
}

function drawTime(context, strip, top, from, side, place, down) {
  const extent = view.w / RATE;
  const step = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10].find((one) => extent / one <= 9) ?? 20;
  const digits = step < 0.1 ? 2 : step < 1 ? 1 : 0;
  context.font = "10px system-ui, sans-serif";
  context.textAlign = "center";
  context.textBaseline = "middle";
  for (let k = Math.ceil(from / RATE / step); k * step <= from / RATE + extent; k++) {
    const x = place(k * step * RATE);
    context.fillStyle = paint("line");
    context.fillRect(x, top + strip.size - 3, 0.75, 3);
    context.fillStyle = paint("soft");
    const text = (k * step).toFixed(digits);
    const half = down ? 5 : context.measureText(text).width / 2; // the first and the last stay whole
    const seen = Math.min(BORDER + side - half, Math.max(BORDER + half, x));
    drawText(context, text, seen, top + strip.size / 2 - 1, 60, strip.size + 9, down);
  }
}

/** The strip at a distance from the canvas's edge, or null. */
function stripAt(distance) {
  let top = 0;
  for (const strip of STRIPS) {
    if (distance >= top && distance < top + strip.size) return strip;
    top += strip.size;
  }
  return null;
}
