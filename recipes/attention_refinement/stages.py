"""Ranking, curves without training, sizes and times, fine-tuning; each is stored, and read where it is there already."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from otoscope.evaluation import CTCLoss, WordErrorRate
from otoscope.evaluation.invariance import check_batch_invariance
from otoscope.evaluation.references import split_usable
from otoscope.evaluation.scores import Scores
from otoscope.evaluation.timing import compare_time
from otoscope.interventions.head_values import metrics_of_heads
from otoscope.interventions.kept import put, same_run, taken
from otoscope.interventions.leave_one_out import leave_one_out
from otoscope.interventions.orders import Order, order_by, order_by_loss, random_orders, values_of
from otoscope.interventions.scoring import VariantScores, scores_of_variants
from otoscope.models.recogniser import Recogniser, load_recogniser
from otoscope.speech.corpus import Corpus
from otoscope.surgery import Edit
from otoscope.training.augmentation import Augmentation
from otoscope.training.settings import TrainingSettings
from otoscope.workflow.evaluating import evaluate
from otoscope.workflow.finetuning import finetune
from otoscope.workflow.treating import treat
from recipes.attention_refinement.design import LEFT_OUT, METRICS, WEIGHTS, WHOLE, Design, Point, Run
from recipes.attention_refinement.speech import Speech
from recipes.treated.speech import thinned
from recipes.treated.stages import AUGMENTATION

TIMED_SECONDS = 10.0  # of speech in each of the runs that are timed
WATCHED = 5  # one in so many utterances of dev is looked at while training
_ALONE = 1e-6  # seconds: a batch that no second utterance fits into


@dataclass
class Found:
    """What was measured; a run that failed is absent.

    Attributes:
        heads: of the model.
        hop_ms: from one frame to the next.
        before: word errors of the unpruned model.
        after: of each point without training, by name.
        costs: size and time of each point that they were taken of, by name: `parameters` and `macs_per_second`, each
            before and after, and `time`, a ratio with its ends.
        trained: of each fine-tuned point, and of the whole model, by name and seed.
        facts: of the page: how much speech, whether batches matter, seeds, command.
    """

    heads: int
    hop_ms: float
    before: Scores
    after: Mapping[str, Scores]
    costs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    trained: Mapping[str, Mapping[int, Scores]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


class Refinement:
    """One model, refined in every way of a design.

    Args:
        design: what is run.
        work: gets all that is stored.
        speech: train, dev and exam.

    Raises:
        ModelError: the model cannot be loaded, or is no recogniser.
        EvaluationError: it has fewer heads than there are steps, or no speech that it can use.
        ResultError: the folder holds the outcomes of another design.
    """

    def __init__(self, design: Design, work: Path, speech: Speech) -> None:
        self.design, self.work = design, work
        self.recogniser = load_recogniser(design.model)
        self.heads = sum(self.recogniser.model.anatomy.heads)
        design.check_heads(self.heads)
        self.exam, self.left_out = split_usable(self.recogniser, speech.exam)
        self.ranked, _ = split_usable(self.recogniser, speech.ranked(design.ranked_seconds))
        self.speech = speech
        kept = design.kept() | {"weights": self.recogniser.model.fingerprint(), "exam": self.exam.fingerprint()}
        run = json.dumps(kept, sort_keys=True)
        same_run(work / "design.json", {"run": run, **kept}, "outcomes of another model, design or speech")

    @cached_property
    def batch_seconds(self) -> float:
        """Of examination: one utterance at a time where what the model recognises depends on its batch."""
        ordered = [one.id for one in sorted(self.exam, key=lambda one: (-one.n_samples, one.id))]
        uneven = self.exam.subset(dict.fromkeys([*ordered[:4], *ordered[-4:]]))
        return 30.0 if check_batch_invariance(self.recogniser, uneven).holds else _ALONE

    @cached_property
    def orders(self) -> dict[str, Order]:
        """Every order of the heads, by name; ranked on development speech."""
        store = self.work / "ranking.json"
        if not store.exists():
            print(f"ranking {self.heads} heads on {self.ranked.seconds:.0f} s of development speech ...", flush=True)
            rows = metrics_of_heads(self.recogniser.model, self.ranked).rows
            values = {name: values_of(rows, name) for name in (*METRICS, *WEIGHTS)}
            lost = leave_one_out(self.recogniser, self.ranked, CTCLoss(), store=self.work / "left-out")
            values[LEFT_OUT] = values_of(lost.rows, LEFT_OUT)
            put(store, {name: [[*head, value] for head, value in one.items()] for name, one in values.items()})
        values = {name: {(k, h): v for k, h, v in rows} for name, rows in taken(store).items()}
        ordered = [order_by(name, values[name]) for name in (*METRICS, *WEIGHTS)]
        ordered.append(order_by_loss(values[LEFT_OUT], higher_is_better=CTCLoss().higher_is_better))
        ordered += random_orders(values[METRICS[0]], count=self.design.random)
        return {order.name: order for order in ordered}

    def curves(self) -> VariantScores:
        """Word errors of every point without training, each variant from its first edit on; alike ones are run once."""
        named, variants = self._variants()
        print(f"curves: {len(variants)} variants on {self.exam.seconds:.0f} s of examination speech ...", flush=True)
        found = scores_of_variants(
            self.recogniser, self.exam, variants, WordErrorRate(), batch_seconds=self.batch_seconds,
            store=self.work / "curves",
        )  # fmt: skip
        return VariantScores(found.before, {name: found.after[variant] for name, variant in named.items()})

    def _variants(self) -> tuple[dict[str, str], dict[str, list[Edit]]]:
        """The variant of each point: orders meet where all heads are gone; and the edits of each variant."""
        named: dict[str, str] = {}
        variants: dict[str, list[Edit]] = {}
        known: dict[tuple[Edit, ...], str] = {}
        for point in self.design.curves:
            edits = point.edits(self.orders, self.design.steps)
            name = known.setdefault(tuple(edits), point.name)
            named[point.name] = name
            variants[name] = edits
        return named, variants

    def cost(self, point: Point) -> dict[str, Any]:
        """Size and time of a point with its heads gone for good, or its spans in a band, beside the unpruned model's."""
        place = self.work / "costs" / f"{point.name.replace(':', '-')}.json"
        if not place.exists():
            print(f"size and time of {point.name} ...", flush=True)
            before = self.recogniser
            model = treat(before.model, point.treatments(self.orders, self.design.steps))
            after = Recogniser(model, before.vocabulary)
            time = compare_time(before, after, _timed(self.exam), self.design.repeats)
            put(place, {
                "parameters": [before.parameters, after.parameters],
                "macs_per_second": [before.model.macs_per_second(), model.macs_per_second()],
                "time": [time.ratio, time.low, time.high], "threads": time.threads, "device": time.device,
            })  # fmt: skip
        return taken(place)

    def trained(self, run: Run) -> Scores:
        """Word errors of a point after fine-tuning; an interrupted training is gone on with."""
        folder, place = self.work / run.name, self.work / "scores" / f"{run.name}.parquet"
        if not (folder / "config.json").exists():
            print(f"fine-tuning {run.name} ...", flush=True)
            self._finetune(run, folder)
        if not place.exists():
            found = evaluate(folder, self.exam, "wer", batch_seconds=self.batch_seconds, cost=False)
            found.scores["wer"].save(place)
        return Scores.load(place)

    def _finetune(self, run: Run, folder: Path) -> None:
        design, speech = self.design, self.speech
        settings = TrainingSettings(
            steps=design.updates, batch_seconds=design.batch_seconds, learning_rate=design.learning_rate, seed=run.seed,
            warmup=0.05, hold=0.3, evaluate_every=design.updates, save_every=max(20, design.updates // 10),
        )  # fmt: skip
        finetune(
            design.model, speech.train, folder, settings=settings,
            augmentation=AUGMENTATION if speech.rendered else Augmentation(),
            plan=None if run.point is None else run.point.treatments(self.orders, design.steps),
            teacher=design.model if design.teacher else None, subset=design.subset,
            dev=thinned(speech.dev, WATCHED), resume=(folder / "run").exists(), report=_print,
        )  # fmt: skip

    def found(self, trained: Mapping[str, Mapping[int, Scores]], facts: Mapping[str, Any]) -> Found:
        """Everything for the page.

        Args:
            trained: see `Found`.
            facts: see `Found`.
        """
        curves = self.curves()
        hop = self.recogniser.model.anatomy.grid.hop
        costs = {point.name: self.cost(point) for point in self.design.costed}
        about = {
            "speech": f"{self.exam.name}, {len(self.exam)} utterances, {self.exam.seconds / 60:.1f} min",
            "voices": len(self.exam.speakers), "left_out": len(self.left_out),
            "ranked": f"{self.ranked.seconds:.0f} s", "alone": self.batch_seconds == _ALONE,
        }  # fmt: skip
        return Found(self.heads, hop / 16, curves.before, curves.after, costs, trained, {**about, **facts})


def gathered(
    runs: tuple[Run, ...], take: Callable[[Run], Scores], failures: type[Exception]
) -> tuple[dict[str, dict[int, Scores]], dict[str, str]]:
    """Scores of all runs by point and seed, and the runs that failed with the reason.

    Args:
        runs: in order.
        take: from a run to its scores.
        failures: what counts as the failure of one run, and does not stop the others.
    """
    found: dict[str, dict[int, Scores]] = {}
    failed: dict[str, str] = {}
    for run in runs:
        try:
            found.setdefault(run.of, {})[run.seed] = take(run)
        except failures as error:
            failed[run.name] = str(error)
    return {name: seeds for name, seeds in found.items() if seeds}, failed


def listed(design: Design, hours: float, heads: int | None) -> list[str]:
    """A line a part of the work, for a dry run.

    Args:
        design: what is run.
        hours: of speech that is fine-tuned on.
        heads: of the model; None where it was not loaded.
    """
    orders, pruned = ", ".join(design.orders), len([one for one in design.curves if not one.span])
    lines = [
        f"ranking: {design.model} on {design.ranked_seconds:g} s of dev; orders: {orders}",
        f"curves: {pruned} points of pruning in {design.steps} steps and {len(design.curves) - pruned} of spans, radii "
        f"{', '.join(map(str, design.radii))}; nothing trained, WER on exam",
        f"size and time: {len(design.costed)} points, {design.repeats} pairs of runs each",
    ]
    taught = f", teacher {design.model}" if design.teacher else ""
    for run in design.runs:
        plan = "no plan (control)" if run.of == WHOLE or run.point is None else run.point.words(design.steps, heads)
        lines.append(
            f"{run.name}: model {design.model}, plan {plan}, subset {design.subset or 'all'}, seed {run.seed}, "
            f"{design.updates} steps of {design.batch_seconds:g} s, {hours:.2f} h of speech{taught}"
        )
    return lines


def _timed(corpus: Corpus) -> list[np.ndarray]:
    """Utterances of all lengths, about `TIMED_SECONDS` in all."""
    ordered = sorted(corpus, key=lambda one: (one.n_samples, one.id))
    count = int(np.clip(round(TIMED_SECONDS * len(ordered) / corpus.seconds), 1, len(ordered)))
    return [ordered[k].read() for k in np.unique(np.linspace(0, len(ordered) - 1, count + 2)[1:-1].round().astype(int))]


def _print(row: Mapping[str, Any]) -> None:
    short = {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
    print(json.dumps(short), flush=True)
