"""The report with a plan, an outcome and a search: what it says, and that names in it stay text."""

import re

import pytest

from otoscope.errors import ResultError
from otoscope.evaluation.outcome import Heard
from otoscope.plans.search import ORIGINAL, Search, Trial
from otoscope.reporting import render_page
from otoscope.reporting.front import front_panel, write_front
from otoscope.reporting.outcome import outcome_panel, outcome_sentences
from otoscope.reporting.planned import plan_panel
from otoscope.reporting.treated import beside, write_whole_report
from otoscope.workflow.reporting import report
from tests.evaluation.test_outcome import change, outcome
from tests.reporting.synthetic_diagnosis import synthetic
from tests.reporting.test_model_card import plan
from tests.reporting.test_report_browser import CHROMIUM, opened


def search(**other):
    trials = [
        Trial("level-1", 0, 0.3, 0.2, 0.4, 0.9), Trial("level-2", 0, 0.5, 0.4, 0.6, 0.6),
        Trial("level-3", 0, 0.9, None, None, 0.95),
        Trial("level-1", 60, 0.2, 0.1, 0.3, 0.9), Trial("level-2", 60, 0.25, 0.1, 0.4, 0.6),
        Trial(ORIGINAL, 0, 0.25, 0.2, 0.3, 1.0), Trial(ORIGINAL, 60, 0.18, 0.1, 0.2, 1.0),
    ]  # fmt: skip
    settings = {
        "plans": {f"level-{k}": plan() for k in (1, 2, 3, 4)}, "trials": tuple(trials),
        "failed": {"level-4": "It comes to 0.98 of the original's parameters, <above> the budget"},
        "left": ("level-1", "level-2"), "front": ("level-2", "level-1"), "cost": "parameters", "provenance": {"model": "x"},
    }  # fmt: skip
    return Search(**{**settings, **other})


def test_the_plan_has_its_evidence_beside_every_line():
    panel = plan_panel(plan(), {"fingerprint": "y"})
    assert [line.kind for line in panel.lines] == ["remove-blocks", "prune-heads"]
    (ground,) = panel.lines[0].grounds
    assert (ground.measure, ground.value, ground.threshold) == (
        "criticality of layer.3",
        "0.002 [−0.001, 0.004]",
        "0.01",
    )
    assert panel.lines[0].cost == "-1,000,000 parameters"
    assert panel.lines[1].rule == "by hand"
    assert panel.stated == ""
    assert plan_panel(plan(lines=()), {}).sentence == "The plan for size prescribes nothing."
    of_another = plan_panel(plan(model={"name": "other", "fingerprint": "x"}), {"fingerprint": "y"})
    assert of_another.stated == "The plan was made for another model: other."
    assert plan_panel(None, {}) is None


def test_the_outcome_in_words_and_numbers():
    panel = outcome_panel(outcome())
    assert (
        panel.sentences[0]
        == "The treatment improves WER by 1.0 points (95 % 0.1 to 2.0); it is better with probability 0.980."
    )
    assert "parameters −25.0 %" in panel.sentences[1]
    assert "time −25.0 %" in panel.sentences[1]
    assert panel.table == [
        ("WER (%)", "20.00 [17.00, 23.00]", "19.00 [16.00, 22.00]", "−1.0 [−2.0, −0.1] points", "0.980", "better")
    ]
    assert panel.costs[0] == ("parameters", "4 M", "3 M", "−25.0 %")
    assert [figure.id for figure in panel.figures] == ["figure-outcome", "figure-speakers", "figure-costs"]
    difference, speakers, costs = panel.figures
    (mark,) = difference.data
    assert mark["x"] == pytest.approx([-1.0])
    assert (mark["error_x"]["array"], mark["error_x"]["arrayminus"]) == (pytest.approx([0.9]), pytest.approx([1.0]))
    assert [trace["x"] for trace in speakers.data[1:]] == [
        pytest.approx([30, 10]),
        pytest.approx([20, 18]),
    ]  # of anna and cy
    assert costs.data[0]["x"] == pytest.approx([75, 66.667, 75, 93.75, 75], rel=1e-3)
    assert len(panel.changed) == 2
    assert panel.changed[0].utterance == "b-1"
    assert [word.kind for word in panel.changed[1].before.aligned] == ["right", "right", "right", "inserted"]


def test_what_is_missing_is_left_away():
    bare = outcome(
        costs={}, time=None, heard=(), changes={"wer": change(value=0.0, low=float("nan"), high=float("nan"))}
    )
    panel = outcome_panel(bare)
    assert [figure.id for figure in panel.figures] == ["figure-outcome", "figure-speakers"]
    assert "error_x" not in panel.figures[0].data[0]
    assert (panel.changed, panel.transcripts, panel.costs) == ([], None, [])
    assert len(outcome_sentences(bare)) == 1
    silent = outcome(heard=(Heard("a", None, "", "", "", 0, 0),))
    assert outcome_panel(silent).changed == []


def test_the_front_of_a_search():
    panel = front_panel(search())
    assert panel.sentence.startswith(
        "4 plans were tried on development speech, with no training and 60 steps; 2 plans went"
    )
    assert [line[:3] for line in panel.lines] == [
        ("level-2", "25.00 [10.00, 40.00]", "60.0 %"), ("level-1", "20.00 [10.00, 30.00]", "90.0 %"),
    ]  # fmt: skip
    paths = {trace["hovertext"][0].split("<")[1][2:]: trace for trace in panel.figure.data[:-1]}
    assert paths["level-1"]["y"] == pytest.approx([30, 20])
    assert paths["level-1"]["marker"]["symbol"] == ["circle-open", "circle"]
    assert paths["level-3"]["marker"]["symbol"] == ["circle-open"]
    assert paths["original"]["marker"]["symbol"] == ["x", "x"]
    assert paths["level-3"]["error_y"]["array"] == [0.0]
    assert panel.figure.data[-1]["x"] == pytest.approx([60, 90])
    timed = search(
        cost="time",
        trials=(Trial("level-1", 0, 0.3, None, None, 0.9, 0.7), Trial("level-2", 0, 0.3, None, None, 0.9, 0.5)),
    )
    assert front_panel(timed).lines[0][2] == "50.0 %"


def test_a_search_is_the_same_when_read(tmp_path):
    one = search()
    read = Search.load(one.save(tmp_path / "search"))
    assert read == one
    assert "on the front" in str(one)
    (tmp_path / "search" / "search.json").write_text("{}")
    with pytest.raises(ValueError, match="holds no search"):
        Search.load(tmp_path / "search")


def test_all_sections_stand_on_the_page_and_nothing_in_them_is_markup():
    diagnosis = synthetic(2, 2)
    page = render_page(diagnosis, beside(diagnosis, plan(), outcome(), search()))
    for section in ("plan", "outcome", "front", "examined"):
        assert page.count(f'<section id="{section}">') == page.count(f'href="#{section}"') == 1
    assert page.index('id="plan"') < page.index('id="outcome"') < page.index('id="front"') < page.index('id="layers"')
    assert "<rained>" not in page
    assert "&lt;rained&gt;" in page
    assert "&lt;above&gt;" in page
    assert "| <b>" not in page
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="needs the Debian package chromium")
def test_every_figure_is_drawn(tmp_path):
    page = write_whole_report(
        synthetic(2, 2), tmp_path / "report.html", plan=plan(), outcome=outcome(), search=search()
    )
    document = opened(page, tmp_path / "profile")
    root = re.search(r"<html[^>]*>", document)[0]
    assert "data-error" not in root
    drawn = int(re.search(r'data-drawn="(\d+)"', root)[1])
    assert (
        drawn
        == document.count('class="plot-container')
        == document.count('class="plot"') + document.count('class="plot js-')
    )
    for name in ("outcome", "speakers", "costs", "front"):
        assert f'id="figure-{name}"' in document


def test_a_diagnosis_alone_is_as_it_was():
    diagnosis = synthetic(2, 2)
    page = render_page(diagnosis)
    assert page == render_page(diagnosis, beside(diagnosis, None, None, None))
    assert 'id="plan"' not in page


def test_the_verb(tmp_path):
    diagnosis = synthetic(2, 2)
    assert report(diagnosis, tmp_path / "a.html").read_text() == render_page(diagnosis)
    whole = report(diagnosis, plan(), outcome(), tmp_path / "b.html", search=search())
    assert (
        whole.read_text()
        == write_whole_report(
            diagnosis, tmp_path / "c.html", plan=plan(), outcome=outcome(), search=search()
        ).read_text()
    )
    with pytest.raises(ResultError, match="is no plan"):
        report(diagnosis, "plan.toml", outcome(), tmp_path / "d.html")
    page = write_front(search(), tmp_path / "front.html").read_text()
    assert 'id="figure-front"' in page
