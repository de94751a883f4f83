"""The paired bootstrap: whether one model is better than another on the same utterances, and by how much."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from otoscope.errors import EvaluationError
from otoscope.evaluation.bootstrap import allow_for_unseen, block_bootstrap
from otoscope.evaluation.scores import Scores


@dataclass(frozen=True)
class Difference:
    """Scores after a change against scores before it, on the same utterances.

    Attributes:
        metric: name of the metric.
        unit: of value, low and high.
        higher_is_better: which way is better.
        before: value before.
        after: value after.
        value: after less before.
        low: lower end of the interval of the difference; NaN where there is none.
        high: upper end; NaN where there is none.
        level: coverage of the interval.
        probability_of_improvement: share of drawn corpora on which the change is for the better, ties by half (Bisani
            and Ney 2004, "Bootstrap estimates for confidence intervals in ASR performance evaluation"); the draws are
            stretched for few blocks as the interval is, but one on which nothing differs stays a tie.
        blocks: how many blocks were drawn from.
        by: what was drawn as a whole: "speaker", or "utterance" where fewer than two speakers are known.
        utterances: how many there are.
        draws: how often blocks were drawn.
        seed: of the drawing.
    """

    metric: str
    unit: str
    higher_is_better: bool
    before: float
    after: float
    value: float
    low: float
    high: float
    level: float
    probability_of_improvement: float
    blocks: int
    by: str
    utterances: int
    draws: int
    seed: int

    @property
    def decided(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON; ends that are not there are None."""
        ends = {"low": self.low, "high": self.high}
        return asdict(self) | {name: None if end != end else end for name, end in ends.items()}

    def __str__(self) -> str:
        interval = f"[{self.low:+.4f}, {self.high:+.4f}], {self.level:.0%} interval over {self.blocks} {self.by}s"
        if self.low != self.low:
            interval = f"by the same in all of {self.blocks} {self.by}s, so without an interval"
        return (
            f"{self.metric} {self.before:.4f} -> {self.after:.4f}: {self.value:+.4f} {self.unit} {interval}; "
            f"better with probability {self.probability_of_improvement:.3f}"
        )


def paired_bootstrap(before: Scores, after: Scores, n: int = 10_000, seed: int = 0, level: float = 0.95) -> Difference:
    """Interval of the difference of two ratios of sums; the same blocks are drawn for both.

    Blocks are speakers, since utterances of one speaker go well or badly together; utterances are drawn one by one only
    where fewer than two speakers are known, and the interval then speaks for this speaker alone. How the interval is
    taken is said at `block_bootstrap`.

    What the 95 % interval covered in simulations of speakers whose error rates, and whose gains, vary from one to the
    next: a true difference of a tenth of the error rate in 94 % of corpora with 9 to 20 speakers, in 93 % with 5, and
    in 91 % with 3 (a point less where the gains of speakers are very skewed); and where there was no difference, zero
    in 94 to 96 %.

    Where every block differs by the same, as where nothing differs at all, draws of them show no spread. Of rates the
    interval is then that of `allow_for_unseen`, with differences of -1 and 1 as the furthest that a speaker can be off:
    it says on what share of speakers a difference may have been missed. Of losses there is none.

    Args:
        before: scores before the change.
        after: scores after it, of the same metric, in any order.
        n: how often blocks are drawn.
        seed: of the drawing.
        level: coverage.

    Raises:
        EvaluationError: other metrics, utterances, speakers or denominators, or fewer than two utterances.
    """
    after = matched(before, after)
    if len(before) < 2:
        raise EvaluationError(
            f"One utterance ({before.ids[0]!r}) gives no interval", "Compare on two utterances or more."
        )
    blocks = before.blocks
    # Differences are taken before they are summed, so that utterances that are the same before and after are exact ties.
    sums = np.stack([blocks.sums(after.numerator - before.numerator), blocks.sums(before.denominator)])
    found = block_bootstrap(sums, lambda total: total[0] / total[1], blocks.by, n, seed, level)
    better = np.sign(found.draws) * (1 if before.higher_is_better else -1)
    better[found.unstretched == 0] = 0
    counted = before.counts and after.counts
    estimate = allow_for_unseen(found.estimate, sums, (-1.0, 1.0) if counted else None)
    return Difference(
        before.metric, before.unit, before.higher_is_better, before.value, after.value, estimate.value, estimate.low,
        estimate.high, level, float((1 + better).mean() / 2), len(blocks), blocks.by, len(before),
        n, seed,
    )  # fmt: skip


def matched(before: Scores, after: Scores) -> Scores:
    """The second scores in the order of the first, where both are of the same metric on the same speech.

    Args:
        before: scores of one model.
        after: scores of another, in any order.

    Raises:
        EvaluationError: other metrics, utterances, speakers or denominators.
    """
    if (before.metric, before.unit) != (after.metric, after.unit):
        raise EvaluationError(
            f"Scores of {before.metric} ({before.unit}) cannot be compared with scores of {after.metric} ({after.unit})",
            "Compare two scores of the same metric.",
        )
    for one, other, here, there in ((before, after, "before", "after"), (after, before, "after", "before")):
        absent = set(one.ids) - set(other.ids)
        if absent:
            raise EvaluationError(
                f"{len(absent)} utterance(s) are scored {here} and not {there}, such as {min(absent)!r}",
                "Score both models on the same corpus, or take `subset` of the scores.",
            )
    after = after.subset(before.ids)
    _check_rows(before, after)
    return after


def _check_rows(before: Scores, after: Scores) -> None:
    """Refuses scores of the same ids that are not of the same utterances; both in the same order."""
    rows = zip(before.ids, before.speakers, after.speakers, before.denominator, after.denominator, strict=True)
    for utterance, a, b, units, others in rows:
        if a != b:
            raise EvaluationError(
                f"Utterance {utterance!r} is spoken by {a!r} before and by {b!r} after",
                "Score both on the same corpus.",
            )
        if units != others:
            raise EvaluationError(
                f"Utterance {utterance!r} counts {units:g} units of {before.metric} before and {others:g} after",
                "Score both on the same transcripts, spelt with the same tokens.",
            )
