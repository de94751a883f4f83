"""Vocabularies made from transcripts, and stored as transformers' tokenizers."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from transformers import Wav2Vec2CTCTokenizer

from otoscope.errors import TrainingError, VocabularyError
from otoscope.models.vocabulary import Pieces, Vocabulary
from otoscope.speech.utterance import Utterance
from otoscope.training.pieces import pieces_of

BLANK, DELIMITER = "<pad>", "|"


CHARACTERS, BPE = "characters", "bpe:"


def check_kind(kind: str) -> None:
    """Makes sure that there is such a kind of vocabulary.

    Args:
        kind: "characters", or "bpe:SIZE" for so many pieces of words.

    Raises:
        TrainingError: there is none.
    """
    size = kind.removeprefix(BPE)
    if kind != CHARACTERS and not (kind.startswith(BPE) and size.isdecimal() and int(size) > 0):
        raise TrainingError(
            f"There is no vocabulary of the kind {kind!r}", "Write characters, or bpe:SIZE such as bpe:500."
        )


def make_vocabulary(utterances: Iterable[Utterance], kind: str) -> Vocabulary:
    """The vocabulary of a kind that all transcripts can be spelt with; see `vocabulary_of` and `pieces_of`.

    Args:
        utterances: with transcripts.
        kind: see `check_kind`.

    Raises:
        TrainingError: there is no such kind, no transcript, or none that such a vocabulary can be made of.
    """
    check_kind(kind)
    if kind == CHARACTERS:
        return vocabulary_of(utterances)
    return pieces_of(utterances, int(kind.removeprefix(BPE)))


def vocabulary_of(utterances: Iterable[Utterance]) -> Vocabulary:
    """The characters of all transcripts in lower case, with the blank first and the word delimiter second.

    Raises:
        TrainingError: there is no transcript, or one holds the delimiter.
    """
    characters: set[str] = set()
    for utterance in utterances:
        own = set("".join((utterance.transcript or "").lower().split()))
        if DELIMITER in own:
            raise TrainingError(
                f"The transcript of utterance {utterance.id!r} holds {DELIMITER!r}, which parts words in the vocabulary",
                "Write the transcript without it.",
            )
        characters |= own
    if not characters:
        raise TrainingError("No utterance has a transcript", "CTC needs transcripts: add them, or pre-train instead.")
    return Vocabulary((BLANK, DELIMITER, *sorted(characters)), 0, DELIMITER)


def write_vocabulary(vocabulary: Vocabulary, folder: Path) -> None:
    """Stores a vocabulary as the tokenizer of a transformers CTC model.

    Raises:
        VocabularyError: what its pieces were cut with is no tokenizer of transformers.
    """
    if vocabulary.pieces is not None:
        if not isinstance(vocabulary.pieces, Pieces):
            raise VocabularyError(
                "The vocabulary's pieces come from a function that cannot be stored", "Make it by `from_tokenizer`."
            )
        vocabulary.pieces.tokenizer.save_pretrained(folder)
        return
    place = folder / "vocab.json"
    place.write_text(json.dumps({token: k for k, token in enumerate(vocabulary.tokens)}), encoding="utf-8")
    blank = vocabulary.tokens[vocabulary.blank]
    silent = [vocabulary.tokens[k] for k in sorted(vocabulary.silent)]
    Wav2Vec2CTCTokenizer(
        str(place), unk_token=blank, pad_token=blank, bos_token=None, eos_token=None,
        word_delimiter_token=vocabulary.delimiter, extra_special_tokens=silent,
    ).save_pretrained(folder)  # fmt: skip
