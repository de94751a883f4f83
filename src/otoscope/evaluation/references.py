"""Transcripts as a recogniser could write them: what is compared with what it writes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from otoscope.errors import EvaluationError, OtoscopeError, TranscriptError
from otoscope.models.recogniser import Recogniser
from otoscope.speech.batching import readable
from otoscope.speech.corpus import Corpus, LeftOut
from otoscope.speech.utterance import Utterance


@dataclass(frozen=True)
class Reference:
    """A transcript in the vocabulary's case, words parted by one space, and its tokens.

    Attributes:
        text: the transcript; may be empty.
        tokens: numbers of its tokens, word delimiters among them.
    """

    text: str
    tokens: tuple[int, ...]

    @property
    def frames_needed(self) -> int:
        """The fewest frames that CTC can spell it in: a token each, and a blank between two of the same.

        >>> Reference("abba", (2, 3, 3, 2)).frames_needed
        5
        """
        return len(self.tokens) + sum(a == b for a, b in pairwise(self.tokens))


def reference_of(recogniser: Recogniser, utterance: Utterance) -> Reference:
    """The reference of an utterance.

    Raises:
        TranscriptError: it has no transcript.
        VocabularyError: a character of its transcript has no token, so the recogniser could never write it.
    """
    if utterance.transcript is None:
        raise TranscriptError(
            f"Utterance {utterance.id!r} has no transcript",
            "Put transcripts beside the recordings, or leave it out (skip_bad=True, --skip-bad).",
        )
    vocabulary = recogniser.vocabulary
    text = vocabulary.fold(utterance.transcript)
    return Reference(text, tuple(vocabulary.encode(text, f"The transcript of utterance {utterance.id!r}")))


def references_of(recogniser: Recogniser, corpus: Corpus) -> dict[str, Reference]:
    """The references of a corpus by utterance.

    Raises:
        EvaluationError: the corpus is empty.
        TranscriptError: an utterance, or all, have no transcript.
        VocabularyError: see `reference_of`.
    """
    if not len(corpus):
        raise EvaluationError(f"Corpus {corpus.name} holds no utterance", "Choose a corpus with speech.")
    if all(utterance.transcript is None for utterance in corpus):
        raise TranscriptError(
            f"Corpus {corpus.name} has no transcripts, so nothing can be compared with what {recogniser.name} writes",
            "Put transcripts beside the recordings: x.txt for x.flac, *.trans.txt as in LibriSpeech, or `text` in a "
            "manifest.",
        )
    return {utterance.id: reference_of(recogniser, utterance) for utterance in corpus}


def check_frames(recogniser: Recogniser, utterance: Utterance, reference: Reference, speed: float = 1.0) -> None:
    """Makes sure that the transcript can be spelt in the frames that the audio gives.

    Args:
        recogniser: gives the frames.
        utterance: the audio.
        reference: its transcript.
        speed: that the audio is heard at; above 1 is faster, with fewer frames.

    Raises:
        EvaluationError: there are fewer frames than tokens and blanks between repeats.
    """
    frames = recogniser.frames(int(utterance.n_samples / speed))
    if frames < reference.frames_needed:
        raise EvaluationError(
            f"Utterance {utterance.id!r} gives {frames} frames and its transcript of {len(reference.tokens)} tokens "
            f"needs {reference.frames_needed}, so no CTC alignment exists",
            "Correct its transcript, or leave it out (skip_bad=True, --skip-bad).",
        )


def split_usable(recogniser: Recogniser, corpus: Corpus) -> tuple[Corpus, tuple[LeftOut, ...]]:
    """The utterances that every metric of recognition can be taken on, and the others with the reason; reads them all.

    Raises:
        EvaluationError: none is left.
    """
    left_out: list[LeftOut] = []
    for utterance in corpus:
        try:
            recogniser.model.frontend.check(utterance.n_samples, f"Utterance {utterance.id!r}")
            check_frames(recogniser, utterance, reference_of(recogniser, utterance))
        except OtoscopeError as error:
            left_out.append(LeftOut(utterance.id, str(error)))
    bad = {one.id for one in left_out}
    left_out += readable([utterance for utterance in corpus if utterance.id not in bad])[1]
    bad = {one.id for one in left_out}
    kept = corpus.subset(lambda utterance: utterance.id not in bad)
    if not len(kept):
        why = f": {left_out[0].reason}" if left_out else ""
        raise EvaluationError(f"No utterance of corpus {corpus.name} can be used{why}", "Choose another corpus.")
    return kept, tuple(left_out)


def check_lengths(recogniser: Recogniser, utterances: Iterable[Utterance]) -> None:
    """Refuses utterances that the model cannot take, before the first is run.

    Raises:
        AudioError: an utterance is too short or too long; named.
    """
    for utterance in utterances:
        recogniser.model.frontend.check(utterance.n_samples, f"Utterance {utterance.id!r}")
