"""How well a stream predicts sound, phones, words, speakers, other streams: held-out CCA from streamed moments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from otoscope.errors import MeasureError
from otoscope.measures.layers.folding import Folding, fold_by_label, fold_rows
from otoscope.measures.layers.frames import INPUT, MEL, OTHER, FrameSource
from otoscope.measures.layers.held_out import PREFIXES, STATISTICS, FoldScores, Views, fold_scores, grid_scores
from otoscope.measures.layers.labels import SPEAKER, choose_labels
from otoscope.measures.layers.ridge import RIDGES
from otoscope.measures.layers.segments import SegmentSource
from otoscope.measures.measure import Result, Row
from otoscope.measures.source import SourcedMeasure
from otoscope.models.anatomy import Anatomy, layer_of
from otoscope.speech import Corpus
from otoscope.speech.tables import WordTable
from otoscope.statistics import Scatter, corrected_t

MOST_WORDS = 500
_FRAMES = {"mel": MEL, "intra": INPUT, "inter": OTHER}
_TIERS = {"phone": "phone", "word": "word", "speaker": SPEAKER}
PLAIN_TARGETS = frozenset((*_FRAMES, *_TIERS))
"""Targets that need no table."""

_SPANS = {"phone": "phone", "word": "word", SPEAKER: "utterance"}


class CCA(SourcedMeasure):
    """Canonical correlation of streams with a target, held out by fold.

    The analysis of Pasad, Chou and Livescu (2021) and Pasad, Shi and Livescu (2023, 2024). Targets:

    - "mel": 80 log-mel features, frame by frame; streams finer than 10 ms are averaged down to them, and for
      coarser ones the features are subsampled. Streams `conv.*`, `input`, `layer.*`, `final_norm`.
    - "intra": the stream `input` of the same model, frame by frame.
    - "inter": the stream of the same relative depth of another model, frame by frame.
    - "phone": the phone of each segment of the tier, one-hot; the mean of its middle frames stands for a segment.
    - "word": the same with the 500 most frequent words and the mean of all frames of a segment (or another span).
    - "speaker": the speaker, one-hot; the mean of all frames stands for an utterance. Folds share speakers, and no
      utterance.
    - any other name with a table: the vector that a table gives to each of the 500 most frequent words, as GloVe's
      ("glove"), acoustically grounded ones ("agwe"), or attributes ("semantic", "syntactic").

    Every fold is the test fold once, the next one chooses the ridge, the rest are trained on; the score is the mean over
    test folds. With only two folds there is none to choose by and the ridge is the middle of the grid. The interval is
    the corrected resampled t. One-hot targets of K labels have K - 1 directions, so the ceiling is 1.

    The floor is the same computation (with the ridge of the score) for a target that is not there: labels drawn from the
    corpus' distribution regardless of the segment, or frames rolled by a quarter to three quarters of the utterance. The
    latter keeps what a whole utterance has in common (voice, level, channel), so that floor lies above 0 by as much as
    the score owes to it.

    Args:
        target: what the streams are compared with.
        statistic: "pwcca", "mean", "svcca", "pasad" or "r2"; see `STATISTICS`. The released code deals by row into ten
            folds, of which it tests three; here all are tested.
        folding: how rows are dealt into folds.
        weights: the view that weighs the correlations: "y", the target, as in the released code of Pasad et
            al. where the target is the narrower view; "x", the stream; or "mean".
        ridges: ridges to choose from, relative to the mean eigenvalue of each view.
        most_labels: the most frequent labels that are looked at; None for 500 words or any number of phones.
        table: vectors of words, where the target is such a table.
        span: how a word becomes a vector; a name of `SPANS` that begins with "word".
        other: anatomy and name of the other model, for "inter".

    Raises:
        MeasureError: there is no such target or statistic, or the target wants a table or another model that is absent.
    """

    def __init__(
        self,
        target: str,
        *,
        statistic: str = "pwcca",
        folding: Folding | None = None,
        weights: str = "y",
        ridges: tuple[float, ...] = RIDGES,
        most_labels: int | None = None,
        table: WordTable | None = None,
        span: str = "word",
        other: tuple[Anatomy, str] | None = None,
    ) -> None:
        if statistic not in STATISTICS:
            raise MeasureError(f"There is no statistic {statistic!r}", f"Choose one of {', '.join(STATISTICS)}.")
        if target not in PLAIN_TARGETS and table is None:
            raise MeasureError(
                f"cca-{target} needs a table of word vectors",
                f"Name one: --table {target}=PATH. Without a table: {', '.join((*_FRAMES, *_TIERS))}.",
            )
        if target == "inter" and other is None:
            raise MeasureError("cca-inter needs another model", "Name one: --against MODEL.")
        self.target, self.statistic, self.weights, self.ridges = target, statistic, weights, tuple(ridges)
        prefix = PREFIXES[statistic]
        self.name = f"{prefix}-{target}" if span == "word" else f"{prefix}-{target}-{span.removeprefix('word-')}"
        self._table, self._span, self._other = table, span, other
        self._folding = folding or Folding()
        tier = _TIERS.get(target, "word")
        self._tier = None if target in _FRAMES else tier
        self.tiers = () if self._tier in (None, SPEAKER) else (tier,)
        self._most = MOST_WORDS if most_labels is None and tier == "word" else most_labels

    def prepare(self, anatomy: Anatomy, corpus: Corpus, seed: int) -> None:
        """Fixes streams, folds and labels.

        Raises:
            MeasureError: there are fewer than two folds or labels, no stream, or a stream's hop and the mel
                features' do not fit together.
            CorpusError: the corpus lacks the tier.
        """
        self._seed = seed
        if self._tier is None:
            other = self._other[0] if self._other else None
            self.source = FrameSource(anatomy, corpus, seed, self._folding, [_FRAMES[self.target]], other)
            self._without_tier = 0
        else:
            self.source = self._segments(anatomy, corpus, seed, self._tier)

    def _segments(self, anatomy: Anatomy, corpus: Corpus, seed: int, tier: str) -> SegmentSource:
        if tier == SPEAKER:
            taking_part = [u for u in corpus if u.speaker is not None]
            if not taking_part:
                raise MeasureError(
                    f"No speaker is known of corpus {corpus.name}", "Leave out cca-speaker, or name the speakers."
                )
            folds = fold_by_label({u.id: str(u.speaker) for u in taking_part}, self._folding, seed)
        else:
            corpus.require_tier(tier)
            taking_part = [u for u in corpus if tier in u.tiers]
            folds = fold_rows(corpus, taking_part, self._folding, seed, self.name)
        self._without_tier = len(corpus) - len(taking_part)
        of = None if folds.by == "row" else folds.of
        among = set(self._table.words) if self._table is not None else None
        part = corpus.subset([u.id for u in taking_part])
        labels = choose_labels(part, tier, of, seed, self._most, among)
        if folds.by == "row":
            inside = {u.id: labels.segments(u).labels.tolist() for u in taking_part}
            folds = fold_rows(corpus, taking_part, self._folding, seed, self.name, inside)
        self._codes: Float[np.ndarray, "k t"] | None = None
        if self._table is not None:
            self._codes = _vectors(self._table, labels.labels)
            if np.ptp(self._codes, axis=0).max() == 0:
                raise MeasureError(
                    f"{self.name}: the table gives all {len(labels.labels)} words of corpus {corpus.name} that are frequent "
                    "enough the same vector",
                    "Give a table that tells them apart, or leave out the measure.",
                )
        return SegmentSource(anatomy, labels, folds, self._span if tier == "word" else _SPANS[tier])

    def compute(self) -> Result:
        """One row for each stream: the held-out score with its interval and floor.

        A stream that is constant, or whose score is undefined on all but one fold, gets a row without a
        value and is named in the notes. Arrays: `<name>.scores` and `<name>.ridges`, shape (streams,
        folds), NaN where undefined.

        Raises:
            MeasureError: fewer than two folds have rows.
        """
        source = self.require_prepared()
        assert isinstance(source, FrameSource | SegmentSource)
        streams = source.streams if isinstance(source, SegmentSource) else source.streams_of(_FRAMES[self.target])
        rows, undefined = [], []
        scores = np.full((len(streams), source.folds.count), np.nan)
        ridges = np.full_like(scores, np.nan)
        for place, stream in enumerate(streams):
            usable = [int(f) for f in np.flatnonzero(source.rows(stream) >= 2)]
            if len(usable) < 2:
                raise MeasureError(
                    f"{self.name} has rows in {len(usable)} folds; it needs rows in two to train and to test",
                    "Give more speech, better of three speakers or more.",
                )
            try:
                found = self._fold_scores(source, stream, usable)
            except MeasureError as error:
                raise MeasureError(f"{self.name} of stream {stream}: {error.problem}", error.cure) from error
            scores[place, usable], ridges[place, usable] = found.scores[self.statistic], found.ridges
            rows.append(self._row(stream, found, int(source.rows(stream).sum())))
            if rows[-1].value is None:
                undefined.append(stream)
        notes: dict[str, Any] = {
            "seed": self._seed,
            "weights": self.weights if self.statistic == "pwcca" else None,
            "folds": source.folds.count,
            "folds_by": source.folds.by,
            "ridge_grid": list(self.ridges),
            "ridges": {s: [None if np.isnan(r) else float(r) for r in ridges[i]] for i, s in enumerate(streams)},
            "undefined": undefined,
            "utterances_without_tier": self._without_tier,
            "state_bytes": source.bytes,
        }
        if isinstance(source, SegmentSource):
            notes["labels"] = len(source.labels)
            notes["labels_left_out"] = source.labels.labels_left_out
            notes["rows_left_out"] = source.labels.rows_left_out
            if self._table is not None:
                notes["labels_without_vector"] = list(source.labels.absent)
        return Result(rows, {f"{self.name}.scores": scores, f"{self.name}.ridges": ridges}, notes)

    def _fold_scores(self, source: FrameSource | SegmentSource, stream: str, usable: Sequence[int]) -> FoldScores:
        """Scores of all statistics; another measure of the same source may have computed them already."""
        ridges = None if self.statistic == "svcca" else self.ridges
        apart = self.statistic if self.statistic in STATISTICS[3:] else None
        key = (self.target, stream, self.weights, ridges, apart)
        held: dict[Any, FoldScores] = source.memory.setdefault("scores", {})
        if key not in held and apart:
            held[key] = grid_scores(lambda folds: self._pooled(source, stream, folds), usable, apart, self.ridges)
        elif key not in held:
            views = source.memory.setdefault("views", Views())
            same = self._tier is not None or self.target == "intra"
            held[key] = fold_scores(
                lambda folds: self._pooled(source, stream, folds),
                usable, ridges, self.weights, views, stream, self.target if same else None,
            )  # fmt: skip
        return held[key]

    def _pooled(self, source: FrameSource | SegmentSource, stream: str, folds: list[int]) -> tuple[Scatter, Scatter]:
        if isinstance(source, FrameSource):
            return source.pooled(stream, _FRAMES[self.target], folds)
        return source.pooled(stream, folds, self._codes)

    def _row(self, stream: str, found: FoldScores, n: int) -> Row:
        row = Row(self.name, stream, layer_of(stream), target=self.target, ceiling=1.0, n=n)
        if self._other is not None and isinstance(self.source, FrameSource):
            row.target, row.other = self._other[1], self.source.matched[stream]
        scores, floors = found.scores[self.statistic], found.floors[self.statistic]
        defined = scores[np.isfinite(scores)]
        if len(defined) >= 2:
            mean, low, high = corrected_t(defined, found.test_to_train)
            # A correlation is never outside [-1, 1], whatever the t distribution says; R^2 has no lower end.
            least = -np.inf if self.statistic == "r2" else -1.0
            row.value, row.low, row.high = float(mean), max(float(low), least), min(float(high), 1.0)
        floors = floors[np.isfinite(floors)]
        if len(floors):
            row.floor = float(floors.mean())
        return row


def _vectors(table: WordTable, words: Sequence[str]) -> Float[np.ndarray, "k t"]:
    place = {word: i for i, word in enumerate(table.words)}
    return np.asarray(table.values, dtype=np.float64)[[place[word] for word in words]]
