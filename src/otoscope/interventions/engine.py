"""Runs many edited variants of a model over a corpus; each begins where its first edit is."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
from torch import nn

from otoscope.errors import EvaluationError
from otoscope.interventions.replay import Player, Tape
from otoscope.models.model import SpeechModel
from otoscope.speech.batching import batches
from otoscope.speech.corpus import Corpus
from otoscope.surgery import Edit, apply, prepared

T = TypeVar("T")
Progress = Callable[[float, float], None]
Variants = Mapping[str, Sequence[Edit]]

HELD = 256  # variants that are kept
BASE = ""  # name of the unedited model among the variants


@dataclass(frozen=True)
class Part(Generic[T]):
    """What a stretch of the corpus gave.

    Attributes:
        corpus: its utterances, with their samples in memory.
        found: for each variant what was taken of it; that of the unedited model is under the name `BASE`.
    """

    corpus: Corpus
    found: dict[str, T]


class Engine:
    """A model and its edited variants: each has modules of its own over shared weights.

    A variant of a model of twelve layers takes 1.5 MB and 65 ms to make; the first `HELD` are made once and kept, others
    are made anew for every stretch of the corpus.

    Args:
        model: the model; it is not changed.
        variants: name -> edits, in order; none may be called "".
        reuse: whether variants begin at their first edit, with what the unedited model gave before it. Results are the
            same bits either way.

    Raises:
        EvaluationError: a variant is called "".
        SurgeryError: an edit names what is not there, or does not fit.
    """

    def __init__(self, model: SpeechModel, variants: Variants, *, reuse: bool = True) -> None:
        if BASE in variants:
            raise EvaluationError("A variant has no name", "Name every variant; the unedited model is always run.")
        self.base = prepared(model)
        # The view that streams come from, and the encoder under the model's own head: a metric runs either.
        self._tapes = [Tape(encoder, model.family.layers) for encoder in _encoders(self.base)] if reuse else []
        self._edits = {name: tuple(edits) for name, edits in variants.items()}
        self._variants = {name: self._made(name) for name in list(self._edits)[:HELD]}

    def _made(self, name: str) -> tuple[SpeechModel, list[Player]]:
        """A variant, and what hands it what comes before its first edit."""
        variant = apply(self.base, self._edits[name], share=True, name=f"{self.base.name} ({name})")
        # There are no tapes where nothing is reused.
        return variant, [Player(*pair) for pair in zip(self._tapes, _encoders(variant), strict=False)]

    def run(self, part: Corpus, take: Callable[[SpeechModel, Corpus], T]) -> Part[T]:
        """Takes something of the unedited model and of every variant on a stretch of a corpus.

        Args:
            part: few utterances: what the unedited model gives for all of them is held in memory.
            take: from a model and the corpus to what is wanted. A pass with inputs that the unedited model did not have
                is run as a whole. Sums over attention cannot be asked for: layers that are replayed run none.
        """
        held = replace(part, utterances=tuple(replace(u, source=u.read()) for u in part))
        with contextlib.ExitStack() as stack:
            for tape in self._tapes:
                stack.enter_context(tape.recording())
            found = {BASE: take(self.base, held)}
        for name in self._edits:
            variant, players = self._variants.get(name) or self._made(name)
            with contextlib.ExitStack() as stack:
                for player in players:
                    stack.enter_context(player.playing())
                found[name] = take(variant, held)
        for tape in self._tapes:
            tape.passes = []
        return Part(held, found)

    def over(
        self, parts: Sequence[Corpus], take: Callable[[SpeechModel, Corpus], T], progress: Progress | None = None
    ) -> Iterator[Part[T]]:
        """See `run`, one part after another."""
        total, done = sum(part.seconds for part in parts), 0.0
        for part in parts:
            yield self.run(part, take)
            done += part.seconds
            if progress is not None:
                progress(done, total)


def parts_of(corpus: Corpus, batch_seconds: float = 30.0, *, spoken: bool = False) -> list[Corpus]:
    """A corpus in stretches of a batch each, so that batches of the stretches are those of the whole.

    Args:
        corpus: the speech.
        batch_seconds: budget of a batch, in seconds of padded speech.
        spoken: whether every stretch is to hold a word, where the corpus does: an error rate needs one. A batch without
            words is joined to the one before it.

    Raises:
        EvaluationError: the corpus is empty.
    """
    if not len(corpus):
        raise EvaluationError(f"Corpus {corpus.name} holds no utterance", "Choose a corpus with speech.")
    kept: list[list[str]] = []
    waiting: list[str] = []
    for batch in batches(corpus, batch_seconds):
        waiting += [utterance.id for utterance in batch]
        if not spoken or any((utterance.transcript or "").split() for utterance in batch):
            kept.append(waiting)
            waiting = []
    if waiting:
        kept = [*kept[:-1], [*(kept[-1] if kept else []), *waiting]]
    return [corpus.subset(ids) for ids in kept]


def frames_of(
    model: SpeechModel,
    corpus: Corpus,
    variants: Variants,
    stream: str,
    *,
    batch_seconds: float = 30.0,
    progress: Progress | None = None,
    reuse: bool = True,
) -> Iterator[Part[dict[str, np.ndarray]]]:
    """A stream of the unedited model and of every variant, batch by batch: what probes are trained on.

    Args:
        model: the model.
        corpus: the speech.
        variants: see `Engine`.
        stream: such as "layer.12".
        batch_seconds: see `parts_of`.
        progress: called after each batch with the seconds done and in all.
        reuse: see `Engine`.

    Yields:
        For each batch and variant: utterance id -> valid frames, float32, shape (T, d).

    Raises:
        CaptureError: there is no such stream.
        AudioError: an utterance is too short or too long for the model.
    """

    def take(variant: SpeechModel, part: Corpus) -> dict[str, np.ndarray]:
        found = {}
        for batch in batches(part, batch_seconds):
            capture = variant.capture(batch, [utterance.read() for utterance in batch], [stream])
            for k, utterance in enumerate(batch):
                found[utterance.id] = capture.frames(stream, k).float().cpu().numpy().copy()
        return found

    # Single convolutions are within a part that is replayed as a whole, and would not be seen.
    reuse = reuse and not stream.startswith("conv.")
    yield from Engine(model, variants, reuse=reuse).over(parts_of(corpus, batch_seconds), take, progress)


def _encoders(model: SpeechModel) -> tuple[nn.Module, nn.Module]:
    return model.encoder, model.family.encoder(model.source)
