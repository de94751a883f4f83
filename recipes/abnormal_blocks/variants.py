"""The models that are compared: the original, the custom one, its two changes apart, and the controls."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from otoscope.errors import TrainingError
from otoscope.models.families import family_of
from otoscope.models.loading import load
from otoscope.training.architectures import Size, make_config, seeded
from otoscope.treatments import Bypass, LimitSpan, RemoveBlocks, ReplaceAttention, Treatment
from otoscope.workflow.treating import treat

FAMILY = "wav2vec2"
AVOIDING = ("bypass", "remove", "local", "convolution", "feed-forward", "neighbour")


@dataclass(frozen=True)
class Variant:
    """A model of the comparison; all are pre-trained and fine-tuned alike.

    Attributes:
        name: of its folders.
        avoids: which blocks it avoids: "none", "abnormal" or "random" ones.
        limited: whether spans are limited, which stands for the source's other changes.
        matched: whether its feed-forwards are narrower, so that it has as many parameters as the model that avoids.
    """

    name: str
    avoids: str = "none"
    limited: bool = False
    matched: bool = False


ORIGINAL = Variant("original")
AVOIDS = Variant("avoiding", "abnormal")
LIMITED = Variant("limited", "none", True)
CUSTOM = Variant("custom", "abnormal", True)
RANDOM = Variant("random", "random")
MATCHED = Variant("matched", matched=True)
VARIANTS = (ORIGINAL, AVOIDS, LIMITED, CUSTOM, RANDOM, MATCHED)

COMPARISONS = (
    ("avoiding blocks", ORIGINAL, AVOIDS),
    ("limiting spans", ORIGINAL, LIMITED),
    ("both: the custom model", ORIGINAL, CUSTOM),
    ("avoiding blocks, where spans are limited", LIMITED, CUSTOM),
    ("limiting spans, where blocks are avoided", AVOIDS, CUSTOM),
    ("control: random other blocks instead", ORIGINAL, RANDOM),
    ("avoiding these blocks rather than random ones", RANDOM, AVOIDS),
    ("control: as few parameters, all blocks", ORIGINAL, MATCHED),
    ("avoiding blocks rather than narrower feed-forwards", MATCHED, AVOIDS),
)


@dataclass(frozen=True)
class Design:
    """How models are changed.

    Attributes:
        size: of the original.
        avoid: what becomes of a block that is avoided, one of `AVOIDING`.
        span: frames on either side, of models with limited spans.
        width: frames on either side, of a block that is avoided by "local" or "convolution".
    """

    size: Size
    avoid: str
    span: int
    width: int

    def avoiding(self, block: int, seed: int) -> Treatment:
        """What is done to one block that is avoided.

        Raises:
            TrainingError: the first block has no neighbour before it.
        """
        unit = f"layer.{block}"
        if self.avoid == "bypass":
            return Bypass(f"{unit}.attention")
        if self.avoid == "remove":
            return RemoveBlocks(unit)
        if self.avoid == "local":
            return LimitSpan(unit, self.width)
        if self.avoid == "neighbour":
            if block == 1:
                raise TrainingError("The first block has no map before it to use", "Avoid it otherwise (--avoid).")
            return ReplaceAttention(unit, "layer", source=block - 1)
        return ReplaceAttention(unit, self.avoid, width=self.width if self.avoid == "convolution" else 0, seed=seed)

    def treatments(self, variant: Variant, blocks: Sequence[int], seed: int) -> list[Treatment]:
        """What is done to a new model before it is pre-trained.

        Args:
            variant: the model.
            blocks: those that are abnormal.
            seed: of the blocks that are drawn, and of fresh weights.
        """
        found: list[Treatment] = [LimitSpan(f"layer.1-{self.size.layers}", self.span)] if variant.limited else []
        return [*found, *(self.avoiding(block, seed) for block in self.avoided(variant, blocks, seed))]

    def normal(self, blocks: Sequence[int]) -> list[int]:
        """The other blocks, from which random ones are drawn.

        Args:
            blocks: those that are abnormal.
        """
        first = 2 if self.avoid == "neighbour" else 1
        return [block for block in range(first, self.size.layers + 1) if block not in blocks]

    def avoided(self, variant: Variant, blocks: Sequence[int], seed: int) -> list[int]:
        """The blocks that a variant avoids.

        Args:
            variant: the model.
            blocks: those that are abnormal.
            seed: of the ones that are drawn: as many of the others.

        Raises:
            TrainingError: fewer others than that.
        """
        if variant.avoids == "abnormal":
            return list(blocks)
        if variant.avoids == "none":
            return []
        others = self.normal(blocks)
        if len(others) < len(blocks):
            raise TrainingError(
                f"{len(others)} blocks are left to draw {len(blocks)} from", "Avoid fewer blocks (--blocks)."
            )
        return sorted(random.Random(f"random blocks {seed}").sample(others, len(blocks)))

    def size_of(self, variant: Variant, blocks: Sequence[int]) -> Size:
        """The size that a variant is made with.

        The matched control's feed-forwards are as narrow as gives the encoder the count of parameters nearest to that of
        the model that avoids. It is the original's size where both have as many.
        """
        if not variant.matched:
            return self.size
        lost = self.parameters(ORIGINAL, blocks) - self.parameters(AVOIDS, blocks)
        # A unit of a feed-forward has a row, a column and a bias.
        narrower = round(lost / (self.size.layers * (2 * self.size.width + 1)))
        if narrower >= self.size.feed_forward:
            raise TrainingError("Feed-forwards cannot be so narrow", "Avoid fewer blocks (--blocks).")
        return replace(self.size, feed_forward=self.size.feed_forward - narrower)

    def parameters(self, variant: Variant, blocks: Sequence[int]) -> int:
        """Parameters of a variant's encoder."""
        return _parameters(self.size_of(variant, blocks), tuple(self.treatments(variant, blocks, 0)))

    def variants(self, blocks: Sequence[int]) -> list[Variant]:
        """The models that there are.

        There is no matched control where avoiding takes hardly any parameters away, and no random one where fewer blocks
        are left to draw from.
        """
        without = {MATCHED} if self.size_of(MATCHED, blocks) == self.size else set()
        without |= {RANDOM} if len(self.normal(blocks)) < len(blocks) else set()
        return [one for one in VARIANTS if one not in without]


@cache
def _parameters(size: Size, treatments: tuple[Treatment, ...]) -> int:
    """Parameters of the encoder of a new model; what does not change them is not asked about twice."""
    family = family_of(FAMILY)
    made = seeded(0, lambda: family.model_class(family.bare)(make_config(FAMILY, size)))
    return int(treat(load(made), treatments, any_weights=True).parameters)
