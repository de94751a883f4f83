"""Folds for held-out scores and groups for intervals, fixed by the utterances and not by their order."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from otoscope.errors import MeasureError
from otoscope.statistics.hashing import uniform

FEWEST_SPEAKERS = 3
"""Train, dev and test need a fold each; with fewer speakers the folds are by utterance."""

MOST_GROUPS = 20
"""Groups whose states are kept apart for an interval."""


@dataclass(frozen=True)
class Folds:
    """A partition of utterances.

    Attributes:
        of: fold of every utterance, counted from 0.
        count: how many folds there are.
        by: what is never split between two folds: a speaker, or only the utterance.
    """

    of: Mapping[str, int]
    count: int
    by: Literal["speaker", "utterance"]


def partition(durations: Mapping[str, int], speakers: Mapping[str, str | None], folds: int = 5, seed: int = 0) -> Folds:
    """Deals utterances into folds of about the same duration; no speaker is in two folds.

    Longest first, each speaker goes to the fold that is shortest so far (Graham's rule, at most 4/3 of the
    best). Fewer speakers than folds give as many folds as speakers; with fewer than three speakers the
    utterances are dealt instead. Utterances without a speaker count as one speaker together.

    Args:
        durations: length of every utterance, in any unit.
        speakers: speaker of every utterance; None where it is not known.
        folds: how many folds are wanted.
        seed: decides between speakers (or utterances) of equal duration.

    Raises:
        MeasureError: fewer than two folds are wanted, or there is no utterance.

    >>> partition({"a": 4, "b": 2, "c": 1}, {"a": "ann", "b": "bob", "c": "cat"}, folds=2).of
    {'a': 0, 'b': 1, 'c': 1}
    """
    if folds < 2 or not durations:
        raise MeasureError(
            f"{len(durations)} utterances cannot be dealt into {folds} folds",
            "Give at least one utterance and ask for at least two folds.",
        )
    members: dict[str, list[str]] = {}
    for utterance in durations:
        speaker = speakers.get(utterance)
        members.setdefault("speaker unknown" if speaker is None else f"speaker {speaker}", []).append(utterance)
    by_speaker = len(members) >= FEWEST_SPEAKERS
    if not by_speaker:
        members = {utterance: [utterance] for utterance in durations}
    total = {unit: sum(durations[u] for u in inside) for unit, inside in members.items()}
    in_order = sorted(members, key=lambda unit: (-total[unit], uniform(seed, unit, purpose="folds"), unit))
    count = min(folds, len(members))
    heap = [(0, fold) for fold in range(count)]
    fold_of: dict[str, int] = {}
    for unit in in_order:
        load, fold = heapq.heappop(heap)
        heapq.heappush(heap, (load + total[unit], fold))
        fold_of.update(dict.fromkeys(members[unit], fold))
    return Folds({u: fold_of[u] for u in sorted(fold_of)}, count, "speaker" if by_speaker else "utterance")


def stratified(labels: Mapping[str, str], folds: int = 5, seed: int = 0) -> Folds:
    """Deals utterances into folds so that every label has about as many in each.

    The utterances of a label, in the order of a hash, go to the folds in turn; a label's first fold is the next one
    after the last label's, so that folds are of equal number too.

    Args:
        labels: label of every utterance, such as its speaker.
        folds: how many folds are wanted.
        seed: of the order.

    Raises:
        MeasureError: fewer than two folds are wanted, or there is no utterance.

    >>> sorted(stratified({"a": "ann", "b": "ann", "c": "bob", "d": "bob"}, folds=2).of.values())
    [0, 0, 1, 1]
    """
    if folds < 2 or not labels:
        raise MeasureError(
            f"{len(labels)} utterances cannot be dealt into {folds} folds",
            "Give at least one utterance and ask for at least two folds.",
        )
    in_order = sorted(labels, key=lambda u: (labels[u], uniform(seed, u, purpose="stratified"), u))
    fold_of = {utterance: i % folds for i, utterance in enumerate(in_order)}
    return Folds({u: fold_of[u] for u in sorted(fold_of)}, min(folds, len(labels)), "utterance")


def groups(utterances: Iterable[str], seed: int = 0, count: int = MOST_GROUPS) -> dict[str, int]:
    """Deals utterances into at most `count` groups of equal number (up to one), whatever their order.

    Args:
        utterances: ids; each counts once.
        seed: which of the equally good partitions.
        count: the most groups there may be; fewer utterances give a group each.

    Returns:
        Group of every utterance, counted from 0.

    >>> sorted(groups(["a", "b", "c", "d", "e"], count=2).values())
    [0, 0, 0, 1, 1]
    """
    in_order = sorted(set(utterances), key=lambda u: (uniform(seed, u, purpose="groups"), u))
    return {utterance: i % count for i, utterance in enumerate(in_order)}
