"""How the server's model moves by what clients learnt together: federated averaging, Adam and LAMB at the server."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch

from otoscope.errors import FederationError
from otoscope.federation.channels import is_statistic
from otoscope.federation.submodels import Aggregate

Tensors = dict[str, torch.Tensor]

_VARIANCE = "running_var"


class ServerUpdate(ABC):
    """A step of the server.

    The mean delta of the clients stands where a gradient would, with its sign turned. Elements that no client held keep
    their value, bit for bit, and all that is remembered of them. Running statistics of batch norms are values of their
    own and no gradients: they move by the mean delta itself, whatever the rate, and a variance that rounding on the way
    took below zero is zero.

    Attributes:
        name: as settings have it.
        rate: of the step.
    """

    name: ClassVar[str]
    remembered: ClassVar[tuple[str, ...]] = ()

    def __init__(self, rate: float) -> None:
        if not 0 < rate < math.inf:
            raise FederationError(f"The server's rate is {rate}", "Give a finite number above zero.")
        self.rate = rate
        self._memory: dict[str, Tensors] = {kind: {} for kind in self.remembered}

    def step(self, server: Mapping[str, torch.Tensor], aggregate: Aggregate) -> Tensors:
        """The server's tensors after a step.

        Args:
            server: by name; left as they are.
            aggregate: what clients would change, of the same names.

        Returns:
            New tensors, in the type of the old.

        Raises:
            FederationError: the aggregate is of other tensors.
        """
        if set(server) != set(aggregate.delta):
            strange = min(set(server) ^ set(aggregate.delta))
            raise FederationError(
                f"The server's tensors and those of the clients are not the same: {strange!r} is of one of them alone",
                "Aggregate what `scatter_aggregate` gives for this server.",
            )
        moved: Tensors = {}
        for name, old in server.items():
            delta, covered = aggregate.delta[name], aggregate.covered[name]
            change = delta if is_statistic(name) else self._change(name, old.float(), delta, covered)
            new = old.float() + change
            if name.endswith(_VARIANCE):
                new = new.clamp(min=0.0)
            moved[name] = torch.where(covered, new.to(old.dtype), old)
        return moved

    @abstractmethod
    def _change(self, name: str, old: torch.Tensor, delta: torch.Tensor, covered: torch.Tensor) -> torch.Tensor:
        """What is added to a tensor where it is covered."""

    def _remember(self, kind: str, name: str, start: torch.Tensor, value: torch.Tensor, covered: torch.Tensor) -> None:
        """Replaces what is remembered of a tensor, where it is covered; elsewhere it stays, or is `start`."""
        self._memory[kind][name] = torch.where(covered, value, self._memory[kind].get(name, start))

    def state(self) -> Tensors:
        """What is remembered from step to step, as tensors by "kind/name"; they are not changed by later steps."""
        return {f"{kind}/{name}": one for kind, tensors in self._memory.items() for name, one in tensors.items()}

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Goes back to what `state` gave; an empty one is that before the first step.

        Raises:
            FederationError: it is of another kind of step.
        """
        memory: dict[str, Tensors] = {kind: {} for kind in self.remembered}
        for key, value in state.items():
            kind, _, name = key.partition("/")
            if kind not in memory or not name:
                raise FederationError(
                    f"The step {self.name!r} remembers no {key!r}", "Go on with the kind of step that was begun with."
                )
            memory[kind][name] = value
        self._memory = memory

    def _moments(
        self, name: str, delta: torch.Tensor, covered: torch.Tensor, betas: tuple[float, float], start: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Running means of the delta and of its square: m = b1 m + (1 - b1) d, v = b2 v + (1 - b2) d^2."""
        found = []
        for kind, value, beta, first in zip(
            ("mean", "square"), (delta, delta.square()), betas, (0.0, start), strict=True
        ):
            begin = torch.full_like(delta, first)
            before = self._memory[kind].get(name, begin)
            self._remember(kind, name, begin, beta * before + (1 - beta) * value, covered)
            found.append(self._memory[kind][name])
        return found[0], found[1]


class FedAvg(ServerUpdate):
    """x + rate d, which at a rate of 1 is federated averaging (McMahan et al. 2017).

    Args:
        rate: of the step.
    """

    name = "fedavg"

    def __init__(self, rate: float = 1.0) -> None:
        super().__init__(rate)

    def _change(self, name: str, old: torch.Tensor, delta: torch.Tensor, covered: torch.Tensor) -> torch.Tensor:
        return self.rate * delta


class FedAdam(ServerUpdate):
    """x + rate m / (sqrt(v) + tau), with running means m of d and v of d^2 that begin at 0 and tau^2.

    Source: Reddi et al. 2021, "Adaptive federated optimization" (arXiv 2003.00295), algorithm 2, which has no
    correction of the bias of the first steps.

    Args:
        rate: of the step.
        beta1: of the mean.
        beta2: of the mean of squares.
        tau: how little adaptive the step is.
    """

    name = "fedadam"
    remembered = ("mean", "square")

    def __init__(self, rate: float = 0.01, beta1: float = 0.9, beta2: float = 0.99, tau: float = 1e-3) -> None:
        super().__init__(rate)
        self.betas, self.tau = _betas(beta1, beta2), _positive(tau, "tau")

    def _change(self, name: str, old: torch.Tensor, delta: torch.Tensor, covered: torch.Tensor) -> torch.Tensor:
        mean, square = self._moments(name, delta, covered, self.betas, self.tau**2)
        return self.rate * mean / (square.sqrt() + self.tau)


class Lamb(ServerUpdate):
    """x + rate (|x| / |u|) u for every tensor, with u = m' / (sqrt(v') + epsilon) - decay x.

    m' and v' are the running means of d and d^2 without the bias of the first steps, m / (1 - beta1^t) and
    v / (1 - beta2^t), where t counts the steps in which an element was held. The trust ratio |x| / |u| is taken over
    the elements that were held, and is 1 where either norm is zero.

    Source: You et al. 2020, "Large batch optimization for deep learning" (arXiv 1904.00962), algorithm 2, with the norm
    as it is (no bounds on the trust ratio).

    Args:
        rate: of the step.
        beta1: of the mean.
        beta2: of the mean of squares.
        epsilon: is added to the root.
        decay: of the weights; biases and norms decay with them.
    """

    name = "lamb"
    remembered = ("mean", "square", "steps")

    def __init__(
        self,
        rate: float = 0.004,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-6,
        decay: float = 0.0,
    ) -> None:
        super().__init__(rate)
        self.betas, self.epsilon = _betas(beta1, beta2), _positive(epsilon, "epsilon")
        if not 0 <= decay < math.inf:
            raise FederationError(f"The decay of the server's step is {decay}", "Give a finite number, zero or more.")
        self.decay = decay

    def _change(self, name: str, old: torch.Tensor, delta: torch.Tensor, covered: torch.Tensor) -> torch.Tensor:
        mean, square = self._moments(name, delta, covered, self.betas, 0.0)
        none = torch.zeros_like(covered, dtype=torch.float32)
        self._remember("steps", name, none, self._memory["steps"].get(name, none) + 1, covered)
        steps = self._memory["steps"][name].clamp(min=1.0).double()  # of elements that were never held, nothing is used
        biases = [(1 - beta**steps).float() for beta in self.betas]
        step = mean / biases[0] / ((square / biases[1]).sqrt() + self.epsilon) - self.decay * old
        own, taken = ((one * covered).double().norm() for one in (old, step))
        trust = own / taken if own > 0 and taken > 0 else torch.ones_like(own)
        return self.rate * trust.float() * step


SERVERS: dict[str, type[FedAvg] | type[FedAdam] | type[Lamb]] = {one.name: one for one in (FedAvg, FedAdam, Lamb)}


def _betas(beta1: float, beta2: float) -> tuple[float, float]:
    for name, value in (("beta1", beta1), ("beta2", beta2)):
        if not 0 <= value < 1:
            raise FederationError(f"The {name} of the server's step is {value}", "Give a number from 0 to below 1.")
    return beta1, beta2


def _positive(value: float, name: str) -> float:
    if not 0 < value < math.inf:
        raise FederationError(f"The {name} of the server's step is {value}", "Give a finite number above zero.")
    return value
