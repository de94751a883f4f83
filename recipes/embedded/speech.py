"""Renders train, dev and exam; exam becomes the embedded corpus."""

import pickle
import random
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from otoscope.speech.synthesis import Espeak, Flite, Spoken
from recipes.embedded import voices
from recipes.embedded.sentences import sentence


@dataclass(frozen=True)
class Item:
    """One rendered sentence: int16 samples at 16 kHz, its text, voice, and times."""

    samples: np.ndarray
    text: str
    voice: str
    spoken: Spoken


def render(
    folder: Path, espeak_sentences: int, flite_sentences: int, exam_seconds: float, seed: int
) -> dict[str, list[Item]]:
    """Renders all splits, or reads them back where the same call rendered them before."""
    stored = folder / f"speech-{espeak_sentences}-{flite_sentences}-{exam_seconds:.0f}-{seed}.pickle"
    if stored.exists():
        return pickle.loads(stored.read_bytes())
    began = time.time()
    draw = random.Random(seed)
    espeak, flite = Espeak(), Flite()
    taken: set[str] = set()

    def fresh() -> str:
        """A sentence that no split has."""
        while (text := sentence(draw)) in taken:
            pass
        taken.add(text)
        return text

    def item(text: str, voice: str, spoken: Spoken | None) -> Item | None:
        if spoken is None:
            return None
        return Item((spoken.samples * 32767).astype(np.int16), text, voice, spoken)

    def by_flite(text: str, voice: str) -> Item | None:
        return item(text, f"flite-{voice}", flite.say(text, voice, draw.uniform(0.85, 1.25)))

    exam: list[Item] = []
    share = exam_seconds / (len(voices.EXAM) + 1)
    for voice in voices.EXAM:
        seconds = 0.0
        while seconds < share:
            text = fresh()
            name = f"{voice.accent}+{voice.variant}"
            exam.append(item(text, voice.name, espeak.say(text, name, **voices.own_setting(voice, draw))))
            seconds += len(exam[-1].samples) / 16000
    seconds = 0.0
    while seconds < share:
        rendered = by_flite(fresh(), voices.EXAM_FLITE)
        if rendered:
            exam.append(rendered)
            seconds += len(rendered.samples) / 16000
    held_out = set(taken)

    def espeak_item(variants: list[str]) -> Item:
        while (text := sentence(draw)) in held_out:
            pass
        variant = draw.choice(variants)
        voice = f"{draw.choice(voices.ACCENTS)}+{variant}"
        return item(text, variant, espeak.say(text, voice, **voices.any_setting(draw)))

    dev = [espeak_item(voices.DEV_VARIANTS) for _ in range(96)]
    held_out |= {one.text for one in dev}
    train = [espeak_item(voices.TRAIN_VARIANTS) for _ in range(espeak_sentences)]
    while len(train) < espeak_sentences + flite_sentences:
        text = sentence(draw)
        rendered = None if text in held_out else by_flite(text, draw.choice(voices.TRAIN_FLITE))
        if rendered:
            train.append(rendered)
    splits = {"train": train, "dev": dev, "exam": exam}
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = stored.with_suffix(".part")
    unfinished.write_bytes(pickle.dumps(splits))
    unfinished.rename(stored)
    hours = sum(len(one.samples) for one in train) / 16000 / 3600
    print(
        f"rendered {len(train)} sentences ({hours:.2f} h) for training in {time.time() - began:.0f} s",
        flush=True,
    )
    return splits
