import sys
from collections import defaultdict
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otoscope.errors import CorpusError, MeasureError
from otoscope.measures.layers.abx import PhoneABX, abx_error, abx_triples
from otoscope.measures.layers.dtw import angular_distances, dtw
from otoscope.measures.rows import Segment
from otoscope.speech import Corpus
from tests.measures.layers.test_cca import ANATOMY, capture, corpus, ids, streams_of


def one_by_one(distances, phones, speakers, contexts, across):
    """The error rate from every triple on its own."""
    cells = defaultdict(list)
    n = len(phones)
    for x in range(n):
        for a in range(n):
            for b in range(n):
                same = phones[x] == phones[a] != phones[b] and contexts[x] == contexts[a] == contexts[b]
                together = speakers[a] == speakers[b]
                if not (same and together and x != a and (speakers[x] != speakers[a]) == across):
                    continue
                nearer = distances[x, a] - distances[x, b]
                key = (phones[a], phones[b], speakers[a], contexts[a], speakers[x])
                cells[key].append(0.5 if nearer == 0 else float(nearer > 0))
    for depth in (3, 2, 0):
        above = defaultdict(list)
        for key, errors in cells.items():
            above[key[:depth]].append(np.mean(errors))
        cells = above
    return np.mean(cells[()]) if cells else None


@st.composite
def segments(draw):
    n = draw(st.integers(2, 14))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    ties = draw(st.booleans())
    distances = rng.integers(0, 4, (n, n)).astype(float) if ties else rng.random((n, n))
    return (
        distances,
        [f"p{k}" for k in rng.integers(0, draw(st.integers(1, 4)), n)],
        [f"s{k}" for k in rng.integers(0, draw(st.integers(1, 3)), n)],
        [(k, 0) for k in rng.integers(0, draw(st.integers(1, 2)), n).tolist()],
    )


@given(segments(), st.booleans())
@settings(max_examples=80)
def test_equals_every_triple_on_its_own(given_segments, across):
    expected = one_by_one(*given_segments, across)
    if expected is None:
        with pytest.raises(MeasureError, match="no triple of phones"):
            abx_error(*given_segments, across=across)
    else:
        assert abx_error(*given_segments, across=across) == pytest.approx(expected, abs=1e-12)


def test_closed_forms():
    phones, speakers = ["aa"] * 3 + ["iy"] * 3, ["ann"] * 6
    apart = np.array([0, 1, 2, 10, 11, 12.0])
    distances = abs(apart[:, None] - apart)
    assert abx_error(distances, phones, speakers) == 0
    assert abx_error(-distances, phones, speakers) == 1
    assert abx_error(np.ones((6, 6)), phones, speakers) == 0.5
    # Cells count alike, however many triples they have.
    apart = np.array([0, 1, 0, 1, 0, 1, 5, 0, 5, 0.0])
    phones = ["aa"] * 6 + ["iy"] + ["aa", "aa", "iy"]
    speakers = ["ann"] * 7 + ["bob"] * 3
    distances = abs(apart[:, None] - apart)
    assert abx_error(distances, phones, speakers) == pytest.approx((0 + 0.75) / 2)


def test_across_speakers_a_shift_of_voice_counts():
    """Two phones 2 apart, the second speaker shifted by 1.5: within speakers no error, across some."""
    place = np.array([0, 0.1, 2, 2.1, 1.5, 1.6, 3.5, 3.6])
    phones, speakers = ["aa", "aa", "iy", "iy"] * 2, ["ann"] * 4 + ["bob"] * 4
    distances = abs(place[:, None] - place)
    assert abx_error(distances, phones, speakers) == 0
    assert abx_error(distances, phones, speakers, across=True) == 0.5


def test_chance_is_a_half():
    rng = np.random.default_rng(0)
    phones, speakers = rng.integers(0, 5, 120), rng.integers(0, 3, 120)
    assert abx_error(rng.random((120, 120)), phones.tolist(), speakers.tolist()) == pytest.approx(0.5, abs=0.02)


def test_numbers_that_disagree_are_refused():
    with pytest.raises(MeasureError, match="2 phones, 1 speakers and 2 contexts"):
        abx_triples(["aa", "iy"], ["ann"], [0, 0], across=False)
    with pytest.raises(MeasureError, match="3 phones do not fit distances of 4 segments"):
        abx_error(np.zeros((4, 4)), ["aa", "aa", "iy"], ["ann"] * 3, [0] * 3)


def passed(measure, names=None):
    measure.prepare(ANATOMY, corpus(), seed=0)
    for name in names or ids():
        measure.update(capture((name,)))
    return measure


@pytest.mark.parametrize("across", [False, True])
def test_a_layer_that_holds_the_phones_makes_no_error(across):
    result = passed(PhoneABX(across=across)).compute()
    rows = {(r.stream, r.target): r for r in result.rows}
    assert {t for _, t in rows} == {"phone", "phone-in-context"}
    for row in result.rows:
        assert row.measure == ("abx-across" if across else "abx-within")
        assert row.ceiling == 0
        assert row.low is row.high is None or (0 <= row.low < row.high <= 1 and row.low <= row.value <= row.high)
        assert row.floor == pytest.approx(0.5, abs=0.2)
    for target in ("phone", "phone-in-context"):
        # Phones that meet in a frame share it, so some error is left.
        best = rows["layer.2", target]
        assert (best.value if best.high is None else best.high) < 0.35
        assert rows["final_norm", target].value == pytest.approx(0.5, abs=0.12)
    assert result.notes["phone_pairs"]["phone"] == 5 * 4
    assert result.notes["targets_left_out"] == []


@pytest.mark.parametrize("across", [False, True])
def test_rows_are_those_of_the_pure_function(across):
    measure = passed(PhoneABX(across=across, most=25, most_speakers=2))
    tiers = {u.id: [x.label for x in u.tiers["phone"]] for u in corpus()}
    for row in measure.compute().rows:
        if row.stream != "layer.1":
            continue
        kept = [s for s in measure.seen_segments() if (s.utterance, s.place) in measure._chosen[row.target]]
        assert row.n == len(kept)
        frames = [streams_of(s.utterance)["layer.1"][s.start // 320 : -(-s.end // 320)] for s in kept]
        distances = np.array([[dtw(angular_distances(a, b)) for b in frames] for a in frames])
        around = [["sil", *tiers[s.utterance], "sil"][s.place : s.place + 3 : 2] for s in kept]
        contexts = [tuple(c) if row.target == "phone-in-context" else 0 for c in around]
        expected = abx_error(distances, [s.label for s in kept], [s.speaker for s in kept], contexts, across=across)
        assert row.value == pytest.approx(expected, abs=2e-3)


def test_leaving_a_speaker_out_is_leaving_his_triples_out():
    rng = np.random.default_rng(1)
    distances, phones, speakers = rng.random((40, 40)), rng.integers(0, 4, 40), rng.integers(0, 4, 40)
    for across in (False, True):
        triples = abx_triples(phones.tolist(), speakers.tolist(), [0] * 40, across=across)
        wrong = (distances[triples.x, triples.a] > distances[triples.x, triples.b]) * 1.0
        for s in range(4):
            left_out = np.flatnonzero((speakers[np.stack([triples.x, triples.a, triples.b])] == s).any(axis=0))
            kept = np.flatnonzero(speakers != s)
            expected = abx_error(
                distances[np.ix_(kept, kept)], phones[kept].tolist(), speakers[kept].tolist(), across=across
            )
            assert triples.error(wrong, left_out) == pytest.approx(expected, abs=1e-12)


def test_split_and_merged_parts_give_the_same():
    whole = passed(PhoneABX(most=100)).compute()
    a, b = passed(PhoneABX(most=100), ids()[5:]), passed(PhoneABX(most=100), ids()[:5])
    a.merge(b)
    assert a.compute().rows == whole.rows


def test_without_speakers_or_phones_there_is_no_number():
    unknown = Corpus.from_arrays([u.read() for u in corpus()], tiers=[dict(u.tiers) for u in corpus()], name="unknown")
    with pytest.raises(MeasureError, match="of two speakers in corpus unknown, where 2.. phones have no known speaker"):
        PhoneABX(across=True).prepare(ANATOMY, unknown, seed=0)
    bare = Corpus.from_arrays([np.ones(8000)], name="bare")
    with pytest.raises(CorpusError, match="no tier 'phone'"):
        PhoneABX().prepare(ANATOMY, bare, seed=0)
    part = PhoneABX()
    part.prepare(ANATOMY, corpus(), seed=0)
    part.seen[0] = True
    with pytest.raises(MeasureError, match="seen too few pairs of phones"):
        part.compute()


def test_equals_the_number_that_the_tests_of_fastabx_hold():
    """Of its tests/test_regression.py: every cell has as many triples, so the order of averaging does not matter."""
    features = np.random.default_rng(2026).standard_normal((36, 6)).astype(np.float32)
    phones, speakers = ["a", "b", "c"] * 12, ["s1"] * 12 + ["s2"] * 12 + ["s3"] * 12
    distances = angular_distances(features, features)
    error = abx_error(distances, phones, speakers, ["c1", "c2"] * 18, across=True)
    assert error == pytest.approx(0.4809027786056201, abs=1e-7)


if sys.version_info >= (3, 12) and find_spec("fastabx"):

    @pytest.mark.parametrize("across", [False, True])
    def test_equals_fastabx(across):
        from fastabx import Dataset, Score, Task

        rng = np.random.default_rng(2)
        n = 80
        told = {
            "phone": [f"p{k}" for k in rng.integers(0, 4, n)],
            "speaker": [f"s{k}" for k in rng.integers(0, 3, n)],
            "context": [f"c{k}" for k in rng.integers(0, 2, n)],
        }
        features = rng.standard_normal((n, 6)).astype(np.float32)
        dataset = Dataset.from_numpy(features, told)
        by, extra = (["context"], {"across": ["speaker"]}) if across else (["context", "speaker"], {})
        score = Score(Task(dataset, on="phone", by=by, **extra), "angular").collapse(levels=["context", "speaker"])
        distances = angular_distances(features, features)
        found = abx_error(distances, told["phone"], told["speaker"], told["context"], across=across)
        assert found == pytest.approx(score, abs=1e-6)


def test_the_floor_shuffles_phones_within_speaker_and_context():
    measure = PhoneABX()
    measure.seed = 0
    rng = np.random.default_rng(0)
    segments = [
        Segment(f"u{k % 7}", f"s{rng.integers(3)}", k, 0, 1, f"p{rng.integers(4)}") for k in range(200)
    ]  # fmt: skip
    contexts = [("a", str(rng.integers(2))) for _ in segments]
    shuffled = measure._permuted(segments, contexts, 0)
    for kind in {(one.speaker, context) for one, context in zip(segments, contexts, strict=True)}:
        inside = [i for i in range(200) if (segments[i].speaker, contexts[i]) == kind]
        assert sorted(shuffled[i] for i in inside) == sorted(segments[i].label for i in inside)
    assert shuffled != [one.label for one in segments]
    assert shuffled != measure._permuted(segments, contexts, 1)
