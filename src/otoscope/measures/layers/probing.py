"""Probes of every stream: accuracy, selectivity, codelength, and the weighted sum over layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from otoscope.errors import MeasureError
from otoscope.measures.layers.codelength import TIMESTAMPS, online_codelength
from otoscope.measures.layers.labelled import LabelledRows, Rows
from otoscope.measures.layers.probes import linear_probe, mlp_probe
from otoscope.measures.layers.weighted import weighted_layers
from otoscope.measures.measure import Result, Row
from otoscope.models.anatomy import layer_of
from otoscope.statistics import corrected_t, ratio_jackknife

PARTS = ("linear", "mlp", "codelength", "weights")


class Probes(LabelledRows):
    """What classifiers read from `input`, `layer.*` and `final_norm` about phones, words, speakers or frames' phones.

    Every fold is held out once. With TARGET for the target, the parts give rows of these measures:

    - "linear": `probe-TARGET`, accuracy of `linear_probe` on held-out rows, and `selectivity-TARGET`, that accuracy
      less the accuracy of the same probe on control labels (Hewitt and Liang 2019; see `LabelledRows`);
    - "mlp": `probe-mlp-TARGET` and `selectivity-mlp-TARGET`, the same with one hidden layer (`mlp_probe`);
    - "codelength": `mdl-TARGET`, the compression of the labels by `online_codelength`: bits of the uniform code over
      bits of the online code. All rows are sent, in an order that does not heed speakers;
    - "weights": `probe-weighted-TARGET`, held-out accuracy of `weighted_layers` on `input` and all layers together, in
      a row without a stream, and `weight-TARGET`, the weight of each of these streams, its mean over the folds.

    Floors: the accuracy of the most frequent label of the rows that are fitted on; 0 for selectivity; the compression
    that the frequencies of the labels alone give (1 where all are equally frequent); equal weights.
    Ceilings are 1; compression has none. Intervals leave one group of speakers out at a time while the
    probes stay, and for weights follow from the folds. Speakers have no control labels and so no selectivity.

    For ten streams of width 192, 4,000 rows and 40 labels it takes about 20 CPU seconds; a bounded number of rows and
    steps keeps that from growing with the corpus.

    Args:
        target: "phone", "word", "speaker" or "frame-phone".
        parts: which of the above.
        folds: how many folds are wanted.
        most: the most rows.

    Attributes:
        yields: the measures whose rows it gives.

    Raises:
        MeasureError: there is no such target or part.
    """

    def __init__(self, target: str, *, parts: Sequence[str] = PARTS, folds: int = 3, most: int = 4000) -> None:
        super().__init__(target, folds=folds, most=most)
        unknown = [part for part in parts if part not in PARTS]
        if unknown or not parts:
            raise MeasureError(
                f"Probes have no part {unknown[0]!r}" if unknown else "No part of the probes was asked for",
                f"Choose from {', '.join(PARTS)}.",
            )
        self.name = f"probe-{target}"
        self.parts = tuple(part for part in PARTS if part in parts)
        self.yields = tuple(name for part in self.parts for name in self._names(part))

    def _names(self, part: str) -> tuple[str, ...]:
        own = {
            "linear": (f"probe-{self.target}", f"selectivity-{self.target}"),
            "mlp": (f"probe-mlp-{self.target}", f"selectivity-mlp-{self.target}"),
            "codelength": (f"mdl-{self.target}",),
            "weights": (f"probe-weighted-{self.target}", f"weight-{self.target}"),
        }[part]
        return tuple(name for name in own if self.target != "speaker" or not name.startswith("selectivity"))

    def score(self) -> Result:
        """Rows of all parts, part by part; see the class.

        Arrays: `probe-TARGET.bits`, shape (streams, blocks), bits of each block of the online code, and
        `probe-TARGET.weights`, shape (folds, streams).
        """
        rows = self.rows()
        known = self.types_known(rows)
        result = Result(notes={**self.told(), "parts": list(self.parts), "control_types_known": known})
        for part in self.parts:
            if part == "codelength":
                self._codelength(rows, result)
            elif part == "weights":
                self._weights(rows, result)
            else:
                self._accuracies(part, rows, result)
        return result

    def _accuracies(self, part: str, rows: Rows, result: Result) -> None:
        probe: Callable[..., Any] = linear_probe
        if part == "mlp":

            def probe(*given: Any) -> Any:
                return mlp_probe(*given, seed=self.seed)

        names = self._names(part)
        floor = self._majority(rows)
        selective = []
        for stream in self.streams:
            x = self.vectors(stream)
            right = _held_out(x, rows.labels, rows, probe)
            result.rows.append(self._row(names[0], stream, right, rows, floor=floor))
            if len(names) > 1:
                gain = right - _held_out(x, rows.controls, rows, probe)
                selective.append(self._row(names[1], stream, gain, rows, floor=0.0, least=-1.0))
        result.rows += selective

    def _codelength(self, rows: Rows, result: Result) -> None:
        (name,) = self._names("codelength")
        nothing = np.zeros((len(rows.labels), 1))
        floor = online_codelength(nothing, rows.labels, rows.classes, ridges=(), seed=self.seed).compression
        spent = []
        for stream in self.streams:
            x = self.vectors(stream)
            found = online_codelength(x, rows.labels, rows.classes, seed=self.seed)
            uniform = np.full(len(x), found.uniform)
            value, low, high = ratio_jackknife(_by_group(uniform, rows.groups), _by_group(found.bits, rows.groups))
            spent.append(np.bincount(found.blocks, found.bits))
            result.rows.append(
                Row(
                    name, stream, layer_of(stream), target=self.target, value=float(value),
                    low=None if np.isnan(low) else max(float(low), 0.0),
                    high=None if np.isnan(high) else float(high), floor=floor, n=len(x),
                )
            )  # fmt: skip
        result.arrays[f"{self.name}.bits"] = np.array(spent)
        result.notes["timestamps"] = list(TIMESTAMPS)

    def _weights(self, rows: Rows, result: Result) -> None:
        whole, each = self._names("weights")
        widths = {s: self.vectors(s).shape[1] for s in self.streams if s != "final_norm"}  # layer.L once more
        streams = [s for s in widths if widths[s] == widths[next(reversed(widths))]]
        result.notes["weights_without"] = [s for s in self.streams if s not in streams]
        layers = np.stack([self.vectors(s) for s in streams])
        right, weights = np.zeros(layers.shape[1]), []
        for fit, held in rows.splits():
            found = weighted_layers(layers[:, fit], rows.labels[fit], layers[:, held], rows.classes, seed=self.seed)
            right[held] = found.log_probabilities.argmax(1) == rows.labels[held]
            weights.append(found.weights)
        result.rows.append(self._row(whole, None, right, rows, floor=self._majority(rows)))
        result.arrays[f"{self.name}.weights"] = np.array(weights)
        ratio = 1 / (len(weights) - 1)
        for stream, value, low, high in zip(streams, *corrected_t(np.array(weights), ratio), strict=True):
            result.rows.append(
                Row(
                    each, stream, layer_of(stream), target=self.target, value=float(value),
                    low=max(float(low), 0.0), high=min(float(high), 1.0), floor=1 / len(streams), ceiling=1.0,
                    n=len(right),
                )
            )  # fmt: skip

    def _majority(self, rows: Rows) -> float:
        """Accuracy on held-out rows of the most frequent label of the rows that are fitted on."""
        right = [(rows.labels[held] == np.bincount(rows.labels[fit]).argmax()).sum() for fit, held in rows.splits()]
        return float(sum(right) / len(rows.labels))

    def _row(
        self, name: str, stream: str | None, scores: np.ndarray, rows: Rows, *, floor: float, least: float = 0.0
    ) -> Row:
        """The mean of the rows' scores, with its interval over groups."""
        sums, counts = _by_group(scores, rows.groups), _by_group(np.ones(len(scores)), rows.groups)
        value, low, high = (float(v) for v in ratio_jackknife(sums, counts))
        return Row(
            name, stream, layer_of(stream) if stream else None, target=self.target, value=value,
            low=None if np.isnan(low) else max(low, least), high=None if np.isnan(high) else min(high, 1.0),
            floor=floor, ceiling=1.0, n=len(scores),
        )  # fmt: skip


def _held_out(x: np.ndarray, labels: np.ndarray, rows: Rows, probe: Callable[..., Any]) -> np.ndarray:
    """Whether a probe names the label of each row when the row's fold is held out, 1.0 or 0.0."""
    right = np.zeros(len(x))
    for fit, held in rows.splits():
        right[held] = probe(x[fit], labels[fit], x[held], rows.classes).argmax(1) == labels[held]
    return right


def _by_group(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Sums of the groups that have rows."""
    _, group = np.unique(groups, return_inverse=True)
    return np.bincount(group, values)
