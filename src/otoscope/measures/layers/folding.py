"""In which fold each row is: by speaker, or row by row."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from otoscope.errors import MeasureError, StateError
from otoscope.speech import Corpus, Utterance
from otoscope.statistics import Folds, partition, stratified, uniform

FOLDS = 5


@dataclass(frozen=True)
class Folding:
    """How rows are dealt into folds.

    Attributes:
        count: how many folds are wanted; fewer speakers give fewer.
        by: "speaker": no speaker is in two folds, and where there are fewer than three speakers no utterance. "row":
            rows at random, those of each label evenly, as in the released code of Pasad et al. (2021); neighbouring
            frames of an utterance then stand on both sides, and scores are too high by what an utterance has in common.

    Raises:
        MeasureError: fewer than two folds, or another way of dealing.
    """

    count: int = FOLDS
    by: str = "speaker"

    def __post_init__(self) -> None:
        if self.count < 2 or self.by not in ("speaker", "row"):
            raise MeasureError(
                f"Rows cannot be dealt into {self.count} folds by {self.by}",
                'Ask for two folds or more, by "speaker" or by "row".',
            )


class RowFolds:
    """Fold of every row of every utterance.

    Args:
        of: folds of the utterances.
        by: what is never split between two folds: "speaker", "utterance" or "row".
        rows: fold of every labelled row, by utterance, where folds are by row and labels are known.
        seed: of the folds of frames, where folds are by row.
    """

    def __init__(self, of: Folds, by: str, rows: Mapping[str, np.ndarray] | None, seed: int) -> None:
        self.of, self.count, self.by = of.of, of.count, by
        self._rows, self._seed = rows, seed

    def __contains__(self, utterance: str) -> bool:
        return utterance in self.of

    def rows(self, utterance: str, n: int) -> Int[np.ndarray, " n"]:
        """Folds of an utterance's first n rows."""
        if self.by != "row":
            return np.full(n, self.of[utterance])
        if self._rows is not None:
            return self._rows[utterance]
        key = int(uniform(self._seed, utterance, purpose="rows") * 2**53)
        return np.random.default_rng(key).integers(self.count, size=n)

    def told(self) -> Any:
        """All of it as JSON can hold it."""
        rows = None if self._rows is None else {k: v.tolist() for k, v in sorted(self._rows.items())}
        return [dict(self.of), self.count, self.by, rows, self._seed]


def fold_rows(
    corpus: Corpus,
    taking_part: Sequence[Utterance],
    folding: Folding,
    seed: int,
    name: str,
    labels: Mapping[str, Sequence[int]] | None = None,
) -> RowFolds:
    """Deals the rows of the utterances that take part.

    Args:
        corpus: named in errors.
        taking_part: those that have what the rows come of.
        folding: how.
        seed: of the folds.
        name: of what asks, for errors.
        labels: labels of the rows of each utterance, where folds are by row and rows have labels.

    Raises:
        MeasureError: there are fewer than two utterances.
    """
    if len(taking_part) < 2:
        raise MeasureError(
            f"{name} has {len(taking_part)} utterance{'' if len(taking_part) == 1 else 's'} of corpus {corpus.name} to "
            "train and test on",
            "Give at least two utterances, better of three speakers or more.",
        )
    folds = partition(
        {u.id: u.n_samples for u in taking_part}, {u.id: u.speaker for u in taking_part}, folding.count, seed
    )
    if folding.by == "speaker":
        return RowFolds(folds, folds.by, None, seed)
    everyone = Folds({u.id: 0 for u in taking_part}, folding.count, "utterance")
    if labels is None:
        return RowFolds(everyone, "row", None, seed)
    places: defaultdict[int, list[tuple[float, str, int]]] = defaultdict(list)
    for utterance, inside in labels.items():
        for k, label in enumerate(inside):
            places[int(label)].append((uniform(seed, utterance, k, "row folds"), utterance, k))
    rows = {utterance: np.zeros(len(inside), dtype=np.int64) for utterance, inside in labels.items()}
    dealt = 0
    for label in sorted(places):
        for _, utterance, k in sorted(places[label]):
            rows[utterance][k] = dealt % folding.count
            dealt += 1
    return RowFolds(everyone, "row", rows, seed)


def fold_by_label(labels: Mapping[str, str], folding: Folding, seed: int) -> RowFolds:
    """Deals utterances so that those of each label, such as a speaker, are in all folds."""
    folds = stratified(labels, folding.count, seed)
    return RowFolds(folds, "utterance", None, seed)


def stranger(utterance: str) -> StateError:
    """The error for an utterance that no fold is known of."""
    return StateError(
        f"Utterance {utterance} is not in the corpus that was prepared",
        "Prepare with the whole corpus, also where only a part of it is seen.",
    )
