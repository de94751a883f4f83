// Colour maps that readers with a colour vision deficiency can read, and the scheme of the page.

// Viridis and cividis (matplotlib, CC0), sixteen stops each.
const VIRIDIS = "440154 481a6c 472f7d 414487 39568c 31688e 2a788e 23888e 1f988b 22a884 35b779 54c568 7ad151 a5db36 d2e21b fde725";
const CIVIDIS = "00224e 00306f 21396f 35466b 434e6c 51586e 5e636f 6b6d72 787877 868378 948e77 a39a74 b3a56e c4b264 d6c057 fde737";
// Blue for less, orange for more, by way of the neutral grey of the page.
const LESS = [0, 114, 178], MORE = [213, 94, 0];
const CATEGORY = {
  global: { colour: "#56B4E9", letter: "G" },
  vertical: { colour: "#E69F00", letter: "V" },
  diagonal: { colour: "#CC79A7", letter: "D" },
};

function ramp(stops) {
  const points = stops.split(" ").map((hex) => [0, 2, 4].map((k) => parseInt(hex.slice(k, k + 2), 16)));
  const table = new Uint32Array(256);
  for (let i = 0; i < 256; i++) {
    const at = (i / 255) * (points.length - 1);
    const low = Math.min(points.length - 2, Math.floor(at));
    const mix = points[low].map((value, k) => Math.round(value + (at - low) * (points[low + 1][k] - value)));
    table[i] = (255 << 24) | (mix[2] << 16) | (mix[1] << 8) | mix[0];
  }
  return table;
}

const MAP_COLOURS = ramp(VIRIDIS);
const VALUE_COLOURS = ramp(CIVIDIS);

function css(packed) {
  return `rgb(${packed & 255} ${(packed >> 8) & 255} ${(packed >> 16) & 255})`;
}

/** Where a weight stands between no colour and the brightest, 0 to 1. */
function shade(share, scale) {
  const value = Math.min(1, Math.max(0, share));
  if (scale === "linear") return value;
  if (scale === "root") return Math.sqrt(value);
  return value > 1e-4 ? 1 + Math.log10(value) / 4 : 0; // four decades
}

/** A colour for each of 4096 shares of the brightest weight: looked up for every pixel. */
function shades(scale) {
  const table = new Uint32Array(4097);
  for (let i = 0; i <= 4096; i++) table[i] = MAP_COLOURS[Math.round(255 * shade(i / 4096, scale))];
  return table;
}

/** Blue to orange for a logarithm (base 2) from -limit to limit. */
function lean(value, limit) {
  const at = Math.max(-1, Math.min(1, value / limit));
  const middle = dark() ? [38, 45, 51] : [244, 245, 246];
  const end = at < 0 ? LESS : MORE;
  return `rgb(${middle.map((from, k) => Math.round(from + Math.abs(at) ** 0.8 * (end[k] - from))).join(" ")})`;
}

const systemDark = matchMedia("(prefers-color-scheme: dark)");
let chosenTheme = null;

function dark() {
  return chosenTheme === null ? systemDark.matches : chosenTheme === "dark";
}

function useTheme() {
  document.documentElement.dataset.theme = dark() ? "dark" : "light";
}

function turnTheme() {
  chosenTheme = dark() ? "light" : "dark";
  useTheme();
}

function paint(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}
