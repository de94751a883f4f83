"""Curves of probes: how well phones, speakers and the sound are read from a model as its heads are removed or limited."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from otoscope.errors import MeasureError
from otoscope.evaluation.paired import Difference, paired_bootstrap
from otoscope.evaluation.scores import Scores
from otoscope.interventions.engine import BASE, Progress, frames_of
from otoscope.interventions.orders import Order
from otoscope.interventions.points import KeptPoints, Point
from otoscope.interventions.spans import FULL, RADII
from otoscope.measures.measure import Result, Row
from otoscope.models.model import SpeechModel
from otoscope.surgery import Edit, Span
from otoscope.training.probes import ProbedSpeech, Readouts, Task

Mode = Literal["trained", "frozen"]
MODES: tuple[Mode, ...] = ("trained", "frozen")

STEPS = 6
MOST_BYTES = 256 * 2**20
_DRAWS = 4000


@dataclass(frozen=True)
class Variant:
    """A point of a curve.

    Attributes:
        kind: "pruning" or "span".
        name: the order by which heads are removed, or the form of the span.
        amount: how many heads are removed, or the radius in frames.
    """

    kind: Literal["pruning", "span"]
    name: str
    amount: int

    def __str__(self) -> str:
        if self.kind == "span":
            return f"The model within {self.amount} frames ({self.name})"
        return f"The model without {self.amount} heads by {self.name}"


def pruning_variants(orders: Sequence[Order], steps: int = STEPS) -> dict[Variant, tuple[Edit, ...]]:
    """Heads removed cumulatively in equal steps, by each of several orders; see `Order`.

    Args:
        orders: each of all heads, under another name.
        steps: how many points each curve has, the last with all heads removed.

    Raises:
        MeasureError: two orders have one name, or do not name the same heads, each once.
    """
    heads = {frozenset(order.heads) for order in orders}
    names = [order.name for order in orders]
    repeated = any(len(set(order.heads)) < len(order.heads) for order in orders)
    if len(heads) != 1 or len(set(names)) < len(names) or repeated:
        raise MeasureError(
            f"Orders by {', '.join(names) or 'nothing'} do not each name all heads once",
            "Give every order a name of its own, and every head of the model to each.",
        )
    return {
        Variant("pruning", order.name, count): tuple(order.edits(count))
        for order in orders
        for count in order.steps(steps)
        if count
    }


def span_variants(
    radii: Sequence[int] = RADII, forms: Sequence[str] = ("literal", "banded")
) -> dict[Variant, tuple[Edit, ...]]:
    """The spans of all heads limited to each radius, in each form; see `surgery.Span`."""
    return {Variant("span", form, r): (Span("layer.*", r, form),) for form in forms for r in radii}


@dataclass
class ProbedCurves:
    """Scores of probes on a model and its variants, utterance by utterance.

    Attributes:
        speech: what probes are trained and tested on.
        whole: scores on the whole model, by task.
        floors: scores of the best constant answer, by task.
        permuted: scores of probes that were fitted on permuted labels of the whole model, by task.
        points: scores on variants; "trained" of probes that were trained anew on the variant, "frozen" of the whole
            model's.
        heads: how many heads the model has.
        notes: of each task.
        seed: of the probes.
    """

    speech: ProbedSpeech
    whole: dict[str, Scores]
    floors: dict[str, Scores]
    permuted: dict[str, Scores]
    heads: int
    notes: dict[str, Any] = field(default_factory=dict)
    points: dict[tuple[Variant, str, str], Scores] = field(default_factory=dict)
    seed: int = 0

    def scores(self, variant: Variant | None, task: str, mode: Mode = "trained") -> Scores:
        """Scores at a point; those of the whole model for None.

        Raises:
            MeasureError: the point was not examined.
        """
        found = self.whole.get(task) if variant is None else self.points.get((variant, task, mode))
        if found is None:
            raise MeasureError(
                f"{variant or 'The whole model'} was not probed for {task!r} ({mode})",
                "Give speech that the task finds labels in, and name the task.",
            )
        return found

    def change(self, variant: Variant, task: str, mode: Mode = "trained", against: Variant | None = None) -> Difference:
        """Scores at a point less those at another, or of the whole model, with a paired interval over speakers."""
        before = self.scores(against, task, mode)
        return paired_bootstrap(before, self.scores(variant, task, mode), n=_DRAWS, seed=self.seed)

    def variants(self, kind: str, name: str | None = None) -> list[Variant]:
        """The points of a kind, or of one curve, by name and amount."""
        found = {variant for variant, _, _ in self.points if variant.kind == kind and name in (None, variant.name)}
        return sorted(found, key=lambda one: (one.name, one.amount))

    def first_step(self, order: str) -> Variant:
        """The point of an order nearest to a sixth of the heads removed, the paper's first step (24 of 144).

        Raises:
            MeasureError: there is no such curve.
        """
        found = self.variants("pruning", order)
        if not found:
            raise MeasureError(f"There is no pruning curve by {order!r}", "Examine this order first.")
        return min(found, key=lambda one: (abs(6 * one.amount - self.heads), one.amount))

    def result(self) -> Result:
        """Rows of the diagnosis table.

        With KIND for "pruning" and "span" and TASK for the task there are

        - `KIND-TASK`: the score of probes trained anew, and `KIND-TASK-frozen`, that of the whole model's probes,
          with an interval over speakers and as floor the score of the best constant answer;
        - `KIND-TASK-change` and `KIND-TASK-frozen-change`: the difference from the whole model, with a paired interval.

        `target` is the order or the form of the span, `other` how many heads are removed ("0" for the whole model) or
        the radius in frames ("full" for it). Stream and layer are empty, since heads of all layers are changed; the
        stream that is probed is in the notes.
        """
        rows: list[Row] = []
        for kind in sorted({variant.kind for variant, _, _ in self.points}):
            curves = list(dict.fromkeys(variant.name for variant in self.variants(kind)))
            for task, mode, name in product(self.whole, MODES, curves):
                measure = f"{kind}-{task}" + ("-frozen" if mode == "frozen" else "")
                rows += self._whole(measure, task, name, "0" if kind == "pruning" else FULL)
                for variant in self.variants(kind, name):
                    rows += self._point(measure, task, variant, mode)
        permuted = {task: scores.value for task, scores in self.permuted.items()}
        return Result(rows, notes={
            "stream": self.speech.stream, "utterances": len(self.speech.corpus), "seconds": self.speech.corpus.seconds,
            "utterances_not_drawn": self.speech.left_out, "seed": self.seed, "draws": _DRAWS,
            "permuted_labels": permuted, "tasks": self.notes,
        })  # fmt: skip

    def _whole(self, measure: str, task: str, name: str, other: str) -> list[Row]:
        """The rows of the whole model at the beginning of a curve."""
        change = self._row(f"{measure}-change", task, name, other, 0.0, None, None)
        found = self.whole[task].interval(self.seed, n=_DRAWS)
        return [self._row(measure, task, name, other, found.value, found.low, found.high), change]

    def _point(self, measure: str, task: str, variant: Variant, mode: Mode) -> list[Row]:
        own = self.scores(variant, task, mode).interval(self.seed, n=_DRAWS)
        change = self.change(variant, task, mode)
        name, other = variant.name, str(variant.amount)
        return [
            self._row(measure, task, name, other, own.value, own.low, own.high),
            self._row(f"{measure}-change", task, name, other, change.value, change.low, change.high),
        ]

    def _row(
        self, measure: str, task: str, target: str, other: str, value: float, low: float | None, high: float | None
    ) -> Row:
        row = Row(
            measure, target=target, other=other, value=value, low=_end(low), high=_end(high),
            n=int(self.whole[task].denominator.sum()),
        )  # fmt: skip
        if not measure.endswith("-change"):
            row.floor = self.floors[task].value
            row.ceiling = 1.0 if self.whole[task].higher_is_better else None
        return row


def _end(value: float | None) -> float | None:
    return None if value is None or value != value else value


Features = Callable[[Sequence[Sequence[Edit]]], Iterator[torch.Tensor]]
"""From edits of several variants to the probed stream of each in turn: all frames of the speech, (frames, d)."""


def probe_curves(
    features: Features,
    tasks: Sequence[Task],
    variants: Mapping[Variant, Sequence[Edit]],
    heads: int,
    *,
    seed: int = 0,
    store: str | Path | None = None,
    progress: Progress | None = None,
) -> ProbedCurves:
    """Trains probes on a model and on each of its variants, and scores them; the model's own are scored on all of them.

    To train the probes anew and to leave them as they are answer two questions: what can still be read from what is
    left, and what breaks for somebody who reads it as before. Variants with the same edits are run once.

    Args:
        features: runs the variants; see `features_of`.
        tasks: of one `ProbedSpeech`, each once.
        variants: what is done at every point.
        heads: how many heads the model has.
        seed: of the probes; all of them begin with the same weights and see rows in the same order.
        store: folder for what each variant gave; a run that was cut off and is started again with the same folder goes on
            after its last variant.
        progress: called after each variant with the number done and to do.

    Raises:
        MeasureError: no task, tasks of the same name, or a variant's stream holds values that are not finite.
        ResultError: the folder holds the scores of another run, or cannot be written.
    """
    names = [task.name for task in tasks]
    if not tasks or len(set(names)) < len(names):
        raise MeasureError(f"The probes were given the tasks {names}", "Give at least one, and each once.")
    alike: dict[tuple[Edit, ...], list[Variant]] = {}
    for variant, edits in variants.items():
        alike.setdefault(tuple(edits), []).append(variant)
    x = next(features([()]))
    whole: dict[str, Readouts] = {task.name: task.fit(x, seed) for task in tasks}
    found = ProbedCurves(
        tasks[0].speech,
        {task.name: task.scores(whole[task.name], x) for task in tasks},
        {task.name: task.floor() for task in tasks},
        {task.name: task.scores(task.permuted().fit(x, seed), x) for task in tasks},
        heads,
        {task.name: dict(task.notes) for task in tasks},
        seed=seed,
    )
    kept = None if store is None else KeptPoints(Path(store), found.whole, seed)
    known: dict[tuple[Edit, ...], Point] = {}
    for edits in alike:
        point = kept.read(edits) if kept is not None else None
        if point is not None:
            known[edits] = point
    left = [edits for edits in alike if edits not in known]
    for done, (edits, x) in enumerate(zip(left, features(left), strict=True), 1):
        known[edits] = {
            (task.name, mode): task.scores(task.fit(x, seed) if mode == "trained" else whole[task.name], x)
            for task in tasks
            for mode in MODES
        }
        if kept is not None:
            kept.write(edits, known[edits])
        if progress is not None:
            progress(done, len(left))
    for edits, variants_alike in alike.items():
        for variant in variants_alike:
            found.points |= {(variant, task, mode): scores for (task, mode), scores in known[edits].items()}
    return found


def features_of(
    model: SpeechModel, speech: ProbedSpeech, *, batch_seconds: float = 30.0, most_bytes: int = MOST_BYTES
) -> Features:
    """Runs variants of a model on the speech, as many at once as fit into memory; see `engine.frames_of`.

    Args:
        model: the model.
        speech: the utterances and the stream.
        batch_seconds: budget of a batch, in seconds of padded speech.
        most_bytes: how much the streams of variants that are held at a time may take; one is always held.
    """
    size = 4 * len(speech) * model.anatomy.widths[speech.stream]
    at_once = max(1, most_bytes // size)

    def run(edits: Sequence[Sequence[Edit]]) -> Iterator[torch.Tensor]:
        for first in range(0, len(edits), at_once):
            named = {str(k): one for k, one in enumerate(edits[first : first + at_once])}
            edited = {name: one for name, one in named.items() if one}
            held: dict[str, dict[str, np.ndarray]] = {name: {} for name in named}
            for part in frames_of(model, speech.corpus, edited, speech.stream, batch_seconds=batch_seconds):
                for name in named:
                    held[name].update(part.found[name if name in edited else BASE])
            for name in named:
                frames = held.pop(name)
                yield torch.from_numpy(np.concatenate([frames[u.id] for u in speech.corpus]))

    return run
