"""What travels between server and clients as messages of Flower: tensors as they lie in memory, all else as JSON."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from otoscope.errors import FederationError
from otoscope.federation.encoding import DTYPES, bytes_of, decode
from otoscope.federation.server import Order, Reply

HELLO, TRAIN = "query.hello", "train"
_RAW = "otoscope.little-endian"  # how the bytes of an array are to be read
_FACTS, _PLAIN = "facts", "json"


def to_arrays(tensors: Mapping[str, torch.Tensor]) -> ArrayRecord:
    """Tensors as a record; they are copied.

    Flower's own arrays know no bfloat16, so their bytes are sent as they lie in memory, the lowest first.

    Raises:
        FederationError: a tensor is of another type than float32, bfloat16 or float16.
    """
    if sys.byteorder != "little":
        raise FederationError("This machine stores the highest byte of a number first", "Use one that does not.")
    names = {dtype: name for name, dtype in DTYPES.items()}
    made = {}
    for name, tensor in tensors.items():
        if tensor.dtype not in names:
            raise FederationError(f"{name} holds {tensor.dtype}, which is not sent", f"Send {', '.join(DTYPES)}.")
        data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        made[name] = Array(names[tensor.dtype], tuple(tensor.shape), _RAW, data)
    return ArrayRecord(made)


def from_arrays(record: ArrayRecord) -> dict[str, torch.Tensor]:
    """Tensors of a record, of the types that were sent.

    Raises:
        FederationError: an array was made otherwise, or its bytes do not fit its shape.
    """
    found = {}
    for name, array in record.items():
        dtype = DTYPES.get(array.dtype)
        if array.stype != _RAW or dtype is None or len(array.data) != math.prod(array.shape) * dtype.itemsize:
            raise FederationError(
                f"{name} was sent as {array.dtype} of shape {tuple(array.shape)} in {len(array.data)} bytes ({array.stype})",
                "Use the same version of otoscope on all machines.",
            )
        # A copy, since what Flower hands over cannot be written to; NumPy has no bfloat16.
        values = np.frombuffer(array.data, f"<i{dtype.itemsize}").reshape(tuple(array.shape)).copy()
        found[name] = torch.from_numpy(values).view(dtype)
    return found


def orders_content(orders: Sequence[Order], terms: Mapping[str, Any]) -> RecordDict:
    """Orders for the clients of one node.

    Sub-models do not travel: clients draw them from seed, round, name and rates.

    Args:
        orders: one a client.
        terms: what all clients train by, as plain values, see `strategy.terms_of`.
    """
    facts = [{"client": one.client, "round": one.round, "seed": one.seed} for one in orders]
    content = facts_content({"orders": facts, "terms": dict(terms)})
    for k, one in enumerate(orders):
        content[f"arrays.{k}"] = to_arrays(one.arrays)
    return content


def read_orders(message: Message) -> tuple[list[tuple[dict[str, Any], dict[str, torch.Tensor]]], dict[str, Any]]:
    """The facts and the tensors of each order, and the terms.

    Raises:
        FederationError: the message holds no orders.
    """
    told = read_facts(message)
    try:
        orders = [
            (dict(facts), from_arrays(message.content.array_records[f"arrays.{k}"]))
            for k, facts in enumerate(told["orders"])
        ]
        return orders, dict(told["terms"])
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, FederationError):
            raise
        raise _unreadable(error) from error


def replies_content(replies: Sequence[Reply], failures: Mapping[str, str]) -> RecordDict:
    """What the clients of a node answer.

    Args:
        replies: of those that trained; their deltas as `encoding.encode` gives them.
        failures: why the others could not, by client.
    """
    facts = [
        {
            "client": one.client, "round": one.round, "seed": one.seed, "submodel": one.submodel, "weight": one.weight,
            "metrics": dict(one.metrics),
        }
        for one in replies
    ]  # fmt: skip
    content = facts_content({"replies": facts, "failures": dict(failures)})
    for k, one in enumerate(replies):
        content[f"delta.{k}"] = to_arrays(one.delta)
    return content


def read_replies(message: Message) -> tuple[list[Reply], dict[str, str]]:
    """Answers with deltas in float32, and why clients failed, by client.

    Raises:
        FederationError: the message holds no answers.
    """
    told = read_facts(message)
    try:
        replies = []
        for k, facts in enumerate(told["replies"]):
            delta = from_arrays(message.content.array_records[f"delta.{k}"])
            metrics = {str(name): float(value) for name, value in facts["metrics"].items()}
            replies.append(
                Reply(
                    str(facts["client"]), int(facts["round"]), int(facts["seed"]), str(facts["submodel"]), decode(delta),
                    float(facts["weight"]), metrics, bytes_of(delta),
                )
            )  # fmt: skip
        return replies, {str(name): str(why) for name, why in told["failures"].items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, FederationError):
            raise
        raise _unreadable(error) from error


def facts_content(facts: Mapping[str, Any]) -> RecordDict:
    """Plain values as the content of a message."""
    return RecordDict({_FACTS: ConfigRecord({_PLAIN: json.dumps(facts)})})


def read_facts(message: Message) -> dict[str, Any]:
    """Plain values of a message.

    Raises:
        FederationError: it holds none.
    """
    try:
        return dict(json.loads(str(message.content.config_records[_FACTS][_PLAIN])))
    except (KeyError, TypeError, ValueError) as error:
        raise _unreadable(error) from error


def _unreadable(error: Exception) -> FederationError:
    return FederationError(
        f"A message cannot be read ({type(error).__name__}: {error})",
        "Use the same version of otoscope on all machines.",
    )
