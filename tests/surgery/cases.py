"""Speech, models and edits that the conformance suite of surgery runs on."""

import numpy as np
import torch

from otoscope.speech.corpus import Corpus
from otoscope.surgery import (
    Bypass,
    CutHeads,
    Gate,
    LowRank,
    MeanAblate,
    Narrow,
    Redraw,
    ReplaceAttention,
    ReplaceMap,
    Reset,
    Span,
    mean_outputs,
)

TWO_FEED_FORWARDS = ("wav2vec2-conformer", "wav2vec2-bert", "parakeet")


def speech(*seconds, seed=0):
    draw = np.random.default_rng(seed)
    return Corpus.from_arrays([draw.standard_normal(int(16000 * s)).astype(np.float32) * 0.1 for s in seconds])


def run(model, corpus, **options):
    return model.capture(list(corpus), [one.read() for one in corpus], **options)


def differences(one, other):
    """Largest difference of each stream over valid frames."""
    return {
        name: max((one.frames(name, k) - other.frames(name, k)).abs().max().item() for k in range(len(one.utterances)))
        for name in one.streams
    }


def same_bits(one, other):
    """Whether two state dicts or dictionaries of streams hold the same, bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def shape_of(module):
    """What a module tree is made of beside its weights: classes, plain attributes, hooks, configuration."""
    return [
        (
            path,
            type(one).__name__,
            sorted(one.__dict__),
            sorted(one._modules),
            sorted(one._buffers),
            len(one._forward_hooks),
            len(one._forward_pre_hooks),
            getattr(one, "num_heads", None),
            one.config.to_dict() if hasattr(one, "config") else None,
            one.config._attn_implementation if hasattr(one, "config") else None,
            one.training,
        )
        for path, one in module.named_modules()
    ]


def feed_forward(family):
    return "feed_forward.2" if family in TWO_FEED_FORWARDS else "feed_forward"


def means(model, *units):
    found = mean_outputs(model, speech(0.3, seed=3), units)
    return [MeanAblate(unit, found) for unit in units]


EDITS = {
    "gate": lambda model, other: [Gate("layer.2.head.1-2"), Gate("layer.3.head.0", 0.5)],
    "span-literal": lambda model, other: [Span("layer.*", 3)],
    "span-banded": lambda model, other: [Span("layer.1.head.0", 2, "banded"), Span("layer.3", 1, "banded")],
    "map-uniform": lambda model, other: [ReplaceMap("layer.2", "uniform")],
    "map-local": lambda model, other: [ReplaceMap("layer.1-2.attention", "local", width=2)],
    "map-layer": lambda model, other: [ReplaceMap("layer.3", "layer"), ReplaceMap("layer.2", "layer", source=1)],
    "map-first": lambda model, other: [ReplaceMap("layer.1-3", "first")],
    "bypass-layer": lambda model, other: [Bypass("layer.1")],
    "bypass-attention": lambda model, other: [Bypass("layer.2.attention")],
    "bypass-feed-forward": lambda model, other: [Bypass(f"layer.2.{feed_forward(model.family.name)}")],
    "narrow": lambda model, other: [
        Narrow(f"layer.2.{feed_forward(model.family.name)}", (1, 5, 9, 30)),
        *([Narrow("layer.1.convolution", tuple(range(0, 48, 3)))] if model.family.convolution else []),
    ],
    "mean": lambda model, other: means(model, "layer.1.attention", "layer.2.head.0,3", "layer.3"),
    "reset": lambda model, other: [Reset("layer.2", other), Reset("layer.3.head.1", other)],
    "redraw": lambda model, other: [Redraw("layer.2", seed=3), Redraw("layer.1.head.2", seed=4)],
    "cut": lambda model, other: [CutHeads("layer.1.head.0,2"), CutHeads("layer.2.head.3"), CutHeads("layer.3")],
    "cut-after": lambda model, other: [
        Gate("layer.1.head.0-1", 0.5),
        *means(model, "layer.2.head.1"),
        Span("layer.2.head.1", 3),
        Reset("layer.1.head.1", other),
        Redraw("layer.3.head.2", seed=2),
        CutHeads("layer.1-3.head.1,2"),
    ],
    "stand-in": lambda model, other: [
        ReplaceAttention("layer.1", "feed-forward", seed=2),
        ReplaceAttention("layer.3.attention", "convolution", 2),
    ],
    "low-rank": lambda model, other: [
        CutHeads("layer.1.head.0"),
        LowRank("layer.1-2", 4, targets="query,key,value,output,feed_forward"),
        Span("layer.2.head.1", 3),
        Redraw("layer.1", seed=5),
        CutHeads("layer.2.head.0"),
    ],
    "together": lambda model, other: [
        Gate("layer.1.head.0", 0.25),
        CutHeads("layer.1-3.head.3"),
        Span("layer.2", 4, "banded"),
        ReplaceMap("layer.3", "layer", source=1),
        Bypass("layer.2.attention"),
        Redraw("layer.1", seed=1),
    ],
}
