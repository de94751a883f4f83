"""Floors and intervals of CCA from stored rows; labels that name nothing are no labels."""

import numpy as np
import pytest

from otoscope.measures.layers import pwcca_from_moments
from otoscope.measures.layers.correlation import scatter_of
from otoscope.measures.layers.labels import choose_labels
from otoscope.measures.layers.spans import phone_spans, span_means, word_spans
from otoscope.speech import Corpus, Interval, log_mel
from otoscope.statistics import corrected_t, partition, uniform
from tests.measures.layers.test_cca import corpus, streams_of, whole

STREAMS = ("input", "layer.1", "layer.2", "final_norm")


def folds():
    return partition({u.id: u.n_samples for u in corpus()}, {u.id: u.speaker for u in corpus()}, seed=0).of


def stored(target, stream):
    """Rows of a stream, the target that is not there (drawn labels, rolled mel features), and the fold of each."""
    x, floor, fold = [], [], []
    labels = None if target == "mel" else choose_labels(corpus(), target, folds(), seed=0)
    for one in corpus():
        frames = streams_of(one.id, "word" if target == "word" else "phone")[stream].astype(np.float32)
        if labels is None:
            mel = log_mel(one.read())
            rolled = np.roll(mel, int((0.25 + 0.5 * uniform(0, one.id, purpose="roll")) * len(mel)), axis=0)[::2]
            n = min(len(frames), len(rolled))
            x.append(frames[:n].astype(float))
            floor.append(rolled[:n].astype(float))
        else:
            spans = phone_spans if target == "phone" else word_spans
            found = labels.segments(one)
            x.append(span_means(frames, *spans(found.starts, found.ends, 320, len(frames))))
            floor.append(np.eye(len(labels))[found.permuted])
        fold += [folds()[one.id]] * len(x[-1])
    return np.concatenate(x), np.concatenate(floor), np.array(fold)


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("target", ["mel", "phone", "word"])
def test_floors_are_fitted_and_scored_on_the_target_that_is_not_there(target, stream):
    result = whole(target).compute()
    x, y, fold = stored(target, stream)
    expected = []
    for test, ridge in enumerate(result.notes["ridges"][stream]):
        fitted, scored = ~np.isin(fold, [test, (test + 1) % 5]), fold == test
        train, rest = scatter_of(x[fitted], y[fitted]), scatter_of(x[scored], y[scored])
        expected.append(pwcca_from_moments(train, rest, weights="y", ridge=ridge))
    row = next(row for row in result.rows if row.stream == stream)
    assert row.n == len(x)
    assert row.floor == pytest.approx(np.mean(expected), abs=1e-9)


@pytest.mark.parametrize("target", ["mel", "phone", "word"])
def test_intervals_allow_for_shared_training_rows(target):
    """The corrected t of the folds' scores, with the mean over folds of test rows for every training row."""
    result = whole(target).compute()
    _, _, fold = stored(target, "input")
    rows = np.bincount(fold)
    ratio = np.mean([rows[k] / (rows.sum() - rows[k] - rows[(k + 1) % 5]) for k in range(5)])
    wide = 0
    for row, scores in zip(result.rows, result.arrays[f"cca-{target}.scores"], strict=True):
        if row.stream in STREAMS:
            value, low, high = map(float, corrected_t(scores, ratio))
            assert (row.value, row.low, row.high) == pytest.approx((value, max(low, -1), min(high, 1)), abs=1e-12)
            wide += -1 < low < high - 1e-3 and high < 1
    assert wide >= 2


@pytest.mark.parametrize("label", ["", "sil", "sp", "spn", "<eps>", "<unk>"])
@pytest.mark.parametrize("tier", ["phone", "word"])
def test_what_names_nothing_is_no_label(tier, label):
    """However frequent: it is neither kept nor counted among what was left out, and has no segments."""
    texts = [(label, "a", label, "b", label)] * 6
    tiers = [{tier: tuple(Interval(1600 * k, 1600 * (k + 1), x) for k, x in enumerate(text))} for text in texts]
    made = Corpus.from_arrays([np.zeros(8000)] * 6, tiers=tiers)
    chosen = choose_labels(made, tier, {u.id: k % 3 for k, u in enumerate(made)}, seed=0)
    assert chosen.labels == ("a", "b")
    assert (chosen.labels_left_out, chosen.rows_left_out) == (0, 0)
    assert chosen.segments(made[0]).starts.tolist() == [1600, 4800]
