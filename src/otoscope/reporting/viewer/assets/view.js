// The part of the utterance that is shown, and the crosshair: in samples, the same for all panes.

const NARROWEST = Math.min(LENGTH, 0.08 * RATE);
const view = { x: 0, y: 0, w: LENGTH }; // first key, first query, extent along both axes
const cross = { hover: null, pin: null }; // {query, key} each

function keepInside() {
  view.w = Math.min(LENGTH, Math.max(NARROWEST, view.w));
  view.x = Math.min(LENGTH - view.w, Math.max(0, view.x));
  view.y = Math.min(LENGTH - view.w, Math.max(0, view.y));
}

/** Zooms by a factor (below 1: in), with a key and a query that stay where they are. */
function zoom(factor, key = view.x + view.w / 2, query = view.y + view.w / 2) {
  const before = view.w;
  view.w = Math.min(LENGTH, Math.max(NARROWEST, before * factor));
  view.x = key - ((key - view.x) / before) * view.w;
  view.y = query - ((query - view.y) / before) * view.w;
  keepInside();
}

function pan(keys, queries) {
  view.x += keys;
  view.y += queries;
  keepInside();
}

function fit() {
  Object.assign(view, { x: 0, y: 0, w: LENGTH });
}

/** Zooms at the crosshair, where there is one that is in view. */
function zoomAtCross(factor) {
  const at = cross.hover ?? cross.pin;
  const inside = at && at.key >= view.x && at.key <= view.x + view.w && at.query >= view.y && at.query <= view.y + view.w;
  if (inside) zoom(factor, at.key, at.query);
  else zoom(factor);
}

function frameOf(model, sample) {
  return Math.min(model.frames - 1, Math.max(0, Math.floor((sample - model.begin) / model.grid.hop)));
}

function centreOf(model, frame) {
  return model.begin + (frame + 0.5) * model.grid.hop;
}

/** Moves the pinned crosshair by whole frames of a model, and the view after it. */
function moveCross(model, queries, keys) {
  const from = cross.pin ?? { query: view.y + view.w / 2, key: view.x + view.w / 2 };
  const moved = (sample, by) => centreOf(model, Math.min(model.frames - 1, Math.max(0, frameOf(model, sample) + by)));
  cross.pin = { query: moved(from.query, queries), key: moved(from.key, keys) };
  cross.hover = null;
  const margin = view.w * 0.05;
  if (cross.pin.key < view.x + margin) view.x = cross.pin.key - margin;
  if (cross.pin.key > view.x + view.w - margin) view.x = cross.pin.key - view.w + margin;
  if (cross.pin.query < view.y + margin) view.y = cross.pin.query - margin;
  if (cross.pin.query > view.y + view.w - margin) view.y = cross.pin.query - view.w + margin;
  keepInside();
}

function seconds(samples) {
  return (samples / RATE).toFixed(samples < 100 * RATE ? 2 : 1);
}
