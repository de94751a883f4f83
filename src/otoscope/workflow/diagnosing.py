"""Diagnose: a model and speech in, a diagnosis out."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from otoscope.diagnosis.observation import Observation, Progress
from otoscope.diagnosis.result import Diagnosis
from otoscope.models.loading import load
from otoscope.models.model import SpeechModel
from otoscope.speech.corpus import Corpus
from otoscope.workflow.corpora import read_corpus


def diagnose(
    model: SpeechModel | nn.Module | str | Path = "embedded",
    corpus: Corpus | str | Path = "embedded",
    measures: str | Sequence[str] | None = None,
    seed: int = 0,
    *,
    skip_bad: bool = False,
    batch_seconds: float = 30.0,
    progress: Progress | None = None,
) -> Diagnosis:
    """Examines a model on speech, in one pass over the audio.

    Args:
        model: a `SpeechModel`, a transformers model, a folder, a Hub name, or "embedded".
        corpus: a `Corpus`, a path, or "embedded".
        measures: names and groups ("layers", "heads", "blocks"); None for all that one pass gives.
        seed: of every random choice: folds, groups, floors.
        skip_bad: leave out utterances that cannot be used, and list them in the result.
        batch_seconds: frame budget of a batch, in seconds of padded speech.
        progress: called after each batch with the seconds done and in all.

    Returns:
        The diagnosis. Measures that the corpus gives no ground for are named in `provenance["skipped"]`.

    Raises:
        ModelError: the model cannot be loaded or examined.
        SpeechError: the corpus cannot be read, or holds a bad utterance (without `skip_bad`).
        MeasureError: a measure that is asked for by name cannot be taken on this corpus.
    """
    ready = model if isinstance(model, SpeechModel) else load(model)
    speech = corpus if isinstance(corpus, Corpus) else read_corpus(corpus, skip_bad=skip_bad)
    observation = Observation.prepare(ready, speech, measures, seed, skip_bad)
    observation.update(batch_seconds=batch_seconds, skip_bad=skip_bad, progress=progress)
    return observation.compute(command=shlex.join(sys.argv))
