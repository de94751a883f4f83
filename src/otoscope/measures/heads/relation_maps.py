"""Relation maps of all heads in the stream: maps, concentrations, operations, and what verticality has to do with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from otoscope.errors import MeasureError
from otoscope.measures.heads.head_measure import sums_of
from otoscope.measures.heads.operations import NEAR_MS, SEEN
from otoscope.measures.heads.relation import relative_relation
from otoscope.measures.heads.relation_labels import RelationLabels
from otoscope.measures.heads.relation_rows import Findings, Means, Score
from otoscope.measures.heads.relation_sums import LabelReader, RelationSum
from otoscope.measures.heads.verticality import Verticality
from otoscope.measures.measure import Measure, Result, Row
from otoscope.models.reductions import ColumnMean, OffsetMean, Reduction
from otoscope.speech import RATE
from otoscope.statistics.grouped_mean import GroupedMean
from otoscope.statistics.partition import groups
from otoscope.statistics.state import matching

if TYPE_CHECKING:
    from otoscope.models import Anatomy, Capture
    from otoscope.speech import Corpus

FOCUS, NEGLECT = "focus", "neglect"


class RelationMaps(Measure):
    """Relation maps, concentrations and operations of every head for the labels of a tier.

    Rows, where the tier is "phone":

    - `relation-phone`, a head: its extreme concentration (Yang, Liu and Lee 2020, fig. 4), the largest in absolute value
      with its sign; the label is the phone, the floor the extreme of permuted labels on the same side.
    - `concentration-phone`, a head and a phone (the target): its concentration; the label is "focus" or "neglect" where
      the interval lies beyond both 0 and the floor, which is the concentration of the same phone with permuted labels.
    - `operation-phone`, a head: what it does with phones (see `head_operations`); the value is the margin.
    - `relation-verticality-phone`, the model: Spearman's correlation of verticality with the absolute value of the
      extreme concentration over heads; the label is "positive" or "negative" where the interval lies beyond 0 and the
      floor, which is the correlation with permuted labels, else "undecided".

    P' and P_U are means over utterances, then divided. The rest (see `RelationLabels`) has a row and a column in the
    array of maps, but no part in concentrations and operations. Intervals come from leaving out one group of utterances
    at a time; that of an extreme is that of the phone that is named.

    The state holds P' of every head for up to 20 groups of utterances, and once for permuted labels, in double precision:
    for 144 heads and 40 labels 39 MB. Its size stands in the notes.

    Args:
        tier: name of the tier.
        exclude_run: leave out keys linked to the query by an unbroken run of its own label (see `relation_map`); names
            then end in "-exclude-run".
    """

    def __init__(self, tier: str = "phone", exclude_run: bool = False) -> None:
        self.tier, self.exclude_run = tier, exclude_run
        self._ending = tier + ("-exclude-run" if exclude_run else "")
        self.name = f"relation-{self._ending}"
        self.tiers = (tier,)

    @property
    def streams(self) -> tuple[str, ...]:
        """None: everything comes from the tap."""
        return ()

    def prepare(self, anatomy: Anatomy, corpus: Corpus, seed: int) -> None:
        """See `Measure`."""
        self.labels = RelationLabels.choose(corpus, self.tier, seed)
        self._reader = LabelReader(self.labels)
        make: Callable[[], Reduction] = partial(RelationSum, self.name, self._reader, self.exclude_run)
        self.reductions = (make, ColumnMean, OffsetMean)
        self._grid, self._heads, self._names = anatomy.grid, anatomy.heads, anatomy.head_names
        self.group_of = groups((utterance.id for utterance in corpus), seed)
        count, n, heads = max(self.group_of.values()) + 1, len(self.labels), (len(self._heads), max(self._heads))
        self._held = {
            "relation": GroupedMean(count, (*heads, n, n)),
            "uniform": GroupedMean(count, (n, n)),
            "verticality": GroupedMean(count, heads),
            "near": GroupedMean(count, heads),
            "permuted": GroupedMean(1, (*heads, n, n)),
            "permuted-uniform": GroupedMean(1, (n, n)),
        }
        self._without_labels = np.zeros(1)

    def update(self, capture: Capture) -> None:
        """See `Measure`."""
        heads = self._held["verticality"].sums.shape[1:]
        for k, utterance in enumerate(capture.utterances):
            layers = list(sums_of(capture, k, self))
            frames = layers[0]["column-mean"].shape[-1]
            laid = self._reader(utterance, self._grid, frames)
            if not laid:
                self._without_labels += 1
                continue
            real, permuted = laid
            found = np.zeros((2, *self._held["relation"].sums.shape[1:]))
            verticality, near = np.zeros(heads), np.zeros(heads)
            for layer, sums in enumerate(layers):
                there = slice(self._heads[layer])
                found[:, layer, there] = sums[self.name].cpu().numpy()
                verticality[layer, there] = Verticality().observe(sums).cpu().numpy()
                near[layer, there] = sums["offset-mean"][:, self._near(frames)].sum(-1).cpu().numpy()
            group = self.group_of[utterance.id]
            self._held["relation"].update(group, found[0])
            self._held["uniform"].update(group, real.uniform(self.exclude_run))
            self._held["verticality"].update(group, verticality)
            self._held["near"].update(group, near)
            self._held["permuted"].update(0, found[1])
            self._held["permuted-uniform"].update(0, permuted.uniform(self.exclude_run))

    def merge(self, other: Measure) -> None:
        """See `Measure`."""
        self._same_kind(other)
        assert isinstance(other, RelationMaps)
        self._same_groups((self.group_of, self.labels), (other.group_of, other.labels))
        for name, mean in self._held.items():
            mean.merge(other._held[name])
        self._without_labels += other._without_labels

    def compute(self) -> Result:
        """Rows of all four kinds; as arrays P, P_U, and concentrations with the ends of their intervals.

        Raises:
            MeasureError: no utterance with labels went through.
        """
        held = self._held
        if not held["relation"].n:
            raise MeasureError(
                f"{self.name} has seen no utterance with labels in tier {self.tier!r}",
                "Pass utterances that have the tier through the model.",
            )
        counts = held["relation"].counts
        used = [g for g in range(len(counts)) if 0 < counts[g] < counts.sum()]
        lots = [self._means(np.where(np.arange(len(counts)) == g, 0.0, 1.0)) for g in used]
        everything = self._means(np.ones(len(counts)))
        permuted = replace(
            everything,
            p=self._cut(held["permuted"].mean()[self._there]),
            p_uniform=self._cut(held["permuted-uniform"].mean()),
        )
        findings = Findings(everything, permuted, lots, counts[used], self.labels.labels, self.tier)
        rows = [*self._extremes(findings), *self._concentrations(findings)]
        operations, kept = self._operations(findings)
        rows += [*operations, self._verticality(findings)]
        relative = np.asarray(relative_relation(held["relation"].mean()[self._there], held["uniform"].mean()))
        c = findings.concentration
        arrays = {
            "map": self._whole(relative),
            "uniform": held["uniform"].mean().astype(np.float32),
            "concentration": self._whole(c.value),
            "low": self._whole(c.low),
            "high": self._whole(c.high),
        }
        notes = {
            "labels": list(self.labels.labels),
            "and_a_last_row_and_column": "the rest",
            "labels_left_out": self.labels.labels_left_out,
            "intervals_left_out": self.labels.intervals_left_out,
            "utterances_without_labels": int(self._without_labels[0]),
            "operation_seen_from": f"ln 1.5 = {SEEN:.4f}",
            "operation_kept_with_a_group_left_out": kept,
            "groups": len(counts),
            "groups_by": "utterance",
            "seed": self.labels.seed,
            "state_bytes": sum(array.nbytes for array in self.state().values()),
        }
        return Result(rows, {f"{self.name}.{key}": array for key, array in arrays.items()}, notes)

    def state(self) -> dict[str, np.ndarray]:
        """See `Measure`."""
        held = {f"{name}.{key}": array for name, mean in self._held.items() for key, array in mean.state().items()}
        return {**held, "without_labels": self._without_labels}

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """See `Measure`."""
        matching(self.state(), state)
        for name, mean in self._held.items():
            mean.load_state({key: state[f"{name}.{key}"] for key in mean.state()})
        self._without_labels = state["without_labels"].copy()

    @property
    def _there(self) -> np.ndarray:
        """Which heads there are, as layers may have lost some, shape (layers, most heads)."""
        return np.arange(max(self._heads)) < np.array(self._heads)[:, None]

    def _places(self) -> list[tuple[int, int]]:
        """Layer from 1 and the original number of each head."""
        return [(layer, head) for layer, names in enumerate(self._names, start=1) for head in names]

    def _near(self, frames: int) -> slice:
        """The offsets within 100 ms among those of a map of so many frames."""
        reach = min(NEAR_MS * RATE // (1000 * self._grid.hop), frames - 1)
        return slice(frames - 1 - reach, frames + reach)

    def _cut(self, p: np.ndarray) -> np.ndarray:
        """Without the rest."""
        return p[..., :-1, :-1]

    def _whole(self, array: np.ndarray) -> np.ndarray:
        """An array of one entry a head as one by layer and head, float32; NaN where a head was cut."""
        out = np.full((*self._there.shape, *array.shape[1:]), np.nan, dtype=np.float32)
        out[self._there] = array
        return out

    def _means(self, groups: Float[np.ndarray, " groups"]) -> Means:
        """Means over the utterances of the groups whose weight is 1.

        Sums of what is kept, never differences: what no kept group has is exactly 0.
        """
        n = float(groups @ self._held["relation"].counts)

        def mean(name: str) -> np.ndarray:
            sums = self._held[name].sums
            return (groups @ sums.reshape(len(sums), -1)).reshape(sums.shape[1:]) / n

        there = self._there
        return Means(
            self._cut(mean("relation")[there]),
            self._cut(mean("uniform")),
            mean("verticality")[there],
            mean("near")[there],
        )

    def _row(self, kind: str, place: tuple[int, int], **more: Any) -> Row:
        return Row(
            f"{kind}-{self._ending}", stream=f"layer.{place[0]}", layer=place[0], head=place[1],
            n=self._held["relation"].n, **{"target": self.tier, **more},
        )  # fmt: skip

    def _extremes(self, findings: Findings) -> list[Row]:
        which, score = findings.extremes()
        return [
            self._row("relation", place, label=self.labels.labels[which[k]] if which[k] >= 0 else None, **_at(score, k))
            for k, place in enumerate(self._places())
        ]

    def _concentrations(self, findings: Findings) -> list[Row]:
        score = findings.concentration
        words = {1: FOCUS, -1: NEGLECT, 0: None}
        sides = score.sides()
        return [
            self._row("concentration", place, target=label, label=words[int(sides[k, n])], **_at(score, (k, n)))
            for k, place in enumerate(self._places())
            for n, label in enumerate(self.labels.labels)
        ]

    def _operations(self, findings: Findings) -> tuple[list[Row], dict[str, float]]:
        found, kept = findings.operations()
        places = self._places()
        rows = [
            self._row("operation", place, value=_number(found.margins[k]), label=found.names[k])
            for k, place in enumerate(places)
        ]
        stable = {f"{layer}.{head}": round(float(s), 4) for (layer, head), s in zip(places, kept, strict=True)}
        return rows, {name: share for name, share in stable.items() if np.isfinite(share)}

    def _verticality(self, findings: Findings) -> Row:
        score = findings.verticality_relation()
        label = {1: "positive", -1: "negative", 0: "undecided"}[int(score.sides())]
        return Row(
            f"relation-verticality-{self._ending}",
            target=self.tier,
            label=label,
            n=len(self._places()),
            **_at(score, ()),
        )


def _at(score: Score, place: Any) -> dict[str, Any]:
    """One place of a score as the numbers of a row."""
    return {name: _number(getattr(score, name)[place]) for name in ("value", "low", "high", "floor")}


def _number(value: Any) -> float | None:
    """A float for the table; None where there is none."""
    return float(value) if np.isfinite(value) else None
