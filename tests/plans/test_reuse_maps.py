"""The rule that lends maps to neighbours, and what it saves in a model whose layers have the same map."""

import pytest

from otoscope.measures.measure import Row
from otoscope.plans import prescribe
from otoscope.treatments.bypass import Bypass
from otoscope.treatments.prune_heads import PruneHeads
from otoscope.treatments.replace_attention import ReplaceAttention
from tests.plans.found import HEADS, LAYERS, PARTS, change, found, intervened

MAP = {"parameters": 180, "head_parameters": 45, "macs_per_second": 25.0, "scores_macs_per_second": 10.0}


def lent(values, half=0.0, **about):
    rows, notes = intervened(values, kind="neighbour", half=half)
    return found(rows, notes=notes, parts=PARTS | {"maps": [MAP] * LAYERS}, **about)


def reuse(layer):
    return ReplaceAttention(f"layer.{layer}", "layer", source=layer - 1)


def notes_of(plan):
    return [note for note in plan.notes if note.startswith("reuse-maps:")]


@pytest.mark.parametrize("goal", ["size", "speed"])
def test_maps_are_lent_as_long_as_the_worse_ends_fit_the_margin(goal):
    # The tolerance is 0.02: 0.2 + 0.3 + 0.4 of it fit, 0.5 more do not.
    diagnosis = lent({2: 0.002, 4: 0.004, 6: 0.006, 5: 0.1, 3: 0.1}, half=0.002)
    made = prescribe(diagnosis, goal)
    assert made.treatments == (reuse(2), reuse(4), reuse(6))
    line = made.lines[0]
    assert line.cost == {"parameters": -180, "macs_per_second": -25.0}
    assert (line.rule, line.evidence[0].note) == ("reuse-maps", "ctc-loss, neighbour")
    assert "Shim" in line.source
    assert prescribe(diagnosis, goal, margin=0.5).treatments == (reuse(2), reuse(4))
    assert prescribe(diagnosis, goal, margin=0.1).treatments == ()


def test_a_map_is_not_lent_on():
    made = prescribe(lent(dict.fromkeys(range(2, LAYERS + 1), 0.0)), "size")
    assert made.treatments == (reuse(2), reuse(4), reuse(6))


def test_harm_that_is_not_excluded_is_told():
    made = prescribe(lent(dict.fromkeys(range(2, LAYERS + 1), 0.001), half=0.03), "size")
    assert made.treatments == ()
    assert "neighbour's map here; layer.2 costs least, up to 1.55 tolerances" in notes_of(made)[0]
    assert prescribe(lent({2: 0.001}, half=None), "size").treatments == ()
    assert "block-intervention" in notes_of(prescribe(found([]), "size"))[0]
    assert not notes_of(prescribe(found([]), "accuracy"))


def test_layers_that_were_changed_before_neither_lend_nor_borrow():
    rows, notes = intervened({2: 0.0})
    more, _ = intervened(dict.fromkeys(range(2, LAYERS + 1), 0.0), kind="neighbour")
    made = prescribe(found(rows + more, notes=notes), "size")
    assert made.treatments == (Bypass("layer.2.attention"), reuse(4), reuse(6))
    gone = prescribe(lent({2: 0.0, 4: 0.0}, heads=[4, 3, 4, 4, 4, 4]), "size")
    assert gone.treatments == (reuse(4),)
    again = prescribe(lent({2: 0.0, 3: 0.0, 4: 0.0}, borrowed_maps={"3": 2}), "size")
    assert again.treatments == ()


def test_heads_of_layers_that_share_a_map_are_left():
    rows, notes = intervened({2: 0.0}, kind="neighbour")
    heads = [
        change("importance-loo", layer, 0.0, 0.0, head=head) for layer in range(1, LAYERS + 1) for head in range(HEADS)
    ]
    loo = {"importance-loo on ctc-loss": {"metric": "ctc-loss", "before": 1.0}}
    made = prescribe(found(rows + heads, notes=notes | loo), "size")
    assert made.treatments == (reuse(2), *(PruneHeads(f"layer.{k}.head.0,1,2") for k in range(3, LAYERS + 1)))


def test_global_heads_of_layers_that_share_a_map_are_kept():
    rows = [change("block-verdict", 2, -0.02, 0.01, other="neighbour", label="harmful")]
    rows += [
        Row("globalness", f"layer.{layer}", layer, head, value=float(10 * (layer <= 3) - layer))
        for layer in range(1, LAYERS + 1)
        for head in range(HEADS)
    ]
    rows += [
        Row("pruning-phone-change", None, None, None, "globalness", "12", 0.03, low=0.01, high=0.05),
    ]
    made = prescribe(found(rows, notes=intervened({})[1]), "accuracy")
    assert made.treatments[:2] == (reuse(2), PruneHeads("layer.3.head.0,1,2,3"))
    assert any("8 of the 12 heads are kept, since layer.1, layer.2 share a map" in note for note in made.notes)
