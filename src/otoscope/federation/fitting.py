"""Rates at which the training step of every client fits into a given memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from otoscope.errors import FederationError
from otoscope.federation.channels import groups_of
from otoscope.federation.client import Client
from otoscope.federation.drawing import Drawing
from otoscope.federation.partition import Share
from otoscope.federation.settings import FederationSettings
from otoscope.models.recogniser import Recogniser
from otoscope.speech.batching import batches
from otoscope.speech.corpus import Corpus
from otoscope.speech.utterance import Utterance

_MIB = 2**20
_PRECISION = 256  # parts of the model, to one of which the size of a client is found


class StepPeak:
    """The peak memory of a training step, the largest of any batch of any client.

    Batches with both more and longer speech than others need the most memory; steps are taken on those alone that no other
    batch surpasses in both. Nothing is taken to be frozen for a round and every width to be drawn, so that what clients
    need is not more than that in any round.

    Args:
        template: the server's recogniser; it is left as it is.
        shares: each client's speech.
        settings: of the training.

    Raises:
        FederationError: a client has no speech.
        OtoscopeError: an utterance cannot be trained on.
    """

    def __init__(self, template: Recogniser, shares: Sequence[Share], settings: FederationSettings) -> None:
        dealt = [batch for share in shares for batch in batches(share.utterances, settings.local.batch_seconds)]
        self._clients = [
            Client(template, Share(f"batch {k}", Corpus("batch", batch)), settings.local)
            for k, batch in enumerate(heaviest(dealt))
        ]
        self._groups = groups_of(template.model)
        self._drawing = replace(settings.drawing or Drawing(settings.seed), widths=(), frozen=0.0)

    def __call__(self, rates: Mapping[str, float]) -> int:
        """Bytes of the peak at given rates, see `training_memory`."""
        submodel = self._drawing.submodel(self._groups, rates, 1, "")
        return max(client.memory(submodel).peak for client in self._clients)


def heaviest(dealt: Iterable[tuple[Utterance, ...]]) -> list[tuple[Utterance, ...]]:
    """The batches that no other surpasses in padded speech without being shorter; most padded speech first.

    Args:
        dealt: batches, the longest utterance of each first.
    """
    found: list[tuple[Utterance, ...]] = []
    for batch in sorted(dealt, key=lambda one: (-len(one) * one[0].n_samples, -one[0].n_samples)):
        if not found or batch[0].n_samples > found[-1][0].n_samples:
            found.append(batch)
    return found


def at_memory(
    solve: Callable[[int], dict[str, float]], peak: Callable[[Mapping[str, float]], int], memory: int, elements: int
) -> dict[str, float]:
    """The rates of a schedule at which a training step fits into a memory.

    The size of a client is found by halving, to 1/256 of the model; what is returned was measured and does fit.

    Args:
        solve: from the size of a client, in elements at most, to rates.
        peak: from rates to bytes that a training step holds at most.
        memory: bytes that it may hold.
        elements: of the whole model.

    Raises:
        FederationError: the schedule cannot be solved for a size, or cannot make a client whose step fits.
    """
    rates = solve(elements)
    needed = peak(rates)
    if needed <= memory:
        return rates
    best: dict[str, float] | None = None
    low, high = 0, elements
    while high - low > max(1, elements // _PRECISION):
        middle = (low + high) // 2
        try:
            rates = solve(middle)
        except FederationError:  # smaller than the schedule makes clients
            low = middle
            continue
        found = peak(rates)
        needed = min(needed, found)
        if found <= memory:
            best, low = rates, middle
        else:
            high = middle
    if best is None:
        raise FederationError(
            f"A training step of the smallest client of this schedule holds {needed / _MIB:.1f} MiB, and may hold "
            f"{memory / _MIB:.1f}",
            f"Give clients {math.ceil(needed / _MIB)}MiB, shorter batches, or a schedule that aims at more layers.",
        )
    return best
