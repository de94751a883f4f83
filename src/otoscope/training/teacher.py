"""A teacher: a trained model whose outputs and layers another follows while it learns to spell."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from otoscope.errors import TrainingError
from otoscope.models.families import submodule
from otoscope.models.model import SpeechModel
from otoscope.models.recogniser import Recogniser
from otoscope.models.view import view_of


@dataclass(frozen=True)
class TeacherSettings:
    """How much a teacher counts beside the CTC loss.

    Attributes:
        outputs: weight of the divergence from the teacher's outputs.
        layers: weight of the distance from what the teacher's layers give; 0 follows its outputs alone.

    Raises:
        TrainingError: a weight is below zero, or both are zero.
    """

    outputs: float = 3.0
    layers: float = 1.0

    def __post_init__(self) -> None:
        if not (self.outputs >= 0 and self.layers >= 0 and self.outputs + self.layers > 0):
            raise TrainingError(
                f"A teacher that counts {self.outputs:g} (outputs) and {self.layers:g} (layers)",
                "Give weights of zero or more, one of them above.",
            )


class Teacher:
    """What a trained model gives for a batch, and how far another is from it.

    It hears what the student hears, without masks in the encoder and without dropout. `outputs` is the Kullback-Leibler
    divergence of the student's distribution over tokens from the teacher's (Hinton, Vinyals and Dean 2015), mean over
    frames, in nats. `layers` is the mean over the layers that both have, by name, of the squared distance of their
    outputs over the variance of the teacher's, mean over frames and dimensions: 0 where they are equal, 1 where the
    student gives the teacher's mean.

    It is no module of the student's, and is not stored with it.

    Args:
        teacher: the trained model.
        student: what is trained.
        settings: see `TeacherSettings`.

    Raises:
        TrainingError: the two have other vocabularies, inputs or frames, or no layer of the same width in common.
    """

    def __init__(self, teacher: Recogniser, student: Recogniser, settings: TeacherSettings | None = None) -> None:
        self.settings, self._name = settings or TeacherSettings(), teacher.name
        self._fingerprint = teacher.model.fingerprint()
        first, second = teacher.vocabulary, student.vocabulary
        if (first.tokens, first.blank) != (second.tokens, second.blank):
            raise TrainingError(
                f"The teacher {teacher.name} spells with other tokens than {student.name}",
                "Name a teacher with the same vocabulary, such as the model before its treatment.",
            )
        inputs = [(one.model.frontend.settings, one.model.anatomy.grid) for one in (teacher, student)]
        if inputs[0] != inputs[1] or teacher.frames(160_000) != student.frames(160_000):
            raise TrainingError(
                f"The teacher {teacher.name} hears other input or gives other frames than {student.name}",
                "Name a teacher of the same family and hop.",
            )
        self._module: Any = view_of(teacher.model.source).eval()
        self._teacher, self._student = teacher.model, student.model
        self.shared: tuple[str, ...] = ()
        if self.settings.layers:
            there = set(teacher.model.anatomy.streams)
            widths = [one.model.anatomy.widths for one in (teacher, student)]
            layers = [name for name in student.model.anatomy.streams if name.startswith("layer.") and name in there]
            self.shared = tuple(name for name in layers if widths[0][name] == widths[1][name])
            if not self.shared:
                raise TrainingError(
                    f"The teacher {teacher.name} and {student.name} have no layer of the same width in common",
                    "Follow its outputs alone: TeacherSettings(layers=0) (--teacher-layers 0).",
                )

    def describe(self) -> dict[str, Any]:
        """Plain values that a run depends on."""
        return {"teacher": self._fingerprint, **{f"teacher_{name}": one for name, one in asdict(self.settings).items()}}

    @contextlib.contextmanager
    def listening(self, module: nn.Module | None = None) -> Iterator[dict[str, torch.Tensor]]:
        """What the shared layers give in a pass, (B, T, d) by name.

        Args:
            module: the model that is run, the student's; None is the teacher's.
        """
        speech: SpeechModel = self._teacher if module is None else self._student
        encoder = speech.family.encoder(self._module if module is None else module)
        layers: Any = submodule(encoder, speech.family.layers)
        heard: dict[str, torch.Tensor] = {}

        def note(name: str) -> Any:
            def hook(module: nn.Module, args: object, out: Any) -> None:
                heard[name] = out[0] if isinstance(out, tuple) else out

            return hook

        handles = [layers[int(name.partition(".")[2]) - 1].register_forward_hook(note(name)) for name in self.shared]
        try:
            yield heard
        finally:
            for handle in handles:
                handle.remove()

    def losses(
        self,
        batch: Mapping[str, torch.Tensor],
        scores: torch.Tensor,
        heard: Mapping[str, torch.Tensor],
        frames: torch.Tensor,
        layer_frames: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """How far the student is from the teacher on a batch.

        Args:
            batch: what the student was run on.
            scores: the student's log probabilities, (B, T, V).
            heard: what its shared layers gave, (B, T', d) by name.
            frames: valid frames at the head, (B,).
            layer_frames: valid frames of the layers, (B,).

        Returns:
            The weighted sum under "loss", and "outputs" and "layers" where they count.
        """
        if next(self._module.parameters()).device != scores.device:
            # A copy, so that the teacher's own weights stay where they are.
            self._module = copy.deepcopy(self._module).to(scores.device)
        with torch.no_grad(), self.listening() as taught:
            logits = self._module(**batch).logits.float()
        found: dict[str, torch.Tensor] = {}
        wanted = F.log_softmax(logits, -1)
        apart = (wanted.exp() * (wanted - scores)).sum(-1)
        found["outputs"] = apart[_valid(scores, frames)].mean()
        total = self.settings.outputs * found["outputs"]
        if self.shared:
            distances = []
            for name in self.shared:
                own, theirs = heard[name].float(), taught[name].float()
                inside = _valid(own, layer_frames)
                distances.append((own - theirs)[inside].square().mean() / theirs[inside].var(0, correction=0).mean())
            found["layers"] = torch.stack(distances).mean()
            total = total + self.settings.layers * found["layers"]
        return {"loss": total, **found}


def _valid(values: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """Which frames of (B, T, d) are no padding, (B, T)."""
    return torch.arange(values.shape[1], device=values.device) < frames.to(values.device)[:, None]
