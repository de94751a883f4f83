"""What is sent is the nearest number of fewer bits, or an error; bytes are those of the tensors."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from otoscope.errors import FederationError
from otoscope.federation.channels import exchanged, groups_of
from otoscope.federation.encoding import ClientSize, bytes_of, decode, encode, sizes
from otoscope.federation.submodels import Submodel, full, narrow
from tests.federation.small import conformer, wav2vec2

MODEL = wav2vec2().model

floats = arrays(np.float32, st.integers(0, 20), elements=st.floats(-(2.0**126), 2.0**126, width=32))


@given(floats)
def test_float32_is_sent_bit_for_bit(values):
    assert np.array_equal(decode(encode({"a": torch.from_numpy(values)}))["a"].numpy(), values)


@given(floats, st.sampled_from([("bfloat16", 2.0**-8, 2.0**-134), ("float16", 2.0**-11, 2.0**-25)]))
def test_fewer_bits_are_the_nearest_number_or_an_error(values, how):
    dtype, relative, least = how
    given = torch.from_numpy(values)
    if dtype == "float16" and bool((np.abs(values) >= 65_520).any()):
        with pytest.raises(FederationError, match="ends at 65504"):
            encode({"a": given}, dtype)
        return
    sent = encode({"a": given}, dtype)["a"]
    found = decode({"a": sent})["a"]
    assert sent.element_size() == 2
    assert torch.isfinite(found).all()
    away = (found.double() - given.double()).abs()
    # Half a unit in the last place: relative above the subnormal numbers, absolute among them.
    assert bool((away <= torch.clamp(given.double().abs() * relative, min=least)).all())


@pytest.mark.parametrize(("value", "fits"), [(65_504, True), (65_519.9, True), (65_520, False), (-65_520, False)])
def test_float16_is_refused_where_it_would_be_infinite(value, fits):
    delta = {"a": torch.zeros(2), "head.weight": torch.tensor([[0.0, value]])}
    if fits:
        assert torch.isfinite(encode(delta, "float16")["head.weight"]).all()
        return
    with pytest.raises(FederationError, match="head.weight reaches 65520, and float16 ends at 65504") as error:
        encode(delta, "float16")
    assert "bfloat16" in error.value.cure


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_never_sent(dtype, value):
    with pytest.raises(FederationError, match="delta of a is not finite"):
        encode({"a": torch.tensor([1.0, value])}, dtype)


def test_other_types_are_named():
    with pytest.raises(FederationError, match="'float8'"):
        encode({}, "float8")
    with pytest.raises(FederationError, match="'int8'"):
        sizes(MODEL, full(), "int8")
    with pytest.raises(FederationError, match="steps holds int64"):
        encode({"steps": torch.tensor(3)})


@pytest.mark.parametrize(("dtype", "width"), [("float32", 4), ("bfloat16", 2), ("float16", 2)])
def test_a_whole_model_is_as_large_as_all_that_travels(dtype, width):
    elements = sum(tensor.numel() for tensor in exchanged(MODEL).values())
    assert sizes(MODEL, full(), dtype) == ClientSize(elements, 1.0, 4 * elements, width * elements)
    assert bytes_of(encode(exchanged(MODEL), dtype)) == width * elements


@pytest.mark.parametrize("make", [wav2vec2, conformer])
def test_a_sub_model_is_as_large_as_what_is_left_of_the_model(make):
    model = make().model
    groups = groups_of(model)
    frozen = next(name for name in exchanged(model) if name.endswith("out.weight") or name.endswith("out_proj.weight"))
    submodel = Submodel({name: tuple(range(0, group.count, 2)) for name, group in groups.items()}, frozenset({frozen}))
    found = sizes(model, submodel, "float16")
    left = exchanged(narrow(model, submodel))
    assert found.elements == sum(tensor.numel() for tensor in left.values())
    assert found.download_bytes == bytes_of(left)
    assert found.upload_bytes == 2 * (found.elements - left[frozen].numel())
    whole = sizes(model, full()).elements
    assert whole - found.elements == sum(group.elements for group in groups.values()) // 2
    assert found.share == found.elements / whole
