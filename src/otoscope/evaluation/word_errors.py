"""Which words are taken for which, left out or put in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from otoscope.evaluation.error_rates import align
from otoscope.evaluation.scores import Scores


@dataclass(frozen=True)
class WordErrors:
    """How often each error was made.

    Attributes:
        substitutions: by the word that was said and the word that was recognised for it.
        deletions: by the word that was said.
        insertions: by the word that was recognised.
        said: how often each word was said.
    """

    substitutions: Counter[tuple[str, str]]
    deletions: Counter[str]
    insertions: Counter[str]
    said: Counter[str]

    def to_dict(self, most: int = 20) -> dict[str, Any]:
        """The most frequent of each kind, fit for JSON, with how often the word was said."""
        return {
            "substitutions": [
                {"said": said, "recognised": heard, "count": count, "of": self.said[said]}
                for (said, heard), count in _first(self.substitutions, most)
            ],
            "deletions": [
                {"said": said, "count": count, "of": self.said[said]} for said, count in _first(self.deletions, most)
            ],
            "insertions": [{"recognised": heard, "count": count} for heard, count in _first(self.insertions, most)],
        }

    def lines(self, most: int = 5) -> list[str]:
        """The most frequent of each kind, a line a kind; kinds that did not happen have none."""
        told = {
            "substituted": [
                f"{said} -> {heard} ({count})" for (said, heard), count in _first(self.substitutions, most)
            ],
            "deleted": [f"{said} ({count} of {self.said[said]})" for said, count in _first(self.deletions, most)],
            "inserted": [f"{heard} ({count})" for heard, count in _first(self.insertions, most)],
        }
        return [f"{kind} most: {', '.join(errors)}" for kind, errors in told.items() if errors]


def word_errors(references: Sequence[str], hypotheses: Sequence[str]) -> WordErrors:
    """Counts errors by word over a shortest edit of every utterance; see `align`.

    Args:
        references: what was said, words parted by spaces.
        hypotheses: what was recognised, in the same order.

    >>> word_errors(["the cat sat", "the end"], ["a cat", "a end now"]).lines()
    ['substituted most: the -> a (2)', 'deleted most: sat (1 of 1)', 'inserted most: now (1)']
    """
    swapped: Counter[tuple[str, str]] = Counter()
    less: Counter[str] = Counter()
    more: Counter[str] = Counter()
    spoken: Counter[str] = Counter()
    for reference, hypothesis in zip(references, hypotheses, strict=True):
        for said, heard in align(reference.split(), hypothesis.split()):
            if said is not None:
                spoken[said] += 1
            if said is None and heard is not None:
                more[heard] += 1
            elif heard is None and said is not None:
                less[said] += 1
            elif said is not None and heard is not None and said != heard:
                swapped[said, heard] += 1
    return WordErrors(swapped, less, more, spoken)


def word_errors_of(scores: Scores) -> WordErrors | None:
    """Errors by word of scores that hold references and hypotheses; None where they do not."""
    if not {"reference", "hypothesis"} <= scores.texts.keys():
        return None
    return word_errors(scores.texts["reference"], scores.texts["hypothesis"])


def _first(counts: Counter[Any], most: int) -> list[tuple[Any, int]]:
    """The most frequent; of equals the first by the alphabet."""
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:most]
