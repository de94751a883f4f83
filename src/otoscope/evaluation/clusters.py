"""Cluster targets of masked prediction: k-means over cepstra, or over a stream of a model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int

from otoscope.errors import CaptureError, MeasureError
from otoscope.models.anatomy import Grid
from otoscope.models.model import SpeechModel
from otoscope.speech.batching import read_batches
from otoscope.speech.cepstra import mel_cepstra
from otoscope.speech.mel import HOP
from otoscope.speech.utterance import Utterance
from otoscope.statistics.hashing import uniform

_FIT_FRAMES = 100_000


def cepstra(samples: np.ndarray, grid: Grid, frames: int) -> Float32[np.ndarray, "frames 39"]:
    """Mel cepstra with first and second differences (`otoscope.speech.cepstra`) at a model's frames.

    Args:
        samples: 16 kHz mono, shape (n,).
        grid: of the model's frames.
        frames: how many the model gives.
    """
    own = mel_cepstra(samples)
    centres = grid.offset + np.arange(frames) * grid.hop + grid.field // 2
    nearest = np.clip((centres + HOP // 2) // HOP, 0, len(own) - 1)
    return own[nearest]


@dataclass(frozen=True)
class Clusters:
    """What frames are sorted into.

    Attributes:
        centres: shape (k, d), of standardised features.
        mean: shape (d,), and
        scale: shape (d,): of the features before they were standardised.
        source: "mfcc", or "MODEL:STREAM" for a stream of a model.
    """

    centres: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    source: str

    def assign(self, features: np.ndarray) -> Int[np.ndarray, " frames"]:
        """The nearest centre of each frame; features of shape (frames, d)."""
        x = (features - self.mean) / self.scale
        return (-2 * x @ self.centres.T + (self.centres**2).sum(1)).argmin(1)


def fit_clusters(features: Iterable[tuple[str, np.ndarray]], count: int, seed: int, source: str) -> Clusters:
    """k-means on every k-th frame of every utterance, about 100,000 in all; the order of the utterances does not count.

    Args:
        features: utterance names with arrays (frames, d).
        count: number of clusters.
        seed: of the start.
        source: see `Clusters`.

    Raises:
        MeasureError: fewer than two clusters, or fewer frames than clusters.
    """
    if count < 2:
        raise MeasureError(f"{count} clusters part nothing", "Ask for two or more.")
    from sklearn.cluster import MiniBatchKMeans

    held = sorted(features, key=lambda pair: uniform(seed, pair[0], purpose="clusters"))
    total = sum(len(x) for _, x in held)
    if total < count:
        raise MeasureError(f"{total} frames for {count} clusters", "Give more speech, or ask for fewer clusters.")
    step = max(1, -(-total // _FIT_FRAMES))
    x = np.concatenate([x[::step] for _, x in held]).astype(np.float64)
    if len(x) < count:
        x = np.concatenate([x for _, x in held]).astype(np.float64)
    mean, scale = x.mean(0), x.std(0) + 1e-8
    fitted = MiniBatchKMeans(count, random_state=seed, batch_size=4096, n_init=3, max_iter=50).fit((x - mean) / scale)
    return Clusters(
        fitted.cluster_centers_.astype(np.float32), mean.astype(np.float32), scale.astype(np.float32), source
    )


def mfcc_features(utterances: Sequence[Utterance], model: SpeechModel) -> dict[str, np.ndarray]:
    """Cepstra of every utterance on the frames of a model, by utterance id."""
    return {u.id: cepstra(u.read(), model.anatomy.grid, model.frontend.frames(u.n_samples)) for u in utterances}


def stream_features(
    utterances: Sequence[Utterance], teacher: SpeechModel, stream: str, grid: Grid
) -> dict[str, np.ndarray]:
    """Frames of one stream of a model for every utterance, by utterance id.

    Args:
        utterances: the speech.
        teacher: the model.
        stream: name of the stream.
        grid: that the stream's frames must lie on.

    Raises:
        CaptureError: the model has no such stream, or its frames lie elsewhere.
    """
    if teacher.anatomy.grids.get(stream, grid) != grid:
        raise CaptureError(
            f"Stream {stream!r} of {teacher.name} has other frames than the model that predicts its clusters",
            "Take a layer of a model with the same hop and receptive field.",
        )
    found: dict[str, np.ndarray] = {}
    for batch in read_batches(utterances):
        capture = teacher.capture(batch.utterances, batch.samples, (stream,))
        for k, utterance in enumerate(batch.utterances):
            found[utterance.id] = capture.frames(stream, k).float().cpu().numpy()
    return found
