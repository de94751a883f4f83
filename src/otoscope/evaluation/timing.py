"""Whether one model is quicker than another: both timed in turn on the same speech, and the ratio with its interval."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import binom

from otoscope.errors import EvaluationError
from otoscope.evaluation.cost import runner
from otoscope.models.model import SpeechModel
from otoscope.models.recogniser import Recogniser
from otoscope.speech.utterance import RATE


@dataclass(frozen=True)
class TimeComparison:
    """Times of two models, taken in turn: A B A B ...

    Attributes:
        seconds_a: wall time of each run of A.
        seconds_b: wall time of each run of B, each right after A's.
        ratio: median over pairs of B's time over A's; below 1 B is quicker.
        low: lower end of the interval of the median.
        high: upper end.
        level: coverage of the interval, at least 95 %: a pair of order statistics, whatever the distribution.
        speech_seconds: length of the speech of a run.
        threads: threads that PyTorch used on the CPU.
        device: where B ran.
    """

    seconds_a: tuple[float, ...]
    seconds_b: tuple[float, ...]
    ratio: float
    low: float
    high: float
    level: float
    speech_seconds: float
    threads: int
    device: str

    @property
    def real_time_factors(self) -> tuple[float, float]:
        """Median seconds that A and B take for a second of speech."""
        a, b = float(np.median(self.seconds_a)), float(np.median(self.seconds_b))
        return a / self.speech_seconds, b / self.speech_seconds

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"time x {self.ratio:.3f} [{self.low:.3f}, {self.high:.3f}] (median of {len(self.seconds_a)} pairs taken in "
            f"turn, {self.level:.0%} interval, {self.threads} thread(s), {self.device})"
        )


def compare_time(
    a: SpeechModel | Recogniser,
    b: SpeechModel | Recogniser,
    samples: Sequence[np.ndarray],
    repeats: int = 15,
    batch: int = 1,
) -> TimeComparison:
    """Times two models in turn, so that what slows the machine slows both.

    Each runs once before the clock is started. The ratio is taken pair by pair, so only what changes within a pair
    disturbs it.

    Args:
        a: the model before.
        b: the model after.
        samples: float32 at 16 kHz, one array (n,) an utterance; a run goes through all of them.
        repeats: pairs of runs.
        batch: utterances in a batch.

    Raises:
        EvaluationError: fewer than six pairs, which no interval of 95 % can stand on, or no samples.
    """
    if repeats < 6:
        raise EvaluationError(f"{repeats} pairs of runs give no 95 % interval of their median", "Take six or more.")
    if not len(samples) or batch < 1:
        raise EvaluationError(f"{len(samples)} utterance(s) in batches of {batch}", "Give one or more of both.")
    groups = [samples[k : k + batch] for k in range(0, len(samples), batch)]
    runs = [_timed(a, groups), _timed(b, groups)]
    for run in runs:
        run()
    pairs = np.array([[run() for run in runs] for _ in range(repeats)])
    low, high, level = median_interval(pairs[:, 1] / pairs[:, 0])
    device = (b.model if isinstance(b, Recogniser) else b).device
    return TimeComparison(
        tuple(pairs[:, 0].tolist()), tuple(pairs[:, 1].tolist()), float(np.median(pairs[:, 1] / pairs[:, 0])), low, high,
        level, sum(map(len, samples)) / RATE, torch.get_num_threads(), str(device),
    )  # fmt: skip


def median_interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float, float]:
    """Interval of a median between two order statistics, whatever the distribution.

    Args:
        values: independent, shape (n,).
        level: coverage that is wanted.

    Returns:
        Lower end, upper end, and the coverage: the least that is not below `level`.

    Raises:
        EvaluationError: there are too few values for this coverage.

    >>> median_interval(np.arange(6.0))
    (0.0, 5.0, 0.96875)
    """
    ordered, n = np.sort(values), len(values)
    # The median lies between the k-th from below and from above unless fewer than k values fall on one of its sides.
    coverage = [float(1 - 2 * binom.cdf(k, n, 0.5)) for k in range((n + 1) // 2)]
    enough = [k for k, reached in enumerate(coverage) if reached >= level]
    if not enough:
        raise EvaluationError(f"{n} values give no {level:.0%} interval of their median", "Take more.")
    k = enough[-1]
    return float(ordered[k]), float(ordered[n - 1 - k]), coverage[k]


def _timed(model: SpeechModel | Recogniser, groups: Sequence[Sequence[np.ndarray]]) -> Callable[[], float]:
    run = runner(model)
    device = (model.model if isinstance(model, Recogniser) else model).device

    def timed() -> float:
        began = time.perf_counter()
        for group in groups:
            run(group)
        if device.type == "cuda":  # whose work is only queued by then
            torch.cuda.synchronize(device)
        return time.perf_counter() - began

    return timed
