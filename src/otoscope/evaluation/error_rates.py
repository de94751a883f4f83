"""Word and character error rate, with the kinds of errors."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from itertools import zip_longest

import jiwer

from otoscope.errors import EvaluationError
from otoscope.evaluation.metric import Counts, Recognised, RecognitionMetric
from otoscope.models.recogniser import Recogniser


def align(reference: Sequence[str], hypothesis: Sequence[str]) -> list[tuple[str | None, str | None]]:
    """A shortest edit from one list of words to another, by jiwer, word by word.

    Args:
        reference: words, or characters, that were said.
        hypothesis: words, or characters, that were recognised.

    Returns:
        Pairs of a word that was said and what was recognised for it: the same where it is right, None for a word that
        was left out, or that nothing was said for. Where several edits are as short, one of them.

    >>> align("the cat sat".split(), "a cat sat down".split())
    [('the', 'a'), ('cat', 'cat'), ('sat', 'sat'), (None, 'down')]
    """
    if not reference or not hypothesis:  # jiwer refuses an empty reference
        return [*((word, None) for word in reference), *((None, word) for word in hypothesis)]
    # jiwer parts words at spaces, which characters may themselves be; numbers stand in for both.
    numbers = {token: str(k) for k, token in enumerate(dict.fromkeys([*reference, *hypothesis]))}
    found = jiwer.process_words(
        " ".join(numbers[token] for token in reference), " ".join(numbers[token] for token in hypothesis)
    )
    return [
        pair
        for part in found.alignments[0]
        for pair in zip_longest(
            reference[part.ref_start_idx : part.ref_end_idx], hypothesis[part.hyp_start_idx : part.hyp_end_idx]
        )
    ]


def error_counts(reference: Sequence[str], hypothesis: Sequence[str]) -> tuple[int, int, int]:
    """Substitutions, insertions and deletions of a shortest edit from one list of words to another, by jiwer.

    Args:
        reference: words, or characters, that were said.
        hypothesis: words, or characters, that were recognised.

    Returns:
        Substitutions, insertions, deletions. Their sum is the edit distance; where several shortest edits differ in
        their kinds, one of them is counted.

    >>> error_counts("the cat sat".split(), "a cat sat down".split())
    (1, 1, 0)
    """
    pairs = [(said, heard) for said, heard in align(reference, hypothesis) if said != heard]
    more, less = sum(said is None for said, _ in pairs), sum(heard is None for _, heard in pairs)
    return len(pairs) - more - less, more, less


class _ErrorRate(RecognitionMetric):
    """Errors for each unit of the reference.

    Reference and hypothesis are compared in the vocabulary's case, words parted by one space; nothing else is changed.
    An utterance with an empty reference counts its insertions and adds nothing to the denominator.
    """

    @abstractmethod
    def _units(self, text: str) -> list[str]:
        """What a text is counted in."""

    def count(self, recogniser: Recogniser, one: Recognised) -> Counts:
        """See `RecognitionMetric`."""
        reference = self._units(one.reference.text)
        wrong, more, less = error_counts(reference, self._units(one.hypothesis))
        return Counts(
            wrong + more + less, len(reference),
            {"substitutions": wrong, "insertions": more, "deletions": less},
            {"reference": one.reference.text, "hypothesis": one.hypothesis},
        )  # fmt: skip


class WordErrorRate(_ErrorRate):
    """Substitutions, insertions and deletions of words, over words of the reference."""

    name = "wer"
    unit = "errors per word"

    def _units(self, text: str) -> list[str]:
        return text.split()


class CharacterErrorRate(_ErrorRate):
    """The same of characters; the space between two words is one."""

    name = "cer"
    unit = "errors per character"

    def _units(self, text: str) -> list[str]:
        return list(text)


def wer(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Word error rate of texts as they stand: errors of all over words of all references.

    Args:
        references: what was said.
        hypotheses: what was recognised, in the same order.

    Raises:
        EvaluationError: the numbers of texts differ, or the references hold no word.

    >>> wer(["the cat sat", "yes"], ["a cat sat", "yes"])
    0.25
    """
    if len(references) != len(hypotheses):
        raise EvaluationError(f"{len(references)} references and {len(hypotheses)} hypotheses", "Give one for each.")
    words = sum(len(text.split()) for text in references)
    if not words:
        raise EvaluationError("The references hold no word, so there is no word error rate", "Give transcripts.")
    pairs = zip(references, hypotheses, strict=True)
    return sum(sum(error_counts(said.split(), heard.split())) for said, heard in pairs) / words
