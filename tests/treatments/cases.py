"""Treatments that the conformance suite runs on, and the families that each fits."""

from otoscope.models.families import FAMILIES
from otoscope.treatments import (
    Bypass,
    Freeze,
    GroupNorm,
    LearningRate,
    LimitSpan,
    LowRank,
    PruneHeads,
    Reinitialise,
    RemoveBlocks,
    ReplaceAttention,
)
from otoscope.treatments.group_norm import BATCH_NORMED
from tests.models.small import CASES
from tests.surgery.cases import feed_forward

EVERY = tuple(family.name for family in FAMILIES)
CONVOLVED = tuple(family.name for family in FAMILIES if family.convolution)

# Name -> the families that it fits, and the treatments for one of them.
TREATMENTS = {
    "prune-heads": (EVERY, lambda family: [PruneHeads("layer.1.head.0,2"), PruneHeads("layer.3")]),
    "limit-span": (EVERY, lambda family: [LimitSpan("layer.1.head.0", 2), LimitSpan("layer.2", 3, "literal")]),
    "remove-first": (EVERY, lambda family: [RemoveBlocks("layer.1")]),
    "remove-last": (EVERY, lambda family: [RemoveBlocks("layer.2-3")]),
    "bypass-layer": (EVERY, lambda family: [Bypass("layer.2")]),
    "bypass-attention": (EVERY, lambda family: [Bypass("layer.1.attention")]),
    "bypass-feed-forward": (EVERY, lambda family: [Bypass(f"layer.2.{feed_forward(family)}")]),
    "bypass-convolution": (CONVOLVED, lambda family: [Bypass("layer.1-2.convolution")]),
    "replace-local": (EVERY, lambda family: [ReplaceAttention("layer.2", "local", width=2)]),
    "replace-uniform": (EVERY, lambda family: [ReplaceAttention("layer.2", "uniform")]),
    "replace-layer": (EVERY, lambda family: [ReplaceAttention("layer.3", "layer", source=1)]),
    "replace-first": (EVERY, lambda family: [ReplaceAttention("layer.1-3", "first")]),
    "replace-feed-forward": (EVERY, lambda family: [ReplaceAttention("layer.1", "feed-forward", seed=3)]),
    "replace-convolution": (EVERY, lambda family: [ReplaceAttention("layer.1-2", "convolution", width=2)]),
    "low-rank": (EVERY, lambda family: [LowRank("layer.2", 4, targets="query,value,output,feed_forward")]),
    "low-rank-alone": (
        EVERY,
        lambda family: [
            PruneHeads("layer.3.head.1"),
            ReplaceAttention("layer.1", "feed-forward"),
            LowRank("layer.2-3", 2, dropout=0.25),
            Freeze("*"),
        ],
    ),
    "reinitialise": (EVERY, lambda family: [Reinitialise("layer.3", seed=4)]),
    "group-norm": (BATCH_NORMED, lambda family: [GroupNorm(groups=4)]),
    "freeze": (EVERY, lambda family: [Freeze("*", but="layer.3")]),
    "learning-rate": (EVERY, lambda family: [LearningRate("layer.1", 0.5), LearningRate("layer.1.attention", 0.25)]),
    "together": (
        EVERY,
        lambda family: [
            PruneHeads("layer.3.head.1"),
            LimitSpan("layer.3", 4),
            RemoveBlocks("layer.1"),
            Bypass("layer.2.attention"),
            Reinitialise("layer.3", seed=5),
            Freeze("layer.2"),
            LearningRate("layer.3", 0.5),
        ],
    ),
}


def _pairs():
    """Every treatment on two families that it fits, in turns on all models; all models go through all together."""
    turns = dict.fromkeys(EVERY, 0)
    for k, (name, (families, _)) in enumerate(TREATMENTS.items()):
        chosen = families if name == "together" else [families[(k + step) % len(families)] for step in (0, 4)]
        for family in dict.fromkeys(chosen):
            of_family = [case for case in CASES if case.family == family]
            yield of_family[turns[family] % len(of_family)], name
            turns[family] += 1


PAIRS = list(_pairs())
