"""Parts of a corpus to train on: small ones, as low-resource training has them, and the short or long utterances."""

from __future__ import annotations

import heapq
import math
import re
from collections.abc import Sequence

from otoscope.errors import TrainingError
from otoscope.speech.corpus import Corpus
from otoscope.speech.utterance import RATE, Utterance
from otoscope.statistics.hashing import uniform

_UNITS = {"": 1, "s": 1, "min": 60, "h": 3600}


def seconds_of(amount: str | float) -> float:
    """An amount of speech in seconds.

    Args:
        amount: seconds, or text such as "10min", "1h", "90s" or "600".

    Raises:
        TrainingError: it is none, or nothing.

    >>> seconds_of("10min"), seconds_of("1h"), seconds_of(90)
    (600.0, 3600.0, 90.0)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?(s|min|h)?", amount.strip()) if isinstance(amount, str) else None
    if isinstance(amount, bool) or (isinstance(amount, str) and found is None):
        raise TrainingError(f"{amount!r} is no amount of speech", "Write seconds, or 10min, 1h, 10h and the like.")
    seconds = float(found[1]) * _UNITS[found[2] or ""] if found else float(amount)
    if not 0 < seconds < math.inf:
        raise TrainingError(f"A subset of {seconds:g} s holds nothing to train on", "Give an amount above zero.")
    return seconds


def subset(utterances: Sequence[Utterance], amount: str | float, seed: int) -> list[Utterance]:
    """The fewest utterances of one fixed order that last at least so long.

    The order follows from the seed and the names of utterances and speakers alone: whoever has been heard for the
    shortest time is heard next, so that speakers have about equal shares as long as they have speech left. A subset
    thus lies within every longer one of the same speech and seed. Utterances without a speaker count as one speaker's.

    Args:
        utterances: to choose from.
        amount: see `seconds_of`.
        seed: of the order.

    Returns:
        The chosen ones, as they stand in `utterances`.

    Raises:
        TrainingError: there is less speech than that, or the amount is none.
    """
    wanted = seconds_of(amount) * RATE
    there = sum(utterance.n_samples for utterance in utterances)
    if there < wanted:
        raise TrainingError(
            f"A subset of {_length(wanted / RATE)} cannot be taken of {_length(there / RATE)} of speech",
            "Choose a shorter subset, or a larger corpus.",
        )
    left: dict[str, list[Utterance]] = {}
    for utterance in sorted(
        utterances, key=lambda one: (uniform(seed, one.id, purpose="subset"), one.id), reverse=True
    ):
        left.setdefault(utterance.speaker or "", []).append(utterance)
    # Samples heard of a speaker, its place among those heard as long, and its name.
    turns = [(0, uniform(seed, speaker, purpose="subset of speakers"), speaker) for speaker in left]
    heapq.heapify(turns)
    chosen: set[str] = set()
    total = 0
    while total < wanted:
        heard, place, speaker = heapq.heappop(turns)
        utterance = left[speaker].pop()
        chosen.add(utterance.id)
        total += utterance.n_samples
        if left[speaker]:
            heapq.heappush(turns, (heard + utterance.n_samples, place, speaker))
    return [utterance for utterance in utterances if utterance.id in chosen]


def split_by_length(corpus: Corpus, seconds: float) -> tuple[Corpus, Corpus]:
    """The short utterances of a corpus, which a server model can be trained without, and the others.

    So Zhou et al. set up their domain adaptation (US patent 12,367,865, claim 1): utterances whose duration is below a
    threshold are withheld from the server's training, and clients hold them.

    Args:
        corpus: the speech.
        seconds: utterances shorter than this are short.

    Returns:
        The short ones and the long ones.

    Raises:
        TrainingError: one of the two would be empty.

    >>> import numpy as np
    >>> corpus = Corpus.from_arrays([np.zeros(16000), np.zeros(8000)])
    >>> [one.seconds for one in split_by_length(corpus, 1.0)]
    [0.5, 1.0]
    """
    short = corpus.subset(lambda one: one.n_samples < seconds * RATE, f"{corpus.name}, short")
    long = corpus.subset(lambda one: not one.n_samples < seconds * RATE, f"{corpus.name}, long")
    for part, what in ((short, "shorter than"), (long, "as long as")):
        if not len(part):
            lengths = [one.seconds for one in corpus]
            there = f" (they last {min(lengths):.2f} to {max(lengths):.2f} s)" if lengths else ""
            raise TrainingError(
                f"No utterance of corpus {corpus.name} is {what} {seconds:g} s{there}", "Choose another length."
            )
    return short, long


def _length(seconds: float) -> str:
    if seconds >= 3600:
        return f"{seconds / 3600:.2f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.1f} s"
