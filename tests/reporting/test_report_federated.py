"""Federated training in the report: what it says, that a failure is told, and that labels are of the same layers."""

import json
import re
from dataclasses import replace

import polars as pl
import pytest

from otoscope.diagnosis.result import SCHEMA, Diagnosis
from otoscope.errors import FederationError, ResultError
from otoscope.federation.result import RESULT
from otoscope.reporting import render_page
from otoscope.reporting.federated import (
    federated_panel,
    federated_sentences,
    state_in_words,
    write_federated_report,
)
from otoscope.reporting.federated_labels import labels_of
from otoscope.reporting.treated import beside
from otoscope.workflow.reporting import report
from tests.evaluation.test_outcome import outcome
from tests.reporting.synthetic_blocks import synthetic_blocks
from tests.reporting.synthetic_federation import training
from tests.reporting.test_model_card import plan
from tests.reporting.test_report_browser import CHROMIUM, opened


def plain(sentences):
    """With spaces where lines may break and where they may not."""
    return [one.replace("\u00a0", " ") for one in sentences]


def figures(result):
    return {figure.id.removeprefix("figure-federated-"): figure for figure in federated_panel(result).figures}


def test_a_finished_training_in_words():
    assert state_in_words(training()) == "The training is complete: 4 rounds, and the trained model was written."
    assert plain(federated_sentences(training(private=True))) == [
        "Federated training of embedded by 8 clients takes WER from 50.0 % to 10.0 %, CER from 20.0 % to 4.0 % on held-out "
        "speech, after 4 rounds; these have no interval.",
        "A client is sent 3.00 MiB a round and sends 1.50 MiB back, on average; it holds 75 % of the model's elements.",
        "The privacy spent is epsilon 2.00 at delta 1e-05.",
    ]
    assert federated_panel(training()).headline == "8 clients · 4 rounds · one process · completed"
    assert federated_panel(None) is None


def test_means_are_over_the_answers_that_were_taken():
    first, second = training(2).rows
    rows = (replace(first, download=6 * 2**20, clients=first.clients[:1]), replace(second, clients=second.clients[:2]))
    assert "is sent 4.00 MiB a round" in federated_sentences(training(rows=rows))[1]  # (6 + 2 * 3) / 3


def test_a_failed_or_interrupted_training_is_told():
    one = training()
    failed = replace(one, rows=one.rows[:2], status="failed", reason="In round 3 5 of 8 clients failed")
    assert state_in_words(failed) == (
        "The training failed, with 2 of 4 rounds complete: In round 3 5 of 8 clients failed. No trained model was written; "
        "what follows is of the rounds that are complete."
    )
    first, second, *_ = plain(federated_sentences(failed))
    assert first.endswith("failed, with 2 of 4 rounds complete: In round 3 5 of 8 clients failed.")
    assert second.startswith("It takes WER from 50.0 % to 16.7 %")
    running = replace(one, rows=(), status="running")
    assert "has not ended: 0 of 4 rounds complete. It is under way, or was cut off." in state_in_words(running)
    assert federated_sentences(running) == [
        "Federated training of embedded by 8 clients has not ended: 0 of 4 rounds complete."
    ]
    panel = federated_panel(running)
    assert (panel.curves, len(panel.rounds)) == ([], 1)


def test_curves_are_the_rows():
    drawn = figures(training(private=True))
    assert list(drawn) == ["held-wer", "held-cer", "loss", "bytes", "share", "epsilon", "answers", "schedule"]
    wer = drawn["held-wer"]
    assert wer.data[0]["x"] == [0, 1, 2, 4]  # round 3 was not evaluated
    assert wer.data[0]["y"] == pytest.approx([50, 25, 50 / 3, 10])
    assert wer.data[0]["marker"]["symbol"] == ["circle-open", "circle", "circle", "circle"]
    (before,) = wer.layout["shapes"]
    assert before["y0"] == before["y1"] == pytest.approx(50)
    assert wer.note == "50.0 → 10.0"
    assert drawn["loss"].data[0]["y"] == pytest.approx([2, 1, 2 / 3, 0.5])
    assert {line["name"]: line["y"] for line in drawn["bytes"].data} == {"down": [3.0] * 4, "up": [1.5] * 4}
    assert drawn["share"].data[0]["y"] == [75.0] * 4
    assert drawn["epsilon"].data[0]["y"] == [0.5, 1.0, 1.5, 2.0]
    assert [bar["y"] for bar in drawn["answers"].data] == [[8, 7, 8, 8], [0, 1, 0, 0]]


def test_a_value_that_training_left_behind_is_told():
    one = training(2)
    worse = replace(one.rows[1], held_out={"wer": 0.3, "cer": 0.1})
    assert figures(replace(one, rows=(one.rows[0], worse)))["held-wer"].note == "50.0 → 30.0, least 25.0"


def test_what_was_not_taken_is_left_away():
    bare = training(1, layers=2, initial={}, schedule={"layer.1.attention": 1.0})
    bare = replace(bare, rows=(replace(bare.rows[0], held_out={}, loss=float("nan")),))
    assert list(figures(bare)) == ["loss", "bytes", "share"]
    assert figures(bare)["loss"].data[0]["y"] == [None]
    panel = federated_panel(bare)
    assert panel.columns[:5] == ["round", "clients", "failed", "training loss", "down (MiB)"]
    assert [line[0] for line in panel.rounds] == ["1"]
    assert len(federated_sentences(bare)) == 1


def test_rows_of_the_table_are_as_long_as_its_head():
    for private in (False, True):
        panel = federated_panel(training(private=private))
        assert {len(line) for line in panel.rounds} == {len(panel.columns)}
        assert [line[0] for line in panel.rounds] == ["before", "1", "2", "3", "4"]
    before, _, second, third, _ = (dict(zip(panel.columns, line, strict=True)) for line in panel.rounds)
    assert (before["WER (%)"], before["clients"]) == ("50.0", "–")
    assert (second["clients"], second["failed"], second["CER (%)"], second["epsilon"]) == ("7", "1", "6.7", "1.00")
    assert (third["WER (%)"], third["peak memory (MiB)"], third["time"]) == ("–", "–", "12 s")
    assert panel.failures == [(2, "client.3", "it <died>")]
    assert not panel.folded
    assert federated_panel(training(40)).folded


def test_the_schedule_is_a_grid_of_branches_by_layers():
    (trace,) = figures(training())["schedule"].data
    assert (trace["x"], trace["y"]) == (["1", "2", "3", "4", "5", "6"], ["attention", "feed-forward"])
    assert trace["z"] == [[100, 100, 100, 100, 25, 25]] * 2
    halves = {"layer.1.feed_forward.2": 0.5, "layer.2.convolution": 0.25, "layer.1.feed_forward.1": 1.0}
    (trace,) = figures(training(schedule=halves))["schedule"].data
    assert trace["y"] == ["feed-forward 1", "convolution", "feed-forward 2"]  # in the order of the signal
    assert trace["z"] == [[100, None], [None, 25], [50, None]]
    whole = federated_panel(training(schedule=dict.fromkeys(halves, 1.0)))
    assert (whole.schedule, len(whole.units)) == (None, 3)


def test_labels_of_the_diagnosis_stand_beside_the_shares():
    diagnosis = synthetic_blocks(6)
    panel = federated_panel(training(), diagnosis)
    labels = {
        row["stream"]: row["label"]
        for row in diagnosis.table.filter(
            (pl.col("measure") == "criticality")
            & (pl.col("target") == "ctc-loss")
            & (pl.col("other") == "rewind:pretrained")
        ).to_dicts()
    }
    assert panel.labelled
    assert {unit: label for unit, _, label, _ in panel.units} == {unit: labels[unit] for unit in training().schedule}
    (trace,) = panel.schedule.data
    assert trace["text"][0][5] == "25<br>A"
    assert "ambient" in trace["hovertext"][0][5]
    assert panel.notes[-1].startswith(
        "Labels are those of the diagnosis, by CTC loss with one unit rewound to pretrained"
    )
    other = federated_panel(training(model="copy"), diagnosis)
    assert other.notes[-1] == "The diagnosis names its model embedded, the training copy."


def test_labels_of_other_layers_are_left_away():
    for layers in (4, 8):
        labels = labels_of(synthetic_blocks(layers), training())
        assert not labels.known
        assert labels.notes == ("The diagnosis is of a model with other layers, so that its labels are left away.",)
    without = synthetic_blocks(6)
    without.table = without.table.filter(~pl.col("measure").str.starts_with("criticality"))
    panel = federated_panel(training(), without)
    assert not panel.labelled
    assert panel.notes == ["The diagnosis has no criticality, so that no labels stand beside the shares."]
    assert {cell for _, _, *cells in panel.units for cell in cells} == {""}


def test_settings_are_told_and_the_seed_of_the_noise_is_not(tmp_path):
    one = training(private=True)
    told = {name: dict(facts) for name, facts in federated_panel(one).settings.items()}
    assert told["Training"]["clients in a round"] == "all"
    assert told["Training"]["failures that are borne"] == "25\u00a0%"
    assert told["Server"]["mean over"] == "all clients of the round"
    assert told["Server"]["rate of the step"] == "the usual one"
    assert told["Clients"]["convolutions over samples frozen"] == "yes"
    assert told["Privacy"]["noise over the norm"] == "0.8"
    assert "frames masked" not in told["Clients"]
    assert "Privacy" not in federated_panel(training()).settings
    assert "918273645" in json.dumps(one.to_dict())
    assert "918273645" not in write_federated_report(one, tmp_path / "a.html").read_text()
    drawing = one.settings["drawing"] | {"widths": [0.25, 1.0], "frozen": 0.5}
    notes = plain(federated_panel(training(settings=one.settings | {"drawing": drawing})).notes)
    assert notes[0].startswith("Clients draw a width among 25 %, 100 %")
    assert notes[1].startswith("Up to 50 %")


def test_the_page_of_a_training_alone(tmp_path):
    page = write_federated_report(training(), tmp_path / "a.html", outcome=outcome()).read_text()
    assert "<died>" not in page
    assert "it &lt;died&gt;" in page
    for section in ("short", "outcome", "federated"):
        assert page.count(f'<section id="{section}">') == page.count(f'href="#{section}"') == 1
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert 'role="status"' not in page
    assert 'role="status"' in write_federated_report(training(status="running"), tmp_path / "b.html").read_text()


def test_beside_a_diagnosis(tmp_path):
    diagnosis = synthetic_blocks(6)
    page = render_page(diagnosis, beside(diagnosis, plan(), outcome(), None, training()))
    assert page.count('<section id="federated">') == page.count('href="#federated"') == 1
    assert page.index('id="outcome"') < page.index('id="federated"') < page.index('id="examined"')
    assert "takes WER from 50.0\u00a0% to 10.0\u00a0%" in page
    assert 'id="federated"' not in render_page(diagnosis)


def test_the_verb_takes_results_and_folders(tmp_path):
    one = training()
    folder = tmp_path / "federated"
    one.save(folder)
    alone = write_federated_report(one, tmp_path / "alone.html").read_text()
    for given in (one, folder, str(folder)):
        assert report(given, tmp_path / "x.html").read_text() == alone
    diagnosis = synthetic_blocks(6)
    both = report(diagnosis, tmp_path / "y.html", federation=one).read_text()
    assert both == report(diagnosis, tmp_path / "y.html", federation=str(folder)).read_text()
    assert '<section id="federated">' in both
    table = diagnosis.table.filter(pl.col("measure").str.starts_with("criticality")).select(list(SCHEMA)).cast(SCHEMA)
    saved = Diagnosis(table, {}, diagnosis.provenance | {"notes": {}}).save(tmp_path / "found")
    assert '<section id="federated">' in report(saved, tmp_path / "z.html", federation=folder).read_text()


def test_what_cannot_be_reported_is_refused(tmp_path):
    for more in ({"plan": plan()}, {"federation": training()}):
        with pytest.raises(ResultError, match="there is none"):
            report(training(), path=tmp_path / "x.html", **more)
    with pytest.raises(FederationError, match="no result of a federated training"):
        report(synthetic_blocks(2), tmp_path / "x.html", federation=tmp_path / "nowhere")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / RESULT).write_text("{")
    with pytest.raises(FederationError, match="no result of a federated training"):
        report(tmp_path / "bad", tmp_path / "x.html")
    assert not (tmp_path / "x.html").exists()


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="needs the Debian package chromium")
def test_every_figure_is_drawn(tmp_path):
    page = write_federated_report(training(private=True), tmp_path / "report.html")
    document = opened(page, tmp_path / "profile")
    root = re.search(r"<html[^>]*>", document)[0]
    assert "data-error" not in root
    assert 'data-drawn="8"' in root
    assert document.count('class="plot-container') == 8
