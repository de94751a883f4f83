// Beside a map: relations of phones, profile over distance, and the numbers of the head.

const LIMIT = 3; // log2 of eight times more or less

function sharpContext(canvas, width, height) {
  const ratio = devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  return context;
}

/** Attention from label m to label n of a head over that of uniform attention, as a logarithm; labels in order. */
async function relationsOf(head) {
  const model = about.models[head.model];
  const n = model.labels.length;
  const all = new Float32Array(await block(`m${head.model}/relations`));
  const own = all.subarray(head.index * n * n, (head.index + 1) * n * n);
  return { n, at: (m, k) => Math.log2(own[m * n + k] / (model.shares[m] * model.shares[k])) };
}

async function drawRelations(canvas, told, head) {
  const { labels, shares } = about.models[head.model];
  const { n, at } = await relationsOf(head);
  const width = canvas.clientWidth;
  const margin = 24, cell = (width - margin - 1) / n;
  const context = sharpContext(canvas, width, margin + cell * n + 1);
  context.font = `${Math.max(6, Math.min(11, cell * 0.95))}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  for (let m = 0; m < n; m++)
    for (let k = 0; k < n; k++) {
      context.fillStyle = lean(at(m, k), LIMIT);
      context.fillRect(margin + k * cell, margin + m * cell, cell + 0.4, cell + 0.4);
    }
  context.fillStyle = paint("soft");
  const every = Math.ceil(7.5 / cell); // labels that would lie on each other are left out
  for (let k = 0; k < n; k += every) {
    context.textAlign = "right";
    context.fillText(labels[k], margin - 3, margin + (k + 0.5) * cell);
    context.save();
    context.translate(margin + (k + 0.5) * cell, margin - 3);
    context.rotate(-Math.PI / 2);
    context.textAlign = "left";
    context.fillText(labels[k], 0, 0);
    context.restore();
  }
  canvas.onpointermove = (event) => {
    const m = Math.floor((event.offsetY - margin) / cell), k = Math.floor((event.offsetX - margin) / cell);
    if (m < 0 || k < 0 || m >= n || k >= n) return;
    const times = 2 ** at(m, k);
    told.textContent = `${labels[m]} \u2192 ${labels[k]}: ${times < 10 ? times.toPrecision(2) : times.toFixed(0)} \u00d7 uniform`;
    told.title = `${labels[m]} has ${(100 * shares[m]).toFixed(1)} % of the frames, ${labels[k]} ${(100 * shares[k]).toFixed(1)} %`;
  };
  canvas.onpointerleave = () => { told.textContent = "rows attend to columns"; };
  canvas.onpointerleave();
  canvas.setAttribute("aria-label", `Relation map of head ${head.key}: ${strongest(labels, n, at)}`);
}

function strongest(labels, n, at) {
  let best = [-Infinity, 0, 0];
  for (let m = 0; m < n; m++) for (let k = 0; k < n; k++) if (at(m, k) > best[0]) best = [at(m, k), m, k];
  return n ? `most over uniform is ${labels[best[1]]} to ${labels[best[2]]}, ${(2 ** best[0]).toPrecision(2)} times` : "";
}

/** Share of attention at each offset, on a logarithmic scale, with that of uniform attention. */
async function drawProfile(canvas, told, head) {
  const model = about.models[head.model];
  const { reach, frames } = model;
  const size = 2 * reach + 1;
  const all = new Float32Array(await block(`m${head.model}/profiles`));
  const own = all.subarray(head.index * size, (head.index + 1) * size);
  const uniform = (d) => Math.max(0, (frames - Math.abs(d)) / frames ** 2);
  const width = canvas.clientWidth, height = 118, left = 34, bottom = 16, right = 5;
  const context = sharpContext(canvas, width, height);
  const low = Math.min(-4, Math.floor(Math.log10(uniform(0) / 3))), high = 0;
  const x = (d) => left + ((d + reach) / (2 * reach)) * (width - left - right);
  const y = (value) => 5 + ((high - Math.max(low, Math.log10(value || 1e-12))) / (high - low)) * (height - bottom - 5);
  context.font = "10px system-ui, sans-serif";
  context.textBaseline = "middle";
  context.textAlign = "right";
  for (let power = low; power <= high; power++) {
    context.fillStyle = paint("line");
    context.fillRect(left, y(10 ** power), width - left - right, 0.5);
    context.fillStyle = paint("soft");
    context.fillText(power > -3 ? String(10 ** power) : `1e${power}`, left - 3, y(10 ** power));
  }
  context.textAlign = "center";
  for (const d of [-reach, -reach / 2, 0, reach / 2, reach]) {
    context.fillStyle = paint("line");
    context.fillRect(x(d), 5, 0.5, height - bottom - 5);
    context.fillStyle = paint("soft");
    const milliseconds = (d * model.grid.hop * 1000) / RATE;
    const text = signed(milliseconds);
    const half = context.measureText(text).width / 2;
    context.fillText(text, Math.min(x(d), width - half), height - 6);
  }
  const line = (value, colour, dash) => {
    context.beginPath();
    for (let d = -reach; d <= reach; d++) if (Math.abs(d) < frames) context.lineTo(x(d), y(value(d)));
    context.strokeStyle = colour;
    context.setLineDash(dash);
    context.lineWidth = 1.5;
    context.stroke();
  };
  line(uniform, paint("soft"), [4, 3]);
  line((d) => own[d + reach], paint("accent"), []);
  const inside = own.reduce((sum, value) => sum + value, 0);
  const most = own.indexOf(Math.max(...own)) - reach;
  const summary = `most at ${signed(most)} frames; ${(100 * (1 - inside)).toFixed(0)} % beyond \u00b1${reach}`;
  canvas.onpointermove = (event) => {
    const d = Math.round(((event.offsetX - left) / (width - left - right)) * 2 * reach) - reach;
    if (Math.abs(d) <= reach) told.textContent = `${signed(d)} frames: ${own[d + reach].toPrecision(3)}`;
  };
  canvas.onpointerleave = () => { told.textContent = summary; };
  canvas.onpointerleave();
  canvas.setAttribute("aria-label", `Relative profile of head ${head.key}: ${summary}`);
}

function signed(value) {
  return value > 0 ? `+${value}` : value < 0 ? `\u2212${-value}` : "0";
}

function showNumbers(element, head) {
  const model = about.models[head.model];
  element.replaceChildren();
  if (model.metrics.length) {
    const table = document.createElement("table");
    for (const metric of model.metrics) {
      const found = model.values[metric.name][head.key];
      const row = table.insertRow();
      const name = document.createElement("th");
      name.scope = "row";
      name.textContent = metric.name;
      name.title = [metric.tells, metric.unit].filter(Boolean).join("; ");
      row.append(name);
      row.insertCell().textContent = found ? worded(found) : "\u2013";
      const cell = row.insertCell();
      cell.textContent = found?.value === undefined ? "" : `#${rankOf(model, metric.name, head.key)}`;
      cell.title = `rank of ${model.heads.length}, the highest first`;
    }
    element.append(table);
  }
  const source = document.createElement("p");
  source.className = "absent";
  source.textContent = model.metrics.length ? `Numbers of ${model.source}.` : "No measure by head was taken.";
  if (model.skipped.length) source.title = model.skipped.map((one) => `${one.measure}: ${one.reason}`).join("\n");
  if (model.skipped.length) source.textContent += ` ${model.skipped.length} measure(s) could not be taken.`;
  element.append(source);
}

function worded(found) {
  const number = found.value === undefined ? "" : short(found.value);
  return found.label === undefined ? number : `${found.label}${number ? ` (${number})` : ""}`;
}

function short(value) {
  return Math.abs(value) >= 1000 || Number.isInteger(value) ? String(Math.round(value)) : value.toPrecision(3);
}

function rankOf(model, metric, key) {
  const values = model.values[metric];
  return 1 + Object.values(values).filter((one) => one.value > values[key].value).length;
}
