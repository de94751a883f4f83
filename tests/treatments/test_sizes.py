"""Sizes know the heads of the original, whatever is left of them, and what stands where attention was."""

from dataclasses import replace

import pytest

from otoscope.errors import SurgeryError
from otoscope.models import load
from otoscope.treatments import Bypass, LimitSpan, PruneHeads, ReplaceAttention, Sizes, save_treated, treated
from tests.models.small import CASES

HEADS = tuple(range(4))


@pytest.fixture(scope="module")
def model():
    return load(next(case for case in CASES if case.name == "wav2vec2-group").build().eval())


def test_the_top_head_that_is_cut_everywhere_is_still_known(model, tmp_path):
    pruned = treated(model, [PruneHeads("layer.*.head.3")])
    save_treated(pruned, tmp_path / "pruned")
    for one in (pruned, load(tmp_path / "pruned")):
        for sizes in (Sizes.of(one), Sizes.of_description(one.describe())):
            assert sizes.total_heads == 4
            with pytest.raises(SurgeryError, match="a head that was cut"):
                sizes.find("layer.1.head.3")
            with pytest.raises(SurgeryError, match="3 layers with 4 heads"):
                sizes.find("layer.1.head.4")
            PruneHeads("layer.1.head.2-3").check(sizes)
    assert Sizes("wav2vec2", 48, ((0, 1),) * 3).total_heads == 2


def test_what_stands_in_a_layer_is_told(model):
    steps = [ReplaceAttention("layer.1", "feed-forward"), ReplaceAttention("layer.3", "layer", source=2)]
    sizes = Sizes.of(treated(model, [*steps, LimitSpan("layer.3", 2)]))
    assert sizes == Sizes("wav2vec2", 48, ((), HEADS, HEADS), maps=frozenset({(3, 2)}), replaced=frozenset({1}))
    assert (sizes.attending, sizes.mapless) == (frozenset({2, 3}), frozenset({3}))
    bypassed = Bypass("layer.1-2.attention")
    assert Bypass("layer.1.attention").left(sizes).replaced == frozenset()
    fixed = replace(sizes, maps=frozenset(), fixed=frozenset({3}))
    assert (bypassed.left(fixed).attending, bypassed.left(fixed).mapless) == (frozenset({3}), frozenset({3}))
