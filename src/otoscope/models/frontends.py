"""From samples to what an encoder takes: normalised samples, or the features of its own extractor."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    ParakeetFeatureExtractor,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
)

from otoscope.errors import AudioError, CheckpointError
from otoscope.models.anatomy import Grid, conv_grids
from otoscope.models.mockingjay.features import DELTA_WIDTH, MockingjayFeatureExtractor

RATE = 16000


class Frontend(ABC):
    """Prepares a batch and knows how many frames each utterance gives.

    Attributes:
        grid: grid of the encoder's frames.
        description: settings that the numbers depend on, for the provenance.
        usual_seconds: length of the utterance that costs are stated for.
    """

    grid: Grid
    description: Mapping[str, Any]
    usual_seconds: float = 10.0

    @property
    def settings(self) -> dict[str, Any]:
        """The description without where its values were read from, which changes no number."""
        return {name: value for name, value in self.description.items() if not name.endswith("_from")}

    @abstractmethod
    def inputs(self, samples: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
        """Keyword arguments of the encoder; `attention_mask` only where lengths differ or the encoder needs it."""

    @abstractmethod
    def frames(self, n_samples: int) -> int:
        """Valid frames of an utterance."""

    def attended(self, n_samples: int) -> int:
        """Frames that the encoder attends to; more than `frames` where it needs inputs of a fixed length."""
        return self.frames(n_samples)

    def check(self, n_samples: int, name: str) -> None:
        """Refuses what the encoder cannot take.

        Raises:
            AudioError: the utterance gives no frame, or is too long.
        """
        if self.frames(n_samples) < 2:
            raise AudioError(
                f"{name} has {n_samples} samples ({n_samples / RATE * 1000:.0f} ms), fewer than two frames of this model",
                "Join it with its neighbour, or leave it out with skip_bad=True (--skip-bad).",
            )


class Wave(Frontend):
    """Samples, brought to zero mean and unit variance where the model's preprocessor says so."""

    def __init__(self, config: Any, do_normalize: bool, source: str) -> None:
        self.grids = conv_grids(tuple(config.conv_kernel), tuple(config.conv_stride))
        self.grid = self.grids[-1]
        self._stack = list(zip(config.conv_kernel, config.conv_stride, strict=True))
        self._normalise = do_normalize
        self.description = {"input": "samples", "do_normalize": do_normalize, "do_normalize_from": source}

    def frames(self, n_samples: int) -> int:
        """See `Frontend`."""
        for kernel, stride in self._stack:
            n_samples = max(0, (n_samples - kernel) // stride + 1)
        return n_samples

    def inputs(self, samples: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
        """See `Frontend`; the normalisation is that of transformers' Wav2Vec2FeatureExtractor."""
        waves = [np.asarray(x, np.float32) for x in samples]
        if self._normalise:
            waves = [(x - x.mean()) / np.sqrt(x.var() + 1e-7) for x in waves]
        longest = max(map(len, waves))
        batch = torch.zeros(len(waves), longest)
        for row, wave in zip(batch, waves, strict=True):
            row[: len(wave)] = torch.from_numpy(wave)
        if all(len(wave) == longest for wave in waves):
            return {"input_values": batch}
        lengths = torch.tensor([len(wave) for wave in waves])
        return {"input_values": batch, "attention_mask": (torch.arange(longest) < lengths[:, None]).long()}


class _Features(Frontend):
    """Shared by encoders on features: each utterance is extracted by itself, then padded with zeros."""

    extractor: Any

    def _one(self, wave: np.ndarray) -> torch.Tensor:
        """Features (T, d) of one utterance, valid frames only."""
        out = self.extractor(wave, sampling_rate=RATE, return_tensors="pt", return_attention_mask=True)
        return out["input_features"][0][out["attention_mask"][0].bool()]

    def inputs(self, samples: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
        """See `Frontend`."""
        parts = [self._one(np.asarray(x, np.float32)) for x in samples]
        features = torch.nn.utils.rnn.pad_sequence(parts, batch_first=True)
        lengths = torch.tensor([len(part) for part in parts])
        mask = torch.arange(features.shape[1]) < lengths[:, None]
        return {"input_features": features, "attention_mask": mask}


class Bert(_Features):
    """Kaldi filter banks, two 10 ms frames stacked: SeamlessM4TFeatureExtractor."""

    grid = Grid(320, 560)

    def __init__(self, config: Any, extractor: SeamlessM4TFeatureExtractor | None) -> None:
        stride = 2
        bands = config.feature_projection_input_dim // stride
        self.extractor = extractor or SeamlessM4TFeatureExtractor(
            feature_size=bands, num_mel_bins=bands, stride=stride, padding_value=0.0
        )
        self.description = {"input": "SeamlessM4TFeatureExtractor", "bands": bands, "stride": stride}

    def frames(self, n_samples: int) -> int:
        """Two whole filter-bank frames make one."""
        return (1 + (n_samples - 400) // 160) // 2 if n_samples >= 400 else 0


class Parakeet(_Features):
    """80 log-mel bands, normalised per utterance, subsampled by the encoder: ParakeetFeatureExtractor."""

    def __init__(self, config: Any, extractor: ParakeetFeatureExtractor | None) -> None:
        self.extractor = extractor or ParakeetFeatureExtractor(feature_size=config.num_mel_bins)
        self._kernel, self._stride = config.subsampling_conv_kernel_size, config.subsampling_conv_stride
        self._steps = config.subsampling_factor.bit_length() - 1
        mel = conv_grids((self._kernel,) * self._steps, (self._stride,) * self._steps)[-1]
        field = 400 + (mel.field - 1) * 160
        self.grid = Grid(mel.hop * 160, field, -(field // 2))
        self.description = {"input": "ParakeetFeatureExtractor", "bands": config.num_mel_bins}

    def frames(self, n_samples: int) -> int:
        """Mel frames after each strided convolution with half a kernel of padding on both sides."""
        frames = n_samples // 160
        for _ in range(self._steps):
            frames = (frames + (self._kernel - 1) // 2 * 2 - self._kernel) // self._stride + 1
        return frames


class Mockingjay(_Features):
    """Log-mel with deltas, normalised per utterance; the encoder stacks them: MockingjayFeatureExtractor."""

    def __init__(self, config: Any, extractor: MockingjayFeatureExtractor | None) -> None:
        self.extractor = extractor or MockingjayFeatureExtractor(feature_size=config.input_size)
        if self.extractor.feature_size != config.input_size:
            raise CheckpointError(
                f"The encoder takes {config.input_size} features a mel frame, and its preprocessor gives "
                f"{self.extractor.feature_size}",
                f"Pass or store a MockingjayFeatureExtractor with feature_size={config.input_size}.",
            )
        self._stack = config.frame_stack
        order = config.input_size // 80 - 1
        # Mel frame m is centred: 160 m - 200 to 160 m + 200; deltas see four more on either side, for each order.
        beyond = 160 * (DELTA_WIDTH // 2) * order + 200
        self.grid = Grid(160 * self._stack, 160 * (self._stack - 1) + 2 * beyond, -beyond)
        self._fewest = DELTA_WIDTH if order else 1
        self.description = {
            "input": "MockingjayFeatureExtractor",
            "features": config.input_size,
            "stack": self._stack,
            "normalised": self.extractor.normalise,
        }

    def frames(self, n_samples: int) -> int:
        """Whole stacks of mel frames, of which one is centred on every 160th sample."""
        return (1 + n_samples // 160) // self._stack if n_samples > 1 else 0

    def check(self, n_samples: int, name: str) -> None:
        """See `Frontend`."""
        super().check(n_samples, name)
        if 1 + n_samples // 160 < self._fewest:
            raise AudioError(
                f"{name} lasts {n_samples / RATE * 1000:.0f} ms, less than the {self._fewest} mel frames that deltas "
                "are fitted to",
                "Join it with its neighbour, or leave it out with skip_bad=True (--skip-bad).",
            )


class Whisper(Frontend):
    """Log-mel padded to the encoder's fixed length; frames of that silence are cut off what is examined."""

    def __init__(self, config: Any, extractor: WhisperFeatureExtractor | None) -> None:
        self._positions = config.max_source_positions
        seconds = self._positions * 320 / RATE
        self.extractor = extractor or WhisperFeatureExtractor(feature_size=config.num_mel_bins)
        self._samples = self._positions * 320
        self.usual_seconds = seconds
        field = 400 + 4 * 160
        self.grid = Grid(320, field, -(field // 2))
        self.description = {
            "input": "WhisperFeatureExtractor",
            "bands": config.num_mel_bins,
            "padded_to_seconds": seconds,
        }

    def frames(self, n_samples: int) -> int:
        """Frames whose centre lies in the utterance."""
        return -(-n_samples // 320)

    def attended(self, n_samples: int) -> int:
        """The whole fixed length: the encoder has no mask."""
        return self._positions

    def check(self, n_samples: int, name: str) -> None:
        """See `Frontend`."""
        super().check(n_samples, name)
        if n_samples > self._samples:
            raise AudioError(
                f"{name} lasts {n_samples / RATE:.1f} s, more than the {self._samples / RATE:.0f} s that this encoder takes",
                "Split it, or leave it out with skip_bad=True (--skip-bad).",
            )

    def inputs(self, samples: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
        """See `Frontend`."""
        features = self.extractor(
            [np.asarray(x, np.float32) for x in samples], sampling_rate=RATE, return_tensors="pt",
            padding="max_length", max_length=self._samples, truncation=True,
        )["input_features"]  # fmt: skip
        return {"input_features": features}


def write_frontend(frontend: Frontend, folder: Path) -> None:
    """Stores how the input is prepared, as transformers does."""
    extractor = getattr(frontend, "extractor", None)
    if extractor is None:
        normalise = bool(frontend.description["do_normalize"])
        extractor = Wav2Vec2FeatureExtractor(sampling_rate=RATE, do_normalize=normalise, return_attention_mask=True)
    extractor.save_pretrained(folder)
