import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from otoscope.errors import MeasureError
from otoscope.measures.layers import discrimination
from otoscope.measures.layers.discrimination import (
    AlignedWordDiscrimination,
    WordDiscrimination,
    average_precision,
    cosine_chunks,
    ranked,
)
from otoscope.measures.layers.dtw import angular_distances, dtw
from tests.measures.layers.test_cca import ANATOMY, capture, corpus, ids, streams_of


def by_scikit_learn(scores, labels):
    i, j = np.triu_indices(len(labels), 1)
    return average_precision_score(labels[i] == labels[j], scores[i, j])


def cosines(x):
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    unit = x / np.where(norms > 0, norms, 1)
    return (unit @ unit.T).round(12)


@given(
    seed=st.integers(0, 2**32 - 1), n=st.integers(2, 40), labels=st.integers(1, 6), block=st.sampled_from([1, 50, 9999]),
    coarse=st.booleans(),
)  # fmt: skip
@settings(max_examples=50)
def test_equals_scikit_learn_with_and_without_ties(seed, n, labels, block, coarse):
    rng = np.random.default_rng(seed)
    x = rng.integers(-1, 2, (n, 3)).astype(float) if coarse else rng.standard_normal((n, 5))
    y = rng.integers(0, labels, n)
    y[-1] = y[0]
    was, discrimination.BLOCK = discrimination.BLOCK, block
    try:
        found = average_precision(x, y)
    finally:
        discrimination.BLOCK = was
    assert found == pytest.approx(by_scikit_learn(cosines(x), y), abs=1e-12)


def test_closed_forms():
    x = np.repeat(np.eye(4), 3, axis=0)
    assert average_precision(x, np.repeat([3, 1, 2, 0], 3)) == 1
    # All tie: every level is one, with the share of pairs of one label as its precision.
    y = np.array([0, 0, 1, 1, 2])
    assert average_precision(np.ones((5, 2)), y) == pytest.approx(2 / 10)
    assert average_precision(np.zeros((5, 2)), y) == pytest.approx(2 / 10)
    # One pair of one label, third of six.
    turn = np.radians([0, 10, 30, 65])
    circle = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    assert average_precision(circle, np.array(["a", "b", "a", "c"])) == pytest.approx(1 / 3)
    rng = np.random.default_rng(0)
    y = rng.integers(0, 8, 600)
    assert average_precision(rng.standard_normal((600, 10)), y) == pytest.approx(1 / 8, abs=0.01)


def test_scale_rotation_order_and_kind_do_not_matter():
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((60, 6)), rng.integers(0, 10, 60)
    expected = average_precision(x, y)
    q = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    order = rng.permutation(60)
    assert average_precision((x * rng.uniform(0.5, 2, (60, 1)) @ q)[order], y[order]) == pytest.approx(expected)
    assert average_precision(torch.from_numpy(x).requires_grad_(), torch.from_numpy(y)) == pytest.approx(expected)
    assert average_precision(x, [f"word {k}" for k in y]) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("vectors", "labels", "message"),
    [
        (np.zeros((3, 2)), [0, 1], r"\(3, 2\) do not fit labels of shape \(2,\)"),
        (np.zeros(3), [0, 1, 1], r"\(3,\) do not fit"),
        (np.array([[1.0], [np.nan]]), [0, 0], "not finite"),
        (np.eye(3), [0, 1, 2], "No two of 3 rows"),
        (np.zeros((0, 2)), [], "No two of 0 rows"),
        (np.zeros((20_001, 1)), np.zeros(20_001), "20001 rows have too many pairs"),
    ],
)
def test_what_cannot_be_ranked_is_refused(vectors, labels, message):
    with pytest.raises(MeasureError, match=message):
        average_precision(vectors, labels)


def test_leaving_a_group_out_is_leaving_its_rows_out():
    rng = np.random.default_rng(2)
    x, y, groups = rng.standard_normal((50, 4)), rng.integers(0, 6, 50), rng.integers(0, 5, 50)
    found = ranked(lambda: cosine_chunks(x), y, groups)
    expected = [average_precision(x[groups != g], y[groups != g]) for g in range(5)]
    np.testing.assert_allclose(found.without, expected, atol=1e-12)
    assert found.pairs == 50 * 49 / 2


def passed(measure, names=None):
    measure.prepare(ANATOMY, corpus(), seed=0)
    for name in names or ids():
        measure.update(capture((name,), "word"))
    return measure


def test_a_layer_that_holds_the_words_tells_them_apart():
    result = passed(WordDiscrimination(per_label=20)).compute()
    rows = {(r.stream, r.target): r for r in result.rows}
    assert {t for _, t in rows} == {"pooled", "pooled-within", "pooled-across"}
    for row in result.rows:
        assert row.measure == "awd"
        assert row.ceiling == 1
        if row.stream == "layer.2":
            assert row.low is row.high is None, "all speakers are without a mistake: nothing is known of the spread"
        else:
            assert 0 <= row.low <= row.value <= row.high <= 1
        assert row.floor == pytest.approx(0.25, abs=0.05)
        assert row.n == result.notes["segments"] == 80
    for which in ("", "-within", "-across"):
        assert rows["layer.2", "pooled" + which].value == pytest.approx(1, abs=1e-9)
        assert rows["final_norm", "pooled" + which].low < 0.35
    pairs = result.notes["pairs"]
    assert pairs["pooled"] == 80 * 79 / 2 == pairs["pooled-within"] + pairs["pooled-across"]
    assert rows["layer.2", "pooled"].layer == 2
    assert rows["input", "pooled"].layer is None


def test_rows_are_those_of_the_pure_function():
    measure = passed(WordDiscrimination(per_label=10))
    labels = np.array([one.label for one in measure.seen_segments()])
    speakers = np.array([one.speaker for one in measure.seen_segments()])
    i, j = np.triu_indices(len(labels), 1)
    for row in measure.compute().rows:
        x = measure.vectors(row.stream)
        if row.target == "pooled":
            assert row.value == pytest.approx(average_precision(x, labels), abs=1e-12)
        kept = {
            "pooled": i >= 0,
            "pooled-within": speakers[i] == speakers[j],
            "pooled-across": speakers[i] != speakers[j],
        }
        k = kept[row.target]
        scores = cosines(x.astype(np.float64))[i[k], j[k]]
        assert row.value == pytest.approx(average_precision_score(labels[i[k]] == labels[j[k]], scores), abs=1e-12)


def test_aligned_words():
    measure = passed(AlignedWordDiscrimination(per_label=5))
    result = measure.compute()
    segments = measure.seen_segments()
    assert len(segments) == 20
    labels = np.array([one.label for one in segments])
    for row in result.rows:
        assert row.measure == "awd-dtw"
        if (row.target, row.stream) == ("dtw", "layer.1"):
            frames = []
            for one in segments:
                whole = streams_of(one.utterance, "word")[row.stream].astype(np.float32)
                frames.append(whole[one.start // 320 : -(-one.end // 320)])
            scores = -np.array([[dtw(angular_distances(a, b)) for b in frames] for a in frames])
            assert row.value == pytest.approx(by_scikit_learn(scores.round(12), labels), abs=1e-6)
    assert {r.value for r in result.rows if r.stream == "layer.2"} == {1.0}


def test_split_and_merged_parts_give_the_same():
    whole = passed(WordDiscrimination(per_label=10)).compute()
    a, b = (passed(WordDiscrimination(per_label=10), half) for half in (ids()[5:], ids()[:5]))
    a.merge(b)
    assert a.compute().rows == whole.rows


def test_without_a_word_twice_there_is_no_number():
    measure = WordDiscrimination(most=1)
    with pytest.raises(MeasureError, match="finds no word twice in its sample of corpus noise"):
        measure.prepare(ANATOMY, corpus(), seed=0)
    with pytest.raises(MeasureError, match="20001 words have too many pairs"):
        WordDiscrimination(most=20_001)
    part = WordDiscrimination(per_label=2)
    part.prepare(ANATOMY, corpus(), seed=0)
    first = next(one for one in part.segments if sum(x.utterance == one.utterance for x in part.segments) == 1)
    part.update(capture((first.utterance,), "word"))
    with pytest.raises(MeasureError, match="seen fewer than 10 pairs of one word"):
        part.compute()


def test_few_pairs_of_one_word_have_a_steady_floor():
    """The mean of many permutations; a target with fewer than ten such pairs has no rows."""
    result = passed(WordDiscrimination(per_label=4)).compute()
    told = result.notes["pairs_of_one_word"]
    assert all(count >= 10 for count in told.values())
    assert {row.target for row in result.rows} == set(told)
    assert set(told) | set(result.notes["too_few_pairs_of_one_word"]) == {"pooled", "pooled-within", "pooled-across"}
    measure = passed(WordDiscrimination(per_label=4))
    labels = np.unique([one.label for one in measure.seen_segments()], return_inverse=True)[1]
    same = int((labels[:, None] == labels).sum() - len(labels)) // 2
    draws = min(20, -(-1000 // same))
    assert draws > 1
    x = measure.vectors("final_norm")
    expected = np.mean([average_precision(x, measure.permuted(labels, str(k) if k else "")) for k in range(draws)])
    found = next(row for row in measure.compute().rows if (row.stream, row.target) == ("final_norm", "pooled"))
    assert found.floor == pytest.approx(expected, abs=1e-12)


def test_half_precision_of_either_kind_is_ranked():
    x = np.random.default_rng(0).integers(-8, 9, (30, 4)).astype(np.float64)
    labels = np.arange(30) % 5
    exact = average_precision(x, labels)
    for kind in (torch.float16, torch.bfloat16):
        assert average_precision(torch.from_numpy(x).to(kind), torch.from_numpy(labels)) == exact
