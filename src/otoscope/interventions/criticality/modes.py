"""What is done to a unit: weights set back or drawn anew, its branch left out or replaced by its mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

from otoscope.errors import EvaluationError
from otoscope.interventions.criticality.weights import (
    Checkpoint,
    Weights,
    drawn_weights,
    initial_weights,
    refuse_the_same,
    weights_of,
)
from otoscope.models.model import SpeechModel
from otoscope.speech.corpus import Corpus
from otoscope.surgery import Bypass, Edit, MeanAblate, mean_outputs
from otoscope.surgery.branches import BRANCHES
from otoscope.surgery.units import Parts, Unit

REINITIALISE, REWIND, RERANDOMISE, BYPASS, MEAN = MODES = (
    "re-initialise",
    "rewind",
    "re-randomise",
    "bypass",
    "mean",
)
EVERY_LAYER = "layer.*"
ALL = "all layers"

_KINDS = {BYPASS: ("layer", *BRANCHES), MEAN: ("layer", "head", *BRANCHES)}  # others act on any unit


@dataclass(frozen=True)
class Trial:
    """One mode, on every unit in turn and on all layers together.

    Attributes:
        mode: such as "re-initialise" or "rewind:pretrained".
        variants: name -> edits.
        of_unit: unit -> names of its variants, one for each draw; units that the mode leaves as they are have none.
        of_all: names of the variants in which all layers are reset together, one for each draw.
        unchanged: units whose weights are those that they would be set to, bit for bit.
        skipped: units that the mode does not act on; where these are all, there are no variants.
    """

    mode: str
    variants: Mapping[str, Sequence[Edit]]
    of_unit: Mapping[str, tuple[str, ...]]
    of_all: tuple[str, ...]
    unchanged: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """The mode as a name of a folder."""
        return quote(self.mode, safe="")


@dataclass(frozen=True)
class Sources:
    """Where weights come from.

    Attributes:
        initial: the checkpoint at initialisation; see `weights_of`.
        checkpoints: further ones by name.
        draws: how often weights are drawn anew.
        seed: of the draws.
    """

    initial: Checkpoint | None = None
    checkpoints: Mapping[str, Checkpoint] = field(default_factory=dict)
    draws: int = 3
    seed: int = 0


def chosen_modes(modes: Sequence[str] | None, sources: Sources) -> list[str]:
    """The modes by their full names: "rewind" is that to every named checkpoint.

    Args:
        modes: None is every mode that there are weights for.
        sources: the weights.

    Raises:
        EvaluationError: there is no such mode, none, or no such checkpoint.
    """
    if not all(sources.checkpoints):
        raise EvaluationError("A checkpoint has no name", "Name every checkpoint that is rewound to.")
    rewinds = [f"{REWIND}:{name}" for name in sources.checkpoints]
    if modes is None:
        return [*([REINITIALISE] if sources.initial is not None else []), *rewinds, RERANDOMISE, BYPASS, MEAN]
    found: list[str] = []
    for mode in modes:
        if mode == REWIND and not rewinds:
            raise EvaluationError("There is no checkpoint to rewind to", "Name one or more, each by a word of yours.")
        if mode not in (*MODES, *rewinds):
            raise EvaluationError(
                f"There is no mode {mode!r}",
                f"The modes are {', '.join([REINITIALISE, *(rewinds or [f'{REWIND}:CHECKPOINT']), *MODES[2:]])}.",
            )
        found += rewinds if mode == REWIND else [mode]
    if not found:
        raise EvaluationError("There is no mode", f"Choose among {', '.join(MODES)}.")
    return list(dict.fromkeys(found))


def trials(
    model: SpeechModel,
    corpus: Corpus,
    units: Sequence[Unit],
    modes: Sequence[str],
    sources: Sources,
    *,
    strict: bool,
    chosen: bool,
    batch_seconds: float = 30.0,
) -> list[Trial]:
    """The variants of every mode.

    Args:
        model: the model.
        corpus: what means are taken over.
        units: what is reset.
        modes: full names, see `chosen_modes`.
        sources: where weights come from.
        strict: refuse a unit that a mode does not act on, rather than skip it.
        chosen: refuse a mode that acts on no unit, rather than skip all of them.
        batch_seconds: of the pass that takes means.

    Raises:
        EvaluationError: a unit or mode is refused, as said above; there is no initial checkpoint.
        SurgeryError: a checkpoint does not fit, or is the model itself.
        CheckpointError: a checkpoint cannot be loaded.
    """
    parts = Parts(model.family.encoder(model.source), model.family)
    found = []
    for mode in modes:
        acted = [unit for unit in units if unit.kind in _KINDS.get(mode, (unit.kind,))]
        skipped = tuple(unit.name for unit in units if unit not in acted)
        if skipped and (strict or (chosen and not acted)):
            raise EvaluationError(
                f"The mode {mode!r} does not act on {skipped[0]}", f"It acts on {', '.join(_KINDS[mode])}."
            )
        if not acted:
            found.append(Trial(mode, {}, {}, (), skipped=skipped))
        elif mode in _KINDS:
            found.append(_of_outputs(mode, model, corpus, acted, skipped, batch_seconds))
        else:
            found.append(_of_weights(mode, parts, acted, _weights(mode, parts, sources)))
    return found


def _weights(mode: str, parts: Parts, sources: Sources) -> list[Weights]:
    if mode == RERANDOMISE:
        return drawn_weights(parts, sources.draws, sources.seed)
    if mode == REINITIALISE:
        return [initial_weights(parts, sources.initial)]
    name = mode.removeprefix(f"{REWIND}:")
    return [weights_of(parts, sources.checkpoints[name], name)]


def _of_weights(mode: str, parts: Parts, units: Sequence[Unit], weights: Sequence[Weights]) -> Trial:
    for one in weights:
        refuse_the_same(parts, one)
    ends = [f", draw {k}" for k in range(1, len(weights) + 1)] if mode == RERANDOMISE else [""]
    variants: dict[str, list[Edit]] = {}
    of_unit: dict[str, tuple[str, ...]] = {}
    # Every reset is seen to change something; what it leaves as it is need not be run.
    changed = [unit for unit in units if any(one.changes(parts, unit) for one in weights)]
    for unit in changed:
        of_unit[unit.name] = tuple(f"{unit.name}{end}" for end in ends)
        variants |= {name: [one.edit(unit.name)] for name, one in zip(of_unit[unit.name], weights, strict=True)}
    of_all = tuple(f"{ALL}{end}" for end in ends)
    variants |= {name: [one.edit(EVERY_LAYER)] for name, one in zip(of_all, weights, strict=True)}
    return Trial(mode, variants, of_unit, of_all, tuple(unit.name for unit in units if unit.name not in of_unit))


def _of_outputs(
    mode: str, model: SpeechModel, corpus: Corpus, units: Sequence[Unit], skipped: tuple[str, ...], batch_seconds: float
) -> Trial:
    if mode == BYPASS:
        variants: dict[str, list[Edit]] = {unit.name: [Bypass(unit.name)] for unit in units}
        variants[ALL] = [Bypass(EVERY_LAYER)]
    else:
        means = mean_outputs(model, corpus, [*(unit.name for unit in units), EVERY_LAYER], batch_seconds)
        variants = {unit.name: [MeanAblate(unit.name, {unit.name: means[unit.name]})] for unit in units}
        layers = {name: mean for name, mean in means.items() if name.count(".") == 1}
        variants[ALL] = [MeanAblate(EVERY_LAYER, layers)]
    return Trial(mode, variants, {unit.name: (unit.name,) for unit in units}, (ALL,), skipped=skipped)
