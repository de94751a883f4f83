"""What a metric gives: a numerator and a denominator for every utterance, with what they are made of."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from otoscope.errors import EvaluationError, NotFiniteError, ResultError
from otoscope.evaluation.bootstrap import Blocks, Estimate, allow_for_unseen, block_bootstrap, blocks_of

_KEY = "otoscope.scores"


@dataclass(frozen=True)
class Scores:
    """A metric's numbers for every utterance of a corpus; the whole is a ratio of sums.

    Attributes:
        metric: name of the metric, such as "wer".
        unit: of the value, such as "errors per word".
        higher_is_better: which way is better.
        ids: utterances, each once, in the corpus' order.
        speakers: who speaks, None where it is not known.
        numerator: float64, shape (n,).
        denominator: float64, shape (n,), not negative.
        parts: further counts of each utterance, shape (n,), such as "substitutions".
        texts: further texts of each utterance, such as "hypothesis".

    Raises:
        EvaluationError: lengths differ, an utterance is there twice, a number is not finite, or the denominators sum
            to zero, so that there is no value.
    """

    metric: str
    unit: str
    higher_is_better: bool
    ids: tuple[str, ...]
    speakers: tuple[str | None, ...]
    numerator: np.ndarray
    denominator: np.ndarray
    parts: Mapping[str, np.ndarray] = field(default_factory=dict)
    texts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.ids)
        columns = {"speakers": self.speakers, "numerator": self.numerator, "denominator": self.denominator}
        for name, column in {**columns, **self.parts, **self.texts}.items():
            if len(column) != n:
                raise EvaluationError(f"{n} utterances but {len(column)} values of {name}", "Give one an utterance.")
        if len(set(self.ids)) < n:
            twice = next(one for one in self.ids if self.ids.count(one) > 1)
            raise EvaluationError(f"Utterance {twice!r} is scored twice", "Score every utterance once.")
        for name in ("numerator", "denominator"):
            array = np.asarray(getattr(self, name), np.float64)
            object.__setattr__(self, name, array)
            bad = ~np.isfinite(array) | ((array < 0) if name == "denominator" else False)
            if bad.any():
                k = int(np.flatnonzero(bad)[0])
                kind = EvaluationError if np.isfinite(array[k]) else NotFiniteError
                raise kind(f"The {name} of {self.metric} is {array[k]} for utterance {self.ids[k]!r}", "Leave it out.")
        if not self.denominator.sum() > 0:
            raise EvaluationError(
                f"{self.metric} has nothing to be counted on: its denominators sum to zero over {n} utterance(s)",
                "Use a corpus whose transcripts hold at least one word.",
            )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def value(self) -> float:
        """Sum of the numerators over sum of the denominators."""
        return float(self.numerator.sum() / self.denominator.sum())

    @property
    def blocks(self) -> Blocks:
        """What is drawn as a whole for intervals: speakers, or utterances where fewer than two speakers are known."""
        return blocks_of(self.ids, self.speakers)

    @property
    def counts(self) -> bool:
        """Whether numerators and denominators count things, so that one in one is the most that goes wrong or right.

        An error rate can exceed one, by insertions; where it does, there is no such bound.
        """
        whole = (np.rint(column) == column for column in (self.numerator, self.denominator))
        return all(bool(one.all()) for one in whole) and bool((self.numerator >= 0).all())

    def interval(self, seed: int = 0, level: float = 0.95, n: int = 10_000) -> Estimate:
        """The value with its bootstrap interval.

        Where all blocks have the same rate, as where no error was made at all, draws of them show no spread: the ends
        are then those of `allow_for_unseen`, with a rate of 0 and a rate of 1 as the furthest that a speaker can be
        off. They are NaN where there are fewer than two blocks, and for losses that are the same in all of them.

        Args:
            seed: of the drawing.
            level: coverage.
            n: how often blocks are drawn.
        """
        blocks = self.blocks
        sums = np.stack([blocks.sums(self.numerator), blocks.sums(self.denominator)])
        positive = bool((self.numerator >= 0).all())
        found = block_bootstrap(sums, _ratio, blocks.by, n, seed, level, positive).estimate
        return allow_for_unseen(found, sums, (0.0, 1.0) if self.counts else None)

    def totals(self) -> dict[str, float]:
        """Sums over all utterances: numerator, denominator, and every part."""
        columns = {"numerator": self.numerator, "denominator": self.denominator, **self.parts}
        return {name: float(np.sum(column)) for name, column in columns.items()}

    def table(self) -> pl.DataFrame:
        """A row an utterance: utterance, speaker, value, numerator, denominator, parts, texts.

        The value is null where the denominator is zero.
        """
        columns: dict[str, Any] = {
            "utterance": list(self.ids),
            "speaker": pl.Series(list(self.speakers), dtype=pl.String),
            "value": _ratios(self.numerator, self.denominator),
            "numerator": self.numerator,
            "denominator": self.denominator,
            **self.parts,
            **{name: list(column) for name, column in self.texts.items()},
        }
        return pl.DataFrame(columns)

    def by_speaker(self) -> pl.DataFrame:
        """A row a speaker, the same columns without texts, and the number of utterances; speakers in order of name."""
        sums = ("numerator", "denominator", *self.parts)
        table = self.table().group_by("speaker").agg(pl.len().alias("utterances"), *(pl.col(c).sum() for c in sums))
        ratio = pl.when(pl.col("denominator") > 0).then(pl.col("numerator") / pl.col("denominator")).alias("value")
        return table.with_columns(ratio).select("speaker", "utterances", "value", *sums).sort("speaker")

    def subset(self, ids: tuple[str, ...]) -> Scores:
        """The scores of some utterances, in the order of `ids`.

        Raises:
            EvaluationError: an utterance is not scored here, or none is left to be counted on.
        """
        where = {one: k for k, one in enumerate(self.ids)}
        missing = [one for one in ids if one not in where]
        if missing:
            raise EvaluationError(
                f"Utterance {missing[0]!r} has no score of {self.metric}", "Choose ids of the scores."
            )
        rows = [where[one] for one in ids]
        return Scores(
            self.metric, self.unit, self.higher_is_better, tuple(ids), tuple(self.speakers[k] for k in rows),
            self.numerator[rows], self.denominator[rows], {name: part[rows] for name, part in self.parts.items()},
            {name: tuple(text[k] for k in rows) for name, text in self.texts.items()},
        )  # fmt: skip

    def save(self, path: str | Path) -> Path:
        """Writes one Parquet file, whole or not at all.

        Raises:
            ResultError: it cannot be written.
        """
        path = Path(path)
        about = {
            "metric": self.metric, "unit": self.unit, "higher_is_better": self.higher_is_better,
            "parts": list(self.parts), "texts": list(self.texts),
        }  # fmt: skip
        unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self.table().write_parquet(unfinished, metadata={_KEY: json.dumps(about)})
                unfinished.replace(path)
            finally:
                unfinished.unlink(missing_ok=True)
        except OSError as error:
            raise ResultError(
                f"The scores cannot be written to {path}: {error}",
                "Name a file that you may write to and that has room.",
            ) from error
        return path

    @classmethod
    def load(cls, path: str | Path) -> Scores:
        """Reads what `save` wrote.

        Raises:
            ResultError: the file is absent, or holds no scores.
        """
        try:
            about = json.loads(pl.read_parquet_metadata(path)[_KEY])
            table = pl.read_parquet(path)
            return cls(
                about["metric"], about["unit"], about["higher_is_better"], tuple(table["utterance"]),
                tuple(table["speaker"]), table["numerator"].to_numpy(), table["denominator"].to_numpy(),
                {name: table[name].to_numpy() for name in about["parts"]},
                {name: tuple(table[name]) for name in about["texts"]},
            )  # fmt: skip
        except (OSError, KeyError, ValueError, pl.exceptions.PolarsError) as error:
            raise ResultError(f"{path} holds no scores: {error}", "Name a file that `Scores.save` wrote.") from error


def _ratio(totals: np.ndarray) -> np.ndarray:
    return totals[0] / totals[1]


def _ratios(top: np.ndarray, bottom: np.ndarray) -> pl.Series:
    """Ratios, null where the denominator is zero."""
    safe = np.where(bottom > 0, bottom, 1.0)
    return pl.Series([float(r) if b > 0 else None for r, b in zip(top / safe, bottom, strict=True)], dtype=pl.Float64)
