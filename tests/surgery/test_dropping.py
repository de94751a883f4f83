"""Maps that are replaced need no queries and keys: the same is given without them, in every family."""

import copy
import pickle

import pytest
import torch

from otoscope.models import even, load
from otoscope.models.edits import HeadEdits, Ingredients
from otoscope.models.mapless import is_mapless, map_parts
from otoscope.models.reductions import WholeMap
from otoscope.surgery import CutHeads, DropMap, LowRank, Redraw, Remove, ReplaceMap, Span, apply, edited, undo
from otoscope.surgery.units import Parts
from tests.models.small import CASES
from tests.surgery.cases import differences, run, same_bits, speech

NAMES = ("wav2vec2-group", "wavlm-ctc-stable", "data2vec-audio", "conformer-relative", "conformer-rotary-ctc",
         "bert-relative-key", "bert-relative-ctc", "whisper", "parakeet-ctc", "mockingjay")  # fmt: skip
CORPUS = speech(0.6, 0.35)  # padded, in a batch
MAPS = {
    "layer": [ReplaceMap("layer.2", "layer"), ReplaceMap("layer.3", "layer", source=2)],
    "fixed": [ReplaceMap("layer.1", "uniform"), ReplaceMap("layer.3", "local", width=3)],
    "short": [ReplaceMap("layer.1", "uniform"), Span("layer.1.head.1", 2), Span("layer.1.head.2", 2, "banded")],
}


def built(name):
    return load(next(case for case in CASES if case.name == name).build().eval(), name=name)


@pytest.fixture(scope="module", params=NAMES)
def model(request):
    return built(request.param)


@pytest.mark.parametrize("what", MAPS)
def test_nothing_changes_but_size(model, what):
    kept, dropped = (apply(model, [*MAPS[what], *more]) for more in ([], [DropMap("layer.*")]))
    before, after = (run(one, CORPUS, reductions=[WholeMap]) for one in (kept, dropped))
    assert max(differences(before, after).values()) < 2e-5
    for layer, found in before.attention.items():
        for one, other in zip(found, after.attention[layer], strict=True):
            assert torch.allclose(one["whole-map"], other["whole-map"], atol=1e-5)
    encoders = [one.family.encoder(one.source) for one in (kept, dropped)]
    inputs = model.frontend.inputs([one.read() for one in CORPUS])
    with torch.inference_mode():
        outputs = [one(**inputs).last_hidden_state for one in encoders]
    frames = [model.frontend.frames(len(one.read())) for one in CORPUS]
    for k, count in enumerate(frames):
        assert torch.allclose(outputs[0][k, :count], outputs[1][k, :count], atol=2e-5)
    assert dropped.parameters < kept.parameters
    back = undo(dropped, model)
    assert same_bits(back.source.state_dict(), model.source.state_dict())


def test_what_serves_the_map_alone_is_all_but_values_and_output(model):
    dropped = apply(model, [*MAPS["layer"], DropMap("layer.*")])
    parts = Parts(dropped.encoder, model.family)
    first, second, _ = parts.attentions().values()
    query, key, value, out = model.family.projections
    assert {query, key} <= set(map_parts(first, model.family))
    assert {name.partition(".")[0] for name, _ in second.named_parameters()} == {value, out}
    assert (is_mapless(first, model.family), is_mapless(second, model.family)) == (False, True)
    assert torch.equal(
        getattr(second, value).weight, getattr(Parts(model.encoder, model.family).attention(2), value).weight
    )


def copied(source):
    """A copy of a copy, through pickle where PyTorch can: it cannot where a weight norm is."""
    twin = copy.deepcopy(source)
    normed = any("parametrizations" in name for name in twin.state_dict())
    return twin if normed else pickle.loads(pickle.dumps(twin))


def test_it_copies_trains_and_is_edited_further(model):
    made = apply(model, [*MAPS["layer"], DropMap("layer.2-3"), CutHeads("layer.1-3.head.1"), Redraw("layer.3", seed=2)])
    names = [*made.anatomy.head_names]
    assert names == [(0, 2, 3)] * 3
    twin = load(copied(made.source))
    assert same_bits(run(twin, CORPUS).streams, run(made, CORPUS).streams)
    order = apply(
        model, [CutHeads("layer.1-3.head.1"), *MAPS["layer"], DropMap("layer.2-3"), Redraw("layer.3", seed=2)]
    )
    assert max(differences(run(order, CORPUS), run(made, CORPUS)).values()) < 2e-5
    source = copy.deepcopy(made.source).train()
    encoder = model.family.encoder(source)
    Parts(encoder, model.family).keep_every_layer()
    encoder(**model.frontend.inputs([one.read() for one in CORPUS])).last_hidden_state.square().mean().backward()
    first, second, _ = Parts(encoder, model.family).attentions().values()
    assert getattr(first, model.family.projections[0]).weight.grad.abs().max() > 0
    assert getattr(second, model.family.projections[2]).weight.grad.abs().max() > 0


def test_no_heads_are_left_without_a_map():
    for name in ("wav2vec2-group", "wavlm-group"):
        model = built(name)
        made = apply(model, [ReplaceMap("layer.2", "uniform"), DropMap("layer.2"), CutHeads("layer.2")])
        other = apply(model, [CutHeads("layer.2")])
        assert max(differences(run(made, CORPUS), run(other, CORPUS)).values()) < 2e-5
        assert made.anatomy.heads == (4, 0, 4)


def test_the_position_embedding_of_all_goes_to_the_next_layer_that_makes_a_map():
    model = built("wavlm-group")
    place = "encoder.layers.{}.attention.rel_attn_embed.weight"
    made = edited(model.source, [ReplaceMap("layer.1-2", "uniform"), DropMap("layer.1-2")])
    assert [place.format(k) in made.state_dict() for k in range(3)] == [False, False, True]
    gone = edited(model.source, [ReplaceMap("layer.2", "uniform"), DropMap("layer.2"), Remove("layer.1")])
    assert [place.format(k) in gone.state_dict() for k in range(3)] == [False, False, True]
    none = edited(model.source, [ReplaceMap("layer.*", "uniform"), DropMap("layer.*")])
    assert not any("rel_pos" in name or "rel_attn" in name for name in none.state_dict())
    assert torch.isfinite(none(torch.randn(1, 8000)).last_hidden_state).all()


def test_adapters_are_put_where_there_is_a_map_to_be_adapted():
    pytest.importorskip("peft")
    model = built("wav2vec2-group")
    made = apply(
        model, [ReplaceMap("layer.2", "layer"), DropMap("layer.2"), LowRank("layer.1-2", 2, targets="query,value")]
    )
    adapted = {name.rpartition(".lora_A")[0] for name in made.source.state_dict() if ".lora_A" in name}
    place = "encoder.layers.{}.attention.{}_proj"
    assert adapted == {place.format(0, "q"), place.format(0, "v"), place.format(1, "v")}


@pytest.mark.parametrize("width", [None, 0, 2, 40])
@pytest.mark.parametrize("padded", [False, True])
def test_means_are_those_of_the_map(width, padded):
    """Against weights over all frames, with frames of padding, which attend to the others."""
    draw = torch.Generator().manual_seed(0)
    values = torch.randn(2, 3, 11, 5, generator=draw)
    lengths = torch.tensor([11, 7]) if padded else torch.tensor([11, 11])
    there = torch.arange(11) < lengths[:, None]
    edits = HeadEdits(3, 5, values)
    edits.map, edits.width = ("uniform", 0) if width is None else ("local", width)
    at = torch.arange(11)
    near = torch.ones(11, 11) if width is None else ((at[:, None] - at).abs() <= width).float()
    weights = near * there[:, None].float()
    expected = (weights / weights.sum(-1, keepdim=True).clamp(min=1))[:, None] @ values
    mask = there[:, None, None] if padded else None
    nothing = torch.zeros(2, 3, 11, 1)
    found = edits.attend(Ingredients(nothing, nothing, mask, None, 1.0), values, 0.0)
    assert torch.allclose(found, expected.transpose(1, 2), atol=1e-6)
    assert torch.equal(found, even.attend(values, width, None if mask is None else mask[..., 0, :]))
