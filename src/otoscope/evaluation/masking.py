"""Which frames are masked, and what they are told apart from, in self-supervised training."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int

from otoscope.errors import EvaluationError

SHARE, SPAN = 0.65, 10


def check_mask(share: float, span: int) -> None:
    """Makes sure that masks can be drawn.

    Raises:
        EvaluationError: the share is not above 0 and at most 1, or a span has fewer than two frames.
    """
    if not 0 < share <= 1 or span < 2:
        raise EvaluationError(
            f"A share of {share} under masks of {span} frames cannot be drawn",
            "Give a share above 0 and at most 1, and spans of two frames or more.",
        )


def span_mask(frames: int, share: float, draw: np.random.Generator, span: int = SPAN) -> Bool[np.ndarray, " frames"]:
    """Masks spans of frames that may overlap.

    As in wav2vec 2.0 (Baevski et al. 2020, section 4.2): starts are drawn without replacement, about
    `share * frames / span` of them, so that less than `share` of the frames is masked. An utterance shorter than
    two spans is masked by halves of itself; at least two frames are masked.

    Args:
        frames: frames of the utterance, two or more.
        share: of the frames that would be masked if spans did not overlap.
        draw: where starts come from.
        span: frames a span.
    """
    span = max(2, min(span, frames // 2))
    starts = frames - span + 1
    count = min(starts, max(1, int(share * frames / span + draw.random())))
    first = draw.choice(starts, count, replace=False)
    mask = np.zeros(frames, bool)
    mask[(first[:, None] + np.arange(span)).ravel()] = True
    return mask


def draw_negatives(masked: int, count: int, draw: np.random.Generator) -> Int[np.ndarray, "masked count"]:
    """For each masked frame of an utterance, `count` other masked frames of it, drawn with replacement.

    Args:
        masked: masked frames of the utterance, two or more.
        count: negatives a frame.
        draw: where they come from.

    Returns:
        Indices from 0 to masked - 1; row i never holds i.
    """
    drawn = draw.integers(0, masked - 1, size=(masked, count))
    return drawn + (drawn >= np.arange(masked)[:, None])
