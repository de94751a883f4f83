"""The Conformers that are trained centrally: the server's model, and one as small as a client of federated dropout."""

import math
from dataclasses import dataclass, replace
from functools import cache

from transformers import ParakeetForCTC

from otoscope.errors import TrainingError
from otoscope.federation.channels import exchanged
from otoscope.models.loading import load
from otoscope.models.model import SpeechModel
from otoscope.models.vocabulary import Vocabulary
from otoscope.training.architectures import seeded
from otoscope.treatments import GroupNorm
from otoscope.workflow.treating import treat
from recipes.conformers.models import GROUPS, config_of
from recipes.conformers.models import Size as Shape

# Batch norms would mix the statistics of clients; Zhou et al. (2022) replace them by group norms as well.
NORMS = (GroupNorm(groups=GROUPS),)


@dataclass(frozen=True)
class Size:
    """Sizes of a Conformer: a Parakeet with a frame every 40 ms and group norms.

    Attributes:
        layers: Conformer layers.
        width: of the residual stream and the convolution modules; a multiple of the heads and of the groups of a norm.
        heads: of every attention.
        feed_forward: rows of every feed-forward.

    Raises:
        TrainingError: they make no model.
    """

    layers: int
    width: int
    heads: int
    feed_forward: int

    def __post_init__(self) -> None:
        if min(self.layers, self.width, self.heads, self.feed_forward) < 1:
            raise TrainingError("A model has sizes of one or more", "Correct layers, width, heads and feed-forward.")
        if self.width % self.step:
            raise TrainingError(
                f"A width of {self.width} does not divide into {self.heads} heads and {GROUPS} groups of a norm",
                f"Choose a multiple of {self.step}.",
            )

    @property
    def step(self) -> int:
        """What the width is a multiple of; a head's part of it is even, for relative positions."""
        return math.lcm(2 * self.heads, GROUPS)

    def __str__(self) -> str:
        return f"{self.layers} layers of width {self.width}, {self.heads} heads, feed-forwards of {self.feed_forward}"


def fresh(size: Size, vocabulary: Vocabulary, seed: int) -> SpeechModel:
    """A Conformer with fresh weights, and batch norms that its training replaces by group norms.

    Args:
        size: its sizes.
        vocabulary: of the CTC head.
        seed: of the weights.
    """
    config = config_of(Shape(size.layers, size.width, size.heads), vocabulary)
    config.encoder_config.intermediate_size = size.feed_forward
    made = seeded(seed, lambda: ParakeetForCTC(config))
    return load(made, name=f"conformer-{size.width}")


def normed(model: SpeechModel) -> SpeechModel:
    """With the norms that it is trained with."""
    return treat(model, NORMS, name=model.name, any_weights=True)


def elements_of(model: SpeechModel) -> int:
    """Elements of the tensors that travel between server and clients."""
    return sum(tensor.numel() for tensor in exchanged(model).values())


@cache
def elements(size: Size, vocabulary: Vocabulary) -> int:
    """Elements of a model of these sizes with its CTC head."""
    return elements_of(normed(fresh(size, vocabulary, 0)))


def smaller(size: Size, share: float, vocabulary: Vocabulary) -> Size:
    """A dense Conformer of as many layers that is as large as a share of another, to within a row of each feed-forward.

    The width is the multiple of what it must divide into that is nearest to width * sqrt(share), since a layer grows with
    the square of it, or the next narrower one that leaves feed-forwards a row; these take what is left.

    Args:
        size: of the other model.
        share: of its elements, at most.
        vocabulary: of both.

    Raises:
        TrainingError: even with one row in every feed-forward it is larger.
    """
    wanted = int(share * elements(size, vocabulary))
    for steps in range(max(1, round(size.width * math.sqrt(share) / size.step)), 0, -1):
        made = replace(size, width=steps * size.step)
        one, two = (elements(replace(made, feed_forward=rows), vocabulary) for rows in (1, 2))
        rows = (wanted - one) // (two - one) + 1
        if rows >= 1:
            return replace(made, feed_forward=rows)
    raise TrainingError(
        f"No Conformer of {size.layers} layers is as small as {share:.1%} of one of width {size.width}",
        "Make clients larger (--client-size), or the model wider (--width).",
    )


def members_of(share: float) -> int:
    """How many models of a share reach the size of the whole.

    >>> members_of(0.6), members_of(0.5)
    (2, 2)
    """
    return math.ceil(1 / share - 1e-9)
