"""Answers of clients that were not trained: small random deltas that follow from round and name alone."""

import zlib
from dataclasses import replace

import torch

from otoscope.federation.encoding import bytes_of
from otoscope.federation.server import Order, Reply, Server, fingerprint

NAMES = ("ann", "bob", "cleo", "dan")


def answer(order: Order, weight: float = 1.0, size: float = 1e-3) -> Reply:
    draw = torch.Generator().manual_seed(zlib.crc32(f"{order.client} {order.round}".encode()))
    delta = {
        name: size * torch.randn(value.shape, generator=draw)
        for name, value in order.arrays.items()
        if name not in order.submodel.frozen
    }
    metrics = {"loss": 1.0 / order.round, "peak_training_bytes": 1000.0}
    return Reply(
        order.client, order.round, order.seed, fingerprint(order.submodel), delta, weight, metrics, bytes_of(delta)
    )


def answers(server: Server, round: int) -> list[Reply]:
    return [answer(order, weight=1.0 + k) for k, order in enumerate(server.orders(round))]


def spoilt(reply: Reply, how: str) -> list[Reply]:
    """What a faulty client sends in place of its answer."""
    name, value = next(iter(reply.delta.items()))
    others = {key: one for key, one in reply.delta.items() if key != name}
    return {
        "stranger": [replace(reply, client="eve")],
        "twice": [reply, replace(reply, weight=7.0)],
        "nan": [replace(reply, delta={**others, name: torch.full_like(value, torch.nan)})],
        "loss": [replace(reply, metrics={"loss": float("inf")})],
        "round": [replace(reply, round=reply.round + 1)],
        "seed": [replace(reply, seed=reply.seed + 1)],
        "submodel": [replace(reply, submodel="0" * 16)],
        "shapes": [replace(reply, delta={**others, name: value[:-1]})],
        "lacking": [replace(reply, delta=others)],
        "left over": [replace(reply, delta={**reply.delta, "another": value})],
        "weight": [replace(reply, weight=0.0)],
        "silent": [],
    }[how]


FAULTS = {
    "stranger": "not asked", "twice": "answered twice", "nan": "not finite", "loss": "loss is not finite",
    "round": "answered to round 2", "seed": "seed 1, not 0", "submodel": "another sub-model", "shapes": "in the shape",
    "lacking": "lacks", "left over": "should not hold", "weight": "weight", "silent": "did not answer",
}  # fmt: skip
