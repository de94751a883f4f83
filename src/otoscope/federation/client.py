"""What a client does in a round: it loads its sub-model, trains it on its own speech, and tells by how much it changed."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from otoscope.errors import FederationError
from otoscope.evaluation.references import check_frames, reference_of
from otoscope.federation.channels import exchanged, groups_of
from otoscope.federation.partition import Share
from otoscope.federation.rescaling import rescale
from otoscope.federation.submodels import Submodel, narrow
from otoscope.federation.training_memory import StepMemory, training_memory
from otoscope.models.model import SpeechModel
from otoscope.models.recogniser import Recogniser
from otoscope.speech.batching import batches
from otoscope.speech.utterance import Utterance
from otoscope.statistics.hashing import uniform
from otoscope.surgery.units import Parts
from otoscope.training.ctc import Ctc, CtcSettings, check_transcript
from otoscope.training.parameter_groups import hold_frozen, parameter_groups
from otoscope.treatments.applying import training_of

OPTIMISERS = ("sgd", "adamw")
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class LocalSettings:
    """How clients train in a round.

    Attributes:
        epochs: times that a client hears its speech.
        steps: updates at most; 0 is as many as the epochs have.
        batch_seconds: seconds of padded speech in a batch.
        optimiser: "sgd", without momentum, or "adamw", without weight decay; it begins anew every round.
        learning_rate: the same throughout.
        clip: highest norm of the gradient.
        mask: share of frames under SpecAugment's masks, see `otoscope.training.ctc.CtcSettings`; 0 masks none.
        precision: "float32", or "bfloat16" for mixed precision; weights stay float32.
        rescale: scale what is left of narrowed branches to the size of the whole in training, see `rescaling.rescale`.
        freeze_convolutions: leave the convolutions over samples as they are.

    Raises:
        FederationError: a number is out of its range.
    """

    epochs: int = 1
    steps: int = 0
    batch_seconds: float = 40.0
    optimiser: str = "sgd"
    learning_rate: float = 0.1
    clip: float = 1.0
    mask: float = 0.0
    precision: str = "float32"
    rescale: bool = False
    freeze_convolutions: bool = True

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.steps < 0:
            raise FederationError(
                f"Clients train for {self.epochs} epochs and {self.steps} steps",
                "Give one epoch or more, and zero steps or more.",
            )
        for name in ("batch_seconds", "learning_rate", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise FederationError(
                    f"{name} of the clients is {getattr(self, name)}", "Give a finite number above zero."
                )
        if not 0 <= self.mask < 1:
            raise FederationError(f"mask of the clients is {self.mask}", "Give a share from 0 to below 1.")
        for name, given, known in (
            ("optimiser", self.optimiser, OPTIMISERS),
            ("precision", self.precision, PRECISIONS),
        ):
            if given not in known:
                raise FederationError(f"There is no {name} {given!r} for clients", f"Choose one of {', '.join(known)}.")


@dataclass(frozen=True)
class Trained:
    """What a client's training in a round came to.

    Attributes:
        delta: by how much each tensor that it was handed changed, but for frozen ones; float32, on the CPU. Tensors that
            are never trained (`held_still`) are there, with zeros.
        weight: of the client in means: seconds of speech that it trained on, every hearing counted.
        metrics: "loss" (CTC, mean over the utterances heard), "steps", "seconds" and "utterances" (heard), and
            "peak_training_bytes" (of the step with the most padded speech, see `training_memory`).
    """

    delta: dict[str, torch.Tensor]
    weight: float
    metrics: dict[str, float]


class Client:
    """A client with its own speech; it keeps nothing from round to round.

    Args:
        template: a recogniser of the server's kind; left as it is, and of its weights nothing is used.
        share: the client's speech.
        settings: see `LocalSettings`.

    Attributes:
        name: of the client.

    Raises:
        FederationError: there is no speech.
        OtoscopeError: an utterance cannot be trained on.
    """

    def __init__(self, template: Recogniser, share: Share, settings: LocalSettings | None = None) -> None:
        self.name, self._template, self._settings = share.client, template, settings or LocalSettings()
        if not len(share.utterances):
            raise FederationError(f"The client {self.name!r} has no speech", "Give it some, or leave it out.")
        for utterance in share.utterances:
            check_transcript(utterance)
            template.model.frontend.check(utterance.n_samples, f"Utterance {utterance.id!r}")
            check_frames(template, utterance, reference_of(template, utterance))
        self._batches = list(batches(share.utterances, self._settings.batch_seconds))
        self._groups = groups_of(template.model)

    def train(self, arrays: Mapping[str, torch.Tensor], submodel: Submodel, round: int, seed: int) -> Trained:
        """Trains a sub-model; the result follows from the arguments and the client's name, up to the sums of a GPU.

        LayerDrop is off. Parameters that a treatment froze stay, and its factors on the learning rate hold.

        Args:
            arrays: tensors of the sub-model by name, as `extract` gives them; left as they are.
            submodel: what they are of the template.
            round: number of the round.
            seed: of the federation.

        Raises:
            FederationError: the tensors are not those of the sub-model, or the training diverges.
            TrainingError: masks are asked for that would hide nothing.
        """
        made = narrow(self._template.model, submodel)
        made.source.float()
        self._load(made, arrays)
        number = int(uniform(seed, self.name, round, "federation: training") * 2**53)
        with _random_from(number, made.device):
            objective, optimiser = self._prepared(made, submodel)
            metrics = self._trained(objective, optimiser, np.random.default_rng(number), round)
        delta = {
            name: tensor.detach().cpu() - arrays[name].detach().to("cpu", torch.float32)
            for name, tensor in exchanged(made).items()
            if name not in submodel.frozen
        }
        if not all(bool(torch.isfinite(tensor).all()) for tensor in delta.values()):
            raise self._diverged(round)
        return Trained(delta, metrics["seconds"], metrics)

    def memory(self, submodel: Submodel) -> StepMemory:
        """The memory of the step of training with the most padded speech of all the client's batches; nothing is kept of it.

        Raises:
            TrainingError: masks are asked for that would hide nothing.
        """
        made = narrow(self._template.model, submodel)
        made.source.float()
        with _random_from(0, made.device):
            objective, optimiser = self._prepared(made, submodel)
            largest = max(self._batches, key=_padded)
            step = _Step(objective, optimiser, largest, 0.0, np.random.default_rng(0), self._settings)
            return training_memory(objective, optimiser, step)

    def _load(self, made: SpeechModel, arrays: Mapping[str, torch.Tensor]) -> None:
        """Puts what travelled into the model, all of it and nothing else.

        Raises:
            FederationError: tensors are absent, left over, of another shape or type, or not finite.
        """
        wanted, cure = exchanged(made), "Send the tensors of the sub-model that the client is asked to train."
        called = f"What the client {self.name!r} was sent"
        for problem, names in (("lacks", set(wanted) - set(arrays)), ("should not hold", set(arrays) - set(wanted))):
            if names:
                raise FederationError(f"{called} {problem} {min(names)!r}", cure)
        for name, tensor in wanted.items():
            given = arrays[name]
            if given.shape != tensor.shape:
                raise FederationError(
                    f"{called} holds {name!r} in the shape {tuple(given.shape)}, not {tuple(tensor.shape)}", cure
                )
            if not given.is_floating_point() or not bool(torch.isfinite(given).all()):
                raise FederationError(f"{called} holds values for {name!r} that are not finite", cure)
        with torch.no_grad():
            for name, tensor in wanted.items():
                tensor.copy_(arrays[name])

    def _prepared(self, made: SpeechModel, submodel: Submodel) -> tuple[Ctc, torch.optim.Optimizer]:
        """The objective in training mode, and an optimiser of what is trained."""
        given = self._settings
        Parts(made.family.encoder(made.source), made.family).keep_every_layer()
        if given.rescale:
            rescale(made.source, submodel, self._groups)
        settings = CtcSettings(mask=given.mask, freeze_convolutions=given.freeze_convolutions)
        objective = Ctc(Recogniser(made, self._template.vocabulary), settings)
        rates = hold_frozen(made.source)
        for name, parameter in made.source.named_parameters():
            if name in submodel.frozen:  # the objective may have opened it
                parameter.requires_grad_(False)
        trained = parameter_groups(made.source.named_parameters(), (), 0.0, given.learning_rate, rates)
        if not trained:
            raise FederationError(f"Nothing is left to train for the client {self.name!r}", "Freeze less of the model.")
        kind = torch.optim.SGD if given.optimiser == "sgd" else torch.optim.AdamW
        objective.train()
        return objective, kind(trained)

    def _trained(
        self, objective: Ctc, optimiser: torch.optim.Optimizer, draw: np.random.Generator, round: int
    ) -> dict[str, float]:
        """The loop: a batch a step.

        Raises:
            FederationError: the loss is not finite.
        """
        order = [int(k) for _ in range(self._settings.epochs) for k in draw.permutation(len(self._batches))]
        chosen = [self._batches[k] for k in order[: self._settings.steps or None]]
        largest = max(range(len(chosen)), key=lambda k: _padded(chosen[k]))
        total, peak = 0.0, 0
        for k, utterances in enumerate(chosen):
            step = _Step(objective, optimiser, utterances, k / len(chosen), draw, self._settings)
            if k == largest:
                peak = training_memory(objective, optimiser, step).peak
            else:
                step()
            if not math.isfinite(step.loss):
                raise self._diverged(round)
            total += step.loss * len(utterances)
        heard = [utterance for utterances in chosen for utterance in utterances]
        return {
            "loss": total / len(heard),
            "steps": float(len(chosen)),
            "seconds": sum(utterance.seconds for utterance in heard),
            "utterances": float(len(heard)),
            "peak_training_bytes": float(peak),
        }

    def _diverged(self, round: int) -> FederationError:
        return FederationError(
            f"The training of the client {self.name!r} diverged in round {round}",
            "Choose a lower learning rate or a lower clip for the clients.",
        )


class _Step:
    """One update on one batch.

    Attributes:
        loss: CTC of the batch, once it is done.
    """

    def __init__(
        self,
        objective: Ctc,
        optimiser: torch.optim.Optimizer,
        utterances: Sequence[Utterance],
        progress: float,
        draw: np.random.Generator,
        settings: LocalSettings,
    ) -> None:
        self._objective, self._optimiser, self._settings = objective, optimiser, settings
        batch = objective.assemble(utterances, [one.read() for one in utterances], draw)
        self._device = next(objective.parameters()).device
        self._batch = {name: tensor.to(self._device) for name, tensor in batch.items()}
        self._progress = torch.tensor(progress)
        self.loss = math.nan

    def __call__(self) -> None:
        self._optimiser.zero_grad(set_to_none=True)
        mixed = torch.autocast(self._device.type, torch.bfloat16, enabled=self._settings.precision == "bfloat16")
        with mixed, warnings.catch_warnings():
            # WavLM's attention in transformers hands PyTorch two kinds of masks; nobody who trains can mend that.
            warnings.filterwarnings("ignore", message="Support for mismatched key_padding_mask", category=UserWarning)
            parts = self._objective(self._progress, **self._batch)
        parts["loss"].backward()
        torch.nn.utils.clip_grad_norm_(self._objective.parameters(), self._settings.clip)
        self._optimiser.step()
        self.loss = float(parts["ctc"].detach())


def held_still(model: SpeechModel, settings: LocalSettings) -> frozenset[str]:
    """The tensors that travel and that no client trains, in any round: their deltas are zero.

    Args:
        model: the server's.
        settings: of the clients.

    Returns:
        Names of the convolutions over samples where these are frozen, of what a treatment froze, and of the running
        statistics of batch norms whose weights are among these.
    """
    front = getattr(model.family.encoder(model.source), "feature_extractor", None)
    convolutions = {id(one) for one in front.parameters()} if isinstance(front, nn.Module) else set()
    frozen = training_of(model.source).frozen
    still = {
        name for name, parameter in model.source.named_parameters()
        if name in frozen or (settings.freeze_convolutions and id(parameter) in convolutions)
    }  # fmt: skip
    for path, module in model.source.named_modules():
        weights = [f"{path}.{name}" for name, _ in module.named_parameters(recurse=False)]
        if isinstance(module, _BatchNorm) and weights and still.issuperset(weights):
            still |= {f"{path}.{name}" for name, _ in module.named_buffers(recurse=False)}
    return frozenset(still & exchanged(model).keys())


def _padded(batch: Sequence[Utterance]) -> int:
    """Samples of a batch, whose longest utterance comes first, with its padding."""
    return len(batch) * batch[0].n_samples


@contextlib.contextmanager
def _random_from(seed: int, device: torch.device) -> Iterator[None]:
    """Has all libraries draw from a seed, and from where they were afterwards."""
    before = np.random.get_state()  # noqa: NPY002 - transformers draws its masks there
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(before)  # noqa: NPY002
