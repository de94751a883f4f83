"""Interventions on blocks: what is done to each, what cannot be, and that values are those of models edited by hand."""

import pytest
import torch

from otoscope.errors import EvaluationError, HeadError, ResultError
from otoscope.evaluation import CTCLoss, WordErrorRate, paired_bootstrap
from otoscope.evaluation.metric import recognise
from otoscope.evaluation.self_supervised import ContrastiveLoss
from otoscope.interventions.blocks import INTERVENTIONS, Planned, block_interventions, plan_interventions
from otoscope.interventions.blocks.verdicts import criteria_of
from otoscope.interventions.criticality.labels import tolerance
from otoscope.models import load
from otoscope.models.recogniser import Recogniser
from otoscope.models.reductions import WholeMap
from otoscope.surgery import Bypass, CutHeads, ReplaceMap, Reset, Span, apply
from tests.evaluation.speaking import VOCABULARY, speech
from tests.models.small import CASES
from tests.surgery.cases import run
from tests.surgery.cases import speech as noise

BY_FAMILY = list({case.family: case for case in CASES}.values())
CORPUS = speech(seconds=(0.7, 0.9, 0.5, 0.8), transcripts=("A cat", "the cats", "", "it's"))
HEARD = noise(0.6)


def _model(name="wav2vec2-ctc"):
    return load(next(case for case in CASES if case.name == name).build().eval())


@pytest.fixture(scope="module")
def recogniser():
    return Recogniser(_model(), VOCABULARY)


def maps_of(model, layer):
    """Maps of a layer's heads on one utterance, (heads, T, T)."""
    return run(model, HEARD, reductions=[WholeMap]).attention[layer][0]["whole-map"]


@pytest.mark.parametrize("case", BY_FAMILY, ids=lambda case: case.family)
def test_every_family_is_intervened_on_but_the_first_block_has_no_neighbour(case):
    model = load(case.build().eval())
    found = plan_interventions(model)
    assert list(found.edits) == [(layer, kind) for layer in (1, 2, 3) for kind in INTERVENTIONS][:3] + [
        (layer, kind) for layer in (2, 3) for kind in INTERVENTIONS
    ]
    assert list(found.absent) == [(1, "neighbour")]
    assert "no block before it" in found.absent[1, "neighbour"]
    assert found.unchanged == []
    last = model.anatomy.streams[-1]
    heard = noise(2.0)
    whole = run(model, heard, streams=[last]).frames(last, 0)
    for place in ((2, "bypass"), (3, "local"), (3, "neighbour")):
        changed = run(apply(model, found.edits[place], share=True), heard, streams=[last]).frames(last, 0)
        assert not torch.equal(changed, whole), place


def test_maps_are_what_the_interventions_are_called():
    model = _model()
    own = {layer: maps_of(model, layer) for layer in (2, 3)}
    found = {kind: apply(model, plan_interventions(model, 3).edits[3, kind]) for kind in INTERVENTIONS}
    frames = own[3].shape[-1]
    at = torch.arange(frames)
    near = own[3] * ((at[:, None] - at).abs() <= 3)
    torch.testing.assert_close(maps_of(found["uniform"], 3), torch.full_like(own[3], 1 / frames))
    torch.testing.assert_close(maps_of(found["local"], 3), near / near.sum(-1, keepdim=True), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(maps_of(found["neighbour"], 3), own[2], atol=1e-6, rtol=1e-5)
    assert all((maps_of(found[kind], 2) == own[2]).all() for kind in ("uniform", "local", "neighbour"))


def test_what_a_block_is_already_changes_nothing():
    model = apply(_model(), [ReplaceMap("layer.1", "uniform"), ReplaceMap("layer.3", "layer", source=2)])
    found = plan_interventions(model)
    assert found.unchanged == [(1, "uniform"), (3, "neighbour")]
    assert set(found.absent) == {(1, "neighbour"), (2, "uniform"), (2, "neighbour")}
    assert "Block 3 uses the map of block 2" in found.absent[2, "uniform"]
    limited = plan_interventions(apply(_model(), [Span("layer.2", 4, "banded"), Bypass("layer.1.attention")]), 4)
    assert limited.unchanged == [(1, "bypass"), (2, "local")]


@pytest.mark.parametrize("by", ["uniform", "local"])
def test_a_replaced_map_is_given_to_the_block_after_it(by):
    model = apply(_model(), [ReplaceMap("layer.2", by, width=2)])
    changed = apply(model, plan_interventions(model).edits[3, "neighbour"])
    torch.testing.assert_close(maps_of(changed, 3), maps_of(model, 2))


@pytest.mark.parametrize("limited", [["layer.2.head.0,2"], ["layer.3"], ["layer.2.head.0,2", "layer.3"]])
def test_a_neighbours_map_comes_with_its_spans_and_a_uniform_one_without(limited):
    model = apply(_model(), [Span(name, 2 + k, "banded") for k, name in enumerate(limited)])
    edits = plan_interventions(model).edits
    torch.testing.assert_close(maps_of(apply(model, edits[3, "neighbour"]), 3), maps_of(model, 2), atol=1e-6, rtol=1e-5)
    uniform = maps_of(apply(model, edits[3, "uniform"]), 3)
    torch.testing.assert_close(uniform, torch.full_like(uniform, 1 / uniform.shape[-1]))


def test_a_window_does_not_widen_what_is_narrower():
    model = apply(_model(), [Span("layer.2.head.1", 1, "banded"), Span("layer.2.head.2", 30, "banded")])
    changed = maps_of(apply(model, plan_interventions(model, 4).edits[2, "local"]), 2)
    at = torch.arange(changed.shape[-1])
    reach = [int(((at[:, None] - at).abs() * (head > 0)).max()) for head in changed]
    assert reach == [4, 1, 4, 4]


def test_blocks_with_other_heads_cannot_share_a_map():
    found = plan_interventions(apply(_model(), [CutHeads("layer.2.head.1")]))
    assert set(found.absent) == {(1, "neighbour"), (2, "neighbour"), (3, "neighbour")}
    assert "Blocks 2 and 3 have other heads left" in found.absent[3, "neighbour"]


def test_every_value_is_that_of_a_model_edited_by_hand(recogniser):
    metrics = [CTCLoss(), WordErrorRate()]
    seen = []
    found = block_interventions(
        recogniser, CORPUS, metrics, layers=[1, 3], batch_seconds=1.0,
        progress=lambda done, total: seen.append(done / total),
    )  # fmt: skip

    def by_hand(*edits):
        edited = Recogniser(apply(recogniser.model, edits), VOCABULARY)
        return recognise(metrics, edited, CORPUS, batch_seconds=1.0)

    wanted = {
        (layer, kind): by_hand(edit)
        for layer in (1, 3)
        for kind, edit in {
            "bypass": Bypass(f"layer.{layer}.attention"),
            "uniform": ReplaceMap(f"layer.{layer}", "uniform"),
            "local": Span(f"layer.{layer}", 5, "banded"),
        }.items()
    }
    wanted[3, "neighbour"] = by_hand(ReplaceMap("layer.3", "layer", source=2))
    before, without = by_hand(), by_hand(Bypass("layer.*.attention"))
    for metric in metrics:
        mine = [row for row in found.rows if row.target == metric.name]
        assert [(row.layer, row.other) for row in mine] == list(wanted)
        ceiling = paired_bootstrap(before[metric.name], without[metric.name])
        for row in mine:
            change = paired_bootstrap(before[metric.name], wanted[row.layer, row.other][metric.name])
            assert (row.measure, row.stream, row.n) == ("block-intervention", f"layer.{row.layer}", 4)
            assert row.value == pytest.approx(change.value, abs=1e-6)
            assert (row.low, row.high) == pytest.approx((change.low, change.high), abs=1e-6)
            assert row.ceiling == pytest.approx(ceiling.value, abs=1e-6)
        told = found.notes["block-intervention"]["metrics"][metric.name]
        assert told["before"] == pytest.approx(before[metric.name].value, abs=1e-6)
        assert told["criterion"]["margin"] == tolerance(metric.name, told["before"], mine[0].ceiling)
    assert [one.metric for one in criteria_of(found)] == ["ctc-loss", "wer"]
    assert seen == sorted(seen)
    assert seen[-1] == 1
    notes = found.notes["block-intervention"]
    assert (notes["local"]["width"], notes["utterances"], notes["changes_nothing"]) == (5, 4, [])
    assert list(notes["absent"]) == ["layer.1 neighbour"]


def test_the_seed_draws_all_intervals_and_margins_know_what_there_is_to_lose(recogniser, monkeypatch):
    place, seeds, asked = "otoscope.interventions", [], []
    monkeypatch.setattr(
        f"{place}.scoring.paired_bootstrap", lambda *scores, seed: seeds.append(seed) or paired_bootstrap(*scores)
    )
    monkeypatch.setattr(f"{place}.blocks.changes.tolerance", lambda *about: asked.append(about) or 0.5)
    found = block_interventions(recogniser, CORPUS, [CTCLoss()], layers=[3], seed=7)
    assert seeds == [7] * (1 + len(found.rows))
    told = found.notes["block-intervention"]["metrics"]["ctc-loss"]
    assert asked == [("ctc-loss", told["before"], found.rows[0].ceiling)]
    assert told["criterion"]["margin"] == 0.5


def test_what_changes_nothing_is_not_run_and_has_no_interval():
    planted = apply(_model(), [ReplaceMap("layer.2", "uniform")])
    found = block_interventions(
        Recogniser(planted, VOCABULARY), CORPUS, [WordErrorRate()], layers=[2], margins={"wer": 0.25}
    )
    row = next(row for row in found.rows if row.other == "uniform")
    assert (row.value, row.low, row.high) == (0.0, None, None)
    assert found.notes["block-intervention"]["changes_nothing"] == ["layer.2 uniform"]
    assert {row.layer for row in found.rows} == {2}
    assert [one.margin for one in criteria_of(found)] == [0.25]


def test_what_is_not_finite_counts_as_if_all_attention_were_bypassed(recogniser, monkeypatch):
    state = recogniser.model.family.encoder(recogniser.model.source).state_dict()
    broken = {name: value.clone().fill_(torch.inf) if "layers.1." in name else value for name, value in state.items()}
    planned = Planned({(2, "bypass"): (Reset("layer.2", broken),), (2, "local"): (Span("layer.2", 5, "banded"),)})
    monkeypatch.setattr("otoscope.interventions.blocks.changes.plan_interventions", lambda *_: planned)
    found = block_interventions(recogniser, CORPUS, [CTCLoss()])
    row, other = found.rows
    assert row.value == row.ceiling != other.value
    told = found.notes["block-intervention"]["metrics"]["ctc-loss"]
    assert told["not_finite"] == {"layer.2 bypass": 4}


def test_a_run_goes_on_from_its_folder(recogniser, tmp_path):
    first = block_interventions(recogniser, CORPUS, [CTCLoss()], layers=[3], store=tmp_path)
    assert (tmp_path / "ctc-loss" / "run.json").exists()
    again = block_interventions(recogniser, CORPUS, [CTCLoss()], layers=[3], store=tmp_path)
    assert first.rows == again.rows
    with pytest.raises(ResultError, match="another run"):
        block_interventions(recogniser, CORPUS, [CTCLoss()], layers=[2], store=tmp_path)


def test_errors(recogniser):
    with pytest.raises(EvaluationError, match="has no block 4"):
        plan_interventions(recogniser.model, layers=[4])
    with pytest.raises(EvaluationError, match="No block is named"):
        plan_interventions(recogniser.model, layers=[])
    with pytest.raises(EvaluationError, match="The width of the local window is -1"):
        plan_interventions(recogniser.model, -1)
    with pytest.raises(EvaluationError, match=r"The metrics are \[\]"):
        block_interventions(recogniser, CORPUS, [])
    with pytest.raises(EvaluationError, match="each once"):
        block_interventions(recogniser, CORPUS, [CTCLoss(), CTCLoss()])
    with pytest.raises(EvaluationError, match="A margin is given for cer"):
        block_interventions(recogniser, CORPUS, [CTCLoss()], margins={"cer": 0.1})
    with pytest.raises(HeadError, match="no quantiser"):
        block_interventions(recogniser.model, CORPUS, [ContrastiveLoss()])
