"""The batch-invariance check: whether what is recognised depends on what else is in a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoFeatureExtractor, Wav2Vec2FeatureExtractor

from otoscope.errors import EvaluationError
from otoscope.evaluation.decoding import greedy_text
from otoscope.evaluation.references import check_lengths
from otoscope.models.model import SpeechModel
from otoscope.models.recogniser import Recogniser, recogniser_of
from otoscope.models.view import view_of
from otoscope.models.vocabulary import Vocabulary
from otoscope.speech.batching import read_batches
from otoscope.speech.corpus import Corpus
from otoscope.speech.utterance import RATE, Utterance

TOLERANCE = 1e-3  # in log probability; float32 rounding of a large model stays below it
_FLOOR = np.log(1e-4)  # tokens below this probability are not compared: there rounding alone moves a logarithm far


@dataclass(frozen=True)
class Invariance:
    """What a padded batch changed.

    Attributes:
        holds: whether no log probability moved by more than `tolerance`, and no hypothesis changed.
        largest: largest change of a log probability, over tokens with a probability of 1e-4 or more in one of the two.
        changed: utterances whose hypothesis changed, with the text alone and the text in a batch.
        utterances: how many were looked at.
        tolerance: see `holds`.
        path: "otoscope", or "transformers" where the model was run plainly with its own feature extractor's padding.
    """

    holds: bool
    largest: float
    changed: Mapping[str, tuple[str, str]]
    utterances: int
    tolerance: float
    path: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        verdict = "does not depend" if self.holds else "depends"
        return (
            f"What is recognised by way of {self.path} {verdict} on the batch: log probabilities move by up to "
            f"{self.largest:.2g}, {len(self.changed)} of {self.utterances} hypotheses change"
        )


def check_batch_invariance(
    model: SpeechModel | Recogniser,
    corpus: Corpus,
    vocabulary: Vocabulary | Mapping[str, int] | str | Path | None = None,
    *,
    plain: bool = False,
    batch_seconds: float = 60.0,
    tolerance: float = TOLERANCE,
) -> Invariance:
    """Runs utterances alone and in padded batches, and compares what comes out.

    The batches are made to be padded as much as may be: the longest utterances with the shortest.

    Args:
        model: a recogniser, or a model with a CTC head.
        corpus: two utterances or more; transcripts are not needed.
        vocabulary: see `recogniser_of`.
        plain: runs the source as transformers does, padded and masked as its feature extractor says, rather than by
            otoscope's own way.
        batch_seconds: budget of a batch, in seconds of padded speech; a batch holds at least two utterances.
        tolerance: by how much a log probability may move.

    Raises:
        ModelError: the model has no CTC head or no vocabulary.
        SpeechError: an utterance cannot be read, or is too short or too long.
        EvaluationError: there are fewer than two utterances.
    """
    recogniser = recogniser_of(model, vocabulary)
    if len(corpus) < 2:
        held = "One utterance makes" if len(corpus) else "No utterance makes"
        raise EvaluationError(f"{held} no batch", "Give two utterances or more.")
    check_lengths(recogniser, corpus)
    run = plain_run(recogniser) if plain else recogniser.log_probabilities
    spelt = recogniser.vocabulary
    largest, changed = 0.0, {}
    for group in uneven_batches(corpus, batch_seconds):
        read = next(iter(read_batches(group, seconds=float(np.inf))))
        together = run(read.samples)
        for utterance, samples, batched in zip(read.utterances, read.samples, together, strict=True):
            alone = run([samples])[0]
            largest = max(largest, _distance(alone, batched))
            texts = greedy_text(alone, spelt), greedy_text(batched, spelt)
            if texts[0] != texts[1]:
                changed[utterance.id] = texts
    holds = largest <= tolerance and not changed
    return Invariance(holds, largest, changed, len(corpus), tolerance, "transformers" if plain else "otoscope")


def uneven_batches(corpus: Corpus, seconds: float) -> Iterator[tuple[Utterance, ...]]:
    """Batches of two utterances or more, the longest with the shortest."""
    ordered = sorted(corpus, key=lambda u: (-u.n_samples, u.id))
    while ordered:
        batch = [ordered.pop(0)]
        while ordered and (len(batch) < 2 or (len(batch) + 1) * batch[0].n_samples <= seconds * RATE):
            batch.append(ordered.pop())
        if len(ordered) == 1:  # which would be alone otherwise
            batch.append(ordered.pop())
        yield tuple(batch)


def plain_run(recogniser: Recogniser) -> Callable[[Sequence[np.ndarray]], list[torch.Tensor]]:
    """Runs a model's source as transformers does, with the padding and the mask of its own feature extractor."""
    model = recogniser.model
    source: Any = view_of(model.source).eval()
    weights = next(source.parameters()).dtype
    extractor = _extractor(model)

    def run(samples: Sequence[np.ndarray]) -> list[torch.Tensor]:
        inputs = extractor(list(samples), sampling_rate=RATE, padding=True, return_tensors="pt")
        with torch.inference_mode():
            logits = source(
                **{
                    name: value.to(model.device, weights if value.is_floating_point() else None)
                    for name, value in inputs.items()
                }
            ).logits
            scores = torch.log_softmax(logits, -1, dtype=torch.float32)
        return [row[: recogniser.frames(len(one))] for row, one in zip(scores, samples, strict=True)]

    return run


def _extractor(model: SpeechModel) -> Any:
    """The feature extractor beside the weights, or the family's usual one as transformers would be used with it."""
    own = getattr(model.frontend, "extractor", None)
    if own is not None:
        return own
    place = Path(getattr(model.source, "name_or_path", "") or "no folder")
    if any((place / name).exists() for name in ("preprocessor_config.json", "processor_config.json")):
        return AutoFeatureExtractor.from_pretrained(str(place), trust_remote_code=False)
    return Wav2Vec2FeatureExtractor(
        do_normalize=bool(model.frontend.description["do_normalize"]),
        return_attention_mask=model.config.feat_extract_norm == "layer",
    )


def _distance(one: torch.Tensor, other: torch.Tensor) -> float:
    """Largest difference of two (T, V) tables of log probabilities, where one of the two is not negligible.

    Tables of other shapes, and values that are no numbers, differ by infinity.
    """
    if one.shape != other.shape or bool((one.isnan() | other.isnan()).any()):
        return float("inf")
    counts = torch.maximum(one, other) >= _FLOOR
    return float((one - other).abs().masked_fill(~counts, 0).max())
