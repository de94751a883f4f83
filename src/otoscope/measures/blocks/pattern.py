"""The pattern of every block's attention, and whether it is abnormal: one pass over the tap's sums."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from otoscope.errors import MeasureError
from otoscope.measures.blocks import abnormality
from otoscope.measures.blocks.abnormality import FLOORS, RELATIVE, Judgement, Sums, judge, numbers
from otoscope.measures.blocks.degenerate import PATTERNS, copy_distances
from otoscope.measures.blocks.deviation import FEWEST_FOR_TREND
from otoscope.measures.blocks.position import BINS
from otoscope.measures.blocks.profile import REACH
from otoscope.measures.blocks.summary import LOCAL, PARTS, REDUCTIONS, observed, part, uniform_observation
from otoscope.measures.heads.head_measure import sums_of
from otoscope.measures.measure import Measure, Result, Row
from otoscope.statistics.grouped_mean import GroupedMean
from otoscope.statistics.intervals import jackknife, ratio_jackknife
from otoscope.statistics.partition import groups
from otoscope.statistics.resampling import FEWEST_GROUPS
from otoscope.statistics.state import matching

if TYPE_CHECKING:
    from otoscope.models import Anatomy, Capture
    from otoscope.speech import Corpus

ENOUGH_SPEAKERS = 10
"""Groups are of speakers where there are so many; with fewer, an interval over speakers would tell little."""

RESAMPLES = 300
"""Bootstrap samples of the groups for standard errors."""


class BlockPattern(Measure):
    """Position profile and summary of every block's attention, and the tests for abnormal blocks.

    The map of a block is the mean of its heads' maps; every utterance weighs the same. Summary and position profile have
    jackknife intervals over groups of utterances, the tests those of the bootstrap over the same groups. See `judge` for
    what is abnormal; the definition is otoscope's own. Blocks without heads have no rows.

    Attributes:
        fewest_frames: shorter utterances have no summary; they are left out and counted.
    """

    name = "block-summary"
    yields = (
        "position-profile", "block-summary", "neighbour-deviation", "trend-residual", "degenerate-pattern", "abnormality",
    )  # fmt: skip
    reductions = REDUCTIONS
    fewest_frames = 2

    @property
    def streams(self) -> tuple[str, ...]:
        """None: everything comes from the tap."""
        return ()

    def prepare(self, anatomy: Anatomy, corpus: Corpus, seed: int) -> None:
        """See `Measure`; the state takes about 1.1 kB for each group and block."""
        self.heads, self.seed = anatomy.heads, seed
        self.there = [layer for layer, heads in enumerate(self.heads) if heads]
        if not self.there:
            raise MeasureError("No block of the model has a head", "Leave out the measure of blocks.")
        unit_of = {utterance.id: utterance.speaker for utterance in corpus}
        speakers = set(unit_of.values())
        self.by_speaker = None not in speakers and len(speakers) >= ENOUGH_SPEAKERS
        if not self.by_speaker:
            unit_of = {utterance: utterance for utterance in unit_of}
        group_of = groups((str(unit) for unit in unit_of.values()), seed)
        self.group_of = {utterance: group_of[str(unit)] for utterance, unit in unit_of.items()}
        count, blocks = max(self.group_of.values()) + 1, len(self.there)
        self.mean = GroupedMean(count, (blocks, sum(PARTS.values())))
        self.copies = GroupedMean(count, (blocks, blocks))
        self.uniform = GroupedMean(count, (1, sum(PARTS.values())))
        self.too_short = 0

    def update(self, capture: Capture) -> None:
        """See `Measure`.

        Raises:
            MeasureError: the capture lacks a sum that was asked for, or has one of maps that are no attention.
        """
        for k, utterance in enumerate(capture.utterances):
            layers = sums_of(capture, k, self)
            found = [layers[layer] for layer in self.there]
            frames = found[0]["column-mean"].shape[-1]
            if frames < self.fewest_frames:
                self.too_short += 1
                continue
            group = self.group_of[utterance.id]
            margins = [[one[name].cpu().numpy() for one in found] for name in ("offset-mean", "column-mean")]
            self.mean.update(group, np.stack([observed(one) for one in found]))
            self.copies.update(group, copy_distances(*margins))
            self.uniform.update(group, uniform_observation(frames)[None])

    def merge(self, other: Measure) -> None:
        """See `Measure`."""
        self._same_kind(other)
        assert isinstance(other, BlockPattern)
        self._same_groups(self.group_of, other.group_of)
        for mine, theirs in ((self.mean, other.mean), (self.copies, other.copies), (self.uniform, other.uniform)):
            mine.merge(theirs)
        self.too_short += other.too_short

    def compute(self) -> Result:
        """Rows of `yields`; see `Measure`."""
        used = int((self.mean.counts > 0).sum())
        notes: dict[str, Any] = {
            "groups": used, "groups_by": "speaker" if self.by_speaker else "utterance", "seed": self.seed,
            "too_short": self.too_short, "fewest_frames": self.fewest_frames, "local_frames": LOCAL,
            "reach_frames": REACH, "without_heads": [k + 1 for k, heads in enumerate(self.heads) if not heads],
        }  # fmt: skip
        rows = [*self._positions(), *self._summaries()]
        if used < FEWEST_GROUPS:
            notes["untested"] = f"{used} groups of utterances give no two halves: {FEWEST_GROUPS} are needed"
            return Result(rows, notes=notes)
        sums = Sums(self.mean.counts, self.mean.sums, self.copies.sums, tuple(self.heads[k] for k in self.there))
        told = judge(sums, RESAMPLES, self.seed)
        rows += [row for block in range(len(self.there)) for row in self._tests(told, block)]
        return Result(rows, notes=notes | self._rules(told))

    def _rules(self, told: Judgement) -> dict[str, Any]:
        """How blocks were judged, and which tests could not be made."""
        lacking = [
            name for name, one in (("neighbour-deviation", told.p[:, 0]), ("trend-residual", told.p[:, 1]))
            if np.isnan(one).all()
        ]  # fmt: skip
        why = {
            "neighbour-deviation": "fewer than three blocks, or too few that are not degenerate",
            "trend-residual": f"fewer than {FEWEST_FOR_TREND} other blocks that are not abnormal",
        }
        return {
            "definition": "otoscope's own; that of Chen and Asgari (2021) is not known to us",
            "level": abnormality.LEVEL, "resamples": RESAMPLES, "halves": "groups in turn; tests must hold in both",
            "correction": f"Holm over {int(np.isfinite(told.p).sum())} tests",
            "least_deviation": abnormality.LEAST_DEVIATION, "steps": abnormality.STEPS,
            "largest_residual": abnormality.LARGEST_RESIDUAL, "trend_floors": FLOORS,
            "limits": {one.name: f"{'above' if one.above else 'below'} {one.limit:g}" for one in PATTERNS},
            "not_held_against": [self.there[block] + 1 for block in told.out],
            "not_tested": {name: why[name] for name in lacking},
        }  # fmt: skip

    def _positions(self) -> Iterator[Row]:
        """Share of the attention on each twentieth of an utterance."""
        value, low, high = ratio_jackknife(part("position", self.mean.sums), self.mean.counts)
        for block in range(len(self.there)):
            for b in range(BINS):
                ends = value[block, b], low[block, b], high[block, b]
                yield self._row("position-profile", block, str(b + 1), ends, floor=1 / BINS)

    def _summaries(self) -> Iterator[Row]:
        """Numbers of the map of each block, with those of uniform attention as floors."""
        counts, sums = self.mean.counts, self.mean.sums
        total = self.mean.n
        # Without one group at a time; the variance between utterances is no mean.
        left = np.maximum(total - counts, 1)[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            value, floor = numbers(self.mean.mean(), total), numbers(self.uniform.mean(), total)[0]
            without = numbers((sums.sum(0) - sums) / left[..., None], left)
            low, high = jackknife(value, np.where(np.isfinite(without), without, np.nan), counts)
        for block in range(len(self.there)):
            for k, name in enumerate(FLOORS):
                yield self._row(
                    "block-summary", block, name, (value[block, k], low[block, k], high[block, k]), floor=floor[k]
                )

    def _tests(self, told: Judgement, block: int) -> Iterator[Row]:
        """Every test of one block, and the verdict."""
        ends = np.stack([told.value, told.low, told.high], -1)[block]
        if np.isfinite(ends[0, 0]):
            yield self._row("neighbour-deviation", block, None, tuple(ends[0]), floor=told.noise[block])
        for k, name in enumerate(FLOORS, start=1):
            if np.isfinite(ends[k, 0]):
                yield self._row("trend-residual", block, name, tuple(ends[k]))
        for k, pattern in enumerate(PATTERNS, start=RELATIVE):
            if np.isfinite(ends[k, 0]):
                label = "yes" if told.found[block, k] else "no"
                yield self._row("degenerate-pattern", block, pattern.name, tuple(ends[k]), label=label)
        reasons = told.reasons(block)
        yield self._row(
            "abnormality", block, "; ".join(reasons) or None, (float(np.nanmin(told.p[block])), np.nan, np.nan),
            label="abnormal" if reasons else "normal",
        )  # fmt: skip

    def _row(
        self, measure: str, block: int, target: str | None, ends: tuple[float, ...],
        floor: float | None = None, label: str | None = None,
    ) -> Row:  # fmt: skip
        """A row of one block; what is not finite is left out."""
        value, low, high = (float(x) if np.isfinite(x) else None for x in ends)
        layer = self.there[block] + 1
        return Row(
            measure, stream=f"layer.{layer}", layer=layer, target=target, value=value, low=low, high=high,
            floor=None if floor is None or not np.isfinite(floor) else float(floor), label=label, n=self.mean.n,
        )  # fmt: skip

    def state(self) -> dict[str, np.ndarray]:
        """See `Measure`."""
        held = {"mean": self.mean, "copies": self.copies, "uniform": self.uniform}
        arrays = {f"{name}.{key}": array for name, one in held.items() for key, array in one.state().items()}
        return arrays | {"too_short": np.array([self.too_short])}

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """See `Measure`."""
        matching(self.state(), state)
        for name, held in (("mean.", self.mean), ("copies.", self.copies), ("uniform.", self.uniform)):
            held.load_state({k.removeprefix(name): v for k, v in state.items() if k.startswith(name)})
        self.too_short = int(state["too_short"][0])
