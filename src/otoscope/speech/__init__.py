"""Utterances and their tiers: corpora, readers, alignments, mel features, batches by length."""

from otoscope.speech.batching import Batch, BatchReader, batches, read_batches
from otoscope.speech.corpus import Corpus, LeftOut
from otoscope.speech.mel import log_mel
from otoscope.speech.reading import read_corpus
from otoscope.speech.utterance import RATE, Interval, Utterance
from otoscope.speech.writing import write_corpus

__all__ = [
    "RATE",
    "Batch",
    "BatchReader",
    "Corpus",
    "Interval",
    "LeftOut",
    "Utterance",
    "batches",
    "log_mel",
    "read_batches",
    "read_corpus",
    "write_corpus",
]
