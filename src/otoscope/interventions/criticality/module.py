"""Module criticality: how far a unit can be taken back to its initial weights, and how much noise it bears there."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import torch

from otoscope.errors import EvaluationError
from otoscope.evaluation.metric import Metric
from otoscope.interventions.criticality.modes import ALL, EVERY_LAYER
from otoscope.interventions.criticality.weights import Checkpoint, Weights, initial_weights, refuse_the_same
from otoscope.interventions.engine import Progress
from otoscope.interventions.scoring import scores_of_variants
from otoscope.measures.measure import Result, Row
from otoscope.models.model import SpeechModel
from otoscope.models.recogniser import Recogniser
from otoscope.speech.corpus import Corpus
from otoscope.surgery import Edit, prepared
from otoscope.surgery.reset import unit_values
from otoscope.surgery.units import Parts, Unit, units_of

NAME = "module-criticality"
ALPHAS = tuple(k / 10 for k in range(11))
SIGMAS = (1e-16, *(10 ** (-3 + k / 3) for k in range(10)))
SAMPLES = 10
SLACK = 1.01


@dataclass(frozen=True)
class Borne:
    """The cheapest point of a grid at which a loss is borne.

    Attributes:
        value: mu; infinite where the loss is borne nowhere on the grid.
        alpha: the share of the way from the initial to the final weights; None where there is no such point.
        sigma: the standard deviation of the noise; None where there is no such point.
        loss: the expected loss there; None where there is no such point.
        evaluated: points of the grid that were looked at.
    """

    value: float
    alpha: float | None
    sigma: float | None
    loss: float | None
    evaluated: int


def least_borne(
    loss: Callable[[float, float], float],
    bound: float,
    distance: float,
    alphas: Sequence[float] = ALPHAS,
    sigmas: Sequence[float] = SIGMAS,
) -> Borne:
    """Least of a grid: mu = min over alpha, sigma of (alpha / sigma)^2 d^2, where the expected loss is at most `bound`.

    Source: Chatterji, Neyshabur and Sedghi 2020, "The intriguing role of module criticality in the generalization of
    deep networks", arXiv 1912.00528. Points are looked at from the cheapest on, so that the first that bears the loss is
    the least; nothing is assumed of how the loss runs between them. Of points that cost the same the one with less
    noise comes first.

    Args:
        loss: from alpha and sigma to the expected loss.
        bound: epsilon.
        distance: d^2, the squared Euclidean distance between initial and final weights.
        alphas: grid, from 0 to 1.
        sigmas: grid, above 0 and at most 1.

    Raises:
        EvaluationError: a grid is empty or leaves its range.

    >>> least_borne(lambda alpha, sigma: (1 - alpha) ** 2 + sigma**2, 0.5, 4.0, (0, 0.5, 1), (0.1, 0.5)).value
    4.0
    """
    for name, grid, fits in (("alpha", alphas, lambda x: 0 <= x <= 1), ("sigma", sigmas, lambda x: 0 < x <= 1)):
        if not grid or not all(fits(one) for one in grid):
            raise EvaluationError(
                f"The grid of {name} is {list(grid)}",
                "Give numbers from 0 to 1; a sigma is above 0.",
            )
    points = sorted(itertools.product(alphas, sigmas), key=lambda one: ((one[0] / one[1]) ** 2, one[1], one[0]))
    for k, (alpha, sigma) in enumerate(points, start=1):
        found = loss(alpha, sigma)
        if found <= bound:
            return Borne((alpha / sigma) ** 2 * distance, alpha, sigma, found, k)
    return Borne(float("inf"), None, None, None, len(points))


@dataclass(frozen=True, eq=False)
class Perturbed(Edit):
    """Puts a unit on the way between initial weights and its own, with noise.

    Parameters become (1 - alpha) initial + alpha own + sigma u, u normal; statistics of batch norms are interpolated
    without noise, since a variance is not negative.

    Attributes:
        units: one unit.
        weights: the initial ones.
        alpha: share of the way.
        sigma: standard deviation of the noise.
        sample: number of the draw of the noise.
        seed: of the noise.
    """

    kind = "perturb"
    weights: Weights
    alpha: float
    sigma: float
    sample: int
    seed: int = 0

    def apply(self, parts: Parts) -> None:
        """See `Edit`."""
        parameters = {path for path, _ in parts.encoder.named_parameters()}
        for unit in parts.find(self.units):
            key = f"{self.seed}/{unit.name}/{self.alpha!r}/{self.sigma!r}/{self.sample}".encode()
            draw = torch.Generator().manual_seed(int.from_bytes(hashlib.blake2b(key, digest_size=7).digest(), "big"))
            initial = unit_values(parts, unit, self.weights.state, self.weights.called)
            for path, own in parts.tensors(unit).items():
                if not own.is_floating_point():
                    continue
                value = (1 - self.alpha) * initial[path].double() + self.alpha * own.double()
                if path in parameters:
                    noise = torch.randn(own.shape, generator=draw, dtype=torch.float64)
                    value = value + self.sigma * noise.to(own.device)
                parts.replace(path, value.to(own.dtype))

    def to_dict(self) -> dict[str, Any]:
        """See `Edit`; for comparison alone: the weights themselves are not among the values."""
        plain = {name: getattr(self, name) for name in ("units", "alpha", "sigma", "sample", "seed")}
        return {"edit": self.kind, **plain, **self.weights.told}


def module_criticality(
    model: SpeechModel | Recogniser,
    corpus: Corpus,
    metric: Metric,
    initial: Checkpoint | None,
    granularity: str | Sequence[str] = "block",
    *,
    layers: Sequence[int] | None = None,
    alphas: Sequence[float] = ALPHAS,
    sigmas: Sequence[float] = SIGMAS,
    samples: int = SAMPLES,
    slack: float = SLACK,
    seed: int = 0,
    batch_seconds: float = 30.0,
    store: str | Path | None = None,
    cache_gb: float | None = None,
    together: int = 1,
    progress: Callable[[int, int], None] | None = None,
    heard: Progress | None = None,
) -> Result:
    """Module criticality of every unit (Chatterji, Neyshabur and Sedghi 2020; see `least_borne`).

    The expected loss is the mean over draws of normal noise on the unit's parameters, all others as they were trained;
    epsilon is `slack` times the loss of the trained model. The published implementation looks at 11 alphas and at 11
    sigmas between 1e-16 and 1, with 10 draws and a slack of 1.01. Here ten of the sigmas are spaced evenly on a
    logarithmic scale from 0.001 to 1, since weights of speech models are hundredths: a value of 1e30 and more says
    that no noise of 0.001 is borne. A unit looks at up to 121 points, each of which costs up to 10 passes.

    Args:
        model: the model, or a recogniser; it is not changed.
        corpus: the speech.
        metric: a loss: lower is better.
        initial: see `criticality`.
        granularity: see `criticality`; heads have no weights of their own here.
        layers: see `criticality`.
        alphas: grid.
        sigmas: grid.
        samples: draws of the noise.
        slack: epsilon over the loss of the trained model, one or more.
        seed: of the noise, which is drawn anew for every unit, alpha, sigma and draw.
        batch_seconds: see `Metric.values`.
        store: see `criticality`.
        cache_gb: see `scores_of_variants`.
        together: see `scores_of_variants`.
        progress: called after each unit with the units done and in all.
        heard: called within a point of the grid with the seconds of speech done and in all.

    Returns:
        A row a unit: its name as stream, the metric as target, value mu; null where the loss is borne nowhere on the grid.
        The notes hold alpha, sigma, the distance of the weights and the loss at each unit's point, and the sum of mu.

    Raises:
        EvaluationError: the metric is higher where it is better, or an option has no meaning; see also `criticality`.
        SurgeryError: see `criticality`.
        ModelError: see `criticality`.
    """
    if metric.higher_is_better:
        raise EvaluationError(f"{metric.name} is no loss: it is higher where it is better", "Take a loss.")
    if samples < 1 or not slack >= 1:
        raise EvaluationError(
            f"{samples} draw(s) with a slack of {slack}", "Draw once or more, with a slack of 1 or more."
        )
    ready = model.model if isinstance(model, Recogniser) else model
    parts = Parts(ready.family.encoder(ready.source), ready.family)
    units = units_of(parts, granularity, layers)
    for unit in units:
        if unit.head is not None:
            raise EvaluationError(
                f"{unit.name} shares its tensors with other heads", "Name layers, branches or tensors."
            )
    weights = initial_weights(parts, initial)
    refuse_the_same(parts, weights)
    whole = prepared(ready)
    trained = metric.values(
        Recogniser(whole, model.vocabulary) if isinstance(model, Recogniser) else whole,
        corpus,
        batch_seconds=batch_seconds,
    ).value

    def expected(unit: Unit, alpha: float, sigma: float) -> float:
        names = [f"draw {k}" for k in range(1, samples + 1)]
        variants: dict[str, Sequence[Edit]] = {
            name: [Perturbed(unit.name, weights, alpha, sigma, k, seed)] for k, name in enumerate(names, start=1)
        }
        place = None if store is None else Path(store) / metric.name / quote(unit.name) / f"{alpha!r}-{sigma!r}"
        scores = scores_of_variants(
            model, corpus, {**variants, ALL: [weights.edit(EVERY_LAYER)]}, metric, batch_seconds=batch_seconds,
            store=place, cache_gb=cache_gb, together=together, chance=ALL, progress=heard,
        )  # fmt: skip
        return float(np.mean([scores.after[name].value for name in names]))

    rows, points = [], {}
    for done, unit in enumerate(units, start=1):
        distance = _squared_distance(parts, unit, weights)
        if distance:
            found = least_borne(partial(expected, unit), slack * trained, distance, alphas, sigmas)
        else:
            found = Borne(0.0, 0.0, min(sigmas), trained, 0)
        value = found.value if found.alpha is not None else None
        rows.append(Row(NAME, unit.name, unit.layer, target=metric.name, value=value, n=len(corpus)))
        points[unit.name] = {
            "alpha": found.alpha, "sigma": found.sigma, "loss": found.loss, "distance": float(np.sqrt(distance)),
            "evaluated": found.evaluated,
        }  # fmt: skip
        if progress is not None:
            progress(done, len(units))
    known = [row.value for row in rows if row.value is not None]
    notes = {
        "metric": metric.name, "trained": trained, "epsilon": slack * trained, "samples": samples, "seed": seed,
        "alphas": list(alphas), "sigmas": list(sigmas), "points": points,
        "sum": sum(known) if len(known) == len(rows) else None,
    }  # fmt: skip
    return Result(rows, {}, {NAME: notes})


def _squared_distance(parts: Parts, unit: Unit, weights: Weights) -> float:
    """Of a unit's parameters from their initial values; statistics of batch norms are no parameters."""
    parameters: Mapping[str, Any] = dict(parts.encoder.named_parameters())
    initial = unit_values(parts, unit, weights.state, weights.called)
    return sum(
        float((own.detach().double() - initial[path].double()).square().sum())
        for path, own in parts.tensors(unit).items()
        if path in parameters
    )
