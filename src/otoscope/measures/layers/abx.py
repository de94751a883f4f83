"""Phone ABX: is a phone nearer to another of its kind than to one of another kind, by one speaker or across speakers?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from jaxtyping import Int

from otoscope.errors import MeasureError
from otoscope.measures.layers.dtw import as_array, pair_distances
from otoscope.measures.layers.labels import NO_LABELS
from otoscope.measures.layers.phone_contexts import Context, Key, Phone, phones_of
from otoscope.measures.measure import Result, Row
from otoscope.measures.rows import SEQUENCE, RowsMeasure, Segment
from otoscope.models.anatomy import layer_of
from otoscope.speech import Corpus
from otoscope.statistics import jackknife, uniform
from otoscope.statistics.least import Least

FEWEST_PHONE_PAIRS = 10
"""Ordered pairs of phones that a mean is taken over at least."""

FLOOR_TRIPLES = 200_000
"""Triples of the floor's permutations together, or one permutation that has more."""

MOST_DRAWS = 10

FIRST_CONTEXTS = 32
"""Contexts whose phones are gathered in the first pass over the labels; twice as many in each further one."""


@dataclass(frozen=True)
class Triples:
    """Which phones are compared: X with A, of its kind, and with B, of another.

    Attributes:
        x: index of X, shape (t,).
        a: of A, shape (t,).
        b: of B, shape (t,).
        cell: cell of each triple, shape (t,).
        score: of each cell, the mean it enters: phones of A and B, and their speaker; shape (c,).
        pair: of each of those, the phones of A and B; shape (s,).
    """

    x: np.ndarray
    a: np.ndarray
    b: np.ndarray
    cell: np.ndarray
    score: np.ndarray
    pair: np.ndarray

    @property
    def pairs(self) -> int:
        """Ordered pairs of phones."""
        return int(self.pair.max()) + 1 if len(self.pair) else 0

    def error(self, wrong: np.ndarray, left_out: np.ndarray | None = None) -> float:
        """Error rate from that of each triple, without some triples; NaN where there are none.

        Args:
            wrong: 1 where B is nearer, 1/2 where both are as near, shape (t,).
            left_out: indices of triples that do not count.
        """
        c = len(self.score)
        sums, counts = np.bincount(self.cell, wrong, c), np.bincount(self.cell, minlength=c)
        if left_out is not None:
            sums -= np.bincount(self.cell[left_out], wrong[left_out], c)
            counts -= np.bincount(self.cell[left_out], minlength=c)
        for level in (self.score, self.pair):
            means = sums[counts > 0] / counts[counts > 0]
            above = level[counts > 0]
            sums, counts = (np.bincount(above, w, int(level.max()) + 1) for w in (means, np.ones(len(above))))
        kept = counts > 0
        return float((sums[kept] / counts[kept]).mean()) if kept.any() else float("nan")


def abx_triples(phones: Sequence[Any], speakers: Sequence[Any], contexts: Sequence[Any], *, across: bool) -> Triples:
    """All triples of phones in which A, B and X have one context and A and X are of one phone, B of another.

    Within speakers all three have one speaker and X is not A; across speakers A and B have one and X another.

    Args:
        phones: of each segment, n of them.
        speakers: of each segment.
        contexts: of each segment; all equal where the context does not matter.
        across: X is of another speaker.

    Raises:
        MeasureError: the numbers of phones, speakers and contexts differ.
    """
    if not len(phones) == len(speakers) == len(contexts):
        raise MeasureError(
            f"{len(phones)} phones, {len(speakers)} speakers and {len(contexts)} contexts do not belong together",
            "Give one of each for every segment.",
        )
    members: dict[Any, dict[Any, dict[Any, list[int]]]] = {}
    for i, (p, s, c) in enumerate(zip(phones, speakers, contexts, strict=True)):
        members.setdefault(c, {}).setdefault(s, {}).setdefault(p, []).append(i)
    code = {p: k for k, p in enumerate(dict.fromkeys(phones))}
    number = {s: k for k, s in enumerate(dict.fromkeys(speakers))}
    found: list[np.ndarray] = []
    for place, by_speaker in enumerate(members.values()):
        for s, mine in by_speaker.items():
            for t, theirs in by_speaker.items() if across else [(s, mine)]:
                if across and s == t:
                    continue
                for p in mine if len(mine) > 1 else ():
                    if p not in theirs:
                        continue
                    others = [i for q, them in mine.items() if q != p for i in them]
                    x, a, b = (v.ravel() for v in np.meshgrid(theirs[p], mine[p], others, indexing="ij"))
                    told = np.full((4, len(x)), [[code[p]], [number[s]], [place], [number[t]]])
                    found.append(np.concatenate([np.stack([x, a, b]), told])[:, x != a])
    table = np.concatenate(found, axis=1) if found else np.zeros((7, 0), dtype=np.int64)
    x, a, b, phone, speaker, context, other = table
    codes = np.array([code[p] for p in phones], dtype=np.int64)
    n, m = max(len(code), 1), max(len(number), 1)
    score = (phone * n + codes[b]) * m + speaker
    _, first, cell = np.unique((score * len(members) + context) * m + other, return_index=True, return_inverse=True)
    scores, score = np.unique(score[first], return_inverse=True)
    return Triples(x, a, b, cell, score, np.unique(scores // m, return_inverse=True)[1])


def abx_error(
    distances: Any,
    phones: Sequence[Any],
    speakers: Sequence[Any],
    contexts: Sequence[Any] | None = None,
    *,
    across: bool = False,
) -> float:
    """Phone ABX error rate from distances between segments.

    A cell holds the triples of one phone of A, phone of B, speaker of A and B, speaker of X and context. Its error is
    the share of triples with d(X, A) > d(X, B), those with equal distances by half. Cells are averaged over contexts
    and speakers of X, then over speakers of A and B, then over ordered pairs of phones, as fastabx and, before it,
    libri-light and ZeroSpeech do.

    Args:
        distances: distances[x, a] of segment x from segment a, shape (n, n), torch or numpy.
        phones: of each segment.
        speakers: of each segment.
        contexts: of each segment, such as the phones before and after it; None where the context does not matter.
        across: A and B are of one speaker and X of another; else all three are of one.

    Returns:
        Error rate: 0 is best, 0.5 is chance.

    Raises:
        MeasureError: numbers disagree, or there is no triple.

    >>> place = np.array([0.0, 0.1, 1.0, 1.1])
    >>> abx_error(abs(place[:, None] - place), ["aa", "aa", "iy", "iy"], ["ann"] * 4)
    0.0
    """
    distances = as_array(distances)
    n = len(distances)
    triples = abx_triples(phones, speakers, [0] * n if contexts is None else contexts, across=across)
    if len(phones) != n:
        raise MeasureError(f"{len(phones)} phones do not fit distances of {n} segments", "Give one for every segment.")
    if not len(triples.x):
        raise MeasureError(
            f"{n} segments hold no triple of phones {'across' if across else 'within'} speakers",
            "Give more segments, or leave out the contexts.",
        )
    return triples.error(_wrong(distances[triples.x, triples.a], distances[triples.x, triples.b]))


def _wrong(near: np.ndarray, far: np.ndarray) -> np.ndarray:
    return (near > far) + 0.5 * (near == far)


class PhoneABX(RowsMeasure):
    """Error rate of phone ABX by dynamic time warping of angular distances; the lower, the better.

    Two rows a stream: target "phone-in-context" for triples with the same phones before and after them (a pause, a
    noise or the edge of the utterance counts as one), and target "phone" for triples of any context. A phone is all the
    frames that it touches; its neighbours' frames are not part of it. How errors are averaged: see `abx_error`. A target
    with fewer than ten pairs of phones has no rows and is named in the notes.

    Chance is 0.5. The floor is the error with the phones permuted among the segments of one speaker and context (mean of
    up to ten draws; one where there are many triples). The field `ceiling` holds the best score there could be, which is
    0 here. The interval is a jackknife over speakers.

    Args:
        across: A and B are of one speaker and X of another; else all three are of one.
        most_speakers: speakers that are looked at in any context, by a hash.
        per_phone: at most so many segments of a speaker and phone in any context; at least two within speakers.
        per_context: at most so many segments of a speaker, phone and context.
        most: at most so many segments in context; the last context is cut there.
    """

    tiers = ("phone",)
    span = SEQUENCE

    def __init__(
        self,
        *,
        across: bool = False,
        most_speakers: int = 10,
        per_phone: int = 2,
        per_context: int = 5,
        most: int = 600,
    ) -> None:
        super().__init__()
        self.across = across
        self.name = "abx-across" if across else "abx-within"
        self.most_speakers, self.per_phone, self.per_context, self.most = most_speakers, per_phone, per_context, most

    def choose(self, corpus: Corpus, seed: int) -> tuple[Segment, ...]:
        """Phones of known speakers, for both targets.

        Raises:
            MeasureError: there are too few speakers or phones.
            CorpusError: the corpus lacks the tier.
        """
        corpus.require_tier("phone")
        self._unknown_speaker = sum(
            x.label not in NO_LABELS for u in corpus if u.speaker is None for x in u.tiers.get("phone", ())
        )
        in_context, in_any = self._in_context(corpus, seed), self._in_any_context(corpus, seed)
        self._chosen = {"phone-in-context": set(in_context), "phone": set(in_any)}
        if not any(self._chosen.values()):
            raise MeasureError(
                f"{self.name} finds too few pairs of phones of {'two speakers' if self.across else 'a speaker'} in "
                f"corpus {corpus.name}, where {self._unknown_speaker} phones have no known speaker",
                "Give more speech with speakers and phones, or leave out the measure.",
            )
        self._contexts = {key: one.context for key, one in (in_any | in_context).items()}
        wanted = {key: one.segment for key, one in (in_any | in_context).items()}
        places = {u.id: k for k, u in enumerate(corpus)}
        return tuple(wanted[key] for key in sorted(wanted, key=lambda key: (places[key[0]], key[1])))

    def _draw(self, key: Key, seed: int) -> tuple[float, Key]:
        return uniform(seed, key[0], key[1], f"rows {self.name}"), key

    def _in_any_context(self, corpus: Corpus, seed: int) -> dict[Key, Phone]:
        names = {u.speaker for u in corpus if u.speaker is not None}
        speakers = sorted(names, key=lambda s: (uniform(seed, s, purpose="abx speakers"), s))[: self.most_speakers]
        least: defaultdict[tuple[str | None, str], Least[Phone]] = defaultdict(lambda: Least(self.per_phone))
        for key, one in phones_of(corpus):
            if one.segment.speaker in speakers:
                least[one.segment.speaker, one.segment.label].add(self._draw(key, seed), one)
        drawn = sorted((item for kind in least.values() for item in kind.items()), key=lambda item: item[0])
        kept = {key: one for (_, key), one in drawn}
        triples = self._triples([one.segment for one in kept.values()], [0] * len(kept))
        return kept if triples.pairs >= FEWEST_PHONE_PAIRS else {}

    def _in_context(self, corpus: Corpus, seed: int) -> dict[Key, Phone]:
        contexts = {one.context for _, one in phones_of(corpus)}
        order = sorted(contexts, key=lambda c: (uniform(seed, " ".join(c), purpose="abx contexts"), c))
        chosen: dict[Key, Phone] = {}
        first, count = 0, FIRST_CONTEXTS
        while first < len(order) and len(chosen) < self.most:
            # Phones of few contexts at a time: those of all contexts of hours of speech take much memory.
            for found in self._of_contexts(corpus, order[first : first + count], seed):
                if len(chosen) >= self.most:
                    break
                triples = self._triples([one.segment for one in found.values()], [0] * len(found))
                keys = list(found)
                chosen |= {keys[i]: found[keys[i]] for i in np.unique([triples.x, triples.a, triples.b])}
                chosen = dict(islice(chosen.items(), self.most))  # the last context may hold many
            first, count = first + count, 2 * count
        triples = self._triples([x.segment for x in chosen.values()], [x.context for x in chosen.values()])
        return chosen if triples.pairs >= FEWEST_PHONE_PAIRS else {}

    def _of_contexts(self, corpus: Corpus, contexts: Sequence[Context], seed: int) -> Iterator[dict[Key, Phone]]:
        """For each context in turn the phones that are kept in it, in the order of their draws."""
        kinds: dict[Context, dict[Any, Least[Phone]]] = {context: {} for context in contexts}
        for key, one in phones_of(corpus):
            if one.context in kinds:
                kind = one.segment.speaker, one.segment.label
                least = kinds[one.context].setdefault(kind, Least(self.per_context))
                least.add(self._draw(key, seed), one)
        for context in contexts:
            drawn = sorted((x for least in kinds[context].values() for x in least.items()), key=lambda x: x[0])
            yield {key: one for (_, key), one in drawn}

    def _triples(self, segments: Sequence[Segment], contexts: Sequence[Any], labels: Sequence[Any] = ()) -> Triples:
        phones = labels or [one.label for one in segments]
        return abx_triples(phones, [one.speaker for one in segments], contexts, across=self.across)

    def score(self) -> Result:
        """Two rows a stream."""
        everything = self.seen_segments()
        rows: list[Row] = []
        notes: dict[str, Any] = {
            "segments_without_speaker": self._unknown_speaker,
            "triples": {}, "cells": {}, "phone_pairs": {}, "draws_of_floor": {},
        }  # fmt: skip
        for target, keys in self._chosen.items():
            places = [i for i, one in enumerate(everything) if (one.utterance, one.place) in keys]
            segments = [everything[i] for i in places]
            in_context = target == "phone-in-context"
            contexts = [self._contexts[one.utterance, one.place] if in_context else ("", "") for one in segments]
            triples = self._triples(segments, contexts)
            if triples.pairs < FEWEST_PHONE_PAIRS:
                continue
            notes["triples"][target], notes["cells"][target] = len(triples.x), len(triples.score)
            notes["phone_pairs"][target] = triples.pairs
            draws = min(max(FLOOR_TRIPLES // len(triples.x), 1), MOST_DRAWS)
            notes["draws_of_floor"][target] = draws
            permuted = [
                self._triples(segments, contexts, self._permuted(segments, contexts, draw)) for draw in range(draws)
            ]
            rows += self._rows_of(target, np.array(places), segments, contexts, triples, permuted)
        if not rows:
            raise MeasureError(
                f"{self.name} has seen too few pairs of phones in corpus {self.corpus_name}",
                "Pass the whole corpus through the model.",
            )
        notes["targets_left_out"] = [target for target in self._chosen if target not in notes["cells"]]
        return Result(rows, {}, notes)

    def _permuted(self, segments: Sequence[Segment], contexts: Sequence[tuple[str, str]], draw: int) -> list[str]:
        """Phones shuffled among the segments of one speaker and context, by a hash."""
        together: defaultdict[Any, list[int]] = defaultdict(list)
        for i, (one, context) in enumerate(zip(segments, contexts, strict=True)):
            together[one.speaker, context].append(i)
        labels = [""] * len(segments)
        for inside in together.values():
            told = [(segments[i].utterance, segments[i].place) for i in inside]
            drawn = [uniform(self.seed, utterance, place, f"permuted abx {draw}") for utterance, place in told]
            for i, k in zip(inside, np.argsort(drawn, kind="stable"), strict=True):
                labels[i] = segments[inside[int(k)]].label
        return labels

    def _rows_of(
        self,
        target: str,
        places: Int[np.ndarray, " n"],
        segments: Sequence[Segment],
        contexts: Sequence[Any],
        triples: Triples,
        permuted: Sequence[Triples],
    ) -> list[Row]:
        n = len(segments)
        # Each pair is aligned once, whatever triples it is in.
        codes = [np.minimum(t.x, v) * n + np.maximum(t.x, v) for t in (triples, *permuted) for v in (t.a, t.b)]
        pairs, used = np.unique(np.concatenate(codes), return_inverse=True)
        near, far, *of_floors = np.split(used, np.cumsum([len(c) for c in codes])[:-1])
        together = [(c, None if self.across else s.speaker) for c, s in zip(contexts, segments, strict=True)]
        numbers = {told: k for k, told in enumerate(dict.fromkeys(together))}
        blocks = np.array([numbers[told] for told in together])
        groups = self.groups(segments)
        sizes = np.bincount(groups).astype(np.float64)
        touching = [
            np.flatnonzero((groups[triples.x] == g) | (groups[triples.a] == g) | (groups[triples.b] == g))
            for g in range(len(sizes))
        ]  # fmt: skip
        rows = []
        for stream in self.streams:
            sequences = self.sequences(stream)
            d = pair_distances([sequences[i] for i in places], pairs // n, pairs % n, blocks)
            wrong = _wrong(d[near], d[far])
            value = triples.error(wrong)
            without = np.array([triples.error(wrong, left_out) for left_out in touching])
            defined = np.isfinite(without)
            low, high = jackknife(value, np.where(defined, without, 0.0), np.where(defined, sizes, 0.0))
            if low == high:  # as where there is no error at all: what does not vary tells nothing of its spread
                low = high = np.asarray(np.nan)
            floor = np.mean(
                [t.error(_wrong(d[a], d[b])) for t, a, b in zip(permuted, of_floors[::2], of_floors[1::2], strict=True)]
            )
            rows.append(
                Row(
                    self.name, stream, layer_of(stream), target=target, value=value,
                    low=max(float(low), 0.0) if np.isfinite(low) else None,
                    high=min(float(high), 1.0) if np.isfinite(high) else None,
                    floor=float(floor), ceiling=0.0, n=n,
                )
            )  # fmt: skip
        return rows
