"""What a viewer shows: one utterance, and one model or two that listen to it; as a description and named blocks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from otoscope.errors import AudioError
from otoscope.reporting.viewer.relations import TIER
from otoscope.reporting.viewer.side import REACH, Side, metric_facts
from otoscope.speech.audio import RATE
from otoscope.speech.mel import HOP, log_mel
from otoscope.speech.utterance import Utterance

LONGEST = 60.0
"""Seconds of the longest utterance that is shown: 3000 frames of 20 ms, 36 MB a map."""

TILE = 256
"""Rows and columns of a tile of an exact map."""


@dataclass
class Scene:
    """One utterance in one model or two.

    Attributes:
        utterance: what is heard.
        samples: float32 at 16 kHz.
        sides: what each model makes of it.
    """

    utterance: Utterance
    samples: np.ndarray
    sides: list[Side]

    def describe(self) -> dict[str, Any]:
        """All but the arrays, as values that JSON can hold."""
        frames, bands = self._spectrogram.shape
        return {
            "utterance": {
                "id": self.utterance.id,
                "speaker": self.utterance.speaker,
                "transcript": self.utterance.transcript,
                "samples": len(self.samples),
                "rate": RATE,
                "tiers": {
                    name: [[one.start, one.end, one.label] for one in self.utterance.tiers[name]]
                    for name in sorted(self.utterance.tiers, key=lambda name: (name != TIER, name))
                },
            },
            "spectrogram": {"frames": frames, "bands": bands, "hop": HOP},
            "tile": TILE,
            "models": [_described(side) for side in self.sides],
        }

    def blocks(self) -> dict[str, Callable[[], bytes]]:
        """Everything that is drawn or heard, by name; numbers are little-endian.

        audio: int16 samples; spectrogram: a byte a cell, (frames, bands); m0/thumbnails, m0/overview/LAYER: a byte a
        cell, (heads, n, n); m0/profiles, m0/relations: float32; m1/... of the second model.
        """
        found: dict[str, Callable[[], bytes]] = {
            "audio": lambda: sound_bytes(self.samples),
            "spectrogram": lambda: self._spectrogram.tobytes(),
        }
        for k, side in enumerate(self.sides):
            found[f"m{k}/thumbnails"] = side.thumbnails[0].tobytes
            found[f"m{k}/profiles"] = side.profiles.astype("<f4").tobytes
            found[f"m{k}/relations"] = side.relations.astype("<f4").tobytes
            for layer, cells in enumerate(side.layers, start=1):
                found[f"m{k}/overview/{layer}"] = cells.tobytes
        return found

    @cached_property
    def _spectrogram(self) -> np.ndarray:
        """Log-mel features in bytes: 0 is 80 dB below the utterance's maximum, or silence."""
        mel = log_mel(self.samples)
        lowest, highest = float(mel.min()), float(mel.max())
        return np.rint(255 * (mel - lowest) / max(highest - lowest, 1e-9)).astype(np.uint8)


def check_length(utterance: Utterance) -> None:
    """Refuses utterances that are too long to be looked at.

    Raises:
        AudioError: more than a minute.
    """
    if utterance.seconds > LONGEST:
        raise AudioError(
            f"Utterance {utterance.id!r} is {utterance.seconds:.1f} s long; a map of attention is shown for "
            f"{LONGEST:g} s at most",
            "Cut a piece out of it, or name the piece in a manifest, by offset and duration.",
        )


def sound_bytes(samples: np.ndarray) -> bytes:
    """Samples as 16-bit integers, little-endian; full scale at 32767, what lies beyond is clipped."""
    return np.rint(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()


def _described(side: Side) -> dict[str, Any]:
    grid = side.model.anatomy.grid
    labels, shares = side.labels
    n = -(-side.frames // side.span)
    return {
        "name": side.model.name,
        "family": side.model.anatomy.family,
        "layers": side.model.anatomy.n_layers,
        "frames": side.frames,
        "grid": {"hop": grid.hop, "field": grid.field, "offset": grid.offset},
        "span": side.span,
        "cells": n,
        "thumbnail": {"cells": side.thumbnails[0].shape[-1], "largest": _plain(side.thumbnails[1])},
        "heads": [
            {"layer": layer, "head": head, "largest": most, "peak": peak}
            for (layer, head), most, peak in zip(
                side.heads, _plain(np.concatenate(side.largest)), _plain(np.concatenate(side.peaks)), strict=True
            )
        ],
        "reach": REACH,
        "labels": labels,
        "shares": _plain(shares),
        "metrics": metric_facts(list(side.metrics)),
        "values": side.metrics,
        "source": side.source,
        "skipped": side.skipped,
    }


def _plain(array: np.ndarray) -> list[float]:
    return [float(value) for value in array]
