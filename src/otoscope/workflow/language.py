"""Language models from transcripts: estimated, written as ARPA, their perplexity taken."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from otoscope.errors import TranscriptError
from otoscope.evaluation.language.arpa import read_arpa, write_arpa
from otoscope.evaluation.language.kneser_ney import kneser_ney
from otoscope.evaluation.language.perplexity import Perplexity, perplexity_of
from otoscope.evaluation.tuning import check_apart
from otoscope.speech.corpus import Corpus
from otoscope.speech.utterance import Utterance
from otoscope.workflow.corpora import read_corpus


@dataclass(frozen=True)
class LanguageModelOutcome:
    """A language model that was written; prints as a few lines.

    Attributes:
        path: of the ARPA file.
        model: its name, order, number of words and of n-grams, and the file's fingerprint.
        corpus: name of the speech whose transcripts it was estimated from.
        corpus_fingerprint: of it.
        sentences: how many transcripts there were.
        words: how many words they hold.
        dev: name of the speech that the perplexity was taken on, or None.
        perplexity: of its transcripts, or None.
    """

    path: Path
    model: dict[str, Any]
    corpus: str
    corpus_fingerprint: str
    sentences: int
    words: int
    dev: str | None
    perplexity: Perplexity | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return asdict(self) | {"path": str(self.path)}

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {n}-grams" for n, count in enumerate(self.model["ngrams"], 1))
        lines = [
            f"{self.model['order']}-gram of {self.model['words']} words from {self.corpus}: {self.sentences} sentences, "
            f"{self.words} words",
            counts,
        ]
        return "\n".join(lines + ([f"{self.dev}: {self.perplexity}"] if self.perplexity is not None else []))


def estimate_language_model(
    corpus: Corpus | str | Path,
    output: str | Path,
    order: int = 4,
    dev: Corpus | str | Path | None = None,
    *,
    skip_bad: bool = False,
) -> LanguageModelOutcome:
    """Estimates an n-gram model from the transcripts of a corpus, in lower case, and writes it as ARPA.

    Args:
        corpus: speech with transcripts: a corpus, a path, or "embedded:train"; no audio is heard.
        output: the file.
        order: n; see `kneser_ney`.
        dev: other speech, on whose transcripts the perplexity is taken.
        skip_bad: leave out utterances that cannot be read.

    Raises:
        TrainingError: the speech is that of an examination, or holds one.
        SpeechError: a corpus cannot be read, or has no transcripts.
        EvaluationError: the order is out of range, or the corpora share an utterance.
        ResultError: the file cannot be written.
    """
    # Not at the top, since it takes seconds that other commands save.
    from otoscope.workflow.training_speech import read_training_corpus

    speech = read_training_corpus(corpus, skip_bad)
    texts = transcripts_of(speech)
    other = dev if dev is None or isinstance(dev, Corpus) else read_corpus(dev, skip_bad=skip_bad)
    if other is not None:
        check_apart(speech, other, "the language model is estimated from")
    model = kneser_ney((text.split() for text in texts), order, Path(output).name)
    path = write_arpa(model, output)
    written = read_arpa(path)
    return LanguageModelOutcome(
        path, written.describe(), speech.name, speech.fingerprint(), len(texts), sum(len(text.split()) for text in texts),
        other.name if other is not None else None,
        perplexity_of(written, transcripts_of(other)) if other is not None else None,
    )  # fmt: skip


def transcripts_of(corpus: Corpus) -> list[str]:
    """Transcripts in lower case, words parted by one space; utterances without one are left out.

    Raises:
        TranscriptError: no utterance has a word.
    """
    texts = list(_texts(corpus))
    if not texts:
        raise TranscriptError(
            f"Corpus {corpus.name} has no transcripts with a word, so there is no language model of it",
            "Put transcripts beside the recordings: x.txt for x.flac, *.trans.txt as in LibriSpeech, or `text` in a "
            "manifest.",
        )
    return texts


def _texts(utterances: Iterable[Utterance]) -> Iterable[str]:
    for utterance in utterances:
        text = " ".join((utterance.transcript or "").lower().split())
        if text:
            yield text
