import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from otoscope.errors import MeasureError
from otoscope.statistics import groups, partition, stratified, uniform

corpora = st.dictionaries(
    st.text("abcdef0123456789-", min_size=1, max_size=8), st.integers(1, 10**6), min_size=1, max_size=40
)


@given(durations=corpora, seed=st.integers(0, 9), folds=st.integers(2, 6), data=st.data())
@settings(max_examples=100, deadline=None)
def test_folds_do_not_depend_on_order_and_split_no_speaker(durations, seed, folds, data):
    speakers = {u: data.draw(st.sampled_from(["a", "b", "c", "d", None])) for u in sorted(durations)}
    found = partition(durations, speakers, folds, seed)
    backwards = dict(reversed(durations.items()))
    assert partition(backwards, speakers, folds, seed) == found
    assert set(found.of) == set(durations)
    assert set(found.of.values()) == set(range(found.count))
    units = len(set(speakers.values()))
    if units >= 3:
        assert found.by == "speaker"
        assert found.count == min(folds, units)
        assert len({(speakers[u], f) for u, f in found.of.items()}) == units
    else:
        assert found.by == "utterance"
        assert found.count == min(folds, len(durations))


def test_folds_are_balanced_by_duration():
    rng = np.random.default_rng(0)
    durations = {f"u{i}": int(rng.integers(16000, 320000)) for i in range(400)}
    speakers = {u: f"s{i % 40}" for i, u in enumerate(durations)}
    found = partition(durations, speakers, 5)
    loads = [sum(durations[u] for u, f in found.of.items() if f == fold) for fold in range(5)]
    assert max(loads) < 1.05 * min(loads)


def test_longest_first():
    durations = {"a": 5, "b": 4, "c": 3, "d": 3, "e": 3}
    found = partition(durations, {}, folds=2)
    assert [found.of["a"], found.of["b"]] == [0, 1]
    assert [sum(d for u, d in durations.items() if found.of[u] == f) for f in range(2)] == [8, 10]


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=40), st.integers(2, 6), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_every_label_is_in_all_folds_alike(labels, folds, seed):
    of = {f"u{i:02d}": label for i, label in enumerate(labels)}
    found = stratified(of, folds, seed)
    assert found.count == min(folds, len(labels))
    for label in set(labels):
        sizes = np.bincount([found.of[u] for u in of if of[u] == label], minlength=found.count)
        assert sizes.max() - sizes.min() <= 1
    sizes = np.bincount(list(found.of.values()))
    assert len(sizes) == found.count
    assert sizes.max() - sizes.min() <= 1


def test_no_folds_of_nothing():
    with pytest.raises(MeasureError, match="0 utterances"):
        partition({}, {})
    with pytest.raises(MeasureError, match="1 folds"):
        partition({"a": 1}, {}, folds=1)


@given(n=st.integers(1, 100), count=st.integers(1, 25), seed=st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_groups_are_equal_and_do_not_depend_on_order(n, count, seed):
    ids = [f"u{i}" for i in range(n)]
    found = groups(ids, seed, count)
    assert groups(reversed(ids), seed, count) == found
    sizes = np.bincount(list(found.values()))
    assert len(sizes) == min(n, count)
    assert sizes.max() - sizes.min() <= 1


def test_hash_is_uniform_and_its_arguments_count():
    draws = [uniform(0, f"utterance-{i // 10}", i % 10) for i in range(5000)]
    assert kstest(draws, "uniform").pvalue > 0.001
    assert len(set(draws)) == 5000
    assert len({uniform(s, u, i, p) for s in (0, 1) for u in ("a", "b") for i in (0, 1) for p in ("", "x")}) == 16
    shifted = [uniform(1, f"utterance-{i // 10}", i % 10) for i in range(5000)]
    assert abs(np.corrcoef(draws, shifted)[0, 1]) < 0.05


def test_hash_is_the_same_everywhere():
    assert uniform(0, "84-121123-0001", 3) == 0.13527761782527747
