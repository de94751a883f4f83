import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otoscope.errors import MeasureError, StateError
from otoscope.statistics import ClassMoments, Moments, Scatter, Workspace

FIELDS = ("mean_x", "mean_y", "sxx", "sxy", "syy")


def direct(x: np.ndarray, y: np.ndarray) -> Scatter:
    """Moments of whole arrays, straight from their definition."""
    a, b = x - x.mean(0), y - y.mean(0)
    return Scatter(float(len(x)), x.mean(0), y.mean(0), a.T @ a, a.T @ b, b.T @ b)


def assert_close(found: Scatter, expected: Scatter, tolerance: float = 1e-10) -> None:
    assert found.n == expected.n
    for name in FIELDS:
        a, b = getattr(found, name), getattr(expected, name)
        assert np.abs(a - b).max(initial=0) <= tolerance * np.abs(b).max(initial=1e-300), name


@given(
    rows=st.integers(1, 60),
    width=st.integers(1, 9),
    targets=st.integers(1, 4),
    offset=st.sampled_from([0.0, 1.0, 1e4]),
    cuts=st.lists(st.integers(0, 60), max_size=5),
    parts=st.integers(1, 3),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=150, deadline=None)
def test_any_split_and_order_gives_the_moments_of_the_whole(rows, width, targets, offset, cuts, parts, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((rows, width)) + offset, rng.standard_normal((rows, targets)) - offset
    folds = 3
    states = [Moments(folds, width, targets, Workspace(width, targets, rows=7)) for _ in range(parts)]
    fold_of = np.zeros(rows, dtype=int)
    blocks = np.split(np.arange(rows), sorted(min(c, rows) for c in cuts))
    for i in rng.permutation(len(blocks)):
        fold = int(rng.integers(folds))
        fold_of[blocks[i]] = fold
        states[rng.integers(parts)].update(fold, x[blocks[i]], y[blocks[i]])
    whole = states[0]
    for other in states[1:]:
        whole.merge(other)
    tolerance = 1e-10 if offset < 1e4 else 1e-9
    assert_close(whole.pooled(), direct(x, y), tolerance)
    for fold in range(folds):
        if (fold_of == fold).any():
            assert_close(whole.pooled([fold]), direct(x[fold_of == fold], y[fold_of == fold]), tolerance)
    rest = fold_of != 1
    if rest.any():
        assert_close(whole.pooled([0, 2]), direct(x[rest], y[rest]), tolerance)


def test_float32_rows_are_summed_in_float64():
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((3000, 5)) + 300).astype(np.float32)
    m = Moments(1, 5)
    m.update(0, x)
    assert_close(m.pooled(), direct(x.astype(np.float64), np.zeros((3000, 0))), 1e-12)


def test_empty_updates_and_empty_folds_change_nothing():
    m = Moments(2, 3, 1)
    m.update(0, np.zeros((0, 3)), np.zeros((0, 1)))
    m.merge(Moments(2, 3, 1))
    assert not any(a.any() for a in m.state().values())
    assert m.pooled().n == 0


def test_nothing_is_allocated_that_stays():
    m = Moments(2, 4, 2)
    before = {k: v.ctypes.data for k, v in m.state().items()}
    m.update(1, np.ones((5, 4)), np.ones((5, 2)))
    m.merge(m)
    assert {k: v.ctypes.data for k, v in m.state().items()} == before


def test_state_round_trip():
    rng = np.random.default_rng(1)
    m, empty = Moments(2, 4, 2), Moments(2, 4, 2)
    m.update(1, rng.standard_normal((9, 4)), rng.standard_normal((9, 2)))
    empty.load_state({k: v.copy() for k, v in m.state().items()})
    assert all(np.array_equal(v, m.state()[k]) and v.dtype == np.float64 for k, v in empty.state().items())


def test_states_that_do_not_fit_are_refused():
    m = Moments(2, 4)
    with pytest.raises(StateError, match="cannot be merged"):
        m.merge(Moments(2, 5))
    with pytest.raises(StateError, match="lacks 1 arrays"):
        m.load_state({k: v for k, v in m.state().items() if k != "n"})
    with pytest.raises(StateError, match="has shape"):
        m.load_state(m.state() | {"n": np.zeros(3)})


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_and_leave_the_state(bad):
    m = Moments(1, 2, 1)
    x, y = np.ones((4, 2)), np.ones((4, 1))
    m.update(0, x, y)
    before = {k: v.copy() for k, v in m.state().items()}
    x[2, 1] = bad
    for rows, target in [(x, y), (np.ones((4, 2)), y * bad)]:
        with pytest.raises(MeasureError, match="not finite"):
            m.update(0, rows, target)
    assert all(np.array_equal(v, before[k]) for k, v in m.state().items())


@pytest.mark.parametrize(("x", "y"), [((4, 3), (4, 1)), ((4, 2), (3, 1)), ((4, 2), None), ((4, 2), (4, 2))])
def test_shapes_that_disagree_are_refused(x, y):
    with pytest.raises(MeasureError, match="do not fit"):
        Moments(1, 2, 1).update(0, np.ones(x), None if y is None else np.ones(y))


@given(
    rows=st.integers(1, 50),
    classes=st.integers(1, 6),
    seed=st.integers(0, 2**32 - 1),
    offset=st.sampled_from([0.0, 50.0]),
)
@settings(max_examples=60, deadline=None)
def test_class_sums_stand_for_one_hot_products(rows, classes, seed, offset):
    rng = np.random.default_rng(seed)
    x, labels = rng.standard_normal((rows, 4)) + offset, rng.integers(classes, size=rows)
    folds = rng.integers(3, size=rows)
    one_hot = np.eye(classes)[labels]
    m = Moments(3, 4)
    c, other = ClassMoments(3, classes, 4), ClassMoments(3, classes, 4)
    for f in range(3):
        mine = folds == f
        m.update(f, x[mine])
        half = int(mine.sum()) // 2
        c.update(f, x[mine][:half], labels[mine][:half])
        other.update(f, x[mine][half:], labels[mine][half:])
    c.merge(other)
    for chosen in ([0], [0, 1], [2, 1, 0]):
        mine = np.isin(folds, chosen)
        if mine.any():
            found, expected = c.joined(m.pooled(chosen), chosen), direct(x[mine], one_hot[mine])
            for name in FIELDS:
                np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-9)


def test_class_moments_refuse_what_does_not_fit():
    c, m = ClassMoments(1, 3, 2), Moments(1, 2)
    with pytest.raises(MeasureError, match="do not fit 3 classes"):
        c.update(0, np.ones((2, 2)), np.array([0, 3]))
    with pytest.raises(MeasureError, match="labels of shape"):
        c.update(0, np.ones((2, 2)), np.array([0]))
    with pytest.raises(StateError, match="cannot be merged"):
        c.merge(ClassMoments(1, 4, 2))
    m.update(0, np.ones((2, 2)))
    with pytest.raises(StateError, match="0 labels stand beside 2 rows"):
        c.joined(m.pooled())


def targets_of(rng, n):
    return {"mel": rng.standard_normal((n, 4)) + 3, "input": rng.standard_normal((n, 2)) * 5}


def test_several_targets_share_one_scatter_and_any_split_merges():
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((60, 3)) + 7, targets_of(rng, 60)
    fold = rng.integers(0, 3, 60)
    parts = [Moments(3, 3, {"mel": 4, "input": 2}) for _ in range(2)]
    for k, rows in enumerate(np.array_split(rng.permutation(60), 7)):
        for f in range(3):
            mine = rows[fold[rows] == f]
            parts[k % 2].update(f, x[mine], {name: one[mine] for name, one in y.items()})
    parts[0].merge(parts[1])
    for name, one in y.items():
        assert_close(parts[0].pooled(target=name), direct(x, one))
        for f in range(3):
            assert_close(parts[0].pooled([f], name), direct(x[fold == f], one[fold == f]))
    assert parts[0].pooled().syy.shape == (0, 0)


def test_a_borrowed_target_takes_the_scatter_of_its_own_rows():
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((20, 3)), rng.standard_normal((20, 4)) + 9
    m, own = Moments(1, 3, {"input": 4}, borrowed=("input",)), Moments(1, 4)
    for rows in (slice(0, 7), slice(7, 20)):
        m.update(0, x[rows], {"input": y[rows]})
        own.update(0, y[rows])
    assert_close(m.pooled(target="input", own=own.pooled()), direct(x, y))
    assert m.state()["input/syy"].size == 0
    with pytest.raises(StateError, match="not kept here"):
        m.pooled(target="input")
    own.update(0, y)
    with pytest.raises(StateError, match="not kept here"):
        m.pooled(target="input", own=own.pooled())


def test_targets_that_do_not_fit_are_refused():
    m = Moments(1, 3, {"mel": 4})
    for y in (None, {"mel": np.ones((5, 3))}, {"sound": np.ones((5, 4))}, {"mel": np.ones((4, 4))}, np.ones((5, 4))):
        with pytest.raises(MeasureError, match="do not fit"):
            m.update(0, np.ones((5, 3)), y)
    assert m.n.sum() == 0
    with pytest.raises(StateError, match="cannot be merged"):
        m.merge(Moments(1, 3, {"sound": 4}))


def test_vectors_of_classes_need_no_sums_of_their_own():
    """A table of word vectors: the same as moments with each row's vector as the target."""
    rng = np.random.default_rng(4)
    x, labels, codes = rng.standard_normal((80, 3)) + 2, rng.integers(0, 6, 80), rng.standard_normal((6, 5)) + 4
    fold = rng.integers(0, 2, 80)
    m, c = Moments(2, 3), ClassMoments(2, 6, 3)
    for f in range(2):
        m.update(f, x[fold == f])
        c.update(f, x[fold == f], labels[fold == f])
    for chosen in ([0], [1], [0, 1]):
        mine = np.isin(fold, chosen)
        assert_close(c.joined(m.pooled(chosen), chosen, codes), direct(x[mine], codes[labels[mine]]))
