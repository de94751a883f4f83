"""Trainings of a second or two: a tiny model, and tones that spell."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from otoscope.speech.corpus import Corpus
from otoscope.training.architectures import Size
from otoscope.training.settings import TrainingSettings
from tests.diagnosis.small_speech import PHONES, small_speech

TINY = Size(layers=2, heads=2, width=32, feed_forward=64, convolutions=(16,) * 7, position_kernel=16, dropout=0.1)


def settings(**other) -> TrainingSettings:
    return TrainingSettings(
        **{"steps": 6, "batch_seconds": 4.0, "save_every": 2, "evaluate_every": 4, "log_every": 1, **other}
    )


def spelt_speech(utterances: int = 12, **other) -> Corpus:
    """Every tone is a letter; two words an utterance."""
    letters = dict(zip(PHONES, "abcd", strict=True))
    corpus = small_speech(utterances, **other)

    def spelling(utterance) -> str:
        text = "".join(letters[x.label] for x in utterance.tiers["phone"])
        return f"{text[:3]} {text[3:]}"

    return replace(corpus, utterances=tuple(replace(u, transcript=spelling(u)) for u in corpus))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(one: Path, other: Path) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def stopping_at(step: int, error: type[BaseException] = KeyboardInterrupt) -> Callable:
    """A report that is interrupted when the line of a step comes."""

    def report(row):
        if row["step"] == step:
            raise error("stop")

    return report


def tree(folder: Path) -> dict[str, bytes]:
    """Every file under a folder with its content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
