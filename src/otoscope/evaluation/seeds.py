"""Several seeds before and after a change: an interval over seeds and speakers, and how much of it comes with which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

from otoscope.errors import EvaluationError
from otoscope.evaluation.bootstrap import Estimate, allow_for_unseen
from otoscope.evaluation.paired import Difference, matched
from otoscope.evaluation.scores import Scores

FEW = 5
"""Fewer seeds than so many tell little of how much seeds differ."""

_ROUNDING = 1e-12  # of a deviation, as a share of the largest
_CHUNK = 2_000_000  # counts that are drawn at once: 16 MB


@dataclass(frozen=True)
class SeedParts:
    """Where the uncertainty of a difference comes from; variances in the squared unit of the metric.

    Attributes:
        before: models before the change, of one kind and different seeds.
        after: models after it.
        paired: the k-th model after belongs to the k-th before.
        seed: variance of the difference that other seeds would bring.
        speech: variance that other speakers (or utterances) would bring.
        both: variance of seeds that do differently well on different speakers.
        deviation: standard deviation of the difference from one seed to the next, on speech without end.
        freedom: degrees of freedom of the sum of the three (Satterthwaite); infinite where nothing differs.
    """

    before: int
    after: int
    paired: bool
    seed: float
    speech: float
    both: float
    deviation: float
    freedom: float

    @property
    def variance(self) -> float:
        """Of the difference, in all."""
        return self.seed + self.speech + self.both

    @property
    def shares(self) -> dict[str, float]:
        """Share of the variance by where it comes from; all zero where there is none."""
        whole = self.variance or 1.0
        return {"seed": self.seed / whole, "speech": self.speech / whole, "both": self.both / whole}

    @property
    def caveats(self) -> list[str]:
        """What the interval does not say, in words."""
        told = []
        counts = {"before": self.before, "after": self.after}
        for side, count in counts.items():
            if count == 1:
                told.append(f"One model {side}: the interval does not speak for other seeds of it")
        few = min((count for count in counts.values() if count > 1), default=FEW)
        if few < FEW:
            told.append(f"{few} seeds tell little of how much seeds differ, so the interval is wide or uncertain")
        return told

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON; infinite freedom is None."""
        return asdict(self) | {"freedom": None if np.isinf(self.freedom) else self.freedom}

    def __str__(self) -> str:
        seeds = f"{self.after} pairs of seeds" if self.paired else f"{self.before} and {self.after} seeds"
        parts = ", ".join(f"{share:.0%} {name}" for name, share in self.shares.items())
        return f"{seeds}: of the variance {parts}; from seed to seed the difference moves by {self.deviation:.4f}"


def seed_bootstrap(
    before: Sequence[Scores],
    after: Sequence[Scores],
    n: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
    paired: bool | None = None,
) -> tuple[Difference, SeedParts]:
    """Interval of the difference of two mean rates over seeds, drawn over seeds and over speakers.

    The variance is taken apart by the crossed random-effects model of two factors. With u[s, g] the errors of seed s
    on block g less what the mean rate expects there, over the mean size of a block, u = A_s + B_g + C_sg; mean squares
    of seeds, blocks and the rest give the three variances (Searle, Casella and McCulloch 1992, "Variance components",
    section 4.4), none below zero. The difference of the means has the variance V = var(A)/S + var(B)/G + var(C)/(S G);
    where seeds are not paired, A and C of both sides are added, and B is that of the difference.

    The interval stands on draws of seeds and, apart from these, of speakers, as many of each as there are and with
    replacement, the same speakers for all models. The deviations of the two are summed and scaled to the variance V
    and to Student's quantile at Satterthwaite's degrees of freedom, for the reason that `block_bootstrap` gives.

    In simulations with 12 speakers the 95 % interval covered the true difference in 94 % of the cases or more with 5
    seeds; with 3 in 91 % and with 2 in 89 % where seeds differ far more than speakers do, else in 94 % or more.

    Args:
        before: scores of each model before the change, all of one metric on the same speech.
        after: scores of each model after it.
        n: how often is drawn.
        seed: of the drawing.
        level: coverage.
        paired: the k-th model after was made from the k-th before, or with its seed; by default where there are as many
            after as before. Pairs where there are none cost precision only.

    Returns:
        The difference of the means, and the parts of its variance.

    Raises:
        EvaluationError: there is no model on a side, or one on both, scores do not belong together, or pairs are
            asked for and the numbers of models differ.
    """
    if min(len(before), len(after)) < 1 or max(len(before), len(after)) < 2:
        raise EvaluationError(
            f"{len(before)} model(s) before and {len(after)} after hold no seeds that differ",
            "Give two or more models on at least one side; of one each, take `paired_bootstrap`.",
        )
    paired = len(before) == len(after) if paired is None else paired
    if paired and len(before) != len(after):
        raise EvaluationError(
            f"{len(before)} models before and {len(after)} after are no pairs",
            "Give as many after as before, in the same order, or paired=False.",
        )
    _check_draws(n, level)
    first = before[0]
    if len(first) < 2:
        raise EvaluationError(
            f"One utterance ({first.ids[0]!r}) gives no interval", "Compare on two utterances or more."
        )
    blocks, words, olds = _tables(first, before)
    news = _tables(first, after)[2]
    sides = [(1, news - olds)] if paired else [(1, news), (-1, olds)]
    found = _two_level(sides, words, n, seed, level)
    parts = SeedParts(len(before), len(after), paired, *found.parts, found.deviation, found.freedom)
    better = np.sign(found.draws) * (1 if first.higher_is_better else -1)
    better[found.unstretched == 0] = 0
    counted = all(scores.counts for scores in (*before, *after))
    change = news.mean(0) - olds.mean(0)
    ends = Estimate(found.value, found.low, found.high, level, len(blocks), blocks.by)
    if parts.variance == 0:
        ends = allow_for_unseen(ends, np.stack([change, words]), (-1.0, 1.0) if counted else None)
    difference = Difference(
        first.metric, first.unit, first.higher_is_better, float(olds.mean(0).sum() / words.sum()),
        float(news.mean(0).sum() / words.sum()), found.value, ends.low, ends.high, level,
        float((1 + better).mean() / 2), len(blocks), blocks.by, len(first), n, seed,
    )  # fmt: skip
    return difference, parts


def mean_interval(scores: Sequence[Scores], n: int = 10_000, seed: int = 0, level: float = 0.95) -> Estimate:
    """The mean rate of several seeds with its interval over seeds and speakers; see `seed_bootstrap`.

    A rate that counts errors is not below zero, and neither is the lower end.

    Raises:
        EvaluationError: there are no scores, or they do not belong together.
    """
    if not scores:
        raise EvaluationError("No model is scored", "Give one or more.")
    if len(scores) == 1:
        return scores[0].interval(seed, level, n)
    _check_draws(n, level)
    blocks, words, table = _tables(scores[0], scores)
    if len(blocks) < 2:
        return Estimate(float(table.mean(0).sum() / words.sum()), np.nan, np.nan, level, len(blocks), blocks.by)
    found = _two_level([(1, table)], words, n, seed, level)
    low = max(found.low, 0.0) if all(bool((one.numerator >= 0).all()) for one in scores) else found.low
    ends = Estimate(found.value, low, found.high, level, len(blocks), blocks.by)
    if sum(found.parts):
        return ends
    return allow_for_unseen(ends, np.stack([table.mean(0), words]), (0.0, 1.0) if scores[0].counts else None)


@dataclass(frozen=True)
class _Found:
    value: float
    low: float
    high: float
    draws: np.ndarray
    unstretched: np.ndarray
    parts: tuple[float, float, float]
    deviation: float
    freedom: float


def _two_level(sides: Sequence[tuple[int, np.ndarray]], words: np.ndarray, n: int, seed: int, level: float) -> _Found:
    """A signed sum of mean rates, drawn over seeds and blocks.

    Args:
        sides: sign and errors of each set of models, shape (S, G).
        words: denominators, shape (G,).
        n: how often is drawn.
        seed: of the drawing.
        level: coverage.
    """
    parts, deviation, freedom = _parts(sides, words)
    change = np.sum([sign * table.mean(0) for sign, table in sides], 0)
    value = float(change.sum() / words.sum())
    rng = np.random.default_rng(seed)
    of_seeds = np.zeros(n)
    for sign, table in sides:
        counts = rng.multinomial(len(table), np.full(len(table), 1 / len(table)), size=n)
        of_seeds += sign * (counts @ table.sum(1) / len(table) / words.sum() - table.mean(0).sum() / words.sum())
    of_blocks, size = np.empty(n), max(1, _CHUNK // len(words))
    for start in range(0, n, size):
        counts = rng.multinomial(len(words), np.full(len(words), 1 / len(words)), size=min(size, n - start))
        with np.errstate(divide="ignore", invalid="ignore"):
            of_blocks[start : start + len(counts)] = (counts @ change) / (counts @ words) - value
    moved = (of_seeds + of_blocks)[np.isfinite(of_blocks)]
    tail = 0.5 + level / 2
    spread = float(moved.std())
    wide = float(student.ppf(tail, freedom) * np.sqrt(sum(parts)))
    scale = wide / norm.ppf(tail) / spread if spread else 0.0
    # Means of two or three drawn seeds take few values, and the outermost may lie within Student's interval.
    reach = max(float(np.quantile(np.abs(scale * moved), level)), wide)
    return _Found(value, value - reach, value + reach, value + scale * moved, value + moved, parts, deviation, freedom)


def _parts(
    sides: Sequence[tuple[int, np.ndarray]], words: np.ndarray
) -> tuple[tuple[float, float, float], float, float]:
    """Variances of seeds, blocks and both in a difference, the deviation from seed to seed, degrees of freedom."""
    blocks = len(words)
    of_seeds, of_both, between = 0.0, 0.0, 0.0
    terms: list[tuple[float, int]] = []
    change = np.zeros(blocks)
    for sign, table in sides:
        seeds = len(table)
        rate = table.sum() / (seeds * words.sum())
        u = (table - rate * words) * blocks / words.sum()
        change += sign * u.mean(0)
        if seeds == 1:
            continue
        rest = u - u.mean(0) - u.mean(1, keepdims=True) + u.mean()
        tiny = np.square(_ROUNDING * np.abs(u).max())
        seed = _beyond(np.square(u.mean(1) - u.mean()).sum() / (seeds - 1) / seeds, tiny)
        both = _beyond(np.square(rest).sum() / ((seeds - 1) * (blocks - 1)) / (seeds * blocks), tiny)
        of_seeds, of_both = of_seeds + seed, of_both + both
        between += max(0.0, seed - both) * seeds
        terms += [(seed, seeds - 1), (both, (seeds - 1) * (blocks - 1))]
    of_blocks = float(np.square(change - change.mean()).sum() / (blocks * (blocks - 1)))
    parts = (max(0.0, of_seeds - of_both), max(0.0, of_blocks - of_both), of_both)
    terms.append((of_blocks, blocks - 1))
    # What a part that is cut off at zero would have taken away is not in the sum, and lends it no freedom.
    if parts[0] == 0 and parts[1] > 0:
        terms = terms[-1:]
    elif parts[1] == 0 and parts[0] > 0:
        terms = terms[:-1:2]
    uncertain = sum(term**2 / free for term, free in terms)
    freedom = sum(parts) ** 2 / uncertain if uncertain else np.inf
    return parts, float(np.sqrt(between)), float(max(freedom, 1.0))


def _beyond(variance: float, tiny: float) -> float:
    """The variance, or zero where it is none but that of rounding."""
    return float(variance) if variance > tiny else 0.0


def _tables(first: Scores, scores: Sequence[Scores]) -> tuple[Any, np.ndarray, np.ndarray]:
    """Blocks, denominators (G,) and errors (S, G) of scores of the same speech."""
    blocks = first.blocks
    ordered = [matched(first, one) for one in scores]
    return blocks, blocks.sums(first.denominator), np.stack([blocks.sums(one.numerator) for one in ordered])


def _check_draws(n: int, level: float) -> None:
    if n < 100 or not 0 < level < 1:
        raise EvaluationError(f"{n} draws for a level of {level}", "Draw 100 times or more, for a level below 1.")
