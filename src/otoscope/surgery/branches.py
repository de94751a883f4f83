"""Edits of what branches and layers give: bypass, and replacement by a mean over a corpus."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch

from otoscope.errors import SurgeryError
from otoscope.models.capture import Collector
from otoscope.models.edits import head_edits
from otoscope.models.families import submodule
from otoscope.models.model import SpeechModel
from otoscope.speech.batching import read_batches
from otoscope.speech.corpus import Corpus
from otoscope.surgery.edit import Edit, finite, registered
from otoscope.surgery.units import Parts, Unit

BRANCHES = ("attention", "feed_forward", "convolution")


@registered
@dataclass(frozen=True)
class Bypass(Edit):
    """Lets the residual stream pass by.

    A layer's output becomes its input, its norms included: in a post-norm model that is the normed output of the layer
    before. A branch (attention, feed-forward, convolution) gives zero, so that nothing is added; a norm that stands
    after the addition stays. The module is still run, so that its maps and streams can be looked at.

    Attributes:
        units: layers, attention modules, feed-forward or convolution branches.
    """

    kind = "bypass"

    def apply(self, parts: Parts) -> None:
        """See `Edit`."""
        for unit in parts.find(self.units, ("layer", *BRANCHES)):
            edit = parts.branch(unit)
            edit.active, edit.mean = True, None


@registered
@dataclass(frozen=True)
class MeanAblate(Edit):
    """Replaces what units give by its mean over a corpus, the same at every frame.

    A gate of the same head multiplies the mean as it would multiply the head's output, whichever of the two is set
    first.

    Attributes:
        units: branches (what they give is replaced before it is added), layers (what they add to their input) or heads
            (their output before the output projection).
        means: unit -> mean, as `mean_outputs` gives them; others than `units` may be among them.
    """

    kind = "mean"
    means: Mapping[str, Sequence[float]] = field(hash=False)

    def __post_init__(self) -> None:
        means = {
            name: tuple(finite(value, f"A value of the mean of {name}") for value in mean)
            for name, mean in self.means.items()
        }
        object.__setattr__(self, "means", means)

    def apply(self, parts: Parts) -> None:
        """See `Edit`."""
        for unit in parts.find(self.units, ("layer", "head", *BRANCHES)):
            if unit.name not in self.means:
                raise SurgeryError(f"There is no mean for {unit.name}", "Compute it with `mean_outputs`.")
            like = next(parts.encoder.parameters())
            mean = torch.tensor(self.means[unit.name], dtype=like.dtype, device=like.device)
            assert unit.layer is not None
            if unit.head is None:
                self._check(unit, mean, getattr(parts.config, parts.family.size_names[0]))
                edit = parts.branch(unit)
                edit.active, edit.mean = True, mean
            else:
                edits = parts.edits_of(unit.layer)
                self._check(unit, mean, edits.means.shape[1])
                position = edits.kept.index(unit.head)
                edits.put("means", [position], mean)
                edits.put("replaced", [position], True)

    def _check(self, unit: Unit, mean: torch.Tensor, width: int) -> None:
        if mean.shape != (width,):
            raise SurgeryError(
                f"The mean for {unit.name} has {len(mean)} values, and what it replaces has {width}",
                "Compute it with `mean_outputs` on a model of the same sizes.",
            )

    def to_dict(self) -> dict[str, Any]:
        """See `Edit`; float32 means are kept exactly."""
        return super().to_dict() | {"means": {name: list(mean) for name, mean in self.means.items()}}


def mean_outputs(
    model: SpeechModel, corpus: Corpus, units: str | Sequence[str], batch_seconds: float = 30.0
) -> dict[str, tuple[float, ...]]:
    """Means over a corpus of what units give, in one pass; every valid frame weighs the same, padding is left out.

    Args:
        model: the model.
        corpus: utterances.
        units: names or patterns of layers, branches and heads.
        batch_seconds: frame budget of a batch, in seconds of padded speech.

    Returns:
        Unit -> mean: (d,) of what a branch gives, before it is added to the residual stream (and, in Conformers, before
        it is halved); (d,) of what a layer adds to its input; (D,) of a head's output before its gate and the output
        projection.

    Raises:
        SurgeryError: a unit does not exist, or the corpus is empty.
        AudioError: an utterance is too short or too long for the model.
    """
    parts = Parts(model.encoder, model.family)
    patterns = [units] if isinstance(units, str) else units
    chosen = {u.name: u for pattern in patterns for u in parts.find(pattern, ("layer", "head", *BRANCHES))}
    sums: dict[str, torch.Tensor] = {}
    frames = 0
    # Heads of a layer are taken together, from what enters the output projection.
    sites = {f"layer.{u.layer}.heads" if u.kind == "head" else u.name: u for u in chosen.values()}
    for batch in read_batches(corpus, batch_seconds):
        counts = tuple(model.frontend.frames(len(one)) for one in batch.samples)
        collectors = {name: Collector(name, counts, None) for name in sites}
        with ExitStack() as stack:
            for name, unit in sites.items():
                stack.callback(_listen(parts, unit, collectors[name]).remove)
            model.capture(batch.utterances, batch.samples, streams=())
        for name, collector in collectors.items():
            rows, lengths = collector.stream(len(batch))
            total = sum(row[:n].sum(0, dtype=torch.float64) for row, n in zip(rows, lengths, strict=True))
            sums[name] = sums.get(name, 0) + total
        frames += sum(counts)
    if not frames:
        raise SurgeryError(f"Corpus {corpus.name} has no frame to take a mean over", "Give it recordings.")
    means = {}
    for unit in chosen.values():
        if unit.head is None:
            mean = sums[unit.name] / frames
        else:
            names = model.anatomy.head_names[(unit.layer or 0) - 1]
            position = names.index(unit.head)
            mean = (sums[f"layer.{unit.layer}.heads"] / frames).view(len(names), -1)[position]
            # The gate multiplies what stands in for the output too; a head whose gate is zero gives zero either way.
            edits = head_edits(parts.attention(unit.layer or 0))
            gate = 1.0 if edits is None else float(edits.gate[position])
            mean = mean / gate if gate else mean
        # As float32, which is what the model computes with, so that what is stored is what is used.
        means[unit.name] = tuple(mean.float().tolist())
    return means


def _listen(parts: Parts, unit: Unit, collector: Collector) -> Any:
    """A hook that hands what a unit gives to a collector; its handle."""
    module: Any = submodule(parts.encoder, unit.paths[-1])
    if unit.kind == "head":
        projection = getattr(module, parts.family.projections[3])
        return projection.register_forward_pre_hook(lambda module, args: collector.take(args[0]))

    def after(module: Any, args: Any, kwargs: Any, out: Any) -> None:
        states = out[0] if isinstance(out, tuple) else out
        if unit.kind == "layer":
            states = states - (args[0] if args else kwargs["hidden_states"])
        collector.take(states)

    return module.register_forward_hook(after, with_kwargs=True)
