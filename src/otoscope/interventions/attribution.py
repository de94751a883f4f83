"""Self-attention attribution: how much each attention weight contributes to what the model makes of an utterance."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from otoscope.errors import EvaluationError
from otoscope.interventions.engine import Progress
from otoscope.interventions.gradients import head_outputs, interval_row
from otoscope.interventions.losses import Loss
from otoscope.interventions.replay import Player
from otoscope.interventions.tape import Tape
from otoscope.measures.measure import Result, Row
from otoscope.models import tap
from otoscope.models.model import SpeechModel
from otoscope.models.reductions import Reduction
from otoscope.speech.corpus import Corpus
from otoscope.speech.utterance import Utterance
from otoscope.statistics import uniform
from otoscope.surgery import prepared
from otoscope.surgery.units import Parts

NAME = "importance-attribution"


@dataclass(frozen=True)
class Attribution:
    """What attribution gave for one layer and one utterance.

    Attributes:
        peaks: the largest attribution of a weight in each head's map, (H,).
        totals: the sum over each head's map, (H,).
        gained: what the objective gains by the layer's maps: with them less without them; the totals of all heads sum to
            it as steps grow.
    """

    peaks: np.ndarray
    totals: np.ndarray
    gained: float


class _Products(Reduction):
    """Peak and sum of weight times (mean gradient at the query times value at the key), of each head: (2, H).

    Args:
        gradients: mean gradient of the heads' outputs, (H, T, D).
        values: (H, T, D).
    """

    name = "attribution"

    def __init__(self, gradients: torch.Tensor, values: torch.Tensor) -> None:
        self._gradients, self._values = gradients, values

    def start(self, heads: int, frames: int, like: torch.Tensor) -> None:
        """See `Reduction`."""
        self._keys = self._values[:, :frames].to(like).transpose(1, 2)
        self._peaks = like.new_full((heads,), -torch.inf, dtype=torch.float64)
        self._sums = like.new_zeros(heads, dtype=torch.float64)

    def tile(self, first: int, scores: torch.Tensor, weights: torch.Tensor) -> None:
        """See `Reduction`."""
        rows = self._gradients[:, first : first + weights.shape[1]].to(weights)
        found = (weights * (rows @ self._keys)).double()
        self._peaks = torch.maximum(self._peaks, found.amax((1, 2)))
        self._sums += found.sum((1, 2))

    def finish(self) -> torch.Tensor:
        """See `Reduction`."""
        return torch.stack([self._peaks, self._sums])


class Attributor:
    """Attributes what a model makes of an utterance to the attention weights of one layer at a time.

    Attr_h(A) = A_h * (1/m) sum_k dF(k/m A) / dA_h, k = 0 ... m - 1, where all heads of one layer are scaled together and
    other layers are as they are (Hao, Dong, Wei and Xu 2021, arXiv 2004.11207, equations 1 and 2, with the sum as in the
    authors' program, m = 20). A layer's maps enter only through the heads' outputs A V, which are linear in them: to
    scale the maps is to scale the outputs, and the derivative at (q, k) is the outputs' gradient at q times the value
    at k. No map is kept. F is minus the loss: of transcripts a log probability where Hao et al. have the probability of
    a class, for those of whole transcripts are too small to be told from zero.

    The maps are those that the tap sees: where an encoder attends to silence that it was padded with, rows are cut to
    the utterance and brought back to one.

    Args:
        model: the model; it is not changed.
        loss: minus what is attributed.
        steps: m.

    Raises:
        EvaluationError: there is no step.
    """

    def __init__(self, model: SpeechModel, loss: Loss, steps: int = 20) -> None:
        if steps < 1:
            raise EvaluationError(f"An integral in {steps} steps", "Take one step or more.")
        self.model, self.loss, self.steps = prepared(model), loss, steps
        self._encoders = (self.model.encoder, self.model.family.encoder(self.model.source))
        self._tapes = [Tape(encoder, model.family.layers) for encoder in self._encoders]
        self._parts = [Parts(encoder, model.family) for encoder in self._encoders]
        self._taps = [
            [
                tap.attach(attention, layer, model.family.own_attention)
                for layer, attention in parts.attentions().items()
            ]
            for parts in self._parts
        ]

    def layers(self, utterance: Utterance, numbers: Sequence[int] | None = None) -> dict[int, Attribution]:
        """Attributions of layers for one utterance.

        Args:
            utterance: the speech.
            numbers: of the layers; None is all that have heads.

        Raises:
            AudioError: the utterance is too short or too long for the model.
            EvaluationError: no gradient flows from the loss.
        """
        samples = utterance.read()
        self.model.frontend.check(len(samples), f"Utterance {utterance.id!r}")
        with contextlib.ExitStack() as stack, torch.no_grad():
            for tape in self._tapes:
                stack.enter_context(tape.recording())
            whole = float(self._loss(utterance, samples))
        chosen = [layer for layer, heads in enumerate(self.model.anatomy.head_names, start=1) if heads]
        if numbers is not None:
            chosen = [layer for layer in chosen if layer in numbers]
        found = {layer: self._layer(layer, utterance, samples, whole) for layer in chosen}
        for tape in self._tapes:
            tape.passes = []
        return found

    def _loss(self, utterance: Utterance, samples: np.ndarray) -> torch.Tensor:
        return self.loss.of(self.model, [utterance], [samples])[0]

    def _layer(self, layer: int, utterance: Utterance, samples: np.ndarray, whole: float) -> Attribution:
        values: list[torch.Tensor] = []
        gradient: torch.Tensor | None = None
        without = whole
        with contextlib.ExitStack() as stack:
            place = frozenset({f"{self.model.family.layers}.{layer - 1}"})
            for tape in self._tapes:
                stack.enter_context(Player(tape, tape.encoder, place).playing())
            for step in range(self.steps):
                share = step / self.steps
                with torch.enable_grad(), head_outputs(self.model, _scaling(layer, share)) as outputs:
                    loss = self._loss(utterance, samples)
                    if not loss.requires_grad or len(outputs.get(layer, [])) != 1:
                        raise EvaluationError(
                            f"No gradient of the loss {self.loss.name!r} reaches layer {layer} in one pass",
                            "Give a loss that runs an utterance once, and computes without `no_grad`.",
                        )
                    (found,) = torch.autograd.grad(-loss, outputs[layer])
                gradient = found.double() if gradient is None else gradient + found.double()
                without = float(loss.detach()) if step == 0 else without
            for parts in self._parts:
                project = getattr(parts.attention(layer), self.model.family.projections[2])
                stack.callback(project.register_forward_hook(lambda m, a, out: values.append(out)).remove)
            assert gradient is not None
            return self._products(layer, utterance, samples, gradient / self.steps, values, without - whole)

    def _products(
        self,
        layer: int,
        utterance: Utterance,
        samples: np.ndarray,
        gradient: torch.Tensor,
        values: list[torch.Tensor],
        gained: float,
    ) -> Attribution:
        """One more pass, whose map meets gradients and values tile by tile."""
        heads = len(self.model.anatomy.head_names[layer - 1])
        frontend, n = self.model.frontend, len(samples)

        def make() -> Reduction:
            shared = values[0].view(1, values[0].shape[1], -1, gradient.shape[2] // heads)[0].transpose(0, 1)
            by_head = gradient.view(1, gradient.shape[1], heads, -1)[0].transpose(0, 1)
            return _Products(by_head, shared.repeat_interleave(heads // len(shared), 0))

        observation = tap.Observation((frontend.frames(n),), (frontend.attended(n),), (make,))
        for taps in self._taps:
            taps[layer - 1].observation = observation
        try:
            with torch.no_grad():
                self._loss(utterance, samples)
        finally:
            for taps in self._taps:
                taps[layer - 1].observation = None
        peaks, totals = observation.results[layer][0]["attribution"].cpu().numpy()
        return Attribution(peaks, totals, gained)


def attribution_importance(
    model: SpeechModel,
    corpus: Corpus,
    loss: Loss,
    *,
    most: int = 20,
    steps: int = 20,
    seed: int = 0,
    progress: Progress | None = None,
) -> Result:
    """Importance of heads by attribution, I_h = E_u max Attr_h(A_u); see `Attributor`.

    An utterance costs about L m / 2 forward and backward passes.

    Args:
        model: the model; it is not changed.
        corpus: the speech.
        loss: minus what is attributed.
        most: utterances that are looked at, chosen by a hash of the seed and their names (Hao et al. take 200 examples).
        steps: of the integral.
        seed: of the choice and of the bootstrap.
        progress: called after each utterance with the seconds done and in all.

    Returns:
        A row a head: target is the loss, value the mean over utterances of the largest attribution, in its unit, with
        its 95 % interval over speakers; n utterances. The notes hold, for each layer, the share of what the maps gain
        that the attributions sum to: one, but for the steps of the integral.

    Raises:
        EvaluationError: the corpus is empty, or no gradient flows from the loss.
    """
    chosen = choose(corpus, most, seed)
    attributor = Attributor(model, loss, steps)
    total, done = chosen.seconds, 0.0
    found: list[dict[int, Attribution]] = []
    for utterance in chosen:
        found.append(attributor.layers(utterance))
        done += utterance.seconds
        if progress is not None:
            progress(done, total)
    ones = np.ones(len(chosen))
    rows, complete = [], {}
    for layer, heads in enumerate(model.anatomy.head_names, start=1):
        for position, head in enumerate(heads):
            peaks = np.array([one[layer].peaks[position] for one in found])
            rows.append(interval_row(Row(NAME, f"layer.{layer}", layer, head, loss.name), chosen, peaks, ones, seed))
        if heads:
            gained = sum(one[layer].gained for one in found)
            summed = float(sum(one[layer].totals.sum() for one in found))
            complete[f"layer.{layer}"] = summed / gained if gained else None
    notes: dict[str, Any] = {
        "loss": loss.name, "unit": loss.unit, "steps": steps, "utterances": len(chosen), "seed": seed,
        "summed_to": complete,
    }  # fmt: skip
    return Result(rows, {}, {NAME: notes})


def choose(corpus: Corpus, most: int, seed: int) -> Corpus:
    """At most so many utterances, chosen by a hash of the seed and their names, so that their order does not matter.

    Raises:
        EvaluationError: there is none to choose.
    """
    if not len(corpus) or most < 1:
        raise EvaluationError(f"{most} of {len(corpus)} utterances", "Choose one utterance or more of a corpus.")
    drawn: Sequence[Utterance] = sorted(corpus, key=lambda one: (uniform(seed, one.id, purpose="attribution"), one.id))
    return corpus.subset([one.id for one in drawn[:most]])


def _scaling(number: int, share: float) -> Any:
    def scaled(layer: int, states: torch.Tensor) -> torch.Tensor:
        return (states * share).detach().requires_grad_() if layer == number else states

    return scaled
