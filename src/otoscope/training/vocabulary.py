"""Character vocabularies made from transcripts, and stored as transformers' tokenizers."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from transformers import Wav2Vec2CTCTokenizer

from otoscope.errors import TrainingError
from otoscope.models.vocabulary import Vocabulary
from otoscope.speech.utterance import Utterance

BLANK, DELIMITER = "<pad>", "|"


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
    """Stores a vocabulary of characters as the tokenizer of a transformers CTC model."""
    place = folder / "vocab.json"
    place.write_text(json.dumps({token: k for k, token in enumerate(vocabulary.tokens)}), encoding="utf-8")
    blank = vocabulary.tokens[vocabulary.blank]
    silent = [vocabulary.tokens[k] for k in sorted(vocabulary.silent)]
    Wav2Vec2CTCTokenizer(
        str(place), unk_token=blank, pad_token=blank, bos_token=None, eos_token=None,
        word_delimiter_token=vocabulary.delimiter, extra_special_tokens=silent,
    ).save_pretrained(folder)  # fmt: skip
