"""A small CTC model that spells what it is made to hear, and speech for it."""

import numpy as np
import torch

from otoscope.models.recogniser import Recogniser, load_recogniser
from otoscope.models.vocabulary import Vocabulary
from otoscope.speech.corpus import Corpus
from tests.models.small import CASES

VOCABULARY = Vocabulary.from_mapping(
    {"<pad>": 0, "|": 1, "'": 2, **{chr(97 + k): 3 + k for k in range(26)}, "<x>": 29, "<y>": 30, "<z>": 31}, 0
)


def small_recogniser(name="wav2vec2-ctc") -> Recogniser:
    return load_recogniser(next(case for case in CASES if case.name == name).build(), VOCABULARY)


def speech(seconds=(0.7, 1.1, 0.5, 0.9), transcripts=("A cat", "the cats", "", "it's"), **other) -> Corpus:
    draw = np.random.default_rng(0)
    arrays = [(0.1 * draw.standard_normal(int(16000 * s))).astype(np.float32) for s in seconds]
    settings = {"speakers": [f"s{k % 2}" for k in range(len(seconds))], "name": "noise", **other}
    return Corpus.from_arrays(arrays, transcripts=list(transcripts), **settings)


class Scripted:
    """Stands in for a speech model's `encode`: the frames that spell a text, whatever is heard."""

    def __init__(self, recogniser: Recogniser, texts: list[str]) -> None:
        self.recogniser, self.texts = recogniser, texts

    def log_probabilities(self, samples, names=None):
        vocabulary = self.recogniser.vocabulary
        found = []
        for one, name in zip(samples, names, strict=True):
            tokens = vocabulary.encode(self.texts[int(name)])
            frames = torch.full((self.recogniser.frames(len(one)), len(vocabulary)), -20.0)
            frames[:, vocabulary.blank] = 0.0
            for k, token in enumerate(tokens):
                frames[2 * k, token] = 5.0
            found.append(torch.log_softmax(frames, -1))
        return found
