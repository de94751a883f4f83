"""Gradients of a loss by the weights of units: relative norms and Fisher information, in one pass."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from otoscope.errors import EvaluationError, SurgeryError
from otoscope.interventions.engine import Progress
from otoscope.interventions.gradients import interval_row
from otoscope.interventions.losses import Loss
from otoscope.measures.measure import Result, Row
from otoscope.models.model import TRAINING_ONLY, SpeechModel
from otoscope.speech.batching import read_batches
from otoscope.speech.corpus import Corpus
from otoscope.statistics import ratio_jackknife
from otoscope.surgery.units import Parts, Unit, units_of

RELATIVE, FISHER = "gradient-norm-relative", "gradient-fisher"


def unit_gradients(
    model: SpeechModel,
    corpus: Corpus,
    loss: Loss,
    granularity: str | Sequence[str] = "block",
    layers: Sequence[int] | None = None,
    *,
    seed: int = 0,
    batch_seconds: float = 10.0,
    progress: Progress | None = None,
) -> Result:
    """How strongly a loss pulls at the weights of every unit, by one forward and backward pass.

    - `gradient-norm-relative`: mean over batches of |g_b| / |theta|, where g_b is the gradient of the loss of batch b for
      a frame of it, and norms are over all weights of the unit: the relative gradient norm of Auto-RGN (Lee et al. 2023,
      "Surgical fine-tuning improves adaptation to distribution shifts", arXiv 2210.11466), who take it of each tensor. A
      unit of weights that are all zero has none. The interval is over batches, by a jackknife.
    - `gradient-fisher`: sum over the unit's weights of the mean over utterances of g_u^2, where g_u is the gradient of the
      loss of the whole utterance u: the trace of the unit's part of the empirical Fisher information (Kirkpatrick et al.
      2017, with the labels of the corpus rather than labels drawn from the model). The interval is over speakers.

    Buffers are not counted, for they have no gradient. The model runs in eval mode.

    Args:
        model: the model; nothing of it is changed, and weights that are frozen are counted as any other.
        corpus: the speech.
        loss: what is differentiated.
        granularity: see `units_of`.
        layers: see `units_of`.
        seed: of the bootstrap.
        batch_seconds: budget of a batch, in seconds of padded speech; utterances are run one by one in it.
        progress: called after each batch with the seconds done and in all.

    Returns:
        Two rows a unit, stream is its name and target the loss: n is the number of batches of the first, of utterances
        of the second. The notes hold how many weights each unit has.

    Raises:
        EvaluationError: the corpus is empty, the loss does not give one number that a gradient flows from, or a gradient
            is not finite.
        SurgeryError: a unit does not exist, or has no weights.
        SpeechError: an utterance cannot be read or used.
    """
    if not len(corpus):
        raise EvaluationError(f"Corpus {corpus.name} holds no utterance", "Choose a corpus with speech.")
    ready = _with_own_gradients(model)
    parts = Parts(ready.family.encoder(ready.source), ready.family)
    units = units_of(parts, granularity, layers)
    weights = _weights(parts, units)
    places = list(dict.fromkeys(path for paths in weights.values() for path in paths))
    tensors = dict(parts.encoder.named_parameters())
    squares: dict[str, np.ndarray] = {}
    norms: list[np.ndarray] = []
    reader = read_batches(corpus, batch_seconds)
    done = 0.0
    for batch in reader:
        total: list[torch.Tensor | None] = [None] * len(places)
        frames = 0
        for utterance, samples in zip(batch.utterances, batch.samples, strict=True):
            ready.frontend.check(len(samples), f"Utterance {utterance.id!r}")
            with torch.enable_grad():
                losses = loss.of(ready, [utterance], [samples])
            _check(losses, loss.name)
            found = torch.autograd.grad(losses.sum(), [tensors[path] for path in places], allow_unused=True)
            squares[utterance.id] = _squares(found)
            if not np.isfinite(squares[utterance.id]).all():
                raise EvaluationError(
                    f"The gradient of the loss {loss.name!r} of utterance {utterance.id!r} is not finite",
                    "Check the model and the recording.",
                )
            total = [
                one if held is None else held if one is None else held + one
                for held, one in zip(total, found, strict=True)
            ]
            frames += ready.frontend.frames(len(samples))
        norms.append(_squares(total) / frames**2)
        done += batch.seconds
        if progress is not None:
            progress(done, reader.seconds)
    sizes = _squares([tensors[path].detach() for path in places])
    where = {name: [places.index(path) for path in paths] for name, paths in weights.items()}
    rows = []
    for unit in units:
        chosen = where[unit.name]
        rows.append(_relative(unit, loss.name, np.array([one[chosen].sum() for one in norms]), sizes[chosen].sum()))
        traces = np.array([squares[utterance.id][chosen].sum() for utterance in corpus])
        fisher = Row(FISHER, unit.name, unit.layer, target=loss.name)
        rows.append(interval_row(fisher, corpus, traces, np.ones(len(corpus)), seed))
    counts = {name: sum(tensors[path].numel() for path in paths) for name, paths in weights.items()}
    about = {"loss": loss.name, "weights": counts, "seed": seed}
    return Result(
        rows, {},
        {
            RELATIVE: {**about, "unit": "per frame", "interval_over": "batches", "batch_seconds": batch_seconds},
            FISHER: {**about, "unit": f"squared {loss.unit} an utterance, summed over weights"},
        },
    )  # fmt: skip


def _with_own_gradients(model: SpeechModel) -> SpeechModel:
    """A model over the same weights whose parameters are its own: they take gradients, and the user's stay as they are."""
    own = {id(one): nn.Parameter(one.detach(), one.is_floating_point()) for one in model.source.parameters()}
    source = copy.deepcopy(model.source, memo={**own, **{id(one): one for one in model.source.buffers()}})
    return SpeechModel(source.eval(), model.family, model.frontend, model.name)


def _weights(parts: Parts, units: Sequence[Unit]) -> dict[str, list[str]]:
    """Paths of every unit's weights."""
    trained = {path for path, _ in parts.encoder.named_parameters() if not path.endswith(TRAINING_ONLY)}
    found = {}
    for unit in units:
        if unit.head is not None:
            raise SurgeryError(
                f"The gradients of {unit.name} are not those of whole tensors",
                "Name layers, modules or tensors; `gradient_importance` is for heads.",
            )
        found[unit.name] = [path for path in parts.tensors(unit) if path in trained]
        if not found[unit.name]:
            raise SurgeryError(f"{unit.name} has no weights", "Name a unit with weights.")
    return found


def _check(losses: torch.Tensor, name: str) -> None:
    if losses.shape != (1,):
        raise EvaluationError(
            f"The loss {name!r} has the shape {tuple(losses.shape)} for one utterance",
            "Give a loss with one value for each utterance.",
        )
    if not losses.requires_grad:
        raise EvaluationError(
            f"No gradient flows from the loss {name!r}", "Compute it from the model's output without `no_grad`."
        )


def _squares(tensors: Sequence[torch.Tensor | None]) -> np.ndarray:
    """Sum of squares of every tensor, (tensors,); that of a gradient which never flowed is zero."""
    return np.array([0.0 if one is None else float(one.double().square().sum()) for one in tensors])


def _relative(unit: Unit, loss: str, norms: np.ndarray, size: float) -> Row:
    """The mean over batches of relative norms, from squares of norms."""
    row = Row(RELATIVE, unit.name, unit.layer, target=loss, n=len(norms))
    if size > 0:
        value, low, high = ratio_jackknife(np.sqrt(norms / size), np.ones(len(norms)))
        row.value = float(value)
        if math.isfinite(low):
            row.low, row.high = max(0.0, float(low)), float(high)
    return row
