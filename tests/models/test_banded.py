"""Attention in tiles against scores that are masked on whole maps: values, gradients, masks, biases, radii."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from otoscope.models import banded, load
from otoscope.models.edits import NO_LIMIT
from otoscope.models.families import FAMILIES
from otoscope.models.reductions import RowEntropy
from otoscope.surgery import Bypass, ReplaceMap, Span, apply, edited
from tests.models.small import CASES
from tests.surgery.cases import differences, run, speech

LOWEST = -1e30
ONE_EACH = [next(case for case in CASES if case.family == family.name) for family in FAMILIES]


def drawn(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def masked(query, key, value, radius, mask=None, position_bias=None, scaling=None):
    """The definition: all scores, those outside far below all others, softmax."""
    scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if position_bias is not None:
        scores = scores + position_bias
    if mask is not None:
        scores = scores.masked_fill(~mask, LOWEST) if mask.dtype == torch.bool else scores + mask
    at = torch.arange(query.shape[2])
    outside = (at[:, None] - at).abs() > radius[:, None, None]
    return (torch.softmax(scores.masked_fill(outside, LOWEST), -1) @ value).transpose(1, 2)


@settings(deadline=None, max_examples=60)
@given(
    frames=st.integers(1, 150), reach=st.integers(0, 60), batch=st.integers(1, 3), heads=st.integers(1, 4),
    form=st.sampled_from(["none", "boolean", "additive", "causal", "positions"]), biased=st.booleans(),
    even=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_it_is_attention_with_masked_scores(frames, reach, batch, heads, form, biased, even, seed):
    query, key, value = (drawn(seed + k, batch, heads, frames, 8) for k in range(3))
    radius = torch.full((heads,), reach)
    if not even:
        radius = torch.randint(0, reach + 1, (heads,), generator=torch.Generator().manual_seed(seed))
        radius[0] = reach
    lengths = torch.randint(1, frames + 1, (batch,), generator=torch.Generator().manual_seed(seed + 5))
    valid = (torch.arange(frames) < lengths[:, None])[:, None, None]
    mask = {
        "none": None,
        "boolean": valid,
        "additive": torch.zeros(valid.shape).masked_fill(~valid, torch.finfo(torch.float32).min),
        "causal": valid & torch.ones(frames, frames, dtype=torch.bool).tril(),
        "positions": drawn(seed + 6, batch, heads, frames, frames).masked_fill(~valid, LOWEST),
    }[form]
    bias = drawn(seed + 7, 1, heads, frames, frames) if biased else None
    found = banded.attend(
        query, key, value, reach, None if even else radius, mask=mask, position_bias=bias, scaling=0.7
    )
    expected = masked(query, key, value, radius, mask, bias, 0.7)
    assert torch.isfinite(found).all()
    for one, other, length in zip(found, expected, lengths if form != "none" else [frames] * batch, strict=True):
        assert torch.allclose(one[:length], other[:length], atol=1e-5)


@pytest.mark.parametrize("biased", [False, True])
def test_gradients_are_those_of_attention_with_masked_scores(biased):
    frames, radius = 100, torch.tensor([3, 10, 0])
    given = [drawn(k, 2, 3, frames, 8).requires_grad_() for k in range(3)]
    bias = [drawn(4, 2, 3, frames, frames).requires_grad_()] if biased else []
    valid = (torch.arange(frames) < torch.tensor([[frames], [70]]))[:, None, None]
    weight = drawn(9, 2, frames, 3, 8) * valid[:, 0, 0, :, None, None]
    found = banded.attend(*given, 10, radius, mask=valid, position_bias=bias[0] if bias else None)
    gradients = torch.autograd.grad((found * weight).sum(), [*given, *bias])
    expected = masked(*given, radius, valid, bias[0] if bias else None)
    for one, other in zip(gradients, torch.autograd.grad((expected * weight).sum(), [*given, *bias]), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_weights_are_dropped_and_the_mean_stays():
    query, key, value = drawn(0, 1, 1, 64, 8), drawn(1, 1, 1, 64, 8), torch.ones(1, 1, 64, 8)
    torch.manual_seed(0)
    found = torch.stack([banded.attend(query, key, value, 20, dropout=0.5) for _ in range(200)])
    assert found.std() > 0.05
    assert found.mean().item() == pytest.approx(1, abs=0.05)


def test_windows_are_the_parts_of_a_map():
    map_ = drawn(3, 2, 3, 70, 70)
    found = banded.windows(map_, 70, 5)
    assert found.shape == (2, 3, 3, banded.TILE, banded.TILE + 10)
    for tile in range(3):
        for row in range(banded.TILE):
            for key in range(banded.TILE + 10):
                i, j = tile * banded.TILE + row, tile * banded.TILE + key - 5
                inside = i < 70 and 0 <= j < 70
                expected = map_[:, :, i, j] if inside else torch.zeros(2, 3)
                assert torch.equal(found[:, tile, :, row, key], expected)
    rows = banded.windows(map_[:, :, :1], 70, 5)
    assert torch.equal(rows[:, 1, :, 0], map_[:, :, 0, 27:69])


def test_it_pays_where_the_band_is_short():
    assert banded.pays(16, 250, 250)
    assert not banded.pays(60, 250, 250)
    assert not banded.pays(16, 250, 251)
    assert not banded.pays(NO_LIMIT, 10**6, 10**6)


EDITS = {
    "span": [Span("layer.1", 3, "banded"), Span("layer.2.head.0-2", 2, "banded"), Span("layer.2.head.3", 4, "banded")],
    "local": [
        ReplaceMap("layer.1", "local", width=3), Span("layer.1", 4, "banded"),
        ReplaceMap("layer.2", "uniform"), Span("layer.2", 2, "banded"),
    ],
    "layer": [ReplaceMap("layer.2", "layer", source=1), Span("layer.2", 3, "banded")],
}  # fmt: skip


@pytest.mark.parametrize("edits", EDITS.values(), ids=EDITS)
@pytest.mark.parametrize("case", ONE_EACH, ids=lambda case: case.name)
def test_models_give_the_same_either_way(case, edits, monkeypatch):
    """All families' masks and biases, ragged batches, values and gradients; the tap takes whole rows and agrees."""
    corpus = speech(0.4, 0.62)
    model = apply(load(case.build().eval()), edits)
    calls = []
    monkeypatch.setattr(banded, "TILE", 4)
    kernel = banded.attend
    monkeypatch.setattr(banded, "attend", lambda *args, **kwargs: (calls.append(1), kernel(*args, **kwargs))[1])

    def gradients():
        module = edited(model.source, [])
        encoder = model.family.encoder(module)
        encoder(**model.frontend.inputs([corpus[1].read()])).last_hidden_state.square().mean().backward()
        return {name: one.grad for name, one in module.named_parameters() if one.grad is not None}

    monkeypatch.setattr(banded, "SHARE", 0.0)
    whole, expected = run(model, corpus), gradients()
    assert not calls
    monkeypatch.setattr(banded, "SHARE", 1e9)
    found, given = run(model, corpus), gradients()
    assert len(calls) == 2 * len({edit.units.partition(".head")[0] for edit in edits})
    assert max(differences(whole, found).values()) < 1e-5
    assert max(differences(found, run(model, corpus, reductions=[RowEntropy])).values()) < 1e-5
    assert given.keys() == expected.keys()
    assert all(torch.allclose(value, expected[name], atol=1e-5) for name, value in given.items())


def test_a_head_without_a_limit_or_cut_after_the_softmax_needs_whole_rows(monkeypatch):
    corpus = speech(0.4)
    monkeypatch.setattr(banded, "SHARE", 1e9)
    monkeypatch.setattr(banded, "attend", None)
    model = load(ONE_EACH[0].build().eval())
    run(apply(model, [Span("layer.1.head.0-2", 3, "banded")]), corpus)
    run(apply(model, [Span("layer.1", 3, "literal"), Span("layer.1.head.0", 3, "banded")]), corpus)
    run(apply(model, [ReplaceMap("layer.1", "uniform"), Bypass("layer.2")]), corpus)
    with pytest.raises(TypeError):
        run(apply(model, [Span("layer.1", 3, "banded")]), corpus)
