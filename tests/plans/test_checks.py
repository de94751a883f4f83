"""Whether a plan belongs to a model, and whether its lines go together."""

import pytest

from otoscope.errors import PlanError
from otoscope.plans import Line, Plan
from otoscope.plans.toml import read_plan
from otoscope.treatments.freeze import Freeze
from otoscope.treatments.group_norm import GroupNorm
from otoscope.treatments.learning_rate import LearningRate
from otoscope.treatments.limit_span import LimitSpan
from otoscope.treatments.prune_heads import PruneHeads
from otoscope.treatments.reinitialise import Reinitialise
from otoscope.treatments.remove_blocks import RemoveBlocks
from otoscope.treatments.replace_attention import ReplaceAttention
from otoscope.treatments.sizes import Sizes

SIZES = Sizes("wav2vec2", 48, ((0, 1, 2, 3),) * 4)


def check(*treatments):
    return Plan(tuple(map(Line, treatments))).check(SIZES)


def test_sizes_go_from_line_to_line():
    left = check(RemoveBlocks("layer.2"), PruneHeads("layer.3.head.0,1"), LimitSpan("layer.3.head.2", 4))
    assert left.layers_left == (1, 3, 4)
    assert left.heads == (4, 0, 2, 4)


IMPOSSIBLE = {
    "an absent layer": (r"line 1 \(remove-blocks layer.5\)", RemoveBlocks("layer.5")),
    "an absent head": ("matches no unit", PruneHeads("layer.1.head.4")),
    "heads of a removed layer": ("which was taken out", RemoveBlocks("layer.2"), PruneHeads("layer.2.head.0")),
    "the span of pruned heads": ("a head that was cut", PruneHeads("layer.2.head.1"), LimitSpan("layer.2.head.1", 3)),
    "all layers": ("No layer", RemoveBlocks("layer.1-3"), RemoveBlocks("layer.4")),
    "a group norm without a batch norm": ("no batch norm", GroupNorm()),
    "the map of a layer that is gone": ("not there", RemoveBlocks("layer.1"), ReplaceAttention("layer.2", "layer")),
    "a layer whose map is used": ("uses the attention map", ReplaceAttention("layer.2", "layer"), RemoveBlocks("layer.1")),
    "two draws of one unit": (
        r"re-initialise the same unit.*\(layer.4.attention\)", Reinitialise("layer.3-4"),
        Reinitialise("layer.4.attention", 1),
    ),
    "a rate for what is frozen": (r"freeze a unit.*\(layer.2\)", Freeze("layer.*", "layer.1"), LearningRate("layer.2", 0.5)),
    "a rate for a part of what is frozen": ("freeze a unit", LearningRate("layer.2.attention", 0.5), Freeze("layer.2")),
}  # fmt: skip


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_impossible_combinations_are_refused(what):
    told, *treatments = IMPOSSIBLE[what]
    with pytest.raises(PlanError, match=told):
        check(*treatments)


def test_what_only_looks_alike_is_allowed():
    check(Freeze("layer.*", "layer.1"), LearningRate("layer.1", 0.5))
    check(Reinitialise("layer.3"), Reinitialise("layer.4"), Reinitialise("layer.3"))
    check(RemoveBlocks("layer.3"), RemoveBlocks("layer.3"))
    check(Reinitialise("layer.3"), RemoveBlocks("layer.3"), Reinitialise("layer.4"))
    check(Freeze("layer.1"), Freeze("layer.1.attention"))


def test_an_error_names_the_line_of_the_file():
    text = '[[treatment]]\nkind = "freeze"\nunits = "layer.1"\n\n[[treatment]]\nkind = "remove-blocks"\nunits = "layer.9"\n'
    with pytest.raises(PlanError, match=r"my.toml, line 5: 'layer.9' matches no unit"):
        read_plan(text, "my.toml").check(SIZES)


ABOUT = {"name": "mine", "family": "wav2vec2", "layers": 4, "heads": [4] * 4, "width": 48, "fingerprint": "abc"}


@pytest.mark.parametrize(
    ("name", "value"), [("family", "hubert"), ("layers", 12), ("heads", [4, 4, 4, 2]), ("width", 768)]
)
def test_a_plan_for_another_architecture_is_refused(name, value):
    with pytest.raises(PlanError, match=f"another architecture, with {name} = "):
        Plan(model=ABOUT | {name: value}).check(SIZES, same_sizes=True)


def test_heads_may_be_told_once_for_all_layers():
    assert Plan(model=ABOUT | {"heads": 4}).check(SIZES) == SIZES
    with pytest.raises(PlanError, match="heads = 8; here it is"):
        Plan(model=ABOUT | {"heads": 8}).check(SIZES)


def test_a_plan_for_other_weights_is_refused_unless_allowed():
    plan = Plan(model=ABOUT)
    with pytest.raises(PlanError, match=r"other weights .*--any-weights"):
        plan.check(SIZES, "def")
    for fingerprint in ("abc", None):
        assert plan.check(SIZES, fingerprint) == SIZES
    assert plan.check(SIZES, "def", same_sizes=True) == SIZES
    assert Plan().check(SIZES, "def") == SIZES
