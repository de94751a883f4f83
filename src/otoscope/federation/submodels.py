"""Sub-models of a model: what a client is handed of each tensor, and how what clients learnt comes together again."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from otoscope.errors import FederationError
from otoscope.federation.channels import HEADS, Group, groups_of, known
from otoscope.models.model import SpeechModel
from otoscope.surgery import CutHeads, Edit, apply
from otoscope.surgery.narrowing import Narrow, inner_units
from otoscope.surgery.units import Parts

COVERAGE, COHORT = DENOMINATORS = ("coverage", "cohort")

_Places = dict[str, tuple[int, torch.Tensor]]  # tensor -> axis, and the indices along it that are held


@dataclass(frozen=True)
class Submodel:
    """What a client trains.

    Attributes:
        kept: numbers of the units that it holds, by group, ascending; groups that are absent are whole.
        frozen: tensors that travel to the client and are run there, but are neither trained nor sent back (partial
            variable training).
    """

    kept: Mapping[str, tuple[int, ...]] = field(default_factory=dict, hash=False)
    frozen: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        object.__setattr__(self, "kept", {name: tuple(units) for name, units in self.kept.items()})
        object.__setattr__(self, "frozen", frozenset(self.frozen))


@dataclass(frozen=True)
class Contribution:
    """What a client sends back.

    Attributes:
        client: its name.
        weight: of the client in means, above zero.
        submodel: what it was handed.
        delta: by how much each tensor of the sub-model that is not frozen changed.
    """

    client: str
    weight: float
    submodel: Submodel
    delta: Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Aggregate:
    """What all clients together would change.

    Attributes:
        delta: the change of every tensor, float32, of the server's shapes; zero where nobody held it.
        covered: by tensor, where anybody held it: boolean, with as many axes as the tensor, to be broadcast.
    """

    delta: dict[str, torch.Tensor]
    covered: dict[str, torch.Tensor]


def full() -> Submodel:
    """The sub-model that is the whole model."""
    return Submodel()


def check_submodel(submodel: Submodel, groups: Mapping[str, Group]) -> None:
    """Makes sure that a sub-model fits the groups of a model.

    Raises:
        FederationError: it names an unknown group, or numbers that the group has not or that do not ascend, or leaves
            nothing of a group.
    """
    known(submodel.kept, groups)
    for name, units in submodel.kept.items():
        group = groups[name]
        if not units:
            raise FederationError(
                f"A sub-model keeps no {group.kind} of {name}", "Keep one or more; otoscope's schedules do."
            )
        if list(units) != sorted(set(units)) or units[0] < 0 or units[-1] >= group.count:
            raise FederationError(
                f"A sub-model keeps the {group.kind} {list(units)} of {name}, which has {group.count}",
                f"Give numbers from 0 to {group.count - 1}, ascending.",
            )


def narrow(model: SpeechModel, submodel: Submodel) -> SpeechModel:
    """A copy of a model that is no larger than a sub-model: heads are cut, branches narrowed, frozen tensors fixed.

    Its tensors have the names of the original, and the shapes of what `extract` gives. To rounding it computes what the
    original does with all that is left out set to zero where it would be added to the residual stream, but for norms
    over channels, see `otoscope.surgery.narrowing.Narrow`.

    Args:
        model: left as it is.
        submodel: what is left.

    Raises:
        FederationError: the sub-model does not fit, or freezes what is no parameter.
    """
    groups = groups_of(model)
    check_submodel(submodel, groups)
    parts = Parts(model.family.encoder(model.source), model.family)
    edits: list[Edit] = []
    for name, units in submodel.kept.items():
        group = groups[name]
        if len(units) == group.count:
            continue
        if group.kind == HEADS:
            names = model.anatomy.head_names[group.layer - 1]
            cut = ",".join(str(head) for place, head in enumerate(names) if place not in set(units))
            edits.append(CutHeads(f"layer.{group.layer}.head.{cut}"))
        else:
            inner = inner_units(parts, parts.units[name]).kept
            edits.append(Narrow(name, tuple(inner[place] for place in units)))
    made = apply(model, edits, name=model.name)
    parameters = dict(made.source.named_parameters())
    strange = sorted(submodel.frozen - set(parameters))
    if strange:
        raise FederationError(f"{strange[0]!r} is no parameter of {model.name}", "Freeze parameters, by name.")
    for name in submodel.frozen:
        parameters[name].requires_grad_(False)
    return made


def extract(
    state: Mapping[str, torch.Tensor], submodel: Submodel, groups: Mapping[str, Group]
) -> dict[str, torch.Tensor]:
    """What a client is handed: of each tensor the elements that its sub-model holds, in their order.

    Args:
        state: the server's tensors by name; left as they are.
        submodel: what the client holds.
        groups: of the server's model.

    Returns:
        As many tensors as there are; those that are whole are the server's own, not copies.

    Raises:
        FederationError: the sub-model does not fit, or a tensor is absent.
    """
    places = _places(submodel, groups, state)
    return {
        name: tensor.index_select(*_on(places[name], tensor)) if name in places else tensor
        for name, tensor in state.items()
    }


def scatter_aggregate(
    server: Mapping[str, torch.Tensor],
    contributions: Sequence[Contribution],
    groups: Mapping[str, Group],
    denominator: str = COVERAGE,
) -> Aggregate:
    """Puts what clients learnt back where it belongs, and takes the mean, element by element.

    With "coverage" an element's mean is over the clients that held it, sum_k w_k d_k / sum_k w_k, as in HeteroFL (Diao,
    Ding and Tarokh 2021). With "cohort" the second sum is over all clients, as though those that did not hold it had
    sent zero (Charles et al. 2022, Federated Select), so that what one client can change is bounded.

    Clients come in the order of their names, and sums are taken in float64, so that the result does not depend on who
    answered first. Of whole models it is federated averaging of the same deltas, bit for bit.

    Args:
        server: the server's tensors by name; left as they are.
        contributions: one a client; one or more.
        groups: of the server's model.
        denominator: "coverage" or "cohort".

    Raises:
        FederationError: nobody contributed, a client did twice, or a contribution does not fit (`check_contribution`).
    """
    if denominator not in DENOMINATORS:
        raise FederationError(
            f"There is no denominator {denominator!r}", f"The denominators are {' and '.join(DENOMINATORS)}."
        )
    ordered = sorted(contributions, key=lambda one: one.client)
    if not ordered:
        raise FederationError("No client contributed anything, so there is no mean", "Look at why clients failed.")
    for one, other in itertools.pairwise(ordered):
        if one.client == other.client:
            raise FederationError(f"The client {one.client!r} contributed twice", "Count each client once.")
    held = [check_contribution(one, server, groups) for one in ordered]
    axes = {piece.tensor: piece.axis for group in groups.values() for piece in group.slices}
    aggregate = Aggregate({}, {})
    for name, tensor in server.items():
        total = torch.zeros(tensor.shape, dtype=torch.float64, device=tensor.device)
        axis = axes.get(name)
        weights = total.new_zeros(1 if axis is None else tensor.shape[axis])
        for one, places in zip(ordered, held, strict=True):
            if name in one.submodel.frozen:
                continue
            delta = one.delta[name].to(total, copy=True).mul_(one.weight)
            if name in places:
                along, index = _on(places[name], tensor)
                total.index_add_(along, index, delta)
                weights[index] += one.weight
            else:
                total += delta
                weights += one.weight
        shape = [1] * tensor.ndim
        if axis is not None:
            shape[axis] = tensor.shape[axis]
        weights = weights.view(shape)
        covered = weights > 0
        if denominator == COHORT:
            weights = torch.full_like(weights, sum(one.weight for one in ordered))
        aggregate.delta[name] = total.div_(torch.where(covered, weights, 1.0)).float()
        aggregate.covered[name] = covered
    return aggregate


def check_contribution(
    contribution: Contribution, server: Mapping[str, torch.Tensor], groups: Mapping[str, Group]
) -> _Places:
    """Makes sure that a contribution is what its sub-model promises.

    Args:
        contribution: what came back.
        server: the server's tensors by name.
        groups: of the server's model.

    Returns:
        Tensors of which the client held a part: the axis, and the indices along it.

    Raises:
        FederationError: the weight is not above zero, the sub-model does not fit, a tensor is absent, left over or of
            another shape, or has values that are not finite.
    """
    called, submodel, delta = f"The client {contribution.client!r}", contribution.submodel, contribution.delta
    if not 0 < contribution.weight < float("inf"):
        raise FederationError(f"{called} has the weight {contribution.weight}", "Give a finite number above zero.")
    places = _places(submodel, groups, server)
    expected = set(server) - submodel.frozen
    for problem, names in (("lacks", expected - set(delta)), ("should not hold", set(delta) - expected)):
        if names:
            raise FederationError(
                f"What {called[0].lower()}{called[1:]} sent {problem} {min(names)!r}",
                "A client sends the tensors of its sub-model that are not frozen, all of them.",
            )
    for name, sent in delta.items():
        shape = list(server[name].shape)
        if name in places:
            axis, index = places[name]
            shape[axis] = len(index)
        if list(sent.shape) != shape:
            raise FederationError(
                f"{called} sent {name!r} in the shape {tuple(sent.shape)}, not {tuple(shape)}",
                "A client sends what it was handed, in the same shapes.",
            )
        if not sent.is_floating_point() or not _finite(sent):
            raise FederationError(
                f"{called} sent values for {name!r} that are not finite",
                "Lower its learning rate, or clip its gradients.",
            )
    return places


def _places(submodel: Submodel, groups: Mapping[str, Group], state: Mapping[str, torch.Tensor]) -> _Places:
    """Of which tensors only a part is held, along which axis, and which indices."""
    check_submodel(submodel, groups)
    found: dict[str, tuple[int, list[torch.Tensor]]] = {}
    for name, units in submodel.kept.items():
        if len(units) == groups[name].count:
            continue
        numbers = torch.tensor(units, dtype=torch.long)[:, None]
        for piece in groups[name].slices:
            index = piece.offset + numbers * piece.size + torch.arange(piece.size)
            found.setdefault(piece.tensor, (piece.axis, []))[1].append(index.flatten())
    absent = sorted({*found, *submodel.frozen} - set(state))
    if absent:
        raise FederationError(
            f"The state has no {absent[0]!r}, of which a sub-model is to be made", "Give all tensors that travel."
        )
    return {name: (axis, torch.cat(pieces)) for name, (axis, pieces) in found.items()}


def _finite(tensor: torch.Tensor) -> bool:
    """Whether all values are finite: the least and the greatest are, and both are NaN where any value is."""
    return not tensor.numel() or all(bool(torch.isfinite(end)) for end in torch.aminmax(tensor))


def _on(place: tuple[int, torch.Tensor], tensor: torch.Tensor) -> tuple[int, torch.Tensor]:
    """A place with its indices on the device of a tensor."""
    return place[0], place[1].to(tensor.device)
