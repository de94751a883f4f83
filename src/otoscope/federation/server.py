"""The server of a federated training, without any engine: what it asks of clients, and what it does with their answers."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import secrets
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from otoscope.errors import FederationError
from otoscope.federation.channels import exchanged, groups_of, known, variables_of
from otoscope.federation.client import held_still
from otoscope.federation.drawing import ROUND
from otoscope.federation.encoding import bytes_of
from otoscope.federation.privacy import check_noise, clip, epsilon, noise
from otoscope.federation.result import RoundRow
from otoscope.federation.server_updates import SERVERS
from otoscope.federation.settings import FederationSettings
from otoscope.federation.submodels import (
    Aggregate,
    Contribution,
    Submodel,
    check_contribution,
    extract,
    scatter_aggregate,
)
from otoscope.models.model import SpeechModel
from otoscope.statistics.hashing import uniform

_MOST_NAMED = 4  # of the failures that an error tells
_NEARLY = 1e-9  # 0.29 of 100 clients are 29, though the product of floats is below


@dataclass(frozen=True)
class Order:
    """What one client is to do in a round.

    Attributes:
        client: its name.
        round: number of the round, from 1.
        seed: of the training.
        submodel: what the client holds; it draws the same one from seed, round and its name.
        arrays: what travels to it, tensors by name.
    """

    client: str
    round: int
    seed: int
    submodel: Submodel
    arrays: Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Reply:
    """What a client answers.

    Attributes:
        client: its name.
        round: that it trained in.
        seed: that it trained with.
        submodel: fingerprint of what it trained, see `fingerprint`.
        delta: by how much each tensor changed, float32.
        weight: of the client in means.
        metrics: of its training: "loss", "peak_training_bytes" and the like.
        upload: bytes of the delta as it was sent.
    """

    client: str
    round: int
    seed: int
    submodel: str
    delta: Mapping[str, torch.Tensor]
    weight: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    upload: int = 0


class Server:
    """Holds the model, draws who trains what, and takes the answers of a round together.

    Args:
        model: that the training begins with; it is left as it is.
        clients: names of all clients.
        rates: share of the units that is kept, by group; groups that are absent are whole.
        settings: see `FederationSettings`.

    Attributes:
        name: of the model.
        clients: names in order.
        rates: as given.
        settings: as given.
        groups: what can be left out of the model.
        done: rounds that are complete.
        state: the tensors that travel, by name, float32; never changed in place.

    Raises:
        FederationError: there is no client or one twice, a cohort larger than all clients, rates of unknown groups, or
            privacy that this model or so little noise cannot have.
        MissingPackageError: privacy is asked for, and Opacus is not installed.
    """

    def __init__(
        self,
        model: SpeechModel,
        clients: Sequence[str],
        rates: Mapping[str, float],
        settings: FederationSettings | None = None,
    ) -> None:
        self.settings = settings or FederationSettings()
        self.clients, self.rates, self.groups = tuple(sorted(clients)), dict(rates), groups_of(model)
        if not self.clients:
            raise FederationError("There is no client to train with", "Give one or more.")
        twice = [one for one, other in zip(self.clients, self.clients[1:], strict=False) if one == other]
        if twice:
            raise FederationError(f"Two clients are called {twice[0]!r}", "Give every client a name of its own.")
        if self.settings.cohort > len(self.clients):
            raise FederationError(
                f"{self.settings.cohort} clients a round are asked for, and there are {len(self.clients)}",
                "Ask for fewer, or 0 for all of them.",
            )
        known(self.rates, self.groups)
        self.name = model.name
        self._variables = variables_of(model)
        source = copy.deepcopy(model.source)
        self._model = SpeechModel(source, model.family, model.frontend, model.name)
        self.state = {
            name: value.detach().to("cpu", torch.float32, copy=True) for name, value in exchanged(model).items()
        }
        self.done = 0
        kind = SERVERS[self.settings.server]
        self.update = kind() if self.settings.rate is None else kind(rate=self.settings.rate)
        self._drawn: dict[str, Submodel] = {}
        self._drawn_for = 0
        self._check_privacy()

    @property
    def elements(self) -> int:
        """Elements of all tensors that travel."""
        return sum(value.numel() for value in self.state.values())

    def model(self) -> SpeechModel:
        """The model as it stands; the same object every time, which the next call changes."""
        own = exchanged(self._model)
        with torch.no_grad():
            for name, value in self.state.items():
                own[name].copy_(value)
        # Made ready anew: the view of an encoder may hold copies of its tensors.
        return SpeechModel(self._model.source, self._model.family, self._model.frontend, self._model.name)

    def cohort(self, round: int) -> tuple[str, ...]:
        """The clients of a round, in order: all, or those with the lowest hashes of (seed, round, client)."""
        size, seed = self.settings.cohort or len(self.clients), self.settings.seed
        chosen = sorted(self.clients, key=lambda name: (uniform(seed, name, round, "federation: cohort"), name))
        return tuple(sorted(chosen[:size]))

    def submodel(self, round: int, client: str) -> Submodel:
        """What one client holds in a round, if it is asked."""
        return self.settings.draws.submodel(self.groups, self.rates, round, client, self._variables)

    def submodels(self, round: int) -> dict[str, Submodel]:
        """What each client of a round holds, by client."""
        if self._drawn_for != round:
            self._drawn = {name: self.submodel(round, name) for name in self.cohort(round)}
            self._drawn_for = round
        return self._drawn

    def orders(self, round: int) -> Iterator[Order]:
        """What each client of a round is to do, in order of name; tensors are cut when an order is taken."""
        return (self.order(round, name) for name in self.submodels(round))

    def order(self, round: int, client: str) -> Order:
        """What one client of a round is to do."""
        submodel = self.submodels(round)[client]
        return Order(client, round, self.settings.seed, submodel, extract(self.state, submodel, self.groups))

    def receive(
        self, round: int, replies: Sequence[Reply], failures: Mapping[str, str] | None = None, seconds: float = 0.0
    ) -> RoundRow:
        """Takes the answers of a round together, and makes a step.

        Answers come into one order first, so that it does not count who was quicker. Not taken, and counted as failures,
        are: what another client than those asked sends, all that a client sends which answers twice, answers to another
        round or with another seed or sub-model, other tensors or shapes, and values that are not finite.

        Args:
            round: that they are of; the one after the last complete round.
            replies: of clients.
            failures: why clients could not answer, by client.
            seconds: that the round took.

        Returns:
            The round's row, without figures on held-out speech.

        Raises:
            FederationError: more failed than is borne, or all did, or the step gives values that are not finite, or it
                is not this round's turn. The state is then as it was.
        """
        if round != self.done + 1:
            raise FederationError(
                f"Answers of round {round} came when round {self.done + 1} was to be trained", "Train rounds in order."
            )
        asked = self.submodels(round)
        taken, refused = self._sorted(replies, dict(failures or {}))
        self._bear(round, refused, len(asked), len(taken))
        private = self.settings.privacy is not None
        parts = [
            Contribution(one.client, 1.0 if private else one.weight, asked[one.client], self._clipped(one.delta))
            for one in taken
        ]
        spent = self._epsilon(round)
        self.state = self._stepped(round, parts, len(asked))
        self.done = round
        whole = {name: value.to("meta") for name, value in self.state.items()}
        sent = [extract(whole, one.submodel, self.groups) for one in parts]
        elements = [sum(value.numel() for value in arrays.values()) for arrays in sent]
        peaks = [one.metrics["peak_training_bytes"] for one in taken if "peak_training_bytes" in one.metrics]
        return RoundRow(
            round=round,
            clients=tuple(one.client for one in taken),
            failures=dict(sorted(refused.items())),
            loss=_mean([one.metrics["loss"] for one in taken], [one.weight for one in parts]),
            download=_mean([bytes_of(arrays) for arrays in sent]),
            upload=_mean([one.upload for one in taken]),
            share=_mean(elements) / self.elements,
            memory=int(max(peaks)) if peaks else None,
            seconds=seconds,
            epsilon=spent,
        )

    def tensors(self) -> dict[str, torch.Tensor]:
        """Everything that the next rounds depend on: the state, and what the server's step remembers."""
        kept = {f"{_STATE}{name}": value for name, value in self.state.items()}
        return kept | {f"{_UPDATE}{name}": value for name, value in self.update.state().items()}

    def restore(self, tensors: Mapping[str, torch.Tensor], done: int) -> None:
        """Takes up what `tensors` gave after so many rounds.

        Raises:
            FederationError: the tensors are not those of this model.
        """
        state = {name.removeprefix(_STATE): value for name, value in tensors.items() if name.startswith(_STATE)}
        if {name: value.shape for name, value in state.items()} != {n: v.shape for n, v in self.state.items()}:
            raise FederationError(
                "The stored state holds other tensors than the model", "Go on with the model that the run began with."
            )
        self.update.restore(
            {name.removeprefix(_UPDATE): value for name, value in tensors.items() if name.startswith(_UPDATE)}
        )
        self.state, self.done = {name: state[name] for name in self.state}, done

    def _sorted(self, replies: Sequence[Reply], failures: dict[str, str]) -> tuple[list[Reply], dict[str, str]]:
        """The answers that can be taken, in order of client, and why all others cannot."""
        asked = self.submodels(self.done + 1)
        answers = Counter(one.client for one in replies)
        taken = []
        for one in sorted(replies, key=lambda one: one.client):
            problem = self._problem(one, asked) if answers[one.client] == 1 else "it answered twice"
            if one.client in failures:
                continue
            if problem:
                failures[one.client] = problem
            else:
                taken.append(one)
        silent = {name: "it did not answer in time" for name in asked if name not in answers and name not in failures}
        return taken, failures | silent

    def _problem(self, reply: Reply, asked: Mapping[str, Submodel]) -> str:
        """What is wrong with an answer; empty where nothing is."""
        submodel = asked.get(reply.client)
        if submodel is None:
            return "it was not asked in this round"
        if reply.round != self.done + 1:
            return f"it answered to round {reply.round}"
        if reply.seed != self.settings.seed:
            return f"it trained with the seed {reply.seed}, not {self.settings.seed}"
        if reply.submodel != fingerprint(submodel):
            return "it trained another sub-model than the one drawn for it"
        told = {"loss": math.nan, **reply.metrics}
        strange = [name for name, value in told.items() if not math.isfinite(value)]
        if strange:
            return f"its {strange[0]} is not finite"
        try:
            check_contribution(Contribution(reply.client, reply.weight, submodel, reply.delta), self.state, self.groups)
        except FederationError as error:
            return error.problem
        return ""

    def _bear(self, round: int, failures: Mapping[str, str], asked: int, taken: int) -> None:
        """Makes sure that no more failed than is borne.

        Raises:
            FederationError: more did, or all.
        """
        if taken and len(failures) <= self.settings.tolerance * asked + _NEARLY:
            return
        told = "; ".join(f"{name}: {why}" for name, why in sorted(failures.items())[:_MOST_NAMED])
        more = f"; and {len(failures) - _MOST_NAMED} more" if len(failures) > _MOST_NAMED else ""
        raise FederationError(
            f"In round {round} {len(failures)} of {asked} clients failed ({told}{more})",
            f"Mend them, or bear more (tolerance, now {self.settings.tolerance:g}); the state is that of round "
            f"{self.done}, and --resume goes on from there.",
        )

    def _check_privacy(self) -> None:
        """Refuses before anything is trained what would be refused after a round.

        Raises:
            FederationError: running statistics would get noise, or epsilon would be infinite.
            MissingPackageError: Opacus is not installed.
        """
        if self.settings.privacy is None:
            return
        check_noise(self.state, held_still(self._model, self.settings.local))
        if self._epsilon(self.settings.rounds) == math.inf:
            raise FederationError(
                f"A noise of {self.settings.privacy.multiplier:g} times the norm gives no privacy",
                "Ask for more noise.",
            )

    def _clipped(self, delta: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        """A delta, clipped where privacy is asked for: here, so that it holds whatever a client does."""
        privacy = self.settings.privacy
        return delta if privacy is None else clip(delta, privacy.norm, privacy.per)[0]

    def _stepped(self, round: int, parts: Sequence[Contribution], asked: int) -> dict[str, torch.Tensor]:
        """The state after a step.

        Raises:
            FederationError: it holds values that are not finite; what the server's step remembers is then as before.
        """
        aggregate = scatter_aggregate(self.state, parts, self.groups, self.settings.denominator)
        if self.settings.privacy is not None:
            aggregate = self._private(round, aggregate, len(parts) / asked, asked)
        before = self.update.state()
        state = self.update.step(self.state, aggregate)
        for name, value in state.items():
            if not bool(torch.isfinite(value).all()):
                self.update.restore(before)
                raise FederationError(
                    f"The server's step of round {round} gives values of {name!r} that are not finite",
                    "Lower the server's rate.",
                )
        return state

    def _private(self, round: int, aggregate: Aggregate, answered: float, asked: int) -> Aggregate:
        """The mean over all clients that were asked, those that failed counting as zero, with noise."""
        privacy = self.settings.privacy
        assert privacy is not None
        mean = Aggregate({name: delta * answered for name, delta in aggregate.delta.items()}, aggregate.covered)
        seed = secrets.randbits(53)
        if privacy.seed is not None:
            seed = int(uniform(privacy.seed, "", round, "federation: noise") * 2**53)
        everywhere, still = self.settings.draws.scope != ROUND, held_still(self._model, self.settings.local)
        return noise(mean, privacy.multiplier, privacy.norm, asked, seed, everywhere=everywhere, still=still)

    def _epsilon(self, round: int) -> float | None:
        """What was spent so far. Cohorts have a fixed size and follow from a seed that clients know: the rate is 1."""
        privacy = self.settings.privacy
        return None if privacy is None else epsilon(privacy.multiplier, 1.0, round, privacy.delta)


def fingerprint(submodel: Submodel) -> str:
    """A short text that differs between sub-models."""
    told = [sorted(submodel.kept.items()), sorted(submodel.frozen)]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def _mean(values: Sequence[float], weights: Sequence[float] | None = None) -> float:
    given = weights if weights is not None else [1.0] * len(values)
    return math.fsum(value * weight for value, weight in zip(values, given, strict=True)) / math.fsum(given)


_STATE, _UPDATE = "state/", "update/"
