import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from sklearn.metrics import adjusted_mutual_info_score, mutual_info_score

from otoscope.errors import MeasureError
from otoscope.functional import adjusted_mutual_information, cluster_purity, mutual_information
from otoscope.measures.layers.clusters import ClusterInformation
from tests.measures.layers.labelled_speech import ANATOMY, capture, corpus, ids

labellings = st.integers(2, 60).flatmap(
    lambda n: st.tuples(*[npst.arrays(np.int64, n, elements=st.integers(0, 6)) for _ in range(2)])
)


def test_equal_labellings_share_all_their_entropy():
    labels = np.repeat(np.arange(8), 5)
    assert mutual_information(labels[::-1].copy(), labels[::-1].copy()) == pytest.approx(math.log(8), abs=1e-12)
    assert mutual_information(100 - labels, labels, normalise="labels") == pytest.approx(1, abs=1e-12)
    assert adjusted_mutual_information(100 - labels, labels) == pytest.approx(1, abs=1e-12)
    assert cluster_purity(100 - labels, labels) == 1


def test_a_grid_of_all_pairs_shares_nothing():
    clusters, labels = (v.ravel() for v in np.meshgrid(np.arange(4), np.arange(3)))
    assert mutual_information(clusters, labels) == 0
    assert mutual_information(clusters, labels, normalise="labels") == 0
    assert cluster_purity(clusters, labels) == pytest.approx(1 / 3)


def test_clusters_that_merge_two_labels_lose_their_difference():
    labels = np.repeat(np.arange(4), 10)
    assert mutual_information(labels // 2, labels) == pytest.approx(math.log(2), abs=1e-12)
    assert mutual_information(labels // 2, labels, normalise="labels") == pytest.approx(0.5, abs=1e-12)
    # The other way round the clusters tell the label wholly: the normalisation is not symmetric.
    assert mutual_information(labels, labels // 2, normalise="labels") == pytest.approx(1, abs=1e-12)
    assert cluster_purity(labels // 2, labels) == 0.5
    assert cluster_purity(labels, labels // 2) == 1


@given(pair=labellings)
@settings(max_examples=60)
def test_equals_scikit_learn(pair):
    clusters, labels = pair
    assert mutual_information(clusters, labels) == pytest.approx(max(mutual_info_score(labels, clusters), 0), abs=1e-12)
    assert adjusted_mutual_information(clusters, labels) == adjusted_mutual_info_score(labels, clusters)
    if len(set(labels)) > 1:
        own = mutual_info_score(labels, labels)
        expected = mutual_info_score(labels, clusters) / own
        assert mutual_information(clusters, labels, normalise="labels") == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("clusters", "labels", "expected"), [(500, 39, 0.335), pytest.param(5000, 500, 0.878, id="words")]
)
def test_independent_labellings_score_what_chance_gives(clusters, labels, expected):
    """The level that is known for 7,000 rows: far from 0, and corrected to 0."""
    rng = np.random.default_rng(0)
    k, y = rng.integers(0, clusters, 7000), rng.integers(0, labels, 7000)
    assert mutual_information(k, y, normalise="labels") == pytest.approx(expected, abs=0.01)
    assert abs(adjusted_mutual_information(k, y)) < 0.01


def test_torch_and_leading_dimensions():
    rng = np.random.default_rng(1)
    k, y = rng.integers(0, 5, (2, 3, 40)), rng.integers(0, 4, (2, 3, 40))
    for score in (mutual_information, adjusted_mutual_information, cluster_purity):
        found = score(k, y)
        assert found.shape == (2, 3)
        assert found[1, 2] == score(k[1, 2], y[1, 2])
        other = score(torch.from_numpy(k), torch.from_numpy(y))
        assert other.dtype == torch.float64
        np.testing.assert_array_equal(other.numpy(), found)
    assert score(torch.from_numpy(k[0, 0]), torch.from_numpy(y[0, 0])).shape == ()


def test_what_is_no_labelling_is_refused():
    y = np.arange(4)
    with pytest.raises(MeasureError, match="shapes disagree"):
        mutual_information(y, y[:3])
    with pytest.raises(MeasureError, match="no row"):
        cluster_purity(y[:0], y[:0])
    with pytest.raises(MeasureError, match="not integers"):
        adjusted_mutual_information(y / 2, y)
    with pytest.raises(MeasureError, match="only one label"):
        mutual_information(y, y * 0, normalise="labels")
    with pytest.raises(MeasureError, match="normalised by 'clusters'"):
        mutual_information(y, y, normalise="clusters")
    with pytest.raises(MeasureError, match="types ndarray and Tensor"):
        mutual_information(y, torch.from_numpy(y))


def seen(target: str = "phone", **options: object) -> ClusterInformation:
    measure = ClusterInformation(target, **options)  # type: ignore[arg-type]
    measure.prepare(ANATOMY, corpus(), seed=0)
    for a, b in pairwise([0, 3, 12]):
        measure.update(capture(ids()[a:b], target))
    return measure


@pytest.mark.parametrize(("target", "least"), [("phone", 0.99), ("word", 0.8)])
def test_a_layer_that_holds_the_label_tells_it_and_noise_does_not(target, least):
    # Words have four clusters for four labels, and k-means may merge two of them; phones have one in reserve.
    result = seen(target, clusters=12).compute()
    rows = {(r.measure, r.stream): r for r in result.rows}
    for name in (f"mi-{target}", f"ami-{target}", f"purity-{target}"):
        held, noise = rows[name, "layer.2"], rows[name, "final_norm"]
        assert held.value > (0.6 if name.startswith("ami") else least)
        assert held.floor < held.value - 0.2
        assert abs(noise.value - noise.floor) < 0.1
        for row in (held, noise):
            assert row.target == target
            assert row.low <= row.value <= row.high <= row.ceiling + 1e-12
            assert row.ceiling == (pytest.approx(1, abs=0.1) if name.startswith("mi") else 1)
            assert row.n == len(seen(target).segments)
    assert rows[f"mi-{target}", "layer.2"].layer == 2
    assert abs(rows[f"ami-{target}", "layer.2"].floor) < 0.05


def test_too_few_clusters_for_the_labels_lower_the_ceiling():
    result = seen("phone", clusters=2).compute()
    row = next(r for r in result.rows if (r.measure, r.stream) == ("mi-phone", "layer.2"))
    assert row.ceiling == pytest.approx(math.log(2) / math.log(5), abs=0.01)
    assert row.floor < row.value <= row.ceiling


def test_there_are_never_more_clusters_than_rows_allow():
    measure = seen("phone")
    notes = measure.compute().notes
    assert notes["clusters_wanted"] == 500
    rows = measure.rows()
    expected = [int((rows.folds != fold).sum()) // notes["rows_per_cluster"] for fold in range(3)]
    assert notes["clusters"] == expected


def test_any_order_gives_the_same_and_a_constant_stream_is_answered():
    one, other = ClusterInformation("phone"), ClusterInformation("phone")
    for measure, order in ((one, ids()), (other, ids()[::-1])):
        measure.prepare(ANATOMY, corpus(), seed=0)
        for name in order:
            batch = capture((name,))
            batch.streams["layer.1"][:] = 0.3
            measure.update(batch)
    assert one.compute().rows == other.compute().rows
    rows = {r.measure: r for r in one.compute().rows if r.stream == "layer.1"}
    assert rows["mi-phone"].value == rows["ami-phone"].value == rows["mi-phone"].floor == 0
    assert 0.2 < rows["purity-phone"].value < 0.35


def test_what_cannot_be_clustered_is_refused():
    with pytest.raises(MeasureError, match="about 'mel'"):
        ClusterInformation("mel")
    with pytest.raises(MeasureError, match="1 clusters"):
        ClusterInformation("phone", clusters=1)
    measure = ClusterInformation("phone")
    measure.prepare(ANATOMY, corpus(), seed=0)
    measure.update(capture(ids()[:1]))
    with pytest.raises(MeasureError, match="labels in 1 folds"):
        measure.compute()
