"""What a check without the model passes, the model goes through; what it does not go through, the check refuses by line."""

import itertools

import pytest

from otoscope.errors import OtoscopeError, PlanError
from otoscope.models.loading import load
from otoscope.plans import Line, Plan
from otoscope.treatments.applying import treated
from otoscope.treatments.bypass import Bypass
from otoscope.treatments.freeze import Freeze
from otoscope.treatments.group_norm import GroupNorm
from otoscope.treatments.learning_rate import LearningRate
from otoscope.treatments.limit_span import LimitSpan
from otoscope.treatments.low_rank import LowRank
from otoscope.treatments.prune_heads import PruneHeads
from otoscope.treatments.reinitialise import Reinitialise
from otoscope.treatments.remove_blocks import RemoveBlocks
from otoscope.treatments.replace_attention import ReplaceAttention
from otoscope.treatments.sizes import Sizes
from otoscope.treatments.treatment import kinds
from otoscope.workflow.treating import treat
from tests.models.small import CASES

ONE_OF_EACH = (
    PruneHeads("layer.2.head.1"),
    LimitSpan("layer.2.head.1", 2),
    RemoveBlocks("layer.2"),
    Bypass("layer.2.attention"),
    ReplaceAttention("layer.2", "uniform"),
    ReplaceAttention("layer.3", "layer", source=2),
    ReplaceAttention("layer.2", "feed-forward"),
    LowRank("layer.2", 2, targets="query"),
    Reinitialise("layer.2.attention"),
    Freeze("layer.2.attention"),
    LearningRate("layer.2.attention", 0.5),
)
MORE = (
    PruneHeads("layer.2"), PruneHeads("layer.1.head.0,2"), LimitSpan("layer.1", 2, "literal"), RemoveBlocks("layer.1"),
    Bypass("layer.1.attention"), Bypass("layer.2"), Bypass("layer.2.feed_forward*"),
    ReplaceAttention("layer.2", "layer"), ReplaceAttention("layer.1-3", "first"),
    ReplaceAttention("layer.1", "local", width=2), ReplaceAttention("layer.1", "convolution", width=2),
    LowRank("layer.2.attention", 12), LowRank("layer.1-2", 2, targets="feed_forward"),
    Reinitialise("layer.2.head.1"), Reinitialise("layer.2"), Freeze("*", but="layer.2.attention"), Freeze("layer.2"),
)  # fmt: skip
CONVOLVED = (GroupNorm(groups=4), GroupNorm("layer.2", groups=4), Bypass("layer.2.convolution"))


def model_of(name):
    return load(next(case for case in CASES if case.name == name).build().eval(), name=name)


def checked(pair, sizes):
    """The sizes after both treatments; None where the check refuses one of them, by its line."""
    try:
        return Plan(tuple(map(Line, pair))).check(sizes)
    except PlanError as error:
        if not str(error).startswith(("line 1 ", "line 2 ")):
            raise
        return None


def go_through(model, pairs):
    """Both ways of the law, for pairs of treatments."""
    sizes, passed = Sizes.of(model), 0
    for pair in pairs:
        left = checked(pair, sizes)
        if left is not None:
            assert Sizes.of(treated(model, pair)) == left, pair
            passed += 1
    return passed


def test_every_kind_is_there():
    assert {one.kind for one in (*ONE_OF_EACH, *CONVOLVED)} == set(kinds())


def test_pairs_of_treatments_are_checked_as_they_are_carried_out():
    pairs = list(itertools.product(ONE_OF_EACH, repeat=2))
    assert len(pairs) / 2 < go_through(model_of("wav2vec2-group"), pairs) < len(pairs)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wav2vec2-group", "wavlm-group", "conformer-relative"])
def test_all_pairs_of_treatments_are_checked_as_they_are_carried_out(name):
    every = (*ONE_OF_EACH, *MORE, *(CONVOLVED if name.startswith("conformer") else ()))
    go_through(model_of(name), itertools.product(every, repeat=2))


REFUSED = {
    "heads of a layer whose map is used": (
        "uses the attention map of layer 2, and would be left with the heads",
        ReplaceAttention("layer.3", "layer", source=2), PruneHeads("layer.2.head.1"),
    ),
    "heads of a layer that uses a map": (
        "would be left with the heads", ReplaceAttention("layer.2", "layer"), PruneHeads("layer.2"),
    ),
    "heads of bypassed attention": ("without attention", Bypass("layer.2.attention"), PruneHeads("layer.2")),
    "heads of replaced attention": (
        "without attention", ReplaceAttention("layer.2", "feed-forward"), PruneHeads("layer.2.head.0"),
    ),
    "a map that is not made": ("not made", ReplaceAttention("layer.1", "uniform"), ReplaceAttention("layer.2", "layer")),
    "a map that is used": ("not made", ReplaceAttention("layer.2", "layer"), ReplaceAttention("layer.1", "uniform")),
    "adapters of queries that are gone": (
        "no linear map called query or key", ReplaceAttention("layer.2", "uniform"),
        LowRank("layer.2", 2, targets="query,key"),
    ),
    "adapters of a rank that there is none of": (
        "Rank 30 is more than .* between 48 and 24", PruneHeads("layer.2.head.0-1"), LowRank("layer.2", 30),
    ),
    "a draw of what has no law": (
        "has no law", ReplaceAttention("layer.2", "feed-forward"), Reinitialise("layer.2"),
    ),
    "a head of attention that is drawn": (
        "re-initialise the same unit", Reinitialise("layer.2.attention"), Reinitialise("layer.2.head.1"),
    ),
    "weights of what is gone": ("taken out", Bypass("layer.2.attention"), Freeze("layer.2.attention.q_proj")),
    "a head to be frozen": ("shares its parameters", Freeze("layer.1"), Freeze("layer.2.head.1")),
    "a rate of a head": ("shares its parameters", Freeze("layer.1"), LearningRate("layer.2.head.1", 0.5)),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_the_line_is_named(what):
    told, *treatments = REFUSED[what]
    sizes = Sizes("wav2vec2", 48, ((0, 1, 2, 3),) * 3)
    with pytest.raises(PlanError, match=rf"line 2 .*{told}"):
        Plan(tuple(map(Line, treatments))).check(sizes)


def test_heads_are_pruned_from_both_at_once():
    model = model_of("wav2vec2-group")
    pair = (ReplaceAttention("layer.3", "layer", source=2), PruneHeads("layer.2-3.head.1"))
    assert go_through(model, [pair]) == 1


def test_what_only_the_model_tells_is_refused_by_line_too():
    model = model_of("wav2vec2-group")
    nothing = (Freeze("layer.1"), Freeze("layer.2.attention.nonsense"))
    with pytest.raises(PlanError, match=r"line 2 \(freeze layer.2.attention.nonsense\): .*matches no unit"):
        treat(model, nothing)
    gone = (PruneHeads("layer.2"), Reinitialise("layer.2.attention.k_proj"))
    with pytest.raises(PlanError, match=r"line 2 .*changes none of its tensors"):
        treat(model, gone)


def test_names_of_weights_hold_until_others_take_them_out():
    model = model_of("wav2vec2-group")
    steps = (LearningRate("layer.2.attention.q_proj", 0.5), Freeze("layer.3.attention.k_proj"))
    for last in (RemoveBlocks("layer.2"), ReplaceAttention("layer.2", "uniform")):
        made = treated(model, (*steps, last))
        assert treated(made, steps).source is not None
    with pytest.raises(OtoscopeError, match="matches no unit"):
        treated(model, (ReplaceAttention("layer.2", "uniform"), steps[0], Freeze("layer.2.attention.nonsense")))
