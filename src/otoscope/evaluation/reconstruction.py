"""How well a Mockingjay's pre-training head gives back the mel features that the encoder heard."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from otoscope.errors import EvaluationError, HeadError
from otoscope.evaluation.metric import Metric, Progress
from otoscope.evaluation.scores import Scores
from otoscope.models.frontends import Frontend
from otoscope.models.mockingjay.modelling import stack_frames
from otoscope.models.model import SpeechModel
from otoscope.models.recogniser import Recogniser
from otoscope.speech.batching import read_batches
from otoscope.speech.corpus import Corpus


class Reconstruction(Metric):
    """Mean absolute difference between the features that went in, unmasked, and what the pre-training head gives back.

    The mean over all features of an utterance's frames, padding left out; over a corpus, over all frames. Features are
    normalised over the utterance, so that the mean of each, which is zero, would score about 0.8.

    Source: Yang, Liu and Lee 2020 (arXiv 2006.03265), section 7, "spectrogram reconstruction".
    """

    name = "reconstruction"
    unit = "mean absolute difference"

    def values(
        self,
        model: SpeechModel | Recogniser,
        corpus: Corpus,
        *,
        batch_seconds: float = 30.0,
        progress: Progress | None = None,
    ) -> Scores:
        """See `Metric`.

        Raises:
            HeadError: the model has no head that reconstructs its input.
            EvaluationError: the corpus is empty.
        """
        ready = model.model if isinstance(model, Recogniser) else model
        if not len(corpus):
            raise EvaluationError(f"Corpus {corpus.name} holds no utterance", "Choose a corpus with speech.")
        check_reconstruction(ready.source)
        for utterance in corpus:
            ready.frontend.check(utterance.n_samples, f"Utterance {utterance.id!r}")
        reader = read_batches(corpus, batch_seconds)
        found: dict[str, tuple[float, int]] = {}
        done = 0.0
        for batch in reader:
            terms = reconstruction_terms(ready.source, ready.frontend, batch.samples)
            found |= dict(zip((u.id for u in batch.utterances), terms, strict=True))
            done += batch.seconds
            if progress is not None:
                progress(done, reader.seconds)
        rows = [found[utterance.id] for utterance in corpus]
        return Scores(
            self.name, self.unit, self.higher_is_better, tuple(u.id for u in corpus), tuple(u.speaker for u in corpus),
            np.array([total for total, _ in rows], np.float64), np.array([frames for _, frames in rows], np.float64),
        )  # fmt: skip


def check_reconstruction(model: nn.Module) -> None:
    """Makes sure that a model reconstructs the features that it hears.

    Raises:
        HeadError: it has no such head, or one for another kind of spectrum.
    """
    if not hasattr(model, "reconstruction_head"):
        raise HeadError(
            f"{type(model).__name__} has no head that reconstructs its input",
            "Name a Mockingjay as it came out of pre-training.",
        )
    config = model.config
    if config.input_size != config.output_size:  # type: ignore[union-attr]
        raise HeadError(
            f"The head of this {type(model).__name__} gives {config.output_size} numbers a frame, and the encoder hears "  # type: ignore[union-attr]
            f"{config.input_size}: it reconstructs another kind of spectrum",  # type: ignore[union-attr]
            "Use a Mockingjay that was trained to reconstruct its own input.",
        )


@torch.no_grad()
def reconstruction_terms(
    model: nn.Module, frontend: Frontend, samples: Sequence[np.ndarray]
) -> list[tuple[float, int]]:
    """For each utterance of a batch the sum over frames of the mean absolute difference, and the number of frames.

    Args:
        model: a Mockingjay with its head, in eval mode or not; it is run in eval mode, and its mode put back.
        frontend: prepares its input.
        samples: float32 at 16 kHz, one array (n,) an utterance.
    """
    weights = next(model.parameters())
    inputs = {
        name: value.to(weights.device, weights.dtype if value.is_floating_point() else None)
        for name, value in frontend.inputs(samples).items()
    }
    was = model.training
    model.eval()
    try:
        given = model(**inputs).reconstruction.float()
    finally:
        model.train(was)
    heard = stack_frames(inputs["input_features"].float(), model.config.frame_stack)  # type: ignore[union-attr,arg-type]
    distances = (given - heard).abs().mean(-1).double()
    lengths = [frontend.frames(len(one)) for one in samples]
    return [(float(row[:frames].sum()), frames) for row, frames in zip(distances, lengths, strict=True)]
