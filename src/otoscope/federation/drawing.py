"""Which units a client holds in a round: index sets that follow from seed, round and client, so that only these travel."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from otoscope.errors import FederationError
from otoscope.federation.channels import Group, known
from otoscope.federation.submodels import Submodel
from otoscope.statistics.hashing import uniform

RANDOM, PREFIX, ROLLING = ORDERS = ("random", "prefix", "rolling")
CLIENT_ROUND, ROUND, CLIENT = SCOPES = ("client-round", "round", "client")

_NEARLY = 1e-9  # a share times a count that is this near to a whole number is taken for it


@dataclass(frozen=True)
class Drawing:
    """How sub-models are drawn at given rates.

    The orders:

    - "random": the units with the lowest hashes of (seed, round, client, group, unit), floor(r n) of them (Caldas et
      al. 2018, federated dropout; the rounding is that of FedEcover). At a higher rate the same units and further ones
      are drawn.
    - "prefix": the first ceil(r n), the same for everybody in all rounds (Diao, Ding and Tarokh 2021, HeteroFL). With
      `widths` a client draws its width anew every round (Horvath et al. 2021, FjORD).
    - "rolling": floor(r n) units from unit t on in round t, beginning again at the first after the last (Alam et al.
      2022, FedRolex).

    The last two draw nothing, so that the scope concerns widths and frozen variables alone.

    One unit at least stays, whatever the rate: a branch of none would be another architecture. Drawing by hash, widths
    once a round rather than once a step, and which variables are frozen, are otoscope's own choices. No generator of
    random numbers takes part, so that server and clients agree whatever libraries they have.

    Attributes:
        seed: of the hash.
        order: "random", "prefix" or "rolling".
        scope: what draws differ between: "client-round", clients and rounds; "round", rounds alone, so that all clients
            of a round hold the same; "client", clients alone, each of which holds the same in all rounds.
        widths: shares of the whole model, of which a client draws one, among those that its highest rate allows; no
            group is then kept at a higher rate. Empty is no such draw.
        frozen: share of the elements of whole variables that are frozen at most (Yang et al. 2022, partial variable
            training). Variables are taken in the order of their hashes, those that fit.

    Raises:
        FederationError: there is no such order or scope, or a share leaves its range.
    """

    seed: int
    order: str = RANDOM
    scope: str = CLIENT_ROUND
    widths: tuple[float, ...] = ()
    frozen: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))
        for what, value, known_ones in (("order", self.order, ORDERS), ("scope", self.scope, SCOPES)):
            if value not in known_ones:
                raise FederationError(
                    f"There is no {what} {value!r} of drawing units", f"Choose among {', '.join(known_ones)}."
                )
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise FederationError(f"The seed of the drawing is {self.seed!r}", "Give a whole number.")
        for width in self.widths:
            if not 0 < width <= 1:
                raise FederationError(f"A width of the drawing is {width}", "Give shares above 0, up to 1.")
        if not 0 <= self.frozen < 1:
            raise FederationError(
                f"The share of variables that are frozen is {self.frozen}", "Give a share from 0 to below 1."
            )

    def submodel(
        self,
        groups: Mapping[str, Group],
        rates: Mapping[str, float],
        round: int,
        client: str,
        variables: Mapping[str, int] | None = None,
    ) -> Submodel:
        """What a client holds in a round.

        Args:
            groups: of the server's model.
            rates: share that is kept, by group; groups that are absent are whole.
            round: number of the round.
            client: its name.
            variables: elements by variable of those that may be frozen, see `channels.variables_of`.

        Raises:
            FederationError: a rate is of no group or leaves its range, no width is allowed, or variables shall be
                frozen and none are given.
        """
        known(rates, groups)
        for name, rate in rates.items():
            if not 0 < rate <= 1:
                raise FederationError(f"The rate of {name} is {rate}", "Give the share that is kept: above 0, up to 1.")
        key = self._key(round, client)
        most = self._width(rates, groups, key)
        kept: dict[str, tuple[int, ...]] = {}
        for name, group in groups.items():
            rate = min(rates.get(name, 1.0), most)
            number = units_kept(rate, group.count, up=self.order == PREFIX)
            if number < group.count:
                kept[name] = self._units(group, number, round, key)
        return Submodel(kept, self._frozen(variables or {}, key))

    def _key(self, round: int, client: str) -> tuple[int, str]:
        """What hashes go by beside the seed: the round and the client, as far as the scope tells them apart."""
        return (0 if self.scope == CLIENT else round, "" if self.scope == ROUND else client)

    def _draw(self, key: tuple[int, str], purpose: str) -> float:
        return uniform(self.seed, key[1], key[0], f"federation: {purpose}")

    def _units(self, group: Group, number: int, round: int, key: tuple[int, str]) -> tuple[int, ...]:
        if self.order == PREFIX:
            return tuple(range(number))
        if self.order == ROLLING:
            return tuple(sorted((round + k) % group.count for k in range(number)))
        hashes = [(self._draw(key, f"unit {unit} of {group.name}"), unit) for unit in range(group.count)]
        return tuple(sorted(unit for _, unit in sorted(hashes)[:number]))

    def _width(self, rates: Mapping[str, float], groups: Mapping[str, Group], key: tuple[int, str]) -> float:
        """The share of the whole model that no group goes beyond."""
        if not self.widths:
            return 1.0
        highest = max((rates.get(name, 1.0) for name in groups), default=1.0)
        allowed = sorted(width for width in self.widths if width <= highest + _NEARLY)
        if not allowed:
            raise FederationError(
                f"No width of {', '.join(map(str, sorted(self.widths)))} is as small as the highest rate, {highest:g}",
                "Give a width that is, or higher rates.",
            )
        return allowed[int(self._draw(key, "width") * len(allowed))]

    def _frozen(self, variables: Mapping[str, int], key: tuple[int, str]) -> frozenset[str]:
        if not self.frozen:
            return frozenset()
        if not variables:
            raise FederationError(
                "Variables are to be frozen, and none are given that may be", "Pass those of `variables_of`."
            )
        room = self.frozen * sum(variables.values()) + _NEARLY
        chosen = []
        for name in sorted(variables, key=lambda one: (self._draw(key, f"variable {one}"), one)):
            if variables[name] <= room:
                room -= variables[name]
                chosen.append(name)
        return frozenset(chosen)


def units_kept(rate: float, count: int, up: bool = False) -> int:
    """How many of `count` units a rate keeps: floor(r n), or ceil(r n), and one at least.

    Rates are decimal numbers that a float is only near to: 0.29 of 100 units are 29, though the product is below 29.

    Args:
        rate: share that is kept, above 0, up to 1.
        count: units in all.
        up: round up.

    >>> units_kept(0.29, 100), units_kept(0.1, 4), units_kept(0.3, 4, up=True), units_kept(2 / 3, 3)
    (29, 1, 2, 2)
    """
    exact = rate * count
    number = math.ceil(exact - _NEARLY) if up else math.floor(exact + _NEARLY)
    return min(max(number, 1), count)
