"""Maps over pairs of streams: closed forms, the definition by hand, intervals against leaving groups out for real."""

import numpy as np
import pytest
import torch

from otoscope.errors import MeasureError, StateError
from otoscope.measures.layers.maps import LayerMap, u_hsic, zero_diagonal_gram
from otoscope.models.anatomy import Anatomy
from otoscope.models.capture import Capture
from otoscope.statistics import jackknife
from tests.measures.layers.test_cca import ANATOMY, GRIDS, WIDTHS, capture, corpus, ids


def by_definition(x: np.ndarray, y: np.ndarray) -> float:
    """The U-statistic as sums over rows that differ."""
    k, m = x @ x.T, y @ y.T
    n = len(x)
    k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
    ones = np.ones(n)
    inner = np.trace(k @ m) + (ones @ k @ ones) * (ones @ m @ ones) / ((n - 1) * (n - 2))
    return (inner - 2 / (n - 2) * ones @ k @ m @ ones) / (n * (n - 3))


def debiased_cka(x: np.ndarray, y: np.ndarray) -> float:
    return by_definition(x, y) / np.sqrt(by_definition(x, x) * by_definition(y, y))


def turned(x: np.ndarray, seed: int = 0) -> np.ndarray:
    q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((x.shape[1], x.shape[1])))
    return 3 * x @ q + 7


def made(name: str) -> dict[str, np.ndarray]:
    """layer.1 is the input turned, scaled and shifted; the others are noise."""
    rng = np.random.default_rng(int(name))
    found = {s: rng.standard_normal(((corpus()[name].n_samples - 400) // 320 + 1, WIDTHS[s])) for s in GRIDS}
    found["layer.1"] = turned(found["input"])
    return found


def passed(name: str, streams: dict[str, np.ndarray]) -> Capture:
    tensors = {s: torch.from_numpy(rows)[None] for s, rows in streams.items()}
    lengths = {s: (len(rows),) for s, rows in streams.items()}
    one = corpus()[name]
    return Capture((one,), (one.read(),), tensors, lengths, GRIDS, {}, {})


def seen(kind: str, names: tuple[str, ...] | None = None, **options) -> LayerMap:
    measure = LayerMap(kind, **options)
    measure.prepare(ANATOMY, corpus(), 0)
    for name in names or ids():
        measure.update(passed(name, made(name)))
    return measure


def test_hsic_is_the_u_statistic():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((12, 3)) + 50, rng.standard_normal((12, 5))
    y[:, 0] += x[:, 0]
    found = u_hsic(zero_diagonal_gram(x), zero_diagonal_gram(y))
    assert found == pytest.approx(by_definition(x - x.mean(0), y), rel=1e-9)


@pytest.mark.parametrize("kind", ["cka", "procrustes"])
def test_turned_streams_are_the_same_and_noise_is_not(kind):
    result = seen(kind).compute()
    rows = {(row.stream, row.other): row for row in result.rows}
    same, unlike = (1.0, 0.0) if kind == "cka" else (0.0, np.pi / 2)
    assert rows["input", "layer.1"].value == pytest.approx(same, abs=1e-5)
    assert abs(rows["input", "layer.2"].value - unlike) < (0.05 if kind == "cka" else 1.0)
    assert rows["input", "layer.1"].ceiling == same
    assert len(rows) == 4 * 3
    found = result.arrays[f"{kind}.map"]
    np.testing.assert_allclose(found, found.T, atol=1e-7)
    np.testing.assert_allclose(np.diag(found), same)
    floor = rows["input", "layer.1"].floor
    assert abs(floor) < 0.06 if kind == "cka" else floor > 0.5
    assert rows["input", "layer.1"].n == result.notes["frames"] == len(seen(kind).segments)


def test_cka_and_its_interval_are_those_of_the_stored_rows():
    measure = seen("cka")
    x, y = (measure.vectors(s).astype(float) for s in ("layer.2", "final_norm"))
    group = measure.groups(measure.seen_segments())
    value = debiased_cka(x - x.mean(0), y - y.mean(0))
    without = [debiased_cka(x[group != g] - x.mean(0), y[group != g] - y.mean(0)) for g in range(group.max() + 1)]
    low, high = jackknife(value, np.array(without), np.bincount(group))
    row = next(r for r in measure.compute().rows if (r.stream, r.other) == ("layer.2", "final_norm"))
    assert (row.value, row.low, row.high) == pytest.approx((value, float(low), float(high)), abs=1e-9)


def test_parts_merge_to_the_same():
    parts = [seen("cka", ids()[k::2]) for k in range(2)]
    parts[0].merge(parts[1])
    assert parts[0].compute().rows == seen("cka").compute().rows


def test_two_models_stand_side_by_side():
    smaller = Anatomy(
        "small", ("input", "layer.1"), {"input": 90, "layer.1": 12}, {s: GRIDS[s] for s in ("input", "layer.1")}, (2,)
    )
    measure = LayerMap("cka", (smaller, "smaller"))
    measure.prepare(ANATOMY, corpus(), 0)
    assert measure.streams_of_other == ("input", "layer.1")
    for name in ids():
        streams = made(name)
        other = passed(name, {"input": turned(streams["input"], 1), "layer.1": turned(streams["final_norm"], 2)})
        both = passed(name, streams)
        with pytest.raises(StateError, match="were not captured"):
            LayerMap.update(measure, both)
        measure.update(Capture(**{**vars(both), "other": other}))
    result = measure.compute()
    rows = {(row.stream, row.other): row for row in result.rows}
    assert {row.measure for row in result.rows} == {"cka-inter"}
    assert {row.target for row in result.rows} == {"smaller"}
    assert rows["input", "input"].value == pytest.approx(1, abs=1e-6)
    assert rows["final_norm", "layer.1"].value == pytest.approx(1, abs=1e-6)
    assert abs(rows["layer.2", "layer.1"].value) < 0.05
    assert result.arrays["cka-inter.map"].shape == (4, 2)


def test_a_constant_stream_has_no_rows_and_is_named():
    measure = LayerMap("cka")
    measure.prepare(ANATOMY, corpus(), 0)
    for name in ids():
        batch = capture((name,))
        batch.streams["layer.2"][:] = 2.5
        measure.update(batch)
    result = measure.compute()
    assert result.notes["constant"] == ["layer.2"]
    assert not [row for row in result.rows if "layer.2" in (row.stream, row.other)]


def test_too_little_is_refused():
    with pytest.raises(MeasureError, match="no map 'rsa'"):
        LayerMap("rsa")
    measure = LayerMap("cka", rows=5)
    measure.prepare(ANATOMY, corpus(), 0)
    for name in ids():
        measure.update(capture((name,)))
    with pytest.raises(MeasureError, match="5 frames to compare"):
        measure.compute()
