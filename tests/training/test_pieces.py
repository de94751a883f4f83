"""Vocabularies of pieces: what they spell, what is refused, and what transformers reads back."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from otoscope.errors import TrainingError, VocabularyError
from otoscope.models.vocabulary import PIECE, Vocabulary, read_vocabulary
from otoscope.speech.corpus import Corpus
from otoscope.training.pieces import pieces_of
from otoscope.training.vocabulary import check_kind, make_vocabulary, vocabulary_of, write_vocabulary

TEXTS = ("The cat sat on the mat", "a cat at the  hat", "It's the rat", "that rat ate the cat's hat")


def _speech(*transcripts):
    return Corpus.from_arrays([np.zeros(8000)] * len(transcripts), transcripts=transcripts)


VOCABULARY = pieces_of(_speech(*TEXTS), 24)


def _joined(texts, size):
    """Byte-pair encoding from the definition: the commonest pair is joined, the first in the order of tokens of several."""
    words = [list(word) for text in texts for word in "".join(PIECE + w for w in text.lower().split()).split(PIECE)[1:]]
    words = [[PIECE, *word] for word in words]
    tokens = sorted({c for word in words for c in word})
    while len(tokens) + 2 < size:
        counts = {}
        for word in words:
            for pair in pairwise(word):
                counts[pair] = counts.get(pair, 0) + 1
        pair = min(counts, key=lambda pair: (-counts[pair], tokens.index(pair[0]), tokens.index(pair[1])))
        tokens.append("".join(pair))
        for word in words:
            k = 0
            while k < len(word) - 1:
                if (word[k], word[k + 1]) == pair:
                    word[k : k + 2] = ["".join(pair)]
                k += 1
    return tokens


def test_pieces_are_those_of_the_definition():
    assert VOCABULARY.tokens == ("<pad>", "<unk>", *_joined(TEXTS, 24))
    assert (VOCABULARY.blank, VOCABULARY.silent, VOCABULARY.delimiter) == (0, {1}, PIECE)
    assert pieces_of(_speech(*TEXTS), 24) == VOCABULARY


@given(st.lists(st.text("acehimnorst'", min_size=1), min_size=1).map(" ".join))
def test_every_text_over_the_characters_is_spelt_and_read_back(text):
    numbers = VOCABULARY.encode(text)
    assert VOCABULARY.decode(numbers) == text
    assert all(k > 1 for k in numbers)


def test_characters_that_no_transcript_has_are_named():
    with pytest.raises(VocabularyError, match="'z'"):
        VOCABULARY.encode("the zoo")
    with pytest.raises(VocabularyError, match="no token"):
        VOCABULARY.encode("the <unk>")


@pytest.mark.parametrize(
    ("transcripts", "size", "told"),
    [
        (TEXTS, 14, r"14 pieces cannot hold the 15 characters"),
        (TEXTS, 500, r"The transcripts give \d+ pieces, not 500"),
        ((None, "  "), 20, "No utterance has a transcript"),
        ((f"a{PIECE}b",), 20, "marks the start of a word"),
    ],
)
def test_what_gives_no_such_vocabulary_is_refused(transcripts, size, told):
    with pytest.raises(TrainingError, match=told) as error:
        pieces_of(_speech(*transcripts), size)
    assert error.value.cure


def test_the_sizes_that_errors_name_are_possible():
    assert len(pieces_of(_speech(*TEXTS), 15)) == 15
    with pytest.raises(TrainingError) as error:
        pieces_of(_speech(*TEXTS), 500)
    most = int(error.value.cure.split()[2])
    assert len(pieces_of(_speech(*TEXTS), most)) == most


@pytest.mark.parametrize(
    "family", ["wav2vec2", "hubert", "wavlm", "wav2vec2-conformer", "wav2vec2-bert", "parakeet_ctc"]
)
def test_what_was_written_is_read_back_by_otoscope_and_by_transformers(family, tmp_path):
    write_vocabulary(VOCABULARY, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family}))
    assert not list(tmp_path.glob("*.bin")) + list(tmp_path.glob("*.pkl"))
    found = read_vocabulary(tmp_path, len(VOCABULARY))
    assert found == VOCABULARY
    assert found.encode("The cat's hat") == VOCABULARY.encode("the cat's hat")
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    numbers = VOCABULARY.encode("that cat")
    assert theirs.encode("that cat") == numbers
    frames = [k for number in numbers for k in (0, number, number)]
    assert theirs.decode(frames) == "that cat"  # repeats merged and blanks dropped, as CTC wants
    write_vocabulary(found, tmp_path / "again")
    assert read_vocabulary(tmp_path / "again", len(VOCABULARY)) == VOCABULARY


def test_pieces_of_a_function_cannot_be_stored(tmp_path):
    made = Vocabulary(VOCABULARY.tokens, 0, PIECE, frozenset({1}), lambda text: [2])
    with pytest.raises(VocabularyError, match="cannot be stored"):
        write_vocabulary(made, tmp_path)


def test_kinds_of_vocabularies():
    speech = _speech(*TEXTS)
    assert make_vocabulary(speech, "characters") == vocabulary_of(speech)
    assert make_vocabulary(speech, "bpe:24") == VOCABULARY
    for kind in ("", "bpe", "bpe:", "bpe:0", "bpe:-3", "bpe:many", "words", "Characters"):
        with pytest.raises(TrainingError, match="no vocabulary of the kind"):
            check_kind(kind)
