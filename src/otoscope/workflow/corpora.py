"""Reads a corpus by name or path."""

from pathlib import Path
from typing import Any

from otoscope import speech
from otoscope.embedded import SPEECH
from otoscope.errors import CorpusError
from otoscope.speech.corpus import Corpus


def read_corpus(path: str | Path = "embedded", **options: Any) -> Corpus:
    """Reads a corpus: embedded speech by name, or what `otoscope.speech.read_corpus` reads, with its options.

    Args:
        path: "embedded" (examination speech, which nothing is trained on), "embedded:train" (other voices, for
            training), a folder, a manifest or a recording.
        **options: alignments, skip_bad, phone_set, name.

    Raises:
        SpeechError: see `otoscope.speech.read_corpus`.

    >>> len(read_corpus("embedded").speakers)
    9
    """
    name = str(path)
    if name not in SPEECH:
        if name.startswith("embedded:"):
            raise CorpusError(f"There is no embedded speech {name!r}", f"Choose one of {', '.join(SPEECH)}.")
        return speech.read_corpus(path, **options)
    if not SPEECH[name].exists():
        raise CorpusError("This installation lacks the embedded speech", "Install otoscope again.")
    return speech.read_corpus(SPEECH[name], **{"name": name, **options})
