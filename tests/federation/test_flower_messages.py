from dataclasses import replace

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.clientapp import ClientApp

from otoscope.errors import FederationError
from otoscope.federation.channels import groups_of
from otoscope.federation.encoding import encode
from otoscope.federation.flower.inline import InlineGrid
from otoscope.federation.flower.messages import (
    TRAIN,
    facts_content,
    from_arrays,
    orders_content,
    read_facts,
    read_orders,
    read_replies,
    replies_content,
    to_arrays,
)
from otoscope.federation.flower.strategy import terms_of
from otoscope.federation.schedules import uniform
from otoscope.federation.server import Server
from otoscope.federation.settings import FederationSettings
from tests.federation.answers import answers
from tests.federation.small import wav2vec2

MODEL = wav2vec2().model


@pytest.fixture(autouse=True)
def _somewhere_to_send_from():
    InlineGrid(ClientApp(), 2)


def message(content):
    return Message(content, 1, TRAIN)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_tensors_arrive_bit_for_bit_in_as_many_bytes_as_they_have(dtype):
    tensors = {
        "matrix": torch.randn(3, 5).to(dtype),
        "columns": torch.randn(5, 3).T.to(dtype),
        "number": torch.tensor(0.1).to(dtype),
        "nothing": torch.zeros(0, 4).to(dtype),
    }
    record = to_arrays(tensors)
    found = from_arrays(record)
    assert same(found, tensors)
    assert [value.dtype for value in found.values()] == [dtype] * 4
    assert sum(len(array.data) for array in record.values()) == 31 * dtype.itemsize
    found["matrix"].zero_()  # may be written to


def test_only_what_is_known_is_sent():
    with pytest.raises(FederationError, match="holds torch.int64"):
        to_arrays({"a": torch.arange(3)})


@pytest.mark.parametrize(
    "array",
    [
        Array(np.zeros(3, np.float32)),
        Array("float32", (4,), "otoscope.little-endian", b"\0" * 12),
        Array("int32", (3,), "otoscope.little-endian", b"\0" * 12),
    ],
)
def test_arrays_that_were_made_otherwise_are_refused(array):
    with pytest.raises(FederationError, match="a was sent as"):
        from_arrays(ArrayRecord({"a": array}))


def test_orders_arrive_with_tensors_and_terms_and_without_submodels():
    server = Server(MODEL, ["ann", "bob"], uniform(groups_of(MODEL), 0.5), FederationSettings(seed=3))
    orders, terms = list(server.orders(1)), terms_of(server.settings, server.rates)
    content = orders_content(orders, terms)
    found, told = read_orders(message(content))
    assert [facts for facts, _ in found] == [{"client": name, "round": 1, "seed": 3} for name in ("ann", "bob")]
    assert all(same(arrays, dict(order.arrays)) for (_, arrays), order in zip(found, orders, strict=True))
    assert told == terms
    assert "privacy" not in told
    payload = sum(len(array.data) for record in content.array_records.values() for array in record.values())
    assert payload == sum(4 * value.numel() for order in orders for value in order.arrays.values())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_answers_arrive_in_float32_with_their_bytes(dtype):
    server = Server(MODEL, ["ann", "bob"], {})
    sent = [replace(one, delta=encode(one.delta, dtype)) for one in answers(server, 1)]
    replies, failures = read_replies(message(replies_content(sent, {"cleo": "it died"})))
    assert failures == {"cleo": "it died"}
    for one, before in zip(replies, sent, strict=True):
        assert same(one.delta, {name: value.float() for name, value in before.delta.items()})
        assert replace(one, delta={}, upload=0) == replace(before, delta={}, upload=0)
        assert one.upload == sum(value.numel() * value.element_size() for value in before.delta.values())


@pytest.mark.parametrize(
    "content",
    [
        RecordDict(),
        facts_content({}),
        facts_content({"replies": 3, "failures": {}, "orders": 3, "terms": {}}),
        facts_content({"replies": [{"client": "ann"}], "failures": {}, "orders": [{"client": "ann"}], "terms": {}}),
    ],
)
def test_what_is_no_message_of_ours_is_refused(content):
    for read in (read_orders, read_replies):
        with pytest.raises(FederationError, match="cannot be read"):
            read(message(content))


def test_plain_values_arrive():
    told = {"a": [1, 2.5, None], "b": {"c": "ü"}}
    assert read_facts(message(facts_content(told))) == told
