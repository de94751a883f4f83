"""Vocabularies made from transcripts, and what transformers reads back."""

import json

import numpy as np
import pytest
from transformers import AutoTokenizer

from otoscope.errors import TrainingError
from otoscope.models.vocabulary import Vocabulary, read_vocabulary
from otoscope.speech.corpus import Corpus
from otoscope.training.vocabulary import vocabulary_of, write_vocabulary


def _speech(*transcripts):
    return Corpus.from_arrays([np.zeros(8000)] * len(transcripts), transcripts=transcripts)


def test_the_characters_in_lower_case_after_blank_and_delimiter():
    vocabulary = vocabulary_of(_speech("It's  Ba", None, "", "Straße 5"))
    assert vocabulary.tokens == ("<pad>", "|", "'", "5", "a", "b", "e", "i", "r", "s", "t", "ß")
    assert (vocabulary.blank, vocabulary.delimiter) == (0, "|")


@pytest.mark.parametrize(
    "vocabulary",
    [
        vocabulary_of(_speech("it's <a> Straße, 5!")),
        vocabulary_of(_speech("我们 听")),
        Vocabulary.from_mapping({"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4, "E": 5, "T": 6}, 0),
        Vocabulary.from_mapping({"a": 0, "|": 1, "b": 2, "_": 3}, 3),
    ],
    ids=["lower", "without case", "special tokens", "blank last"],
)
def test_what_was_written_is_read_back(vocabulary, tmp_path):
    write_vocabulary(vocabulary, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "wav2vec2"}))
    found = read_vocabulary(tmp_path, len(vocabulary))
    assert found == vocabulary
    assert found.case == vocabulary.case


def test_transformers_own_tokenizer_agrees(tmp_path):
    vocabulary = vocabulary_of(_speech("abba cab"))
    write_vocabulary(vocabulary, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "wav2vec2"}))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer("abba cab")["input_ids"] == vocabulary.encode("abba cab")
    assert tokenizer.decode([2, 0, 3, 3, 0, 3, 2, 1, 4, 2, 3]) == "abba cab"


@pytest.mark.parametrize("transcripts", [(None, None), ("", "  ")])
def test_no_transcript_is_refused(transcripts):
    with pytest.raises(TrainingError, match="No utterance has a transcript"):
        vocabulary_of(_speech(*transcripts))


def test_the_delimiter_in_a_transcript_is_refused():
    with pytest.raises(TrainingError, match="utterance .* holds .* parts words"):
        vocabulary_of(_speech("a|b"))
