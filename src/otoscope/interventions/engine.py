"""Runs many edited variants of a model over a corpus; each begins where its first edit is."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
from torch import nn

from otoscope.errors import EvaluationError
from otoscope.interventions.replay import Player
from otoscope.interventions.stacking import begin, run_together
from otoscope.interventions.tape import Room, Tape
from otoscope.models.model import SpeechModel
from otoscope.speech.batching import batches
from otoscope.speech.corpus import Corpus
from otoscope.surgery import Edit, apply, prepared

T = TypeVar("T")
Progress = Callable[[float, float], None]
Variants = Mapping[str, Sequence[Edit]]
_Variant = tuple[SpeechModel, list[Player]]

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
        cache_gb: bound, in 10^9 bytes, on what is held of the unedited model's passes; what there is no room for is
            computed again, see `Tape`. Results are the same bits.
        together: how many variants with the same first edited part are run as one batch, see `run_together`. Results
            are the same up to float32 rounding, about 1e-6. Only passes whose last output is all that is looked at gain
            by it, and only where a batch is too small to keep the processor busy: with four draws of a layer of the
            embedded model on one CPU thread a batch of one utterance of 2 s took 0.7 of the time, and one of six of 3 s
            as long as before.

    Raises:
        EvaluationError: a variant is called "", the bound is not positive, or no variant is run at a time.
        SurgeryError: an edit names what is not there, or does not fit.
    """

    def __init__(
        self,
        model: SpeechModel,
        variants: Variants,
        *,
        reuse: bool = True,
        cache_gb: float | None = None,
        together: int = 1,
    ) -> None:
        if BASE in variants:
            raise EvaluationError("A variant has no name", "Name every variant; the unedited model is always run.")
        if cache_gb is not None and not cache_gb > 0:
            raise EvaluationError(
                f"A cache of {cache_gb} GB", "Give a positive bound, or none; a small one holds nothing."
            )
        if together < 1:
            raise EvaluationError(f"{together} variants in a batch", "Run one variant or more at a time.")
        self.base = prepared(model)
        self._room = Room(None if cache_gb is None else cache_gb * 1e9)
        # The view that streams come from, and the encoder under the model's own head: a metric runs either.
        view, own = _encoders(self.base)
        self._tapes = []
        if reuse:
            self._tapes = [
                Tape(view, model.family.layers, self._room, lambda: self.base.expected),
                Tape(own, model.family.layers, self._room),
            ]
        self._edits = {name: tuple(edits) for name, edits in variants.items()}
        self._variants = {name: self._made(name) for name in list(self._edits)[:HELD]}
        self._together = together if reuse else 1
        self._begins = {name: begin(self._of(name)[1][0]) for name in self._edits} if self._together > 1 else {}

    def _made(self, name: str) -> _Variant:
        """A variant, and what hands it what comes before its first edit."""
        variant = apply(self.base, self._edits[name], share=True, name=f"{self.base.name} ({name})")
        # There are no tapes where nothing is reused.
        return variant, [Player(*pair) for pair in zip(self._tapes, _encoders(variant), strict=False)]

    def _of(self, name: str) -> _Variant:
        return self._variants.get(name) or self._made(name)

    def run(
        self, part: Corpus, take: Callable[[SpeechModel, Corpus], T], names: Collection[str] | None = None
    ) -> Part[T]:
        """Takes something of the unedited model and of every variant on a stretch of a corpus.

        Args:
            part: few utterances: what the unedited model gives for all of them is held in memory.
            take: from a model and the corpus to what is wanted. A pass with inputs that the unedited model did not have
                is run as a whole. Sums over attention cannot be asked for: layers that are replayed run none.
            names: of the variants that are run; None is all.
        """
        held = replace(part, utterances=tuple(replace(u, source=u.read()) for u in part))
        with contextlib.ExitStack() as stack:
            for tape in self._tapes:
                stack.enter_context(tape.recording())
            found = {BASE: take(self.base, held)}
        chosen = [name for name in self._edits if names is None or name in names]
        taken: dict[str, T] = {}
        for group in self._groups(chosen):
            made = {name: self._of(name) for name in group}
            if len(group) > 1:
                self._answer(list(made.values()))
            for name, (variant, players) in made.items():
                with contextlib.ExitStack() as stack:
                    for player in players:
                        stack.enter_context(player.playing())
                    taken[name] = take(variant, held)
                for player in players:
                    player.answers = []
        for tape in self._tapes:
            tape.passes = []
        return Part(held, found | {name: taken[name] for name in chosen})

    def _groups(self, names: Sequence[str]) -> list[list[str]]:
        """Variants that are run together: those that begin at the same part, as many as may be."""
        if self._together == 1:
            return [[name] for name in names]
        alike: dict[int, list[str]] = {}
        for name in names:
            alike.setdefault(self._begins[name], []).append(name)
        step = self._together
        return [group[k : k + step] for group in alike.values() for k in range(0, len(group), step)]

    def _answer(self, made: Sequence[_Variant]) -> None:
        """Runs the passes of several variants as one, where that can be done; the others are run one by one."""

        def expect(lengths: Sequence[int], base: bool) -> None:
            for model in [self.base] if base else [variant for variant, _ in made]:
                model.expect(lengths)

        for players in zip(*(players for _, players in made), strict=True):
            limit = self._room.limit
            run_together(players, expect, None if limit is None else limit - self._room.held)

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
    cache_gb: float | None = None,
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
        cache_gb: see `Engine`.

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
    yield from Engine(model, variants, reuse=reuse, cache_gb=cache_gb).over(
        parts_of(corpus, batch_seconds), take, progress
    )


def _encoders(model: SpeechModel) -> tuple[nn.Module, nn.Module]:
    return model.encoder, model.family.encoder(model.source)
