"""Criticality: planted layers get their labels, numbers are those of models reset by hand, bad input is named."""

import copy

import numpy as np
import pytest
import torch

from otoscope.errors import EvaluationError, NotFiniteError, ResultError, SurgeryError
from otoscope.evaluation import CTCLoss, WordErrorRate, paired_bootstrap
from otoscope.interventions.criticality.labels import AMBIENT, CRITICAL, Thresholds
from otoscope.interventions.criticality.modes import ALL
from otoscope.interventions.criticality.resets import NAME, NORMALISED, SPREAD, criticality
from otoscope.interventions.criticality.weights import drawn_weights, weights_of
from otoscope.interventions.sequential import Stopping
from otoscope.models import load
from otoscope.models.recogniser import Recogniser
from otoscope.surgery import Bypass, MeanAblate, Redraw, Reset, apply, mean_outputs
from otoscope.surgery.units import Parts, units_of
from tests.evaluation.speaking import VOCABULARY, speech
from tests.interventions.planted_resets import HARDLY, MUCH, UNTRAINED, FromTeacher, case, noise, planted

CORPUS = noise()


@pytest.fixture(scope="module")
def models():
    return planted()


@pytest.fixture(scope="module")
def metric(models):
    return FromTeacher(models[0], CORPUS)


@pytest.fixture(scope="module")
def found(models, metric):
    """Every mode, over all blocks."""
    trained, initial = models
    return criticality(trained, CORPUS, metric, initial=initial, checkpoints={"start": initial}, seed=4)


def rows_of(result, measure=NAME, mode="re-initialise"):
    return {row.stream: row for row in result.rows if row.measure == measure and row.other == mode}


def parts_of(model):
    return Parts(model.family.encoder(model.source), model.family)


def test_planted_layers_get_their_labels(found):
    rows, shares = rows_of(found), rows_of(found, NORMALISED)
    assert [rows[unit].label for unit in (UNTRAINED, MUCH, HARDLY)] == [AMBIENT, CRITICAL, AMBIENT]
    assert (rows[UNTRAINED].value, rows[UNTRAINED].low, rows[UNTRAINED].high) == (0, 0, 0)
    assert shares[UNTRAINED].value == 0
    assert shares[MUCH].low > 0.5
    assert 0 < shares[HARDLY].value < 0.01
    assert found.notes[NAME]["unchanged"] == {"re-initialise": [UNTRAINED], "rewind:start": [UNTRAINED]}
    for layer, row in enumerate(rows.values(), start=1):
        assert (row.layer, row.head, row.target, row.n) == (layer, None, "distance", len(CORPUS))
        assert row.value == rows_of(found, mode="rewind:start")[row.stream].value


def test_every_number_is_that_of_a_model_reset_by_hand(models, metric, found):
    trained, initial = models
    before = metric.values(trained, CORPUS)
    for mode, edit in (
        ("re-initialise", lambda unit: Reset(unit, initial)),
        ("bypass", Bypass),
        ("mean", lambda unit: MeanAblate(unit, mean_outputs(trained, CORPUS, ["layer.*"]))),
    ):
        rows, shares = rows_of(found, mode=mode), rows_of(found, NORMALISED, mode)
        whole = paired_bootstrap(before, metric.values(apply(trained, [edit("layer.*")]), CORPUS))
        wanted = paired_bootstrap(before, metric.values(apply(trained, [edit(MUCH)]), CORPUS), seed=4)
        row = rows[MUCH]
        assert row.ceiling == pytest.approx(whole.value, rel=1e-4)
        assert row.value == pytest.approx(wanted.value, rel=1e-4)
        assert (row.low, row.high) == (pytest.approx(wanted.low, rel=1e-3), pytest.approx(wanted.high, rel=1e-3))
        assert shares[MUCH].value == pytest.approx(wanted.value / whole.value, rel=1e-4)
        assert found.notes[NAME]["together"]["distance"][mode]["value"] == row.ceiling


def test_draws_differ_and_their_mean_is_taken(models, metric, found):
    trained, _ = models
    before = metric.values(trained, CORPUS)
    seeds = [one.told["drawn_with_seed"] for one in drawn_weights(parts_of(trained), 3, 4)]
    assert len({*seeds, *(one.told["drawn_with_seed"] for one in drawn_weights(parts_of(trained), 3, 5))}) == 6
    values = [metric.values(apply(trained, [Redraw(HARDLY, seed)]), CORPUS).value - before.value for seed in seeds]
    row, spread = (rows_of(found, measure, "re-randomise")[HARDLY] for measure in (NAME, SPREAD))
    assert row.value == pytest.approx(np.mean(values), rel=1e-4)
    assert spread.value == pytest.approx(np.std(values, ddof=1), rel=1e-3)
    assert spread.value > 0
    assert (spread.low, spread.high) == (pytest.approx(min(values), rel=1e-4), pytest.approx(max(values), rel=1e-4))
    # What was hardly trained is still needed: it is the law's other draws that do not do.
    assert rows_of(found)[HARDLY].value < 0.01 * row.value


def test_a_score_that_is_higher_where_it_is_better_is_turned(models, metric, found):
    trained, initial = models
    turned = criticality(
        trained, CORPUS, FromTeacher(trained, CORPUS, -1.0), initial=initial, modes=["re-initialise"], seed=4
    )
    mine, theirs = rows_of(found), rows_of(turned)
    assert [row.label for row in theirs.values()] == [row.label for row in mine.values()]
    assert theirs[MUCH].value == -mine[MUCH].value
    assert theirs[MUCH].low == pytest.approx(-mine[MUCH].high)
    assert rows_of(turned, NORMALISED)[MUCH].low == pytest.approx(rows_of(found, NORMALISED)[MUCH].low)


def test_notes_say_thresholds_and_what_a_change_is_relative_to(models, metric, found):
    notes = found.notes[NAME]
    assert notes["labelled_by"] == "distance"
    assert notes["before"]["distance"] == 0
    assert notes["tolerance"]["distance"]["re-initialise"] == pytest.approx(0.01 * rows_of(found)[MUCH].ceiling)
    assert notes["relative"]["distance"]["re-initialise"][MUCH] == pytest.approx(rows_of(found)[MUCH].value / 1e-12)
    assert notes["interval_over"] == "speaker"
    trained, initial = models
    strict = criticality(
        trained, CORPUS, metric, layers=[3], modes=["re-initialise"], initial=initial, thresholds=Thresholds(0.0, 0.0)
    )
    assert [row.stream for row in strict.rows] == ["layer.3"] * 2
    assert rows_of(strict)[HARDLY].label == CRITICAL  # nothing is tolerated, and any share is too much


def test_a_layer_that_was_never_trained_may_be_asked_for_alone(models, metric):
    trained, initial = models
    alone = criticality(trained, CORPUS, metric, UNTRAINED, modes=["re-initialise"], initial=initial)
    assert rows_of(alone)[UNTRAINED].label == AMBIENT


def test_sub_modules_tensors_and_patterns(models, metric):
    trained, initial = models
    modes = ["re-initialise", "bypass"]
    result = criticality(trained, CORPUS, metric, "sub-module", layers=[3], modes=modes, initial=initial)
    branches = ["layer.3.attention", "layer.3.feed_forward"]
    assert list(rows_of(result)) == [*branches, "layer.3.norms"]
    assert list(rows_of(result, mode="bypass")) == branches
    assert result.notes[NAME]["skipped"] == {"bypass": ["layer.3.norms"]}
    tensors = criticality(trained, CORPUS, metric, "tensor", layers=[2], modes=["re-initialise"], initial=initial)
    rows = rows_of(tensors)
    assert len(rows) == 16
    assert "layer.2.attention.q_proj.weight" in rows
    assert tensors.notes[NAME]["unchanged"] == {
        "re-initialise": ["layer.2.layer_norm.weight", "layer.2.final_layer_norm.weight"]
    }
    norm = "layer.2.layer_norm.weight"
    one = criticality(trained, CORPUS, metric, norm, initial=initial)
    assert one.notes[NAME]["modes"] == ["re-initialise", "re-randomise"]
    assert one.notes[NAME]["skipped"] == {"bypass": [norm], "mean": [norm]}
    assert one.notes[NAME]["unchanged"] == {"re-initialise": [norm], "re-randomise": [norm]}
    heads = criticality(trained, CORPUS, metric, "layer.2.head.0,3", modes=["re-initialise"], initial=initial)
    assert [(row.layer, row.head) for row in rows_of(heads).values()] == [(2, 0), (2, 3)]


def test_laws_that_are_constant_leave_a_tensor_as_it_is(models, metric):
    trained, _ = models
    plain = copy.deepcopy(trained.source)
    torch.nn.init.zeros_(plain.encoder.layers[1].attention.q_proj.bias)
    model = load(plain)
    unit = "layer.2.attention.q_proj.bias"
    result = criticality(model, CORPUS, FromTeacher(model, CORPUS), unit, modes=["re-randomise"])
    assert result.notes[NAME]["unchanged"] == {"re-randomise": [unit]}
    row, spread = (rows_of(result, measure, "re-randomise")[unit] for measure in (NAME, SPREAD))
    assert (row.value, row.label, spread.value) == (0, AMBIENT, 0)


def test_statistics_of_batch_norms_are_state_that_is_reset():
    initial = case("conformer-relative").build(1).eval()
    trained = copy.deepcopy(initial)
    with torch.no_grad():
        trained.encoder.layers[1].conv_module.batch_norm.running_mean.add_(2.0)
    model, corpus = load(trained), noise(4, speakers=2)
    metric = FromTeacher(model, corpus)
    result = criticality(model, corpus, metric, "sub-module", modes=["re-initialise"], initial=load(initial))
    rows = rows_of(result)
    assert {name for name, row in rows.items() if row.value > 0} == {"layer.2.convolution"}
    share = rows_of(result, NORMALISED)["layer.2.convolution"]
    assert (share.value, share.low, share.high) == (1, 1, 1)  # it is the only thing that all layers' reset changes
    assert rows["layer.2.convolution"].label == CRITICAL
    lacking = {name: value for name, value in initial.state_dict().items() if "running" not in name}
    with pytest.raises(SurgeryError, match=r"'initial' has no .*running_mean.* statistics of batch norms"):
        criticality(model, corpus, metric, modes=["re-initialise"], initial=lacking)


def test_both_factors_of_a_weight_norm_are_reset(models):
    trained, initial = models
    edit = weights_of(parts_of(trained), initial, "initial").edit("encoder.pos_conv_embed")
    other = case("wav2vec2-group").build(5).eval()
    reset = apply(load(other), [edit]).source.state_dict()
    wanted = {name: value for name, value in initial.source.state_dict().items() if "pos_conv_embed" in name}
    assert len(wanted) == 3
    assert all(torch.equal(reset[name], value) for name, value in wanted.items())


def test_what_does_not_fit_is_refused(models, metric):
    trained, initial = models

    def run(*args, **options):
        return criticality(trained, CORPUS, metric, *args, **options)

    with pytest.raises(EvaluationError, match=r"initialisation\. Name its initial checkpoint.*re-randomise"):
        run(modes=["re-initialise"])
    with pytest.raises(SurgeryError, match="weights of the model itself: a reset would change none"):
        run(modes=["rewind"], checkpoints={"same": trained})
    with pytest.raises(SurgeryError, match="family hubert, and the model of wav2vec2"):
        run(modes=["re-initialise"], initial=load(case("hubert-group").build(1).eval()))
    state = dict(initial.source.state_dict())
    state["encoder.layers.1.attention.q_proj.weight"] = torch.zeros(48, 40)
    with pytest.raises(
        SurgeryError, match=r"shape \(48, 40\) in the checkpoint 'initial', which does not fit layer\.2"
    ):
        run(modes=["re-initialise"], initial=state)
    with pytest.raises(EvaluationError, match="no mode 'rewind:x'. The modes are re-initialise, rewind:a"):
        run(modes=["rewind:x"], checkpoints={"a": initial})
    with pytest.raises(EvaluationError, match="no checkpoint to rewind to"):
        run(modes=["rewind"])
    with pytest.raises(EvaluationError, match="checkpoint has no name"):
        run(checkpoints={"": initial})
    with pytest.raises(EvaluationError, match="There is no mode. Choose"):
        run(modes=[])
    with pytest.raises(EvaluationError, match=r"'bypass' does not act on layer\.1\.attention\.q_proj\.weight"):
        run("layer.1.attention.q_proj.weight", modes=["bypass"])
    with pytest.raises(EvaluationError, match="'mean' does not act on"):
        run("tensor", modes=["mean"])
    with pytest.raises(EvaluationError, match=r"2 draw\(s\) show no spread"):
        run(modes=["re-randomise"], draws=2)
    with pytest.raises(SurgeryError, match=r"nearest names are .*layer\.2\.attention"):
        run("layer.2.atention")
    with pytest.raises(SurgeryError, match="no layer 4 in a wav2vec2 model of 3 layers"):
        run(layers=[4])
    with pytest.raises(EvaluationError, match="asked for twice"):
        criticality(trained, CORPUS, [metric, metric])


def test_by_metrics_of_recognition_labels_stand_by_one_alone():
    source = case("wav2vec2-ctc").build().eval()
    model = Recogniser(load(source), VOCABULARY)
    corpus = speech(seconds=(0.7, 0.9, 0.5, 0.8), transcripts=("A cat", "the cats", "", "it's"))
    result = criticality(model, corpus, [WordErrorRate(), CTCLoss()], modes=["bypass"])
    labels = {row.target: row.label for row in result.rows if row.measure == NAME and row.layer == 1}
    assert labels["wer"] is None
    assert labels["ctc-loss"] is not None
    assert result.notes[NAME]["labelled_by"] == "ctc-loss"


class Interrupted(FromTeacher):
    """Stops in the middle of a run."""

    calls = 0
    most = 10**9

    def values(self, *args, **options):
        type(self).calls += 1
        if type(self).calls > self.most:
            raise KeyboardInterrupt
        return super().values(*args, **options)


def test_a_run_that_was_cut_off_goes_on_where_it_was(models, tmp_path, monkeypatch):
    trained, initial = models
    metric = Interrupted(trained, CORPUS)

    def run(**options):
        told = []
        result = criticality(
            trained, CORPUS, metric, modes=["re-initialise", "bypass"], initial=initial, batch_seconds=0.9,
            progress=lambda done, total: told.append((round(done, 6), round(total, 6))), **options,
        )  # fmt: skip
        return result, told

    whole, told = run()
    assert Interrupted.calls == 2 * (4 + 5)  # two batches; the model, all layers, and those that a reset changes
    assert told == [(round(0.9 * k, 6), 3.6) for k in range(1, 5)]
    monkeypatch.setattr(Interrupted, "most", Interrupted.calls + 2 * 4 + 2)
    with pytest.raises(KeyboardInterrupt):
        run(store=tmp_path / "run")
    monkeypatch.setattr(Interrupted, "most", 10**9)
    before = Interrupted.calls
    again, _ = run(store=tmp_path / "run")
    assert Interrupted.calls - before == 2 * 5
    assert again.rows == whole.rows
    with pytest.raises(ResultError, match="another run"):
        criticality(
            trained, CORPUS, metric, modes=["re-initialise"], initial=load(case("wav2vec2-group").build(7).eval()),
            batch_seconds=0.9, store=tmp_path / "run",
        )  # fmt: skip


@pytest.mark.parametrize(
    "name", ["wav2vec2-stable", "wavlm-group", "conformer-relative", "bert-relative-key", "whisper", "parakeet", "mockingjay"]
)  # fmt: skip
def test_sub_modules_and_tensors_make_up_the_layers(name):
    parts = parts_of(load(case(name).build()))
    names = {path for path, _ in parts.encoder.named_parameters()}
    whole = {path for unit in units_of(parts) for path in parts.tensors(unit)}
    modules = [path for unit in units_of(parts, "sub-module") for path in parts.tensors(unit)]
    tensors = [path for unit in units_of(parts, "tensor") for path in parts.tensors(unit)]
    assert len(units_of(parts)) == 3
    assert sorted(modules) == sorted(whole)
    assert sorted(tensors) == sorted(whole & names)
    assert {unit.layer for unit in units_of(parts, "tensor", layers=[2])} == {2}
    with pytest.raises(SurgeryError, match="names no unit of layers"):
        units_of(parts, "layer.1", layers=[2])


def test_all_layers_together_are_one_variant_a_draw(models, metric):
    trained, _ = models
    result = criticality(trained, CORPUS, metric, layers=[1], modes=["re-randomise"], draws=4)
    assert result.notes[NAME]["draws"] == 4
    assert ALL not in {row.stream for row in result.rows}
    assert rows_of(result, mode="re-randomise")["layer.1"].ceiling > 0


def odd(initial):
    """A checkpoint whose second layer gives nothing finite, but after its first layer, whose output is zero."""
    source = copy.deepcopy(initial.source)
    one, two = source.encoder.layers[:2]
    with torch.no_grad():
        one.final_layer_norm.weight.zero_()
        one.final_layer_norm.bias.zero_()
        two.attention.v_proj.weight.fill_(3e38)
        two.attention.v_proj.bias.zero_()
    return load(source, name="odd")


def test_what_is_not_finite_counts_as_a_reset_of_all_layers(models, metric):
    trained, initial = models
    result = criticality(trained, CORPUS, metric, modes=["rewind"], checkpoints={"odd": odd(initial)})
    rows = rows_of(result, mode="rewind:odd")
    assert np.isfinite(rows[MUCH].ceiling)
    assert rows[MUCH].value == rows[MUCH].ceiling
    assert rows[MUCH].label == CRITICAL
    assert result.notes[NAME]["counted_as_chance"] == {"distance": {"rewind:odd": {MUCH: len(CORPUS)}}}


def test_a_mode_without_any_finite_value_is_left_out_and_refused_by_name(models, metric):
    trained, initial = models
    source = copy.deepcopy(initial.source)
    with torch.no_grad():
        for layer in source.encoder.layers:
            layer.attention.v_proj.weight.fill_(3e38)
    huge = load(source, name="huge")
    result = criticality(trained, CORPUS, metric, initial=huge, draws=3)
    assert {row.other for row in result.rows} == {"re-randomise", "bypass", "mean"}
    assert result.notes[NAME]["not_finite"]["distance"].keys() == {"re-initialise"}
    with pytest.raises(NotFiniteError, match=r"re-initialise.*\n?.*--modes"):
        criticality(trained, CORPUS, metric, modes=["re-initialise"], initial=huge)


def test_a_unit_that_is_decided_is_not_run_on(models, metric):
    trained, initial = models
    most = criticality(trained, CORPUS, metric, modes=["re-initialise"], initial=initial)
    stop = Stopping(0.0, 0.01 * rows_of(most)[MUCH].value, least=2)
    found = criticality(trained, CORPUS, metric, modes=["re-initialise"], initial=initial, stop=stop, batch_seconds=0.3)
    used = found.notes[NAME]["stopped"]["distance"]["re-initialise"]
    assert used.keys() == {MUCH}
    row = rows_of(found)[MUCH]
    assert row.n == used[MUCH] < len(CORPUS)
    assert row.label == CRITICAL
