"""How alike layers are to each other: a map over pairs of streams of one model, or of two."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from otoscope.errors import MeasureError
from otoscope.measures.measure import Result, Row
from otoscope.measures.rows import RowsMeasure, Segment, choose_frames
from otoscope.models.anatomy import Anatomy, layer_of
from otoscope.speech import Corpus
from otoscope.statistics import jackknife, uniform

ROWS = 1000
"""Frames that are compared."""

FEWEST = 8


class LayerMap(RowsMeasure):
    """Similarity of every pair of streams, on frames chosen by a hash.

    - "cka": debiased linear CKA (Kornblith et al. 2019; U-statistic of Song et al. 2012), 0 for unrelated streams on
      average and 1 for those that differ by a rotation, a scale and a shift. The interval is a jackknife over speakers,
      else utterances.
    - "procrustes": angular shape distance, the arc cosine of the nuclear norm of X'Y, both centred and of unit norm
      (Williams et al. 2021): 0 for streams that differ by a rotation, a scale and a shift, and up to pi / 2. It shrinks
      where there are fewer rows than dimensions.

    With another model, its streams stand beside those of the first.

    The floor is the same for rows of the second stream in the order of a hash. Memory: one vector a frame and stream.
    Array: `<name>.map`, shape (streams, streams of the other).

    Args:
        kind: "cka" or "procrustes".
        other: anatomy and name of another model.
        rows: frames that are compared at most.

    Raises:
        MeasureError: there is no such map.
    """

    span = "word"

    def __init__(self, kind: str, other: tuple[Anatomy, str] | None = None, rows: int = ROWS) -> None:
        super().__init__()
        if kind not in ("cka", "procrustes"):
            raise MeasureError(f"There is no map {kind!r}", 'Choose "cka" or "procrustes".')
        self.kind, self.other_name, self._most = kind, other[1] if other else None, rows
        self.other = other[0] if other else None
        self.name = f"{kind}-inter" if other else kind

    def choose(self, corpus: Corpus, seed: int) -> tuple[Segment, ...]:
        """Single frames, 80 ms apart or more."""
        return choose_frames(corpus, seed, self._most)

    def score(self) -> Result:
        """A row for each pair of two streams.

        Raises:
            MeasureError: too few frames have gone through.
        """
        segments = self.seen_segments()
        if len(segments) < FEWEST:
            raise MeasureError(
                f"{self.name} has {len(segments)} frames to compare", f"Give speech of at least {FEWEST} x 80 ms."
            )
        group = self.groups(segments)
        drawn = [uniform(self.seed, one.utterance, one.place, "map floor") for one in segments]
        score = _Cka(group, np.argsort(drawn)) if self.kind == "cka" else _Shape(np.argsort(drawn))
        down = {s: score.ready(self.vectors(s)) for s in self.streams}
        across = {name: score.ready(self.vectors(name)) for name in self._others} or down
        found = np.full((len(down), len(across)), np.nan)
        rows = []
        constant = sorted(s for s, one in {**down, **across}.items() if one is None)
        for i, (stream, x) in enumerate(down.items()):
            for j, (name, y) in enumerate(across.items()):
                if name == stream or x is None or y is None:
                    found[i, j] = (1.0 if self.kind == "cka" else 0.0) if name == stream and x is not None else np.nan
                    continue
                value, low, high, floor = score.of(x, y)
                found[i, j] = value
                rows.append(
                    Row(
                        self.name, stream, layer_of(stream), target=self.other_name, other=self._others.get(name, name),
                        value=value, low=low, high=high, floor=floor, ceiling=1.0 if self.kind == "cka" else 0.0,
                        n=len(segments),
                    )
                )  # fmt: skip
        notes = {"frames": len(segments), "groups": int(group.max()) + 1, "constant": constant}
        return Result(rows, {f"{self.name}.map": found}, notes)


Scored = tuple[float, float | None, float | None, float]


class _Cka:
    """Debiased CKA from Gram matrices, with all groups left out in turn from sums over pairs of groups."""

    def __init__(self, group: Int[np.ndarray, " n"], order: Int[np.ndarray, " n"]) -> None:
        self._order = order
        self._member = (group[:, None] == np.unique(group)).astype(float)
        sizes = self._member.sum(axis=0)
        if len(sizes) < 2 or len(group) - sizes.max() < FEWEST:
            self._member = self._member[:, :0]  # no interval
        self._own: dict[int, tuple[float, np.ndarray]] = {}

    def ready(self, x: np.ndarray) -> np.ndarray | None:
        gram = zero_diagonal_gram(x)
        return gram if u_hsic(gram, gram) > 0 else None

    def _both(self, k: np.ndarray, m: np.ndarray) -> tuple[float, np.ndarray]:
        """HSIC of all rows, and without each group."""
        inside = self._member
        blocks = inside.T @ ((k * m) @ inside)
        product = blocks.sum() - blocks.sum(axis=0) - blocks.sum(axis=1) + np.diagonal(blocks)
        left = 1 - inside  # rows that stay, for each group
        a, b = k @ left * left, m @ left * left
        n = left.sum(axis=0)
        return u_hsic(k, m), _u_statistic(product, a.sum(axis=0), b.sum(axis=0), (a * b).sum(axis=0), n)

    def of(self, x: np.ndarray, y: np.ndarray) -> Scored:
        (xx, xx_without), (yy, yy_without) = (self._itself(one) for one in (x, y))
        xy, xy_without = self._both(x, y)
        size = np.sqrt(xx * yy)
        value, floor = xy / size, u_hsic(x, y[np.ix_(self._order, self._order)]) / size
        sizes = self._member.sum(axis=0)
        if not len(sizes) or xx_without.min() <= 0 or yy_without.min() <= 0:
            return float(value), None, None, float(floor)
        low, high = jackknife(value, xy_without / np.sqrt(xx_without * yy_without), sizes)
        return float(value), max(float(low), -1.0), min(float(high), 1.0), float(floor)

    def _itself(self, gram: np.ndarray) -> tuple[float, np.ndarray]:
        if id(gram) not in self._own:
            self._own[id(gram)] = self._both(gram, gram)
        return self._own[id(gram)]


class _Shape:
    """Angular shape distance of two streams."""

    def __init__(self, order: Int[np.ndarray, " n"]) -> None:
        self._order = order

    def ready(self, x: np.ndarray) -> np.ndarray | None:
        centred = x.astype(np.float64) - x.mean(axis=0, dtype=np.float64)
        norm = np.linalg.norm(centred)
        return centred / norm if norm > 0 else None

    def of(self, x: np.ndarray, y: np.ndarray) -> Scored:
        return _angle(x, y), None, None, _angle(x, y[self._order])


def _angle(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.arccos(min(1.0, np.linalg.svd(x.T @ y, compute_uv=False).sum())))


def zero_diagonal_gram(x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n n"]:
    """X X' of centred rows, its diagonal 0, in float64.

    The U-statistic does not change with the centre; centred products lose fewer digits.
    """
    centred = x.astype(np.float64) - x.mean(axis=0, dtype=np.float64)
    gram = centred @ centred.T
    np.fill_diagonal(gram, 0.0)
    return gram


def u_hsic(k: Float[np.ndarray, "n n"], m: Float[np.ndarray, "n n"]) -> float:
    """Unbiased HSIC of two Gram matrices with zero diagonal (Song et al. 2012, equation 5).

    n (n - 3) HSIC = tr(K M) + 1'K1 1'M1 / ((n - 1)(n - 2)) - 2 / (n - 2) 1'K M 1.
    """
    a, b = k.sum(axis=0), m.sum(axis=0)
    return float(_u_statistic(np.einsum("ij,ij->", k, m), a.sum(), b.sum(), a @ b, len(k)))


def _u_statistic(product: Any, sum_k: Any, sum_m: Any, cross: Any, n: Any) -> Any:
    return (product + sum_k * sum_m / ((n - 1) * (n - 2)) - 2 / (n - 2) * cross) / (n * (n - 3))
