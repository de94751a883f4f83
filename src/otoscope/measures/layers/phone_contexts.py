"""The phones of a corpus with the phones before and after them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from otoscope.measures.layers.labels import NO_LABELS
from otoscope.measures.rows import Segment
from otoscope.speech import Corpus

PAUSE = "sil"

Key = tuple[str, int]
"""An utterance and the place of a phone in it."""

Context = tuple[str, str]
"""The phones before and after a phone."""


@dataclass(frozen=True, slots=True)
class Phone:
    """A phone of a known speaker.

    Attributes:
        segment: where it is.
        context: the phones around it; a pause where there is none.
    """

    segment: Segment
    context: Context


def phones_of(corpus: Corpus) -> Iterator[tuple[Key, Phone]]:
    """Every phone of a known speaker, pauses left out."""
    for u in corpus:
        if u.speaker is None:
            continue
        intervals = u.tiers.get("phone", ())
        labels = [PAUSE if x.label in NO_LABELS else x.label for x in intervals]
        for place, x in enumerate(intervals):
            if labels[place] != PAUSE:
                context = ([PAUSE, *labels][place], [*labels, PAUSE][place + 1])
                yield (u.id, place), Phone(Segment(u.id, u.speaker, place, x.start, x.end, x.label), context)
