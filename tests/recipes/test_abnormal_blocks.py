"""The recipe of abnormal blocks: what it would run, which blocks it avoids, its controls, its tables, all of it in small."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from otoscope.diagnosis.result import Diagnosis, table_of
from otoscope.errors import EvaluationError, OtoscopeError, TrainingError
from otoscope.measures.measure import Row
from otoscope.training.architectures import Size
from recipes.abnormal_blocks.__main__ import NAME, _keep, check, main, parsed
from recipes.abnormal_blocks.choosing import Choice, choose
from recipes.abnormal_blocks.stages import Job
from recipes.abnormal_blocks.telling import Found, beside, effects, page_of
from recipes.abnormal_blocks.variants import (
    AVOIDING,
    AVOIDS,
    COMPARISONS,
    CUSTOM,
    MATCHED,
    ORIGINAL,
    RANDOM,
    VARIANTS,
    Design,
)
from recipes.trials.tables import END, mark, put
from tests.recipes.made_up import cells, change, librispeech

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "abnormal_blocks.md"
SMALL = Size(4, 2, 32, 64, (16,) * 7, 16)
DESIGN = Design(SMALL, "bypass", 8, 5)


def test_a_dry_run_lists_every_training(capsys):
    main(["--dry-run", "--seeds", "2"])
    text = capsys.readouterr().out
    rows = cells(text)
    assert len(rows) == 6 * 2 * 2
    assert len({row[0] for row in rows}) == len(rows)
    by = {row[0]: row for row in rows}
    assert by["custom-1-ssl"] == [
        "custom-1-ssl", "new wav2vec2", "limit-span layer.1-6 (radius 16); bypass of the abnormal blocks",
        "rendered train (1.00 h)", "1", "400", "1.33",
    ]  # fmt: skip
    assert by["custom-1-ctc"][1:3] == ["custom-1-ssl", "-"]
    assert by["random-0-ssl"][2] == "bypass of as many random other blocks"
    assert by["matched-0-ssl"][2] == "narrower feed-forwards"
    assert f"24 trainings, which hear at most {12 * (400 + 1600) * 12 / 3600:.1f} hours" in text
    assert "told by the diagnosis of the originals" in text


def test_blocks_that_are_named_stand_in_the_list(capsys):
    main(["--dry-run", "--seeds", "1", "--blocks", "2,5"])
    text = capsys.readouterr().out
    by = {row[0]: row[2] for row in cells(text)}
    assert by["avoiding-0-ssl"] == "bypass layer.2.attention; bypass layer.5.attention"
    assert not re.search(r"layer\.[25]\.", by["random-0-ssl"])
    assert "told by the diagnosis" not in text


def test_a_dry_run_at_the_scale_of_the_paper(capsys, monkeypatch, tmp_path):
    main([
        *librispeech(monkeypatch, tmp_path), "--layers", "12", "--heads", "12", "--width", "768", "--feed-forward", "3072",
        "--channels", "512", "--position-kernel", "128", "--steps", "100000", "--rate", "5e-4", "--mask", "0.65",
        "--mask-span", "10", "--finetuning-steps", "80000", "--finetuning-rate", "3e-5", "--batch-seconds", "200",
        "--accumulate", "8", "--precision", "bfloat16", "--seeds", "3", "--dry-run",
    ])  # fmt: skip
    rows = cells(capsys.readouterr().out)
    assert len(rows) == 6 * 3 * 2
    assert rows[0][3:] == [f"{tmp_path / 'train-clean-100'} (100.00 h)", "0", "100000", f"{1e5 * 1600 / 3600:.2f}"]
    assert rows[1][5] == "80000"


def test_the_page_and_the_help_name_options_that_there_are():
    for text in (PAGE.read_text(), (ROOT / "recipes" / NAME / "__main__.py").read_text()):
        command = re.search(rf"python -m recipes.{NAME} (--train.*?)\n\n?(?=```|Without)", text, re.DOTALL)[1]
        found = parsed(command.replace("\\\n", " ").split())
        assert (found.layers, found.width, found.steps, found.finetuning_steps) == (12, 768, 100000, 80000)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (["--seeds", "0"], "seeds is 0"),
        (["--layers", "0"], "sizes of one or more"),
        (["--layers", "2"], "no neighbours"),
        (["--width", "100"], "does not divide"),
        (["--span", "-1"], "--span is -1"),
        (["--blocks", "7"], "of 6 cannot be avoided"),
        (["--blocks", "2,2"], "cannot be avoided"),
        (["--blocks", "1,2,3,4"], "leave too few"),
        (["--blocks", "1", "--avoid", "neighbour"], "no map before it"),
        (["--steps", "0"], "steps is 0"),
        (["--finetuning-rate", "0"], "learning_rate is 0"),
        (["--hours", "0"], "hours is 0"),
        (["--train", ".", "--exam", ".."], "There is no --dev"),
    ],
)
def test_options_that_make_no_sense(given, error):
    with pytest.raises(OtoscopeError, match=error):
        check(parsed(given))
    with pytest.raises(SystemExit, match=error):
        main([*given, "--dry-run"])


def test_jobs_are_named_and_found_again():
    jobs = [Job(variant, seed) for variant in VARIANTS for seed in (0, 1)]
    assert [Job.named(one.name) for one in jobs] == jobs
    for name in ("other-0", "custom", "custom-x"):
        with pytest.raises(TrainingError):
            Job.named(name)


def test_every_comparison_is_between_variants_and_the_two_by_two_is_whole():
    pairs = [(before, after) for _, before, after in COMPARISONS]
    assert all(one in VARIANTS for pair in pairs for one in pair)
    assert {before.name + after.name for before, after in pairs[:5]} == {
        "originalavoiding", "originallimited", "originalcustom", "limitedcustom", "avoidingcustom",
    }  # fmt: skip


def test_the_variants_differ_in_what_they_are_to_differ_in():
    def told(variant, seed=0):
        return list(map(str, DESIGN.treatments(variant, [2], seed)))

    assert told(ORIGINAL) == told(MATCHED) == []
    assert told(AVOIDS) == ["bypass layer.2.attention"]
    assert told(CUSTOM) == ["limit-span layer.1-4 (radius 8)", "bypass layer.2.attention"]
    drawn = {DESIGN.avoided(RANDOM, [2], seed)[0] for seed in range(30)}
    assert drawn == {1, 3, 4}
    assert DESIGN.avoided(RANDOM, [2], 7) == DESIGN.avoided(RANDOM, [2], 7)
    with pytest.raises(TrainingError, match="1 blocks are left"):
        DESIGN.avoided(RANDOM, [1, 2, 3], 0)
    assert RANDOM not in DESIGN.variants([1, 2, 3])


@pytest.mark.parametrize("avoid", AVOIDING)
def test_a_new_model_can_be_made_of_every_variant(avoid):
    design = replace(DESIGN, avoid=avoid)
    parameters = {one.name: design.parameters(one, [2]) for one in design.variants([2])}
    assert parameters["avoiding"] == parameters["custom"] == parameters["random"]
    assert parameters["limited"] == parameters["original"]
    unit = SMALL.layers * (2 * SMALL.width + 1)  # one more or less in every feed-forward
    assert ("matched" in parameters) == (abs(parameters["avoiding"] - parameters["original"]) > unit / 2)
    assert abs(parameters.get("matched", parameters["original"]) - parameters["avoiding"]) <= unit / 2


def test_feed_forwards_cannot_be_narrower_than_nothing():
    design = replace(DESIGN, size=replace(SMALL, feed_forward=16), avoid="remove")
    with pytest.raises(TrainingError, match="so narrow"):
        design.size_of(MATCHED, [1, 2])


def diagnosis(labels, deviations) -> Diagnosis:
    rows = []
    for block, (label, deviation) in enumerate(zip(labels, deviations, strict=True), start=1):
        why = "rank-one" if label == "abnormal" else None
        rows.append(Row("abnormality", f"layer.{block}", block, target=why, value=0.01, label=label))
        rows.append(Row("neighbour-deviation", f"layer.{block}", block, value=deviation))
    return Diagnosis(table_of(rows), {}, {})


N, A = "normal", "abnormal"


def test_blocks_are_avoided_that_are_abnormal_in_most_originals():
    found = choose([diagnosis([N, A, A], [0.1, 0.2, 0.3]), diagnosis([N, N, A], [0.1, 0.4, 0.3])])
    assert (found.blocks, found.why) == ((3,), "abnormal")
    assert found.found[2] == (1, (0.2, 0.4), ("rank-one",))
    three = [diagnosis([N, A, A], [0.1] * 3), diagnosis([A, A, N], [0.1] * 3), diagnosis([N, A, A], [0.1] * 3)]
    assert choose(three).blocks == (2,)  # of 3 and it, which are abnormal in most: no more than half are avoided
    assert choose(three).abnormal == [2, 3]
    four = [diagnosis([N, A, N, A], [0.1] * 4)]
    assert choose(four).blocks == (2, 4)


def test_where_all_are_abnormal_half_of_them_are_avoided():
    found = choose([diagnosis([A] * 5, [None, 0.2, 0.1, 0.3, None])])
    assert (found.blocks, found.abnormal) == ((2, 4), [1, 2, 3, 4, 5])
    assert found.found[1][1] == (None,)
    text = page_of(replace(FOUND, choice=found))
    assert "Abnormal are 5 of 5 blocks; no more than half of all are avoided" in text
    assert "| 1 | - | 1 of 1 | rank-one |" in text


def test_where_none_is_the_most_deviating_one_stands_in():
    found = choose([diagnosis([N, N, N], [0.1, 0.2, 0.3]), diagnosis([N, A, N], [0.1, 0.6, 0.3])])
    assert (found.blocks, found.why) == ((2,), "stand-in")
    assert choose([diagnosis([N, N], [0.1, 0.2])], [1]) == Choice(
        (1,), "named", {1: (0, (0.1,), ()), 2: (0, (0.2,), ())}, 1
    )
    with pytest.raises(EvaluationError, match="too little speech"):
        choose([diagnosis([], [])])


def test_a_choice_is_stored_and_models_of_another_are_refused(tmp_path):
    found = Choice((3,), "abnormal", {1: (0, (0.1, 0.2), ()), 3: (2, (0.3, 0.4), ("why",))}, 2)
    _keep(found, tmp_path / "choice.json")
    assert Choice.load(tmp_path / "choice.json") == found
    _keep(found, tmp_path / "choice.json")
    with pytest.raises(TrainingError, match=r"avoid the blocks \[3\], and now \[1\]"):
        _keep(replace(found, blocks=(1,)), tmp_path / "choice.json")


CHOICE = Choice((2,), "abnormal", {1: (0, (0.01, 0.02), ()), 2: (2, (0.3, 0.4), ("rank-one", "edge-sink"))}, 2)
FOUND = Found(
    CHOICE, {"original": "none", "avoiding": "bypass layer.2.attention"},
    {
        ("original", "avoiding", "greedy"): change([0.40, 0.42], [0.35, 0.37]),
        ("original", "limited", "greedy"): change([0.40, 0.42], [0.39, 0.41]),
        ("original", "custom", "greedy"): change([0.40, 0.42], [0.33, 0.35]),
        ("limited", "custom", "greedy"): change([0.39, 0.41], [0.33, 0.35]),
        ("avoiding", "custom", "greedy"): change([0.35, 0.37], [0.33, 0.35]),
        ("random", "avoiding", "greedy"): change([0.36], [0.35]),
        ("original", "custom", "4-gram"): change([0.20], [0.195]),
    },
    {"original": 1000000, "avoiding": 900000}, {2: "dispensable"}, "python -m recipes.x", ["model: m"],
)  # fmt: skip


def test_the_two_by_two():
    told = effects(FOUND, "greedy")
    assert told["avoiding"] == pytest.approx((-5 - 6) / 2)
    assert told["limiting"] == pytest.approx((-1 - 2) / 2)
    assert told["interaction"] == pytest.approx(-6 - -5)
    assert effects(FOUND, "4-gram") is None


def test_tables_with_missing_runs():
    text = page_of(FOUND)
    assert "Abnormal in more than half of 2 originals, and avoided: 2." in text
    assert "| 2 | 0.300, 0.400 | 2 of 2 | rank-one; edge-sink | dispensable | avoided |" in text
    assert "| 1 | 0.010, 0.020 | 0 of 2 | - | - |  |" in text
    assert "| original | none | 1,000,000 | 41.0 % (40.0, 42.0) | 20.0 % |" in text
    assert "| avoiding | bypass layer.2.attention | 900,000 | 36.0 % (35.0, 37.0) | - |" in text
    assert "| matched | - | - | - | - |" in text
    assert (
        "| both: the custom model | original -> custom | -7.0 (-8.0 to -6.0), better | -0.5 (-1.5 to +0.5), not" in text
    )
    assert "| control: as few parameters, all blocks | original -> matched | - | - |" in text
    assert "- WER, greedy: avoiding blocks -5.5 points, limiting spans -1.5" in text
    assert "- 4-gram" not in text
    for lines in (block.splitlines() for block in text.split("\n\n") if block.startswith("|")):
        assert len({line.count("|") for line in lines}) == 1, lines[0]


def test_beside_the_source():
    rows = beside(FOUND)
    assert "Viterbi: -4.8 points" in rows[0][0]
    assert "4-gram: -0.9 points" in rows[1][0]
    assert [here for _, here in rows[:2]] == ["-7.0 (-8.0 to -6.0), better", "-0.5 (-1.5 to +0.5), not told apart"]
    assert "the larger part, as stated; rather than random blocks -1.0 (-2.0 to" in rows[2][1]
    assert rows[3][1] == "block 2 dispensable (fine-tuned original)"
    turned = {key: change(one.runs[1], one.runs[0]) for key, one in FOUND.changes.items()}
    assert beside(replace(FOUND, changes=turned))[2][1].endswith("avoiding brings nothing")
    swapped = {
        **FOUND.changes,
        ("original", "limited", "greedy"): change([0.4], [0.2]), ("avoiding", "custom", "greedy"): change([0.4], [0.2]),
    }  # fmt: skip
    assert "the smaller part" in beside(replace(FOUND, changes=swapped))[2][1]


def test_a_stand_in_is_named_as_one():
    found = replace(FOUND, choice=replace(CHOICE, why="stand-in"))
    assert "**No block is abnormal**" in page_of(found)
    assert "says nothing of abnormal blocks" in page_of(found)
    assert "avoiding this block" in beside(found)[2][1]
    assert "named by hand" in page_of(replace(FOUND, choice=replace(CHOICE, why="named")))


def test_nothing_measured_is_said():
    empty = Found(CHOICE, {}, {}, {}, {}, "x")
    assert {here for _, here in beside(empty)} == {"nothing was measured"}
    assert "nothing was measured" in page_of(empty)


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
        "--layers", "4", "--heads", "2", "--width", "32", "--feed-forward", "64", "--channels",
        "16", "--steps", "2", "--finetuning-steps", "2", "--batch-seconds", "10", "--seeds", "1", "--workers", "1",
    ]  # fmt: skip
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    text = page.read_text()
    rows = {row[0]: row for row in cells(text.partition("### Error rates")[2].partition("###")[0])}
    assert set(rows) == {one.name for one in VARIANTS}
    assert all("%" in row[3] and "%" in row[4] for row in rows.values())
    first, second = (int(rows[name][2].replace(",", "")) for name in ("avoiding", "matched"))
    assert abs(first - second) <= 4 * 65 / 2
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)  # all of it is there
    assert page.read_text() == text
