"""What probes are asked: the phone of a frame, the speaker of a frame or an utterance, the sound itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from otoscope.errors import MeasureError
from otoscope.measures.layers.labels import FEWEST_FOLDS, FEWEST_ROWS, NO_LABELS
from otoscope.speech import log_mel
from otoscope.speech.mel import HOP as MEL_HOP
from otoscope.statistics import Folds, partition
from otoscope.statistics.partition import stratified
from otoscope.training.probes.speech import ProbedSpeech, counted_speakers
from otoscope.training.probes.task import Task

FOLDS = 3

_LINEAR = {"hidden": 0, "steps": 150, "batch": 64}


def phone_task(speech: ProbedSpeech, folds: int = FOLDS) -> Task:
    """The phone of every frame whose centre lies in one; folds share no speaker; one hidden layer.

    Frames of pauses, noises and unknown words are left out, and so are phones with fewer than five frames or in one
    fold only; both are counted.

    Raises:
        CorpusError: the corpus has no tier of phones.
        MeasureError: fewer than two phones or folds remain.
    """
    speech.corpus.require_tier("phone")
    told = [u for u in speech.corpus if u.tiers.get("phone")]
    dealt = partition({u.id: u.n_samples for u in told}, {u.id: u.speaker for u in told}, folds, speech.seed)
    names: list[str] = []
    for utterance in speech.corpus:
        names += _labels_at(utterance.tiers.get("phone", ()), speech.centres(utterance.id))
    owners = _owners(speech)
    ids = [u.id for u in speech.corpus]
    fold_of = np.array([dealt.of.get(ids[owner], 0) for owner in owners])
    counts = Counter(names)
    kept = sorted(
        x for x in counts
        if x not in NO_LABELS and counts[x] >= FEWEST_ROWS
        and len({int(f) for f, name in zip(fold_of, names, strict=True) if name == x}) >= FEWEST_FOLDS
    )  # fmt: skip
    number = {label: k for k, label in enumerate(kept)}
    rows = np.array([k for k, name in enumerate(names) if name in number], dtype=np.int64)
    _require("phone", speech, len(kept), len(np.unique(fold_of[rows])) if len(rows) else 0)
    left = {x: n for x, n in counts.items() if x not in number and x not in NO_LABELS}
    notes = {
        "folds": dealt.count, "folds_by": dealt.by, "labels": len(kept), "labels_left_out": len(left),
        "frames_left_out": sum(left.values()), "frames_without_label": sum(counts[x] for x in NO_LABELS),
        "utterances_without_tier": len(speech.corpus) - len(told),
    }  # fmt: skip
    targets = torch.tensor([number[names[k]] for k in rows])
    return Task(
        "phone", "share of frames", speech, torch.from_numpy(rows), torch.from_numpy(owners[rows]), targets,
        tuple(kept), _dense(fold_of[rows]), notes,
    )  # fmt: skip


def speaker_task(speech: ProbedSpeech, folds: int = FOLDS) -> Task:
    """The speaker of every frame; utterances of each speaker are dealt into folds, so that all speakers are in all.

    Speakers with fewer than two utterances cannot be both learnt and tested; they are left out and counted.

    Raises:
        MeasureError: fewer than two speakers have two utterances or more.
    """
    dealt, kept, notes = _speakers(speech, folds)
    owners = _owners(speech)
    utterances = speech.corpus.utterances
    rows = np.array([k for k, owner in enumerate(owners) if utterances[owner].id in dealt.of], dtype=np.int64)
    return Task(
        "speaker", "share of frames", speech, torch.from_numpy(rows), torch.from_numpy(owners[rows]),
        torch.tensor([kept[str(utterances[owners[k]].speaker)] for k in rows]), tuple(kept),
        torch.tensor([dealt.of[utterances[owners[k]].id] for k in rows]), notes,
    )  # fmt: skip


def utterance_speaker_task(speech: ProbedSpeech, folds: int = FOLDS) -> Task:
    """The speaker of an utterance by a linear probe of the mean of its frames; folds as in `speaker_task`.

    Raises:
        MeasureError: fewer than two speakers have two utterances or more.
    """
    dealt, kept, notes = _speakers(speech, folds)
    rows = [(k, u) for k, u in enumerate(speech.corpus) if u.id in dealt.of]
    return Task(
        "speaker-utterance", "share of utterances", speech, None, torch.tensor([k for k, _ in rows]),
        torch.tensor([kept[str(u.speaker)] for _, u in rows]), tuple(kept),
        torch.tensor([dealt.of[u.id] for _, u in rows]), notes, _LINEAR,
    )  # fmt: skip


def mel_task(speech: ProbedSpeech, folds: int = FOLDS) -> Task:
    """The log-mel features of a frame's own hop, by their mean absolute error; folds as in `phone_task`.

    The features are those of `speech.log_mel`, 80 every 10 ms; a hop of n times 10 ms is asked for 80 n values.

    Raises:
        MeasureError: the stream's frames do not begin on mel frames, or there are fewer than two folds.
        AudioError: a recording cannot be read.
    """
    if speech.grid.hop % MEL_HOP:
        raise MeasureError(
            f"Frames every {speech.grid.hop} samples do not line up with mel frames every {MEL_HOP} samples",
            "Leave out the task `mel`.",
        )
    corpus = speech.corpus
    dealt = partition(
        {u.id: u.n_samples for u in corpus}, {u.id: u.speaker for u in corpus}, folds, speech.seed
    )  # fmt: skip
    if dealt.count < FEWEST_FOLDS:
        _require("mel", speech, FEWEST_FOLDS, dealt.count)
    values = [_mel_of(log_mel(u.read()), speech.frames[u.id], speech.grid.hop // MEL_HOP) for u in corpus]
    owners = _owners(speech)
    folds_of = np.array([dealt.of[u.id] for u in corpus])
    return Task(
        "mel", "mean absolute error of log-mel", speech, torch.arange(len(speech)), torch.from_numpy(owners),
        torch.from_numpy(np.concatenate(values)), (), torch.from_numpy(folds_of[owners]),
        {"folds": dealt.count, "folds_by": dealt.by}, {"steps": 100},
    )  # fmt: skip


TASKS: dict[str, Callable[..., Task]] = {
    "phone": phone_task,
    "speaker": speaker_task,
    "speaker-utterance": utterance_speaker_task,
    "mel": mel_task,
}
"""The tasks by name (Yang, Liu and Lee 2020, section 7, with a probe of the sound in place of a model's own head)."""


def make_task(name: str, speech: ProbedSpeech, folds: int = FOLDS) -> Task:
    """A task by name.

    Raises:
        MeasureError: there is no such task, or the speech gives no ground for it.
        CorpusError: the speech lacks a tier.
    """
    if name not in TASKS:
        raise MeasureError(f"Probes have no task {name!r}", f"Choose from {', '.join(TASKS)}.")
    return TASKS[name](speech, folds)


def _speakers(speech: ProbedSpeech, folds: int) -> tuple[Folds, dict[str, int], dict[str, Any]]:
    """Folds inside speakers, the speakers' numbers, and what was left out."""
    counts = counted_speakers(speech.corpus)
    kept = sorted(x for x in counts if counts[x] >= 2)
    if len(kept) < 2:
        raise MeasureError(
            f"Of {len(counts)} known speaker(s) in the speech of corpus {speech.corpus.name} that is probed, {len(kept)} "
            f"have two utterances or more, and {len(counts) - len(kept)} have one; the speaker task tests on utterances "
            "of the speakers that it learns from, and needs two of them",
            "Give more utterances of each speaker, or leave out the speaker tasks.",
        )
    told = {u.id: str(u.speaker) for u in speech.corpus if u.speaker in kept}
    dealt = stratified(told, folds, speech.seed)
    notes = {
        "folds": dealt.count, "folds_by": "utterance, inside each speaker", "speakers": len(kept),
        "speakers_with_one_utterance": len(counts) - len(kept),
        "utterances_left_out": len(speech.corpus) - len(told),
    }  # fmt: skip
    return dealt, {speaker: k for k, speaker in enumerate(kept)}, notes


def _require(task: str, speech: ProbedSpeech, labels: int, folds: int) -> None:
    if labels < 2 or folds < FEWEST_FOLDS:
        raise MeasureError(
            f"The task {task!r} finds {labels} label(s) with {FEWEST_ROWS} frames or more in {FEWEST_FOLDS} folds or more, "
            f"and {folds} fold(s), in the speech of corpus {speech.corpus.name} that is probed; it needs two of each",
            "Give more speech, better of three speakers or more.",
        )


def _owners(speech: ProbedSpeech) -> np.ndarray:
    """Number of the utterance that each frame is of, shape (frames,)."""
    return np.repeat(np.arange(len(speech.corpus)), [speech.frames[u.id] for u in speech.corpus])


def _labels_at(intervals: Any, centres: np.ndarray) -> list[str]:
    """Label of the interval that each sample lies in; empty where there is none."""
    if not intervals:
        return [""] * len(centres)
    starts = np.array([x.start for x in intervals])
    places = np.searchsorted(starts, centres, side="right") - 1
    return [
        intervals[k].label if k >= 0 and centre < intervals[k].end else ""
        for k, centre in zip(places, centres, strict=True)
    ]


def _mel_of(mel: np.ndarray, frames: int, step: int) -> np.ndarray:
    """The mel frames of each frame's hop beside one another, (frames, 80 * step); the last is repeated beyond the end."""
    places = np.minimum(np.arange(frames * step), len(mel) - 1)
    return mel[places].reshape(frames, -1)


def _dense(folds: np.ndarray) -> torch.Tensor:
    """Folds renumbered without gaps."""
    return torch.from_numpy(np.unique(folds, return_inverse=True)[1])
