import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otoscope.errors import MeasureError
from otoscope.measures.layers.spans import SPANS, centre_spans, phone_spans, span_means, word_spans


def one(spans, start, end, hop=320, frames=50):
    first, last = spans(np.array([start]), np.array([end]), hop, frames)
    return int(first[0]), int(last[0])


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0, 320, (0, 1)),
        (0, 321, (0, 2)),
        (319, 320, (0, 1)),
        (319, 321, (0, 2)),
        (320, 640, (1, 2)),
        (3200, 16000, (10, 50)),
        (3200, 99999, (10, 50)),
        (15999, 16400, (49, 50)),
        (16100, 16400, (49, 50)),
    ],
)
def test_words_cover_the_frames_they_touch(start, end, expected):
    assert one(word_spans, start, end) == expected


@pytest.mark.parametrize(
    ("frames", "expected"),
    # Dropped on each side: floor((n + 1) / 3).
    [(1, (0, 1)), (2, (1, 2)), (3, (1, 2)), (4, (1, 3)), (5, (2, 3)), (6, (2, 4)), (8, (3, 5)), (9, (3, 6))],
)
def test_phones_keep_their_middle(frames, expected):
    assert one(phone_spans, 0, 320 * frames) == expected
    assert one(phone_spans, 3200, 3200 + 320 * frames) == (10 + expected[0], 10 + expected[1])


def test_times_are_whole_samples():
    # floor(t / 0.02) in floating point is wrong on many exact multiples of 20 ms; integers are not.
    k = np.arange(1, 5000)
    first, last = word_spans(k * 320, (k + 1) * 320, 320, 10_000)
    assert (first == k).all()
    assert (last == k + 1).all()


@given(start=st.integers(0, 40000), length=st.integers(1, 9000), hop=st.sampled_from([160, 320, 640]))
@settings(max_examples=200, deadline=None)
def test_spans_are_inside_and_never_empty(start, length, hop):
    frames = 100
    word, phone = (one(f, start, start + length, hop, frames) for f in (word_spans, phone_spans))
    assert 0 <= word[0] < word[1] <= frames
    assert 0 <= phone[0] < phone[1] <= frames
    assert word[0] <= phone[0]
    assert phone[1] <= word[1]
    if start + length <= frames * hop:
        assert word == (start // hop, -(-(start + length) // hop))


@given(seed=st.integers(0, 10**6), frames=st.integers(1, 40), n=st.integers(0, 20))
@settings(max_examples=100, deadline=None)
def test_means_are_means(seed, frames, n):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((frames, 3)).astype(np.float32)
    first = rng.integers(frames, size=n)
    last = first + rng.integers(1, frames + 1, size=n)
    last = np.minimum(last, frames)
    found = span_means(rows, first, last)
    assert found.shape == (n, 3)
    for i in range(n):
        np.testing.assert_allclose(found[i], rows[first[i] : last[i]].astype(float).mean(axis=0), atol=1e-14)
        np.testing.assert_array_equal(found[i], span_means(rows, first[i : i + 1], last[i : i + 1])[0])


def test_an_utterance_without_frames_is_refused():
    for spans in (word_spans, phone_spans):
        with pytest.raises(MeasureError, match="without frames"):
            one(spans, 0, 100, frames=0)


@given(st.integers(0, 40_000), st.integers(1, 12_000), st.sampled_from([320, 1280]))
def test_centred_frames_are_those_whose_centres_lie_in_the_segment(start, length, hop):
    end = start + length
    first, last = (int(x[0]) for x in word_spans(np.array([start]), np.array([end]), hop, 10_000, True))
    inside = [t for t in range(end // hop + 2) if start <= t * hop < end]
    if inside:
        assert list(range(first, last)) == inside
    else:
        middle = (start + end) / 2
        assert last == first + 1
        assert abs(first * hop - middle) == min(abs(t * hop - middle) for t in range(end // hop + 2))


@pytest.mark.parametrize("hop", [320, 1280])
@pytest.mark.parametrize("spans", [word_spans, phone_spans])
def test_centred_spans_lie_on_their_segments_on_average(spans, hop):
    """Over segments at all places the middle of the frames is the middle of the segment, to a twentieth of a hop."""
    starts = np.arange(0, 64_000, 37)
    ends = starts + 1337
    first, last = spans(starts, ends, hop, 10_000, True)
    centres = (first + last - 1) / 2 * hop
    assert abs((centres - (starts + ends) / 2).mean()) < hop / 20


@given(st.integers(0, 20_000), st.integers(1, 8_000), st.sampled_from([160, 320, 640]), st.booleans())
@settings(max_examples=150)
def test_quarters_cut_a_word_in_turn_and_the_centre_lies_in_its_middle(start, length, hop, centred):
    starts, ends = np.array([start]), np.array([start + length])
    (first,), (last,) = word_spans(starts, ends, hop, 40, centred)
    quarters = [SPANS[f"word-quarter-{q}"](starts, ends, hop, 40, centred) for q in (1, 2, 3, 4)]
    touched = [range(int(a[0]), int(b[0])) for a, b in quarters]
    assert all(len(one) >= 1 and first <= one.start and one.stop <= last for one in touched)
    if last - first >= 4:
        assert [frame for one in touched for frame in one] == list(range(first, last))
        assert max(map(len, touched)) - min(map(len, touched)) <= 1
    (middle,), (after,) = centre_spans(starts, ends, hop, 10_000, centred)
    (first,), (last,) = word_spans(starts, ends, hop, 10_000, centred)
    assert after == middle + 1
    assert middle - first in (last - 1 - middle, last - middle)
