"""Treated models are looked at as any other, under the names of the original."""

import pytest
import torch

import otoscope as oto
from otoscope.interventions.blocks.variants import plan_interventions
from otoscope.interventions.mixing.corpus import context_mixing
from otoscope.measures.layers.frames import matched_stream
from otoscope.models import load
from otoscope.treatments import Bypass, PruneHeads, RemoveBlocks, treated
from tests.diagnosis.small_speech import small_speech
from tests.models.small import CASES
from tests.surgery.cases import speech

MODELS = {case.name: case for case in CASES}


@pytest.fixture(scope="module", params=["wavlm-ctc-stable", "conformer-relative", "whisper"])
def model(request):
    return load(MODELS[request.param].build().eval())


def of_streams(rows, measure):
    return {row["stream"] for row in rows.iter_rows(named=True) if row["measure"] == measure}


@pytest.mark.parametrize(
    ("treatments", "layers", "attending"),
    [
        ([RemoveBlocks("layer.1")], {2, 3}, {2, 3}),
        ([RemoveBlocks("layer.2"), Bypass("layer.3.attention")], {1, 3}, {1}),
        ([RemoveBlocks("layer.3"), PruneHeads("layer.1")], {1, 2}, {2}),
    ],
)
def test_measures_have_rows_of_what_is_left(model, treatments, layers, attending):
    made = treated(model, treatments)
    names = ["globalness", "category", "block-summary", "relative-profile", "block-influence", "cca-intra"]
    table = oto.diagnose(made, small_speech(), names).table
    for measure in ("globalness", "category", "block-summary", "relative-profile"):
        assert of_streams(table, measure) == {f"layer.{k}" for k in attending}, measure
    for measure in ("block-influence", "cca-intra"):
        found = {name for name in of_streams(table, measure) if name.startswith("layer.")}
        assert found == {f"layer.{k}" for k in layers}, measure


def test_influence_is_that_of_the_layers_that_follow_each_other():
    model = load(MODELS["wav2vec2-group"].build().eval())
    made = treated(model, [RemoveBlocks("layer.2")])
    diagnosis = oto.diagnose(made, small_speech(), ["block-influence"])
    rows = {
        row["layer"]: row["value"]
        for row in diagnosis.table.iter_rows(named=True)
        if row["measure"] == "block-influence"
    }
    sums, count = {1: 0.0, 3: 0.0}, 0
    for utterance in small_speech():
        seen = made.capture([utterance], [utterance.read()])
        for layer, before in ((1, "input"), (3, "layer.1")):
            pair = seen.frames(before, 0).double(), seen.frames(f"layer.{layer}", 0).double()
            sums[layer] += float((1 - torch.cosine_similarity(*pair, dim=-1)).sum())
        count += len(seen.frames("input", 0))
    assert rows == {layer: pytest.approx(total / count, abs=1e-9) for layer, total in sums.items()}


def test_streams_are_matched_to_what_stands_for_them():
    model = load(MODELS["wav2vec2-group"].build().eval())
    first, middle = (treated(model, [RemoveBlocks(f"layer.{k}")]).anatomy for k in (1, 2))
    whole = model.anatomy
    assert [matched_stream(f"layer.{k}", whole, middle) for k in (1, 2, 3)] == ["layer.1", "layer.1", "layer.3"]
    assert [matched_stream(f"layer.{k}", whole, first) for k in (1, 2, 3)] == ["input", "layer.2", "layer.3"]
    assert matched_stream("layer.3", first, whole) == "layer.3"


def test_interventions_leave_out_what_is_gone(model):
    made = treated(model, [RemoveBlocks("layer.1"), Bypass("layer.3.attention")])
    planned = plan_interventions(made)
    assert {layer for layer, _ in planned.edits} == {2}
    rows = context_mixing(made, speech(0.3), "norm").rows
    assert {row.stream for row in rows} == {"layer.2"}
