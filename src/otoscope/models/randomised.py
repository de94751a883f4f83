"""The same architecture with fresh weights: what a network gives that has learnt nothing."""

import copy

import torch

from otoscope.errors import ModelError
from otoscope.models.edits import described
from otoscope.models.model import SpeechModel


def randomised(model: SpeechModel, seed: int = 0) -> SpeechModel:
    """A model of the same class and configuration with the library's own initial weights.

    Args:
        model: the trained model; it stays as it is.
        seed: of the weights.

    Raises:
        ModelError: the model was edited, so that its configuration does not tell its sizes or what it computes.
    """
    changed = described(model.family.encoder(model.source), str)
    if changed:
        raise ModelError(
            f"{model.name} was edited ({changed[0][0]}), and its configuration tells nothing",
            "Take the random network's floor of the original model.",
        )
    kind = type(model.source)
    config = copy.deepcopy(model.source.config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = kind(config)
    # Statistics of norms among them: a norm that was put in place of another has others.
    own = {name: tuple(one.shape) for name, one in model.source.state_dict().items()}
    if {name: tuple(one.shape) for name, one in fresh.state_dict().items()} != own:
        raise ModelError(
            f"{model.name} has other sizes than its configuration tells: it was edited",
            "Take the random network's floor of the original model.",
        )
    sample = next(model.source.parameters())
    fresh = fresh.to(device=sample.device, dtype=sample.dtype).eval()
    return SpeechModel(fresh, model.family, model.frontend, f"{model.name}, fresh weights")
