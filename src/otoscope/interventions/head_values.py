"""Values of every head of a model by everything that ranks heads, turned so that the lowest may go first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from otoscope.interventions.engine import Progress
from otoscope.interventions.orders import HIGH_FIRST, Head, Order, order_by
from otoscope.measures.heads.diagonality import Diagonality
from otoscope.measures.heads.globalness import Globalness
from otoscope.measures.heads.head_measure import HeadMeasure
from otoscope.measures.heads.sharpness import Confidence, MaxWeight
from otoscope.measures.heads.verticality import Verticality
from otoscope.measures.measure import Result
from otoscope.models.model import SpeechModel
from otoscope.speech.batching import read_batches
from otoscope.speech.corpus import Corpus


def metrics_of_heads(
    model: SpeechModel, corpus: Corpus, *, seed: int = 0, batch_seconds: float = 30.0, progress: Progress | None = None
) -> Result:
    """Globalness, verticality, diagonality and both forms of weight of every head, in one pass.

    They are the values by which Yang, Liu and Lee (2020) prune; "weight" is not defined there, so that the largest weight
    of an utterance (`max-weight`) and the mean of rows' largest (`confidence`) stand side by side.

    Args:
        model: the model.
        corpus: the speech.
        seed: of the groups for intervals.
        batch_seconds: budget of a batch, in seconds of padded speech.
        progress: called after each batch with the seconds done and in all.

    Raises:
        AudioError: an utterance cannot be read, or is too short or too long.
    """
    measures: list[HeadMeasure] = [Globalness(), Verticality(), Diagonality(), MaxWeight(), Confidence()]
    for measure in measures:
        measure.prepare(model.anatomy, corpus, seed)
    sums = list(dict.fromkeys(maker for measure in measures for maker in measure.reductions))
    reader, done = read_batches(corpus, batch_seconds), 0.0
    for batch in reader:
        capture = model.capture(batch.utterances, batch.samples, (), sums)
        for measure in measures:
            measure.update(capture)
        done += batch.seconds
        if progress is not None:
            progress(done, reader.seconds)
    return Result([row for measure in measures for row in measure.compute().rows])


def kept_longest(values: Mapping[str, Mapping[Head, float]]) -> dict[str, dict[Head, float]]:
    """Values turned so that the head with the lowest is removed first: those of `HIGH_FIRST` change their sign.

    Rank correlations of what is turned say whether two ways agree on which heads may go.

    >>> kept_longest({"globalness": {(1, 0): 2.0}, "importance-l1": {(1, 0): 3.0}})
    {'globalness': {(1, 0): -2.0}, 'importance-l1': {(1, 0): 3.0}}
    """
    signs = {name: -1 if name in HIGH_FIRST else 1 for name in values}
    return {name: {head: signs[name] * value for head, value in found.items()} for name, found in values.items()}


def orders_of(turned: Mapping[str, Mapping[Head, float]], heads: Sequence[Head]) -> list[Order]:
    """Orders by each of several sets of turned values; sets that lack a head give none.

    Args:
        turned: what `kept_longest` gave, or values of which the lowest are removed first.
        heads: all heads of the model.
    """
    return [order_by(name, found, high_first=False) for name, found in turned.items() if set(found) >= set(heads)]
