"""SpecAugment on the features that go into an encoder, for families that have no masks of their own."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float

LONGEST = 0.2  # of an utterance that one time mask covers at most: p of Park et al. for short utterances


def spec_augment(
    features: Float[torch.Tensor, "frames bands"],
    draw: np.random.Generator,
    *,
    time_masks: int = 0,
    time_width: int = 0,
    band_masks: int = 0,
    band_width: int = 0,
    longest: float = LONGEST,
) -> Float[torch.Tensor, "frames bands"]:
    """Features of an utterance with runs of frames and of bands set to zero, their mean.

    Each mask's width f is drawn evenly from 0 to the widest F, its start evenly from 0 to the length less f; a mask over
    time is at most `longest` of the utterance wide. Source: Park et al. 2019 (arXiv 1904.08779), section 2.

    Args:
        features: normalised to a mean of zero; left as they are.
        draw: where widths and places come from.
        time_masks: number of masks over frames (m_T).
        time_width: widest of these, in frames (T).
        band_masks: number of masks over bands (m_F).
        band_width: widest of these, in bands (F).
        longest: share of the frames (p).
    """
    made = features.clone()
    frames, bands = features.shape
    for _ in range(time_masks):
        start, end = _mask(frames, min(time_width, int(longest * frames)), draw)
        made[start:end] = 0
    for _ in range(band_masks):
        start, end = _mask(bands, min(band_width, bands), draw)
        made[:, start:end] = 0
    return made


def masks_for(length: int, share: float, span: int, draw: np.random.Generator) -> int:
    """How many masks of a mean width cover a share of a length if they do not overlap; rounded by chance.

    Args:
        length: frames or bands.
        share: of these under masks.
        span: mean width of a mask.
        draw: where the chance comes from.
    """
    return int(share * length / span + draw.random())


def _mask(length: int, widest: int, draw: np.random.Generator) -> tuple[int, int]:
    """Start and end of a mask."""
    width = int(draw.integers(0, widest, endpoint=True))
    start = int(draw.integers(0, length - width, endpoint=True))
    return start, start + width
