"""From timed labels to frames: which frames a segment covers, and their mean."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from otoscope.errors import MeasureError


def word_spans(
    starts: Int[np.ndarray, " n"], ends: Int[np.ndarray, " n"], hop: int, frames: int, centred: bool = False
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Frames that segments touch: floor(start / hop) to ceil(end / hop), in whole samples.

    That is the rule of Pasad et al. (2021) for frames that begin at multiples of the hop. Where frames are centred
    on them (Whisper, Parakeet) it would always take a frame from before the segment; there those frames count
    whose centres lie in the segment, or the one nearest to its middle where there is none.

    Args:
        starts: first samples.
        ends: one past the last samples.
        hop: samples from one frame to the next.
        frames: frames of the utterance; spans are clipped to them.
        centred: frame t is centred on sample t * hop, rather than beginning near it.

    Returns:
        First frame and one past the last frame of each segment; at least one frame each.

    Raises:
        MeasureError: the utterance has no frame.

    >>> word_spans(np.array([0, 640]), np.array([640, 1000]), 320, 50)
    (array([0, 2]), array([2, 4]))
    """
    if frames < 1:
        raise MeasureError("An utterance without frames has no segments", "Leave out the utterance.")
    first, last, _ = _touched(starts, ends, hop, centred)
    return _clipped(first, last, frames)


def phone_spans(
    starts: Int[np.ndarray, " n"], ends: Int[np.ndarray, " n"], hop: int, frames: int, centred: bool = False
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """The middle frames of segments, where a phone is least coloured by its neighbours.

    Of the frames a..b-1 that a segment touches (see `word_spans`), floor((b - a + 1) / 3) are dropped on each side;
    where none are left the middle one stays (Pasad et al. 2021, released code).

    Args:
        starts: first samples.
        ends: one past the last samples.
        hop: samples from one frame to the next.
        frames: frames of the utterance; spans are clipped to them.
        centred: frame t is centred on sample t * hop, rather than beginning near it.

    Returns:
        First frame and one past the last frame of each segment; at least one frame each.

    Raises:
        MeasureError: the utterance has no frame.

    >>> phone_spans(np.array([0]), np.array([6 * 320]), 320, 50)
    (array([2]), array([4]))
    """
    if frames < 1:
        raise MeasureError("An utterance without frames has no segments", "Leave out the utterance.")
    first, last, middle = _touched(starts, ends, hop, centred)
    dropped = (last - first + 1) // 3
    inner, outer = first + dropped, last - dropped
    empty = inner >= outer
    return _clipped(np.where(empty, middle, inner), np.where(empty, middle + 1, outer), frames)


def centre_spans(
    starts: Int[np.ndarray, " n"], ends: Int[np.ndarray, " n"], hop: int, frames: int, centred: bool = False
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """The middle frame of each segment: of the frames a..b-1 that it touches, frame floor((a + b) / 2).

    Args, results and errors are those of `word_spans`.

    >>> centre_spans(np.array([0]), np.array([5 * 320]), 320, 50)
    (array([2]), array([3]))
    """
    if frames < 1:
        raise MeasureError("An utterance without frames has no segments", "Leave out the utterance.")
    first, last, middle = _touched(starts, ends, hop, centred)
    if centred:  # the middle frame of those that count, not the nearest to the segment's middle
        middle = (first + last) // 2
    return _clipped(middle, middle + 1, frames)


def quarter_spans(
    quarter: int,
    starts: Int[np.ndarray, " n"],
    ends: Int[np.ndarray, " n"],
    hop: int,
    frames: int,
    centred: bool = False,
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """A quarter of each segment: of its n frames those from floor(q n / 4) to floor((q + 1) n / 4), at least one.

    The quarters of a segment of four frames or more share no frame and leave none out.

    Args:
        quarter: 0 to 3.
        starts: first samples.
        ends: one past the last samples.
        hop: samples from one frame to the next.
        frames: frames of the utterance; spans are clipped to them.
        centred: frame t is centred on sample t * hop, rather than beginning near it.

    Raises:
        MeasureError: the utterance has no frame.

    >>> quarter_spans(1, np.array([0]), np.array([8 * 320]), 320, 50)
    (array([2]), array([4]))
    """
    if frames < 1:
        raise MeasureError("An utterance without frames has no segments", "Leave out the utterance.")
    first, last, _ = _touched(starts, ends, hop, centred)
    first, last = _clipped(first, last, frames)
    n = last - first
    begin, end = first + quarter * n // 4, first + (quarter + 1) * n // 4
    return begin, np.maximum(end, begin + 1)


SPANS: dict[str, Callable[..., tuple[np.ndarray, np.ndarray]]] = {
    "phone": phone_spans,
    "word": word_spans,
    "word-centre": centre_spans,
    "word-quarter-1": partial(quarter_spans, 0),
    "word-quarter-2": partial(quarter_spans, 1),
    "word-quarter-3": partial(quarter_spans, 2),
    "word-quarter-4": partial(quarter_spans, 3),
    "utterance": word_spans,
}
"""How a segment becomes frames, whose mean stands for it: the middle third of a phone; all frames of a word, its centre
frame or one of its quarters; all of an utterance."""


def _touched(
    starts: np.ndarray, ends: np.ndarray, hop: int, centred: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First frame, one past the last, and the middle one."""
    if not centred:
        first, last = starts // hop, -(-ends // hop)
        return first, last, (first + last) // 2
    first, last = -(-starts // hop), -(-ends // hop)
    middle = (starts + ends + hop) // (2 * hop)  # the nearest frame to the segment's middle
    none = first >= last
    return np.where(none, middle, first), np.where(none, middle + 1, last), middle


def _clipped(first: np.ndarray, last: np.ndarray, frames: int) -> tuple[np.ndarray, np.ndarray]:
    first = np.minimum(first, frames - 1)
    return first, np.maximum(np.minimum(last, frames), first + 1)


def span_means(
    rows: Float[np.ndarray, "t d"], first: Int[np.ndarray, " n"], last: Int[np.ndarray, " n"]
) -> Float[np.ndarray, "n d"]:
    """Mean of the rows of each span, in float64.

    Args:
        rows: frames of an utterance, shape (t, d).
        first: first row of each span.
        last: one past the last row of each span, greater than `first`.

    Returns:
        Means, shape (n, d). A span's mean is the same to the last bit whatever other spans there are.
    """
    counts = last - first
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    columns = np.arange(total) + np.repeat(first - (ends - counts), counts)
    # A sparse product is three to ten times as quick as sums by numpy or differences of running sums.
    weights = csr_array(
        (np.repeat(1.0 / counts, counts), columns, np.concatenate([[0], ends])),
        shape=(len(counts), len(rows)),
    )
    return weights @ rows.astype(np.float64)
