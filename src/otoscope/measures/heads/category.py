"""Categories of heads: global, vertical or diagonal, by where a head ranks highest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from otoscope.errors import MeasureError
from otoscope.measures.heads.diagonality import Diagonality
from otoscope.measures.heads.globalness import Globalness
from otoscope.measures.heads.head_measure import HeadMeasure
from otoscope.measures.heads.verticality import Verticality
from otoscope.measures.measure import Measure, Result, Row

if TYPE_CHECKING:
    from otoscope.models import Anatomy, Capture
    from otoscope.speech import Corpus

CATEGORIES = ("global", "vertical", "diagonal")


def head_categories(
    globalness: np.ndarray, verticality: np.ndarray, diagonality: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Category of each head among all heads of a model (Yang, Liu and Lee 2020, section 4).

    Three lists rank all heads by each metric, highest first; a head belongs to the list in which it ranks best. Equal
    values share the better rank. Equal best ranks go to the first of global, vertical, diagonal, which the source
    leaves open; the margin is then 0.

    Args:
        globalness: values of all heads, any shape.
        verticality: likewise.
        diagonality: likewise.

    Returns:
        Names (of CATEGORIES) and margins: ranks between a head's best and second-best list. Shape of the input.

    Raises:
        MeasureError: the shapes differ, there is no head, or a value is not finite.

    >>> names, margins = head_categories(
    ...     np.array([3.0, 1.0, 2.0]), np.array([0.0, 2.0, 1.0]), np.array([0.0, 1.0, 2.0])
    ... )
    >>> names.tolist(), margins.tolist()
    (['global', 'vertical', 'diagonal'], [2, 1, 1])
    """
    ranks = head_ranks(globalness, verticality, diagonality)
    in_order = np.sort(ranks, axis=0)
    return np.array(CATEGORIES)[ranks.argmin(0)], in_order[1] - in_order[0]


def head_ranks(globalness: np.ndarray, verticality: np.ndarray, diagonality: np.ndarray) -> np.ndarray:
    """The three ranks of each head among all heads of a model; see `head_categories`.

    Args:
        globalness: values of all heads, any shape.
        verticality: likewise.
        diagonality: likewise.

    Returns:
        (3, ...) in the order of CATEGORIES: 1 for the highest value, equal values share the better rank.

    Raises:
        MeasureError: the shapes differ, there is no head, or a value is not finite.

    >>> head_ranks(np.array([3.0, 1.0]), np.array([0.0, 0.0]), np.array([-0.2, -0.1])).tolist()
    [[1, 2], [1, 1], [2, 1]]
    """
    values = [np.asarray(v, np.float64) for v in (globalness, verticality, diagonality)]
    shapes = {v.shape for v in values}
    if len(shapes) != 1 or not values[0].size or not all(np.isfinite(v).all() for v in values):
        raise MeasureError(
            f"Head metrics of shapes {[v.shape for v in values]} cannot be ranked together",
            "Give three arrays of one shape, with a finite value for each head.",
        )
    flat = np.stack([v.ravel() for v in values])
    ranks = 1 + (flat[:, None, :] > flat[:, :, None]).sum(-1)
    return ranks.reshape(3, *values[0].shape)


class Category(Measure):
    """The category of every head with its margin in ranks, and how often it holds with a group left out.

    The value of a row is the margin; low and high are empty, since ranks are compared over the whole model. The array
    `category-ranks`, (3, layers, heads), has a head's ranks by globalness, verticality and diagonality: 1 is the highest
    of the whole model, 0 stands where a layer has no such head.
    """

    name = "category"
    reductions = tuple(dict.fromkeys(Globalness.reductions + Verticality.reductions + Diagonality.reductions))

    def __init__(self) -> None:
        self._metrics: tuple[HeadMeasure, ...] = (Globalness(), Verticality(), Diagonality())

    @property
    def streams(self) -> tuple[str, ...]:
        """None: everything comes from the tap."""
        return ()

    def prepare(self, anatomy: Anatomy, corpus: Corpus, seed: int) -> None:
        """See `Measure`."""
        for metric in self._metrics:
            metric.prepare(anatomy, corpus, seed)

    def update(self, capture: Capture) -> None:
        """See `Measure`."""
        for metric in self._metrics:
            metric.update(capture)

    def merge(self, other: Measure) -> None:
        """See `Measure`."""
        self._same_kind(other)
        assert isinstance(other, Category)
        for mine, theirs in zip(self._metrics, other._metrics, strict=True):
            mine.merge(theirs)

    def compute(self) -> Result:
        """One row a head."""
        heads, numbers = self._metrics[0].heads, self._metrics[0].names
        there = np.arange(max(heads)) < np.array(heads)[:, None]
        means = [metric.mean.mean()[there] for metric in self._metrics]
        names, margins = head_categories(*means)
        ranks = np.zeros((3, *there.shape), np.int32)
        ranks[:, there] = head_ranks(*means)
        kept = np.zeros(len(names))
        counts = self._metrics[0].mean.counts
        used = [g for g in range(len(counts)) if 0 < counts[g] < counts.sum()]
        for g in used:
            without = [
                ((m.mean.sums.sum(0) - m.mean.sums[g]) / (counts.sum() - counts[g]))[there] for m in self._metrics
            ]
            kept += head_categories(*without)[0] == names
        places = np.argwhere(there)
        rows = [
            Row(
                self.name, stream=f"layer.{layer + 1}", layer=int(layer) + 1, head=numbers[layer][head],
                value=float(margins[k]), label=str(names[k]), n=self._metrics[0].mean.n,
            )
            for k, (layer, head) in enumerate(places)
        ]  # fmt: skip
        stable = {
            f"{layer + 1}.{numbers[layer][head]}": round(float(kept[k] / len(used)), 4)
            for k, (layer, head) in enumerate(places)
        } if used else {}  # fmt: skip
        notes = {"kept_with_a_group_left_out": stable, "groups": len(counts), "ranks": list(CATEGORIES)}
        return Result(rows, {f"{self.name}-ranks": ranks}, notes)

    def state(self) -> dict[str, np.ndarray]:
        """See `Measure`."""
        return {f"{m.name}.{key}": value for m in self._metrics for key, value in m.state().items()}

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """See `Measure`."""
        for metric in self._metrics:
            start = metric.name + "."
            metric.load_state({k.removeprefix(start): v for k, v in state.items() if k.startswith(start)})
