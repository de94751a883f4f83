"""Outcomes and corpora that no model was run for."""

from dataclasses import replace

import numpy as np

from otoscope.evaluation.bootstrap import Estimate
from otoscope.evaluation.outcome import Change
from otoscope.evaluation.paired import Difference
from otoscope.speech.corpus import Corpus


def change(before, after, width=0.01) -> Change:
    """Word error rates of every seed before and after, with an interval of so much on either side."""
    means = [float(np.mean(one)) for one in (before, after)]
    value = means[1] - means[0]
    difference = Difference(
        "wer",
        "errors per word",
        False,
        *means,
        value,
        value - width,
        value + width,
        0.95,
        0.5,
        14,
        "speaker",
        70,
        100,
        0,
    )
    ends = [Estimate(mean, mean - width, mean + width, 0.95, 14, "speaker") for mean in means]
    return Change(difference, *ends, (tuple(before), tuple(after)))


def spoken(name: str, hours: float, transcript: str = "a word") -> Corpus:
    """So many hours of ten speakers, told by headers alone."""
    arrays = [np.zeros(16000, np.float32)] * 10
    found = Corpus.from_arrays(
        arrays, speakers=[f"{name}{k}" for k in range(10)], transcripts=[transcript] * 10,
        ids=[f"{name}-{k}" for k in range(10)], name=name,
    )  # fmt: skip
    long = round(hours * 3600 * 16000 / 10)
    return replace(found, utterances=tuple(replace(one, n_samples=long) for one in found))


def librispeech(monkeypatch, folder) -> list[str]:
    """Options with the paths of a LibriSpeech that is made up, train-clean-100 of a hundred hours."""
    from recipes.trials import speech

    parts = {"train-clean-100": 100.0, "dev-clean": 5.4, "test-clean": 5.5}
    for part in parts:
        (folder / part).mkdir()
    read = {str(folder / part): spoken(part, hours) for part, hours in parts.items()}
    monkeypatch.setattr(speech, "read_corpus", lambda place, **options: read[str(place)])
    monkeypatch.setattr(
        speech, "read_training_corpus", lambda place, skip_bad: place if isinstance(place, Corpus) else read[place]
    )
    names = zip(("--train", "--dev", "--exam"), parts, strict=True)
    return [part for option, name in names for part in (option, str(folder / name))]


def cells(text: str) -> list[list[str]]:
    """The rows of a table in Markdown, without its head."""
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return rows[2:]
