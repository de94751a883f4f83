"""Reads a corpus by name or path."""

from pathlib import Path
from typing import Any

from otoscope import speech
from otoscope.embedded import EXAM
from otoscope.errors import CorpusError
from otoscope.speech.corpus import Corpus


def read_corpus(path: str | Path = "embedded", **options: Any) -> Corpus:
    """Reads a corpus: "embedded", or what `otoscope.speech.read_corpus` reads, with its options.

    Args:
        path: "embedded" (the examination speech that comes with otoscope), a folder, a manifest or a recording.
        **options: alignments, skip_bad, phone_set, name.

    Raises:
        SpeechError: see `otoscope.speech.read_corpus`.

    >>> len(read_corpus("embedded").speakers)
    9
    """
    if str(path) == "embedded":
        if not EXAM.exists():
            raise CorpusError("This installation lacks the embedded speech", "Install otoscope again.")
        return speech.read_corpus(EXAM, **{"name": "embedded", **options})
    return speech.read_corpus(path, **options)
