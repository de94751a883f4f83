"""Distances between weights: what was planted is found, what never moved is exactly nothing, what does not fit is refused."""

import copy
import math

import pytest
import torch

from otoscope.errors import CheckpointError, EvaluationError, SurgeryError
from otoscope.interventions.churn import churn
from otoscope.models import load
from tests.models.small import CASES

UNITS = ("layer.1", "layer.2", "layer.3")


def _case(name):
    return next(case for case in CASES if case.name == name)


@pytest.fixture(scope="module")
def source():
    return _case("wav2vec2-group").build().eval()


def _changed(source, change):
    """A copy whose encoder's state dict went through `change`, tensor by tensor."""
    made = copy.deepcopy(source)
    with torch.no_grad():
        for name, value in made.state_dict().items():
            value.copy_(change(name, value))
    return load(made)


def _values(result, other="initial"):
    return {(row.stream, row.target): row.value for row in result.rows if row.other == other}


def test_the_same_weights_are_exactly_nothing_apart(source):
    found = churn(load(source), load(copy.deepcopy(source)), "sub-module")
    assert {row.value for row in found.rows} == {0.0}
    assert found.notes["churn"]["unchanged"]["initial"] == list(dict.fromkeys(row.stream for row in found.rows))


def test_a_planted_shift_and_a_layer_that_never_moved(source):
    """Layer 2 is shifted by a constant; of layer 3 all weights are three times as large."""

    def change(name, value):
        return value + 0.5 if ".layers.1." in name else 3 * value if ".layers.2." in name else value

    found = _values(churn(_changed(source, change), load(source)))
    old = torch.cat([one.detach().double().flatten() for one in source.encoder.layers[1].parameters()])
    assert {found["layer.1", kind] for kind in ("rms", "relative", "angular", "largest")} == {0.0}
    assert found["layer.2", "rms"] == pytest.approx(0.5, rel=1e-6)
    assert found["layer.2", "largest"] == pytest.approx(0.5, rel=1e-6)
    assert found["layer.2", "relative"] == pytest.approx(0.5 * math.sqrt(len(old)) / float(old.norm()), rel=1e-6)
    cosine = torch.nn.functional.cosine_similarity(old, old + 0.5, dim=0)
    assert found["layer.2", "angular"] == pytest.approx(math.acos(float(cosine)) / math.pi, rel=1e-6)
    assert found["layer.3", "relative"] == pytest.approx(2, rel=1e-6)
    assert found["layer.3", "angular"] == pytest.approx(0, abs=1e-7)
    assert ("layer.3", "path") not in found


def test_rows_hold_unit_layer_and_count(source):
    rows = churn(load(source), load(source)).rows
    count = sum(one.numel() for one in source.encoder.layers[0].parameters())
    assert {(row.measure, row.head, row.low, row.label) for row in rows} == {("churn", None, None, None)}
    assert [(row.stream, row.layer, row.n) for row in rows[::4]] == [(f"layer.{k}", k, count) for k in (1, 2, 3)]


def test_a_path_is_as_long_as_its_steps_and_twins_are_told_by_seed(source):
    def shifted(by):
        return _changed(source, lambda name, value: value + by if value.is_floating_point() else value)

    model = shifted(1.0)
    result = churn(
        model,
        load(source),
        checkpoints={"step-1": shifted(2.0), "step-2": shifted(-1.0)},
        twins={"seven": shifted(1.25)},
    )
    found = _values(result)
    for unit in UNITS:
        assert found[unit, "rms"] == pytest.approx(1, rel=1e-6)
        assert found[unit, "path"] == pytest.approx(2 + 3 + 2, rel=1e-6)
        assert _values(result, "step-1")[unit, "rms"] == pytest.approx(1, rel=1e-6)
        assert _values(result, "step-2")[unit, "rms"] == pytest.approx(2, rel=1e-6)
        assert _values(result, "seed:seven")[unit, "largest"] == pytest.approx(0.25, rel=1e-5)
    assert ("layer.1", "path") not in _values(result, "step-1")
    assert result.notes["churn"]["path_over"] == ["initial", "step-1", "step-2"]
    assert result.notes["churn"]["against"] == ["initial", "step-1", "step-2", "seed:seven"]
    # Without initial weights the path has no beginning.
    assert "path" not in {row.target for row in churn(model, checkpoints={"a": shifted(2.0)}).rows}


def test_weights_in_factors_are_compared_as_what_the_model_computes_with(source):
    """The second factor of a weight norm may be of any length: the weight is the same."""
    unit = "encoder.pos_conv_embed.conv"
    longer = _changed(source, lambda name, value: 5 * value if name.endswith("weight.original1") else value)
    whole = _values(churn(longer, load(source), [unit]))
    assert whole[unit, "relative"] == pytest.approx(0, abs=1e-6)
    factor = f"{unit}.parametrizations.weight.original1"
    assert _values(churn(longer, load(source), [factor]))[factor, "relative"] == pytest.approx(4, rel=1e-5)
    scaled = _changed(source, lambda name, value: 2 * value if name.endswith("weight.original0") else value)
    weight = source.encoder.pos_conv_embed.conv.weight.detach().double()
    rms = float(weight.norm()) / math.sqrt(weight.numel() + 48)
    assert _values(churn(scaled, load(source), [unit]))[unit, "rms"] == pytest.approx(rms, rel=1e-5)


def test_statistics_of_batch_norms_are_listed_and_not_counted():
    source = _case("conformer-relative").build().eval()
    moved = _changed(source, lambda name, value: value + 1 if "running" in name else value)
    result = churn(moved, load(source), "sub-module", [2])
    assert {row.value for row in result.rows} == {0.0}
    listed = result.notes["churn"]["not_counted"]
    assert any(path.endswith("running_var") for path in listed)
    assert not any(path.endswith("weight") for path in listed)


def test_weights_of_zero_have_no_direction(source):
    unit = "layer.1.attention.k_proj.bias"
    empty = _changed(source, lambda name, value: 0 * value if name.endswith("0.attention.k_proj.bias") else value)
    found = _values(churn(load(source), empty, [unit]))
    assert found[unit, "relative"] is None
    assert found[unit, "angular"] is None
    assert found[unit, "rms"] > 0
    assert set(_values(churn(empty, empty, [unit])).values()) == {0.0}


def test_checkpoints_may_be_folders_and_state_dicts(source, tmp_path):
    folder = tmp_path / "initial"
    source.save_pretrained(folder)
    moved = _changed(source, lambda name, value: value + 0.5 if value.is_floating_point() else value)
    by_model = churn(moved, load(source))
    assert churn(moved, folder).rows == by_model.rows
    assert churn(moved, source.state_dict()).rows == by_model.rows


def test_what_does_not_fit_is_refused(source):
    model = load(source)
    with pytest.raises(EvaluationError, match="no other weights"):
        churn(model)
    with pytest.raises(EvaluationError, match="called 'initial'"):
        churn(model, model, checkpoints={"initial": model})
    with pytest.raises(SurgeryError, match="family"):
        churn(model, load(_case("hubert-group").build()))
    with pytest.raises(SurgeryError, match="matches no unit"):
        churn(model, model, ["layer.7"])
    with pytest.raises(SurgeryError, match="part of tensors"):
        churn(model, model, ["layer.1.head.0"])
    with pytest.raises((CheckpointError, SurgeryError), match="nowhere"):
        churn(model, "/nowhere/at/all")
    lacking = {name: value for name, value in source.state_dict().items() if "layers.1.final" not in name}
    with pytest.raises(SurgeryError, match="has no 'encoder.layers.1.final_layer_norm"):
        churn(model, lacking)
    narrow = {name: value[:3] if "layers.1.final" in name else value for name, value in source.state_dict().items()}
    with pytest.raises(SurgeryError, match="has the shape"):
        churn(model, narrow)
    broken = _changed(source, lambda name, value: value * math.nan if ".layers.1." in name else value)
    with pytest.raises(EvaluationError, match="Weights of layer.2 in the checkpoint 'initial' are not finite"):
        churn(model, broken)
