// What is heard: the utterance, or pieces of it one after the other.

const GAP = 0.15; // seconds between two pieces
const FADE = 0.004; // seconds in which a piece comes and goes, lest it click
let audio = null;
let sounding = [];
const heardPieces = []; // what was played, for those who drive the page
const PLAY_AROUND = 0.25 * RATE;

async function audioReady() {
  if (audio === null) {
    const context = new AudioContext();
    const samples = new Int16Array(await block("audio"));
    const buffer = context.createBuffer(1, samples.length, RATE);
    buffer.copyToChannel(Float32Array.from(samples, (value) => value / 32767), 0);
    audio = { context, buffer };
  }
  if (audio.context.state === "suspended") await audio.context.resume();
  return audio;
}

/** Plays pieces {start, end, role} (samples) one after the other; what sounds is stopped. */
async function play(pieces) {
  stop();
  const { context, buffer } = await audioReady();
  let at = context.currentTime + 0.02;
  for (const piece of pieces) {
    const source = context.createBufferSource();
    const gain = context.createGain();
    source.buffer = buffer;
    source.connect(gain).connect(context.destination);
    const seconds = (piece.end - piece.start) / RATE;
    gain.gain.setValueAtTime(0, at);
    gain.gain.linearRampToValueAtTime(1, at + FADE);
    gain.gain.setValueAtTime(1, Math.max(at + FADE, at + seconds - FADE));
    gain.gain.linearRampToValueAtTime(0, at + seconds);
    source.start(at, piece.start / RATE, seconds);
    sounding.push({ ...piece, source, from: at, to: at + seconds });
    heardPieces.push({ start: piece.start, end: piece.end, role: piece.role });
    at += seconds + GAP;
  }
}

function stop() {
  for (const piece of sounding) piece.source.stop();
  sounding = [];
}

/** The piece that sounds now and its sample, or null. */
function soundingNow() {
  if (!audio) return null;
  const now = audio.context.currentTime;
  sounding = sounding.filter((piece) => piece.to > now);
  const piece = sounding.find((one) => one.from <= now);
  return piece ? { ...piece, sample: piece.start + (now - piece.from) * RATE } : null;
}

function anySound() {
  return audio !== null && (soundingNow() !== null || sounding.length > 0);
}

/** The interval of a tier at a sample, or null. */
function intervalAt(tier, sample) {
  const found = (about.utterance.tiers[tier] ?? []).find(([start, end]) => start <= sample && sample < end);
  return found ? { start: found[0], end: found[1], label: found[2] } : null;
}

/** What is heard of a sample: its interval on a tier, or the half second around it. */
function pieceAt(sample, tier, role) {
  const found = intervalAt(tier, sample);
  if (found) return { ...found, role };
  const start = Math.max(0, Math.round(sample - PLAY_AROUND));
  return { start, end: Math.min(LENGTH, Math.round(sample + PLAY_AROUND)), label: "", role };
}
