"""Do words and sentences that people find alike lie close together? Rank correlation with human scores."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array
from scipy.stats import rankdata

from otoscope.errors import MeasureError
from otoscope.measures.layers.dtw import unit_rows
from otoscope.measures.measure import Result, Row
from otoscope.measures.rows import RowsMeasure, Segment, choose_segments
from otoscope.models.anatomy import layer_of
from otoscope.speech import Corpus
from otoscope.speech.tables import WordPair, read_word_pairs
from otoscope.statistics import jackknife, uniform

FEWEST_PAIRS = 5
"""Pairs that a rank correlation is taken over at least."""

DRAWS = 10
"""Permutations that the floor is the mean of."""

MICRO, MACRO = "micro", "macro"


def spearman(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> float:
    """Spearman's rank correlation, ties at their mean rank; NaN where a side is constant or has fewer than two values.

    >>> spearman(np.array([1.0, 2.0, 3.0]), np.array([1.0, 8.0, 27.0]))
    1.0
    """
    if len(x) < 2:
        return float("nan")
    a, b = rankdata(x), rankdata(y)
    a, b = a - a.mean(), b - b.mean()
    norm = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / norm) if norm > 0 else float("nan")


class _Similarity(RowsMeasure):
    """What both tasks share: cosines of pairs, correlations by file, intervals and floors.

    Attributes:
        option: how the command line calls the pairs.
    """

    option: str

    def __init__(self, pairs: Mapping[str, Sequence[WordPair]]) -> None:
        super().__init__()
        if not pairs:
            raise MeasureError(
                f"{self.name} was given no pairs", f"Give a file of pairs with their similarity: {self.option}."
            )
        for name, inside in pairs.items():
            scores = np.array([score for _, _, score in inside], dtype=np.float64)
            if len(scores) == 0 or not np.isfinite(scores).all() or (scores == scores[0]).all():
                raise MeasureError(
                    f"{self.name}: the scores of {name} are {'all the same' if len(scores) else 'none'} or not finite",
                    "Give pairs whose similarity differs.",
                )
        if {MICRO, MACRO} & pairs.keys():
            raise MeasureError(f"{self.name}: no file can be called micro or macro", "Rename it.")
        self.pairs = {name: list(inside) for name, inside in pairs.items()}

    @abstractmethod
    def cosines(
        self, stream: str, kept: np.ndarray, order: Int[np.ndarray, " n"]
    ) -> dict[str, Float[np.ndarray, " p"]]:
        """Cosine of every pair of every file; NaN where a side has no segment.

        Args:
            stream: name of the stream.
            kept: which of the segments that were seen count, shape (n,).
            order: the segment whose vector stands for each, shape (n,).
        """

    def correlations(self, stream: str, kept: np.ndarray, order: np.ndarray) -> dict[str, float]:
        """Correlation by file, and their means: weighted by pairs ("micro"), and plain ("macro")."""
        found, counts = {}, []
        for name, cosines in self.cosines(stream, kept, order).items():
            there = np.isfinite(cosines)
            human = np.array([score for _, _, score in self._there[name]], dtype=np.float64)
            # Cosines that differ by rounding only tie.
            found[name] = spearman(cosines[there].round(12), human[there])
            counts.append(int(there.sum()) if np.isfinite(found[name]) else 0)
        rho, weight = np.nan_to_num(np.array(list(found.values()))), np.array(counts, dtype=np.float64)
        defined = weight > 0
        found[MICRO] = float((rho * weight).sum() / weight.sum()) if defined.any() else float("nan")
        found[MACRO] = float(rho[defined].mean()) if defined.any() else float("nan")
        return found

    def rows_of(self, stream: str, groups: Int[np.ndarray, " n"]) -> list[Row]:
        """One row a file, and one each for both means."""
        everyone, n = np.arange(len(groups)), {name: len(inside) for name, inside in self._there.items()}
        value = self.correlations(stream, groups >= 0, everyone)
        sizes = np.bincount(groups).astype(np.float64)
        without = [self.correlations(stream, groups != g, everyone) for g in range(len(sizes))]
        permuted = [
            self.correlations(stream, groups >= 0, self.permuted(everyone, f"draw {k}")) for k in range(DRAWS)
        ]  # fmt: skip
        rows = []
        for target, rho in value.items():
            row = Row(self.name, stream, layer_of(stream), target=target, ceiling=1.0, n=n.get(target, sum(n.values())))
            rows.append(row)
            if np.isnan(rho):
                continue
            left = np.array([one[target] for one in without])
            low, high = jackknife(rho, np.where(np.isfinite(left), left, 0.0), sizes * np.isfinite(left))
            row.value = rho
            if np.isfinite(low):
                row.low, row.high = max(float(low), -1.0), min(float(high), 1.0)
            floors = np.array([one[target] for one in permuted])
            if np.isfinite(floors).any():
                row.floor = float(floors[np.isfinite(floors)].mean())
        return rows

    def score(self) -> Result:
        """One row a stream and file, and one each for the mean over pairs and over files."""
        segments = self.seen_segments()
        self._there = self._kept_pairs(segments)
        groups = self.groups(segments)
        rows = [row for stream in self.streams for row in self.rows_of(stream, groups)]
        notes = {
            "pairs": {name: len(self._there.get(name, ())) for name in self.pairs},
            "pairs_left_out": {name: len(p) - len(self._there.get(name, ())) for name, p in self.pairs.items()},
            "undefined": sorted({f"{row.stream} {row.target}" for row in rows if row.value is None}),
            "draws_of_floor": DRAWS,
        }
        return Result(rows, {}, notes)

    def _kept_pairs(self, segments: Iterable[Segment]) -> dict[str, list[WordPair]]:
        """Pairs both sides of which are there, of the files in which enough of them are.

        Raises:
            MeasureError: no file has enough pairs.
        """
        there = self._found(segments)
        kept = {name: [pair for pair in inside if there(pair)] for name, inside in self.pairs.items()}
        enough = {name: inside for name, inside in kept.items() if len(inside) >= FEWEST_PAIRS}
        if not enough:
            told = ", ".join(f"{len(inside)} of {len(self.pairs[name])} in {name}" for name, inside in kept.items())
            raise MeasureError(
                f"{self.name} finds too few pairs ({told}); a rank correlation needs {FEWEST_PAIRS}",
                "Give more speech, or pairs of what is said in it.",
            )
        return enough

    @abstractmethod
    def _found(self, segments: Iterable[Segment]) -> Any:
        """A function that says whether both sides of a pair are among the segments."""


class WordSimilarity(_Similarity):
    """Spearman correlation of the cosines of word vectors with human similarity.

    A word's vector is the mean over its instances of their mean-pooled frames (Pasad, Chou and Livescu 2021). One row a
    stream and file of pairs (target: the file's name), and the means over files, weighted by pairs ("micro") and plain
    ("macro"). Pairs with a word that the corpus lacks are left out and counted; so are files with fewer than five pairs
    left. A row without a value has cosines that are all the same.

    The floor gives instances the words of others, by a hash (mean of ten draws); the ceiling is 1. The interval is a
    jackknife over speakers, whose instances are left out.

    Args:
        pairs: by the name of their file, two words and their similarity each; case does not count.
        per_word: at most so many instances of a word.
        most: at most so many instances in all, or one a word.

    Raises:
        MeasureError: there are no pairs, or all have one score.
    """

    name = "word-similarity"
    option = "--word-pairs NAME=PATH"
    tiers = ("word",)
    span = "word"

    def __init__(self, pairs: Mapping[str, Sequence[WordPair]], *, per_word: int = 20, most: int = 5000) -> None:
        lowered = {name: [(a.lower(), b.lower(), s) for a, b, s in inside] for name, inside in pairs.items()}
        super().__init__(lowered)
        self.per_word, self.most = per_word, most

    @classmethod
    def from_files(cls, *paths: str | Path, **options: Any) -> WordSimilarity:
        """Reads the pairs from files such as WordSim-353's; see `speech.tables.read_word_pairs`.

        Raises:
            TableError: a file cannot be read.
            MeasureError: two files have the same name.
        """
        return cls(_read(cls.name, paths), **options)

    def choose(self, corpus: Corpus, seed: int) -> tuple[Segment, ...]:
        """Instances of the words in pairs both of which the corpus has.

        Raises:
            MeasureError: there are too few pairs.
            CorpusError: the corpus lacks the tier.
        """
        found = choose_segments(corpus, "word", seed, per_label=self.per_word)
        kept = self._kept_pairs(found)
        words = {word for inside in kept.values() for a, b, _ in inside for word in (a, b)}
        fewer = min(self.per_word, max(1, self.most // len(words)))
        if fewer < self.per_word:
            found = choose_segments(corpus, "word", seed, per_label=fewer)
        return tuple(one for one in found if one.label in words)

    def _found(self, segments: Iterable[Segment]) -> Any:
        words = {one.label for one in segments}
        return lambda pair: pair[0] in words and pair[1] in words

    def cosines(
        self, stream: str, kept: np.ndarray, order: Int[np.ndarray, " n"]
    ) -> dict[str, Float[np.ndarray, " p"]]:
        """Cosine of every pair of words; NaN where a word has no instance left."""
        labels = [one.label for one in self.seen_segments()]
        index = {word: i for i, word in enumerate(dict.fromkeys(labels))}
        places = np.array([index[label] for label in labels])[kept]
        counts = np.bincount(places, minlength=len(index)).astype(np.float64)
        weights = csr_array((1 / counts[places], (places, order[kept])), shape=(len(index), len(labels)))
        unit = unit_rows(weights @ self.vectors(stream).astype(np.float64))
        unit[counts == 0] = np.nan
        return {
            name: (unit[[index[a] for a, _, _ in inside]] * unit[[index[b] for _, b, _ in inside]]).sum(axis=1)
            for name, inside in self._there.items()
        }


class SentenceSimilarity(_Similarity):
    """Spearman correlation of the cosines of spoken sentences with human similarity.

    An utterance's vector is the mean of its frames. A pair's cosine is the mean over all pairs of recordings, one of
    each sentence (Pasad, Chien, Settle and Livescu 2024: 16 for four speakers a sentence; their code until October 2024
    took each as a point of its own). One row a stream and file, and the means over files as `WordSimilarity` has.

    A sentence is the id of an utterance, or text: all utterances with that transcript, but for case and punctuation.
    Pairs with a sentence that the corpus lacks are left out and counted, and so is a recording paired with itself.

    The floor gives utterances the transcripts of others, by a hash (mean of ten draws); the ceiling is 1. The interval
    is a jackknife over speakers, whose utterances are left out.

    Args:
        pairs: by the name of their file, two sentences and their similarity each.
        per_sentence: at most so many recordings of a sentence.
        most: at most so many recordings in all, or one a sentence.

    Raises:
        MeasureError: there are no pairs, or all have one score.
    """

    name = "sentence-similarity"
    option = "--sentence-pairs PATH"
    span = "utterance"

    def __init__(self, pairs: Mapping[str, Sequence[WordPair]], *, per_sentence: int = 4, most: int = 5000) -> None:
        super().__init__(pairs)
        self.per_sentence, self.most = per_sentence, most

    @classmethod
    def from_files(cls, *paths: str | Path, **options: Any) -> SentenceSimilarity:
        """Reads the pairs from files with two sentences or ids and a number on each line, separated by tabs.

        Raises:
            TableError: a file cannot be read.
            MeasureError: two files have the same name.
        """
        return cls(_read(cls.name, paths), **options)

    def choose(self, corpus: Corpus, seed: int) -> tuple[Segment, ...]:
        """Recordings of the sentences in pairs both of which the corpus has.

        Raises:
            MeasureError: there are too few pairs.
        """
        self._texts = {u.id: plain(u.transcript) for u in corpus if u.transcript}
        found = choose_segments(corpus, "utterance", seed)
        kept = {side for inside in self._kept_pairs(found).values() for pair in inside for side in pair[:2]}
        by_sentence = self._recordings(found)
        fewer = min(self.per_sentence, max(1, self.most // len(kept)))
        drawn = {one.utterance: (uniform(seed, one.utterance, 0, "recordings"), one.utterance) for one in found}
        taken: set[str] = set()
        for side in kept:
            recordings = [found[i].utterance for i in by_sentence(side)]
            taken.update(sorted(recordings, key=lambda name: drawn[name])[:fewer])
        return tuple(one for one in found if one.utterance in taken)

    def _recordings(self, segments: Iterable[Segment]) -> Any:
        """A function that gives the places of all recordings of a sentence."""
        by_id, by_text = {}, defaultdict(list)
        for i, one in enumerate(segments):
            by_id[one.utterance] = [i]
            if one.utterance in self._texts:
                by_text[self._texts[one.utterance]].append(i)
        return lambda side: by_id.get(side) or by_text.get(plain(side), [])

    def _found(self, segments: Iterable[Segment]) -> Any:
        recordings = self._recordings(segments)
        return lambda pair: any(i != j for i in recordings(pair[0]) for j in recordings(pair[1]))

    def cosines(
        self, stream: str, kept: np.ndarray, order: Int[np.ndarray, " n"]
    ) -> dict[str, Float[np.ndarray, " p"]]:
        """Mean cosine of the recordings of every pair of sentences; NaN where a sentence has no recording left."""
        unit = unit_rows(self.vectors(stream).astype(np.float64))[order]
        recordings = self._recordings(self.seen_segments())
        found = {}
        for name, inside in self._there.items():
            told = [
                (place, i, j)
                for place, (a, b, _) in enumerate(inside)
                for i in recordings(a)
                for j in recordings(b)
                if i != j and kept[i] and kept[j]
            ]
            place, i, j = np.array(told, dtype=np.int64).reshape(-1, 3).T
            counts = np.bincount(place, minlength=len(inside))
            sums = np.bincount(place, (unit[i] * unit[j]).sum(axis=1), len(inside))
            found[name] = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
        return found


def plain(text: str) -> str:
    """Words in lower case, single spaces between them.

    >>> plain("The old house, again!")
    'the old house again'
    """
    return " ".join(re.findall(r"[\w']+", text.lower()))


def _read(measure: str, paths: Sequence[str | Path]) -> dict[str, list[WordPair]]:
    twice = [name for name, n in Counter(Path(path).stem for path in paths).items() if n > 1]
    if twice:
        raise MeasureError(f"{measure}: two files are called {twice[0]}", "Rename one: rows are told apart by it.")
    return {Path(path).stem: read_word_pairs(path) for path in paths}
