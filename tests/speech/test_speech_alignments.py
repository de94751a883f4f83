import itertools
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otoscope.errors import AlignmentError
from otoscope.speech import Interval
from otoscope.speech.alignments import (
    build_tiers,
    read_ctm,
    seconds_to_samples,
    tidy,
    within,
)


@given(st.integers(0, 10**9))
def test_multiples_of_a_sample_are_exact(n):
    assert seconds_to_samples(str(Decimal(n) / 16000)) == n
    assert seconds_to_samples(Decimal(n) / 16000) == n


@given(st.integers(0, 200_000))
def test_multiples_of_a_frame_written_with_two_decimals(k):
    # As floating-point numbers, floor(t / 0.02) is off for many of these.
    assert seconds_to_samples(f"{k // 50}.{2 * (k % 50):02d}") == 320 * k
    assert seconds_to_samples(round(k * 0.02, 2)) == 320 * k


@given(st.decimals(0, 10**5, places=6))
def test_rounding_against_fractions(t):
    exact = Fraction(t) * 16000
    assert abs(Fraction(seconds_to_samples(t)) - exact) <= Fraction(1, 2)


@pytest.mark.parametrize("text", ["", "one", "nan", "inf", "1e999999999"])
def test_no_number(text):
    with pytest.raises(AlignmentError, match="not a time"):
        seconds_to_samples(text)


def test_a_frame_is_cut_and_more_refused():
    cut, n = tidy([(0, 1000, "a"), (680, 2000, "b"), (2000, 3320, "c")], 3000, "x")
    assert cut == (Interval(0, 1000, "a"), Interval(1000, 2000, "b"), Interval(2000, 3000, "c"))
    assert n == 2
    with pytest.raises(AlignmentError, match=r"'b' .* overlaps 'a' by 321 samples"):
        tidy([(0, 1000, "a"), (679, 2000, "b")], 3000, "x")
    with pytest.raises(AlignmentError, match=r"'c' .* runs 321 samples past the end"):
        tidy([(2000, 3321, "c")], 3000, "x")
    with pytest.raises(AlignmentError, match="ends before it starts"):
        tidy([(200, 100, "a")], 3000, "x")
    with pytest.raises(AlignmentError, match="before the recording"):
        tidy([(-321, 100, "a")], 3000, "x")
    assert tidy([(-320, 100, "a")], 3000, "x") == ((Interval(0, 100, "a"),), 1)


def test_nested_intervals():
    assert tidy([(0, 5000, "a"), (100, 300, "b"), (5000, 6000, "c")], 6000, "x") == (
        (Interval(0, 5000, "a"), Interval(5000, 6000, "c")),
        1,
    )
    with pytest.raises(AlignmentError, match="overlaps"):
        tidy([(0, 5000, "a"), (100, 300, "b"), (400, 4000, "c")], 6000, "x")


intervals = st.lists(st.tuples(st.integers(-50, 5000), st.integers(0, 800), st.sampled_from("abc")), max_size=8)


@given(intervals, st.integers(1, 6000))
def test_what_is_left_is_sorted_inside_and_does_not_overlap(drawn, n_samples):
    times = [(start, start + length, label) for start, length, label in drawn]
    try:
        kept, cut = tidy(times, n_samples, "x")
    except AlignmentError:
        return
    assert all(0 <= x.start < x.end <= n_samples for x in kept)
    assert all(x.end <= y.start for x, y in itertools.pairwise(kept))
    assert len(times) - len(kept) <= cut <= len(times)
    if cut == 0:
        assert [(x.start, x.end, x.label) for x in kept] == sorted(times)
    assert tidy([(x.start, x.end, x.label) for x in kept], n_samples, "x") == (kept, 0)
    assert tidy(reversed(times), n_samples, "x") == (kept, cut)


def test_tiers_are_folded():
    raw = {
        "word": [(0, 400, ""), (400, 800, "The"), (800, 1200, "<unk>"), (1200, 1600, "sil")],
        "phone": [(0, 400, ""), (400, 600, "DH"), (600, 800, "AH0"), (800, 900, "q")],
    }
    tiers, cut = build_tiers(raw, 1600, "x", "arpabet39")
    assert tiers["word"] == (Interval(400, 800, "the"),)
    assert [x.label for x in tiers["phone"]] == ["sil", "dh", "ah"]
    assert cut == 0
    with pytest.raises(AlignmentError, match=r"x, tier phone at 0\.0250 s: 'ə'"):
        build_tiers({"phone": [(400, 800, "ə")]}, 1600, "x", "arpabet39")


def test_ctm(tmp_path):
    path = tmp_path / "x.ctm"
    path.write_text(";; comment\nu1 1 0.00 0.30 the 0.9\nu1 1 0.30 0.29 end\n\nu2 A 1.5 0.5 one\n")
    assert read_ctm(path) == {
        "u1": {"word": [(0, 4800, "the"), (4800, 9440, "end")]},
        "u2": {"word": [(24000, 32000, "one")]},
    }


@pytest.mark.parametrize(
    ("name", "label", "tier"),
    [("a", "AH0", "phone"), ("a", "the", "word"), ("word", "AH0", "word"), ("dev.phones", "ʃ", "phone")],
)
def test_kind_of_ctm(tmp_path, name, label, tier):
    path = tmp_path / f"{name}.ctm"
    path.write_text(f"u1 1 0.00 0.30 {label}\nu1 1 0.30 0.30 sil\n")
    assert list(read_ctm(path)["u1"]) == [tier]


@pytest.mark.parametrize("line", ["u1 1 0.0 0.3", "u1 1 zero 0.3 a", "u1 1 0 nan a"])
def test_bad_ctm_line(tmp_path, line):
    path = tmp_path / "x.ctm"
    path.write_text(f"u1 1 0 0.1 a\n{line}\n")
    with pytest.raises(AlignmentError, match="line 2"):
        read_ctm(path)


def test_stretch_of_a_recording():
    times = [(0, 1000, "a"), (1000, 2000, "b"), (2000, 3000, "c"), (3000, 9000, ""), (9000, 9500, "d")]
    # The border at 1500 cuts "b" by more than a frame; the one at 2800 takes 200 samples of "c".
    assert within(times, 1500, 1300) == ([(500, 1500, "c")], 1)
    assert within(times, 0, 4000) == ([*times[:3], (3000, 4000, "")], 0)
