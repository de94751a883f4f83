"""The examination of importance as a whole: what it gives, what it skips, and that it says so."""

from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from otoscope.diagnosis.head_entries import many_pass_entries, span_entries
from otoscope.diagnosis.result import Diagnosis, table_of
from otoscope.errors import MeasureError, ModelError
from otoscope.evaluation.catalogue import metric_by_name
from otoscope.interventions.head_values import kept_longest, metrics_of_heads, orders_of
from otoscope.interventions.losses import Loss
from otoscope.interventions.orders import values_of
from otoscope.interventions.spans import PLACES, span_curves
from otoscope.measures.heads.diagonality import diagonality
from otoscope.measures.measure import Result, Row
from otoscope.models.loading import load
from otoscope.models.reductions import WholeMap
from otoscope.reporting.importance import importance_panel
from otoscope.reporting.values import rows_by_measure
from otoscope.speech.corpus import Corpus
from otoscope.surgery import CutHeads, apply
from otoscope.training.probes import FrozenProbe, make_task, probed_speech, task
from otoscope.workflow import examining, importance_stages
from otoscope.workflow.diagnosing import diagnose
from otoscope.workflow.importance import examine_importance
from otoscope.workflow.importance_needs import NAMES, Needs
from otoscope.workflow.importance_stages import Importance, Stages
from tests.models.small import CASES
from tests.training.probe_material import corpus_of


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    case = next(case for case in CASES if case.name == "wavlm-group")
    return load(case.write(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module", autouse=True)
def _quick_probes():
    """Probes that learn for a moment: what they read is not looked at here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task, "fit_readouts", partial(quickly, task.fit_readouts))
        yield


def quickly(fit, *given, **settings):
    return fit(*given, **settings | {"steps": 10, "batch": 32})


CORPUS = corpus_of(speakers=3, each=2, frames=20)
SETTINGS = dict(
    tasks=("phone", "speaker", "speaker-utterance"), steps=2, radii=(25, 1), forms=("literal",), randoms=1
)  # fmt: skip


@pytest.fixture(scope="module")
def examined(model):
    lines = []
    found = examine_importance(model, CORPUS, **SETTINGS, tell=lines.append)
    return found, lines


def test_heads_are_ranked_removed_and_judged(examined):
    found, lines = examined
    measures = {row.measure for row in found.result.rows}
    assert {
        "importance-loo", "importance-l1", "agreement-kendall", "agreement-spearman", "pruning-phone",
        "pruning-speaker-frozen-change", "span-phone", "pruning-verdict", "pruning-verdict-frozen", "sign-test",
    } <= measures  # fmt: skip
    names = [order.name for order in found.orders]
    assert names == [
        "globalness", "verticality", "diagonality", "max-weight", "confidence", "importance-l1", "loo-probe-phone",
        "random-0",
    ]  # fmt: skip
    assert all(len(set(order.heads)) == 12 for order in found.orders)
    assert [sign.number for sign in found.signs] == ["i", "ii", "iii", "iv"]
    assert any("variants of the model" in line for line in lines)
    assert any("Leaving out each of 12 heads" in line for line in lines)


@pytest.mark.parametrize(("higher_is_better", "first"), [(True, 1), (False, 0)])
def test_the_heads_whose_absence_costs_least_go_first(higher_is_better, first):
    """An accuracy that rises without a head, and an error that falls."""
    stages = Stages.__new__(Stages)
    name = "contrastive-accuracy" if higher_is_better else "ctc-loss"
    rows = [Row("importance-loo", "layer.1", 1, head, name, value=value) for head, value in ((0, -0.2), (1, 0.1))]
    stages.found = Importance(Result(rows))
    metric = metric_by_name(name)
    assert metric.higher_is_better == higher_is_better
    (order,) = orders_of(stages.turned_losses([metric]), [(1, 0), (1, 1)])
    assert order.name == f"loo-{name}"
    assert order.heads[0] == (1, first)


def test_what_a_model_without_a_head_has_no_loss_for_is_skipped_and_named(examined):
    found, _ = examined
    skipped = {one["measure"]: one["reason"] for one in found.skipped}
    assert list(skipped) == ["importance-gradient", "importance-gradient-sum", "importance-attribution"]
    assert all("has no head" in reason for reason in skipped.values())


def test_all_of_it_stands_in_the_report(examined):
    found, _ = examined
    rows = rows_by_measure(table_of(found.result.rows))
    panel = importance_panel(rows, found.result.notes)
    assert panel.wall.choices == ["without the head: probe-phone", "l1"]
    assert len(panel.verdicts) == 2
    assert len(panel.signs) == 4
    assert [title for title, _ in panel.curves] == [
        f"{kind}: the {what}"
        for kind in ("Heads removed", "Spans limited")
        for what in ("phone of a frame", "speaker of a frame", "speaker of an utterance")
    ]
    assert len({figure.id for figure in panel.figures}) == len(panel.figures) == 2 + 12


def test_it_joins_a_diagnosis_and_is_saved_with_it(examined, model, tmp_path):
    found, _ = examined
    before = diagnose(model, corpus_of(speakers=3, each=2, frames=20), "globalness")
    joined = found.joined(before)
    again = Diagnosis.load(joined.save(tmp_path / "out"))
    assert again.table.height == before.table.height + len(found.result.rows)
    assert again.measure("pruning-verdict").height == 1
    assert again.provenance["skipped"][-1]["measure"] == "importance-attribution"
    assert again.provenance["measures"][:1] == ["globalness"]
    assert again.provenance["notes"]["sign-test"]["i"]["outcome"] in ("pass", "fail", "undecided")
    assert again.provenance["notes"]["importance-loo on probe-phone"]["units"] == "heads"


def test_a_run_goes_on_from_its_folder(model, tmp_path):
    corpus = corpus_of(speakers=3, each=2, frames=20)
    settings = dict(tasks=("phone",), steps=1, radii=(), randoms=1, store=tmp_path)
    one, again = (examine_importance(model, corpus, **settings) for _ in range(2))
    assert {path.name for path in tmp_path.iterdir()} == {"loo-probe-phone", "probes-phone"}
    assert again.result.rows == one.result.rows


def bare_corpus():
    corpus = corpus_of(speakers=3, each=2, frames=20)
    return Corpus.from_arrays([u.read() for u in corpus], speakers=[u.speaker for u in corpus])


@pytest.fixture(scope="module")
def of_bare(model):
    return examine_importance(
        model, bare_corpus(), tasks=("phone", "speaker-utterance"), steps=1, radii=(1,), forms=("literal",), randoms=1
    )


def test_without_phones_the_speakers_are_left(of_bare):
    found = of_bare
    skipped = [one["measure"] for one in found.skipped]
    assert skipped == [
        "importance-gradient", "importance-gradient-sum", "importance-attribution", "pruning-phone", "span-phone",
        "importance-loo", "pruning-verdict", "pruning-verdict-frozen",
    ]  # fmt: skip
    assert found.skipped[-1]["reason"].startswith("The model without 12 heads by globalness was not probed for")
    assert {name for _, name, _ in found.curves.points} == {"speaker-utterance"}
    assert {sign.outcome for sign in found.signs} == {"undecided"}


def test_too_little_speech_or_too_few_heads_are_refused(model):
    corpus = corpus_of(speakers=2, each=2, frames=20)
    with pytest.raises(MeasureError, match="probes need two"):
        examine_importance(model, corpus, seconds=0.1)
    cut = apply(model, [CutHeads("layer.2"), CutHeads("layer.3"), CutHeads("layer.1.head.0,1")])
    with pytest.raises(ModelError, match="2 heads, which cannot be ranked"):
        examine_importance(cut, corpus)


@pytest.mark.parametrize("name", ["importance-loo", "importance-attribution", "span-phone", "pruning-verdict"])
def test_what_is_asked_for_by_name_and_cannot_be_taken_is_an_error(model, of_bare, monkeypatch, name):
    monkeypatch.setattr(examining, "examine_importance", lambda *given, **settings: of_bare)
    with pytest.raises(MeasureError, match=f"^{name}: "):
        diagnose(model, bare_corpus(), name)


def test_metrics_of_heads_are_those_of_whole_maps(model):
    corpus = corpus_of(speakers=2, each=2, frames=20)
    rows = metrics_of_heads(model, corpus).rows
    capture = model.capture(corpus.utterances, [u.read() for u in corpus], (), [WholeMap])
    maps = [one[WholeMap.name].numpy() for one in capture.attention[2]]
    wanted = np.mean([diagonality(one) for one in maps], axis=0)
    found = values_of(rows, "diagonality")
    np.testing.assert_allclose([found[2, head] for head in range(4)], wanted, rtol=1e-4)
    sharpest = np.mean([one.max((1, 2)) for one in maps], axis=0)
    np.testing.assert_allclose([values_of(rows, "max-weight")[2, h] for h in range(4)], sharpest, rtol=1e-4)


def test_orders_go_from_high_metrics_and_from_low_importances():
    values = {
        "diagonality": {(1, 0): -0.1, (1, 1): -0.3, (1, 2): -0.2},
        "importance-l1": {(1, 0): 1.0, (1, 1): 3.0, (1, 2): 2.0},
        "importance-gradient": {(1, 0): 1.0},
    }
    orders = orders_of(kept_longest(values), [(1, 0), (1, 1), (1, 2)])
    assert [order.name for order in orders] == ["diagonality", "importance-l1"]
    assert [head for _, head in orders[0].heads] == [0, 2, 1]
    assert [head for _, head in orders[1].heads] == [0, 2, 1]


def told(model, wanted, **options):
    """What is found by name, and how each stage that was told begins."""
    lines = []
    found = examine_importance(model, CORPUS, **SETTINGS | options, wanted=wanted, tell=lines.append)
    return found, [line.partition(":")[0] for line in lines]


def test_the_size_of_weights_takes_no_pass_and_reads_no_speech(model, examined, monkeypatch):
    def refuse(*given, **options):
        raise AssertionError("a pass")

    for module in (model.encoder, model.source):
        monkeypatch.setattr(module, "forward", refuse)
    monkeypatch.setattr(importance_stages, "probed_speech", refuse)
    found, lines = told(model, ["importance-l1"])
    assert lines == []
    assert found.result.rows == [row for row in examined[0].result.rows if row.measure == "importance-l1"]
    assert found.skipped == []


@pytest.mark.parametrize(
    ("wanted", "stages"),
    [
        (["span-phone"], ["Curves"]),
        (["pruning-verdict"], ["Heads' metrics", "Curves"]),
        (["sign-test"], ["Heads' metrics", "Curves"]),
        (["agreement-kendall"], ["Heads' metrics", "Leaving out each of 12 heads, on probe-phone"]),
    ],
)
def test_what_is_named_is_what_the_whole_examination_gives_for_it(model, examined, wanted, stages):
    found, lines = told(model, wanted)
    assert lines == stages
    names = {
        ending for name in wanted for ending in (name, f"{name}-change", f"{name}-frozen", f"{name}-frozen-change")
    }
    expected = [row for row in examined[0].result.rows if row.measure in names]
    assert expected
    assert sorted(map(repr, found.result.rows)) == sorted(map(repr, expected))


def test_a_named_metric_that_is_the_loss_itself_is_taken_once():
    stages = SimpleNamespace(tasks={}, trying=lambda *names: nullcontext())
    loss, named = Mock(spec=Loss), [metric_by_name("ctc-loss"), metric_by_name("wer")]
    loss.name = "ctc-loss"
    assert [one.name for one in Stages.metrics(stages, loss, named)] == ["ctc-loss", "wer"]


def test_a_verdict_runs_the_two_orders_that_it_is_of(model):
    found, _ = told(model, ["pruning-verdict"])
    assert {order.name for order in found.orders} == {"diagonality", "globalness"}
    assert {variant.name for variant, _, _ in found.curves.points} == {"diagonality", "globalness"}
    assert {task for _, task, _ in found.curves.points} == {"phone"}


def test_signs_of_segmentation_and_relations_come_from_the_diagnosis_beside(model):
    rows = [
        Row("head-segmentation", target="best-head-less-mfcc", other="mfcc", value=0.2, low=0.1, high=0.3),
        Row("head-segmentation", target="best-head-less-layer", other="layer.1", value=-0.2, low=-0.3, high=-0.1),
        Row("relation-verticality-phone", target="phone", value=0.7, low=0.6, high=0.8, floor=0.65),
    ]
    beside = Diagnosis(table_of(rows), {}, {})
    found, _ = told(model, ["sign-test"], beside=beside, tasks=("phone",), steps=1, radii=(25,))
    assert [sign.number for sign in found.signs] == ["i", "ii", "iii", "iv", "v", "vi"]
    assert [sign.outcome for sign in found.signs[4:]] == ["pass", "undecided"]
    assert (found.signs[4].value, found.signs[5].value) == (0.2, 0.7)
    assert [row.target for row in found.result.rows] == ["i", "ii", "iii", "iv", "v", "vi"]
    alone = replace(rows[2], floor=0.1)
    found = examine_importance(
        model, bare_corpus(), tasks=("phone",), wanted=["sign-test"], beside=Diagnosis(table_of([alone]), {}, {})
    )
    assert [(sign.number, sign.outcome) for sign in found.signs] == [("vi", "pass")]


def test_without_a_probe_verdicts_and_signs_are_skipped_with_the_reason(model):
    found = examine_importance(model, bare_corpus(), tasks=("phone",), wanted=["pruning-verdict", "sign-test"])
    assert found.result.rows == []
    assert [one["measure"] for one in found.skipped] == ["pruning-verdict", "pruning-verdict-frozen", "sign-test"]
    assert all("No probe could be trained" in one["reason"] for one in found.skipped)


@pytest.mark.parametrize(("name", "per", "places"), [("span-layer", "layer", 3), ("span-head", "head", 12)])
def test_spans_by_place_are_the_span_curves_of_each_metric(model, name, per, places):
    found, lines = told(model, [name], radii=(1,))
    assert lines == [f"Spans of {places} {per}s on probe-phone"]
    speech = probed_speech(model, CORPUS, None, 120.0, 0)
    asked = make_task("phone", speech)
    states = [model.capture([u], [u.read()], [speech.stream]).frames(speech.stream, 0) for u in speech.corpus]
    probe = FrozenProbe(asked, asked.fit(torch.cat(states), 0))
    expected = span_curves(model, speech.corpus, probe, radii=(1,), per=per)
    assert [(r.measure, r.layer, r.head, r.target, r.other) for r in found.result.rows] == [
        (r.measure, r.layer, r.head, r.target, r.other) for r in expected.rows
    ]
    assert {row.target for row in found.result.rows} == {"probe-phone"}
    assert len(found.result.rows) == 1 + 2 * places
    assert found.result.notes[f"{name} on probe-phone"]["form"] == "literal"


def test_the_catalogue_lists_all_that_it_gives():
    assert {entry.name for entry in many_pass_entries() if entry.group == "importance"} == set(NAMES)
    assert {entry.name for entry in span_entries()} == set(PLACES)


def test_spans_by_place_are_taken_by_name_only():
    everything = Needs.of(None, ("phone",), ())
    assert everything.places == ()
    assert set(NAMES) == everything.names
    assert Needs.of([*NAMES, "span-head"], ("phone",), ()).places == ("span-head",)


def test_curves_of_metrics_come_with_those_of_probes():
    assert Needs.of(["importance-loo"], ("phone",), ["wer"]).orders == frozenset()
    assert not Needs.of(["importance-loo"], ("phone",), ["wer"]).gives("pruning-wer-change")
    assert Needs.of(["pruning-phone"], ("phone",), ["wer"]).gives("pruning-wer-change")
    of_wer = Needs.of(["pruning-wer"], ("phone",), ["wer"])
    assert (of_wer.orders, of_wer.probed) == (None, ())


def test_names_that_it_does_not_give_are_refused():
    with pytest.raises(MeasureError, match=r"gives 'importance-l2'. Did you mean importance-l1"):
        Needs.of(["importance-l2"], ("phone",), ())
    with pytest.raises(MeasureError, match="No measure was asked for"):
        Needs.of([], ("phone",), ())
