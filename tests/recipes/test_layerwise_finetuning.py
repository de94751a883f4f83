"""The recipe of re-initialised top layers: what it would run, n by the diagnosis, its tables, and all of it in small."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from otoscope.errors import OtoscopeError, TrainingError
from otoscope.measures.measure import Row
from otoscope.models.loading import load
from otoscope.plans import Line, Plan
from otoscope.treatments import LearningRate, Reinitialise
from recipes.layerwise_finetuning.__main__ import MODEL, NAME, check, main, parsed
from recipes.layerwise_finetuning.cells import Cell, grid, layers_of
from recipes.layerwise_finetuning.stages import RULE, begun, check_begun, chosen_top
from recipes.layerwise_finetuning.telling import Found, beside, gain, page_of
from recipes.trials.tables import END, mark, put
from tests.recipes.made_up import cells, change, librispeech

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "layerwise_finetuning.md"


def test_a_dry_run_lists_every_training(capsys):
    main(["--dry-run"])
    text = capsys.readouterr().out
    rows = cells(text)
    assert len(rows) == 4 * 2 * 2
    assert len({row[0] for row in rows}) == len(rows)
    assert rows[3] == ["top3-5min-0", MODEL, "reinitialise layer.6-8", "5min (0.08 h)", "0", "800", "2.67"]
    assert {row[2] for row in rows if row[0].startswith("top0")} == {"none"}
    assert f"16 trainings, which hear at most {16 * 800 * 12 / 3600:.1f} hours" in text
    assert "n by the diagnosis" in text


def test_a_dry_run_at_the_scale_of_the_paper(capsys, monkeypatch, tmp_path):
    (tmp_path / "alignments").mkdir()
    paths = librispeech(monkeypatch, tmp_path)
    main([
        *paths, "--alignments", str(tmp_path / "alignments"), "--model", "facebook/wav2vec2-base", "--subsets",
        "10min,1h,10h", "--steps", "13000,13000,20000", "--rate", "5e-5", "--open-at", "5000", "--batch-seconds", "200",
        "--precision", "bfloat16", "--seeds", "3", "--dry-run",
    ])  # fmt: skip
    text = capsys.readouterr().out
    rows = cells(text)
    assert len(rows) == 4 * 3 * 3
    steps = {row[3]: row[5] for row in rows}
    assert steps == {"10min (0.17 h)": "13000", "1h (1.00 h)": "13000", "10h (10.00 h)": "20000"}
    assert {row[2] for row in rows} == {"none", *(f"reinitialise the last {n}" for n in (1, 2, 3))}
    assert str(tmp_path / "dev-clean") in text


def test_the_page_and_the_help_name_options_that_there_are():
    for text in (PAGE.read_text(), (ROOT / "recipes" / NAME / "__main__.py").read_text()):
        command = re.search(rf"python -m recipes.{NAME} (--model.*?)\n\n?(?=```|Without)", text, re.DOTALL)[1]
        found = parsed(command.replace("\\\n", " ").split())
        assert found.subsets == ["10min", "1h", "10h"]
        assert found.steps == [13000, 13000, 20000]


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (["--seeds", "0"], "seeds is 0"),
        (["--top", "1,2"], "nothing to compare with"),
        (["--top", "0,9"], "9 top layers of 8"),
        (["--top", "0,1,1"], "twice"),
        (["--subsets", "5min,1h"], "cannot be taken of 0.60 h"),
        (["--subsets", "5 minutes"], "no amount of speech"),
        (["--steps", "10,20,30"], "3 numbers of steps for 2 subsets"),
        (["--steps", "0"], "steps is 0"),
        (["--open-at", "800"], "opened at step 800"),
        (["--mask", "1.5"], "mask of 1.5"),
        (["--rate", "0"], "learning_rate is 0"),
        (["--model", "./absent"], "no model in ./absent"),
        (["--model", "embedded:absent"], "no embedded model"),
        (["--train", "absent", "--dev", "absent", "--exam", "absent"], "--train: there is no absent"),
    ],
)
def test_options_that_make_no_sense(given, error):
    with pytest.raises(OtoscopeError, match=error):
        check(parsed(given))
    with pytest.raises(SystemExit, match=error):
        main([*given, "--dry-run"])


def test_trainings_are_named_and_found_again():
    cells = grid([0, 3], ["10min", "1h"], 2)
    assert [Cell.named(one.name) for one in cells] == cells
    assert [one.seed for one in cells] == [0, 0, 0, 0, 1, 1, 1, 1]
    for name in ("top3", "10min-0", "topx-10min-0", "top1-0"):
        with pytest.raises(TrainingError):
            Cell.named(name)


def test_the_top_layers_begin_anew_and_no_others():
    assert layers_of(MODEL) == 8
    assert layers_of("facebook/wav2vec2-base") is None
    before = load(MODEL)
    assert begun(MODEL, Cell(0, "1min", 0)).fingerprint() == before.fingerprint()
    after = begun(MODEL, Cell(2, "1min", 0))  # checks it
    assert begun(MODEL, Cell(2, "1min", 1)).fingerprint() != after.fingerprint()
    for top in (1, 3):
        with pytest.raises(TrainingError, match=r"and \[7, 8\] did"):
            check_begun(before, after, top)
    with pytest.raises(TrainingError, match="and none did"):
        check_begun(before, before, 1)


def test_n_is_read_off_the_plan():
    def plan(units):
        return Plan((Line(LearningRate("layer.1", 0.5)), Line(Reinitialise(units), rule=RULE)), "accuracy")

    assert chosen_top(plan("layer.11-12"), 12) == 2
    assert chosen_top(plan("layer.12"), 12) == 1
    assert chosen_top(Plan((), "accuracy"), 12) == 0


CURVE = [
    Row("cca-word", f"layer.{k}", k, value=value, low=value - 0.01, high=value + 0.01)
    for k, value in enumerate([0.4, 0.6, 0.8, 0.5], 1)
]
FOUND = Found(
    ["10min", "1h"], [0, 1, 2],
    {
        ("10min", 1, "greedy"): change([0.50, 0.54], [0.46, 0.46]),
        ("10min", 2, "greedy"): change([0.50, 0.54], [0.50, 0.50]),
        ("10min", 1, "4-gram"): change([0.40, 0.42], [0.38, 0.38]),
        ("1h", 1, "greedy"): change([0.30], [0.305]),
        ("1h", 2, "greedy"): change([0.30], [0.315]),
    },
    1, CURVE, ["reinitialise-top: said"], "python -m recipes.x", ["model: m"],
)  # fmt: skip


def test_rates_with_missing_runs():
    text = page_of(FOUND)
    assert "| 10min | 0 | 52.0 % (50.0, 54.0) | - | 41.0 % (40.0, 42.0) | - |" in text
    assert (
        "| 10min | 1 (by the diagnosis) | 46.0 % (46.0, 46.0) | -6.0 (-7.0 to -5.0) | 38.0 % (38.0, 38.0) | -3.0"
        in text
    )
    assert "| 10min | 2 | 50.0 % (50.0, 50.0) | -2.0 (-3.0 to -1.0) | - | - |" in text
    assert "| 1h | 0 | 30.0 % | - | - | - |" in text
    assert "| 4 | 0.500 | 0.490 to 0.510 | fallen |" in text
    assert "| 3 | 0.800 | 0.790 to 0.810 |  |" in text
    assert "**n = 1**" in text
    assert "- reinitialise-top: said" in text
    for lines in (block.splitlines() for block in text.split("\n\n") if block.startswith("|")):
        assert len({line.count("|") for line in lines}) == 1, lines[0]


def test_beside_the_source():
    assert gain(FOUND, "10min", "greedy") == pytest.approx(4.0)
    assert gain(FOUND, "1h", "greedy") == pytest.approx(-1.0)
    assert gain(FOUND, "1h", "4-gram") is None
    rows = [here for _, here in beside(FOUND)]
    assert rows[0] == "With 10min: n = 1 -6.0 (-7.0 to -5.0) (better); n = 2 -2.0 (-3.0 to -1.0) (better)"
    assert "n = 1 +0.5 (-0.5 to +1.5) (not told apart)" in rows[1]
    assert rows[2] == "mean gain over n +4.0 points with 10min, -1.0 with 1h: it does"
    assert rows[3].endswith("+4.0 points greedy, +3.0 with the 4-gram: the same sign")
    worse = {("10min", 1, "greedy"): change([0.3], [0.4]), ("1h", 1, "greedy"): change([0.3], [0.3])}
    turned = Found(**{**vars(FOUND), "changes": worse})
    assert beside(turned)[2][1].endswith("there is no gain that could shrink")
    unsure = {
        (subset, 1, decoder): change([0.3, 0.3], [0.2, 0.39])
        for subset in FOUND.subsets
        for decoder in ("greedy", "4-gram")
    }
    said = [here for _, here in beside(Found(**{**vars(FOUND), "changes": unsure}))]
    assert said[2].endswith("cannot be told, since no n is told apart from 0 with 10min")
    assert said[3].endswith("cannot be told, since no n is told apart from 0")


def test_nothing_measured_is_said():
    empty = Found(["10min", "1h"], [0, 1], {}, None, [], [], "x", [])
    assert {here for _, here in beside(empty)} == {
        "With 10min: nothing was measured", "With 1h: nothing was measured", "nothing was measured",
    }  # fmt: skip
    assert "The model was not diagnosed." in page_of(empty)


def test_the_page_has_a_place_for_the_tables(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE.read_text())
    put(page, NAME, page_of(FOUND))
    text = page.read_text()
    assert text.count(page_of(FOUND)) == text.count(mark(NAME)) == text.count(END) == 1
    assert text.partition(mark(NAME))[0] == PAGE.read_text().partition(mark(NAME))[0]


@pytest.mark.slow
@pytest.mark.espeak
def test_the_recipe_runs_in_small(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before {mark(NAME)} {END} after")
    command = [
        sys.executable, "-m", f"recipes.{NAME}", "--work", str(tmp_path / "work"), "--page", str(page), "--hours", "0.03",
        "--exam-seconds", "2", "--tune-seconds", "2",
        "--subsets", "20s,1min", "--steps", "4", "--batch-seconds", "10", "--top", "0,1", "--seeds",
        "2", "--workers", "1",
    ]  # fmt: skip
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    text = page.read_text()
    assert "**n = " in text
    rows = {tuple(row[:2]): row for row in cells(text.partition("### Error rates")[2].partition("###")[0])}
    assert len(rows) >= 4
    assert all("%" in row[2] and "%" in row[4] for row in rows.values())
    again = subprocess.run(command, check=True, cwd=ROOT, capture_output=True)  # all of it is there
    assert b"Diagnosis" not in again.stdout
    assert page.read_text() == text
