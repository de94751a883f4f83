"""The recipe of federated dropout: what it would run, its sizes, what it aims at, its claims and tables, all in small."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from otoscope.errors import FederationError, OtoscopeError, TrainingError, VocabularyError
from otoscope.evaluation.decoding import best_path
from otoscope.federation.channels import Group
from otoscope.federation.evidence import Evidence
from otoscope.federation.schedules import size
from otoscope.models.recogniser import Recogniser
from otoscope.models.vocabulary import Vocabulary
from otoscope.speech.corpus import Corpus
from recipes.federated.__main__ import NAME, check, main, parsed
from recipes.federated.aims import AIMED, SCHEDULES, Aim, Choice, choose
from recipes.federated.comparing import PAIRS, SAME_BYTES, VARIANTS, Ensemble, Spent, folders, held_against, spent
from recipes.federated.models import Size, elements, fresh, members_of, normed, smaller
from recipes.federated.speech import parted, speakers_of
from recipes.federated.stages import Job, central_jobs, federated_jobs
from recipes.federated.telling import CLAIMS, LENGTHS, Claim, Found, claims, page_of, summary
from recipes.trials.runs import chosen
from recipes.trials.tables import END, mark, put
from tests.recipes.made_up import cells, change

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "federated.md"
LETTERS = Vocabulary(("<pad>", "|", "a", "b", "c"), 0)
TINY = Size(2, 16, 2, 12)
LARGER = Size(2, 32, 2, 64)
# Four layers of an attention of four heads and a feed-forward of ten rows: 100 elements each, beside 40 elsewhere.
GROUPS = {
    f"layer.{layer}.{branch}": Group(f"layer.{layer}.{branch}", layer, kind, count, (), elements)
    for layer in (1, 2, 3, 4)
    for branch, kind, count, elements in (("attention", "heads", 4, 40), ("feed_forward", "rows", 10, 60))
}
ELSEWHERE = 40
LEAST = 16  # elements of a layer of which one head and one row are left


def evidence(importance=(0.4, 0.1, 0.02, 0.7), labels=("intermediate", "intermediate", "ambient", "critical")):
    named = [f"layer.{k}" for k in range(1, 5)]
    told = {name: value for name, value in zip(named, importance, strict=True) if value is not None}
    return Evidence(dict(zip(named, labels, strict=True)), told, 4, "re-initialise", "ctc-loss")


def test_a_dry_run_lists_every_training(capsys):
    main(["--dry-run"])
    text = capsys.readouterr().out
    by = {row[0]: row for row in cells(text)}
    assert len(by) == 2 * (3 + 7)
    assert by["server-1"][1:2] + by["server-1"][3:6] == ["new", "1", "1000", f"{1000 * 32 / 3600:.2f}"]
    assert by["ambient-1"][1] == "server-1"
    assert by["small2-1"][1] == "dense2-1"
    assert by["full-0"][4:6] == ["16 x 16 x 4", f"{16 * 16 * 4 * 8 / 3600:.2f}"]
    held = {name: int(row[2].replace(",", "")) for name, row in by.items()}
    assert held["full-0"] == held["server-0"]
    assert held["uniform-0"] == held["critical-0"] == int(0.6 * held["server-0"])
    assert 0 <= held["uniform-0"] - held["small1-0"] < 3000
    assert f"20 trainings, about {sum(int(row[6]) for row in by.values()) / 60:.0f} minutes" in text
    assert "2 in an ensemble" in text


def test_a_dry_run_counts_steps_and_seeds_that_are_asked_for(capsys):
    main(["--dry-run", "--seeds", "1", "--rounds", "3", "--cohort", "4", "--client-steps", "5", "--client-size", "0.4"])
    by = {row[0]: row for row in cells(capsys.readouterr().out)}
    assert len(by) == 4 + 5 + 3  # three small models reach the size of the whole
    assert by["small3-0"][4] == "3 x 4 x 5"
    main(["--dry-run", "--cohort", "0"])
    assert "known once the speech is read" in capsys.readouterr().out


def test_the_page_and_the_help_name_options_that_there_are():
    for text in (PAGE.read_text(), (ROOT / "recipes" / NAME / "__main__.py").read_text()):
        command = re.search(rf"python -m recipes.{NAME} (--train.*?)\n\n?(?=```|Without)", text, re.DOTALL)[1]
        found = parsed(command.replace("\\\n", " ").split())
        assert (found.layers, found.width, found.steps, found.rounds, found.cohort) == (16, 256, 30000, 200, 32)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (["--seeds", "0"], "seeds is 0"),
        (["--client-size", "1"], "client-size is 1"),
        (["--client-size", "0"], "client-size is 0"),
        (["--client-size", "0.001"], "is as small as 0.1%"),
        (["--width", "60"], "does not divide"),
        (["--layers", "0"], "sizes of one or more"),
        (["--steps", "0"], "steps is 0"),
        (["--rounds", "0"], "rounds is 0"),
        (["--server", "fedavgg"], "no server 'fedavgg'"),
        (["--client-rate", "0"], "learning_rate of the clients is 0"),
        (["--exam-seconds", "0"], "exam_seconds is 0"),
        (["--shorter-than", "-1"], "shorter_than is -1"),
        (["--voices", "1"], "--voices is 1"),
        (["--voices", "10000"], "--voices is 10000"),
        (["--diagnosis-seconds", "0"], "diagnosis-seconds is 0"),
        (["--train", "."], "There is no --dev"),
        (["--train", "absent", "--dev", ".", "--exam", "."], "--train: there is no absent"),
    ],
)
def test_options_that_make_no_sense(given, error):
    with pytest.raises(OtoscopeError, match=error):
        check(parsed(given))
    with pytest.raises(SystemExit, match=error):
        main([*given, "--dry-run"])


def test_jobs_are_apart_and_begin_with_one_that_there_is():
    central, federated = central_jobs(2, 3), federated_jobs(2, 3)
    names = [one.name for one in (*central, *federated)]
    assert len(set(names)) == len(names) == 2 * (4 + 5 + 3)
    assert {one.begins_with for one in federated} == set(central)
    assert all(one.central for one in central)
    assert not any(one.central for one in federated)
    dense = [one.own_seed for one in central if one.kind == "dense"]
    assert len(set(dense)) == 6
    assert central[0].own_seed == Job("small", 0, 1).own_seed == Job("ambient", 0).own_seed == 0
    with pytest.raises(TrainingError, match="no training 'other-0'"):
        chosen(names, "other-0")


@pytest.mark.parametrize("share", [0.45, 0.6, 0.9])
def test_a_small_dense_model_is_as_large_as_a_client(share):
    found = smaller(LARGER, share, LETTERS)
    wanted = int(share * elements(LARGER, LETTERS))
    larger = replace(found, feed_forward=found.feed_forward + 1)
    assert elements(found, LETTERS) <= wanted < elements(larger, LETTERS)
    assert (found.layers, found.heads) == (LARGER.layers, LARGER.heads)
    assert members_of(share) * share >= 1 > (members_of(share) - 1) * share


def test_ambient_layers_are_enough():
    asked = 440 - 60
    found = choose(GROUPS, evidence(), asked, ELSEWHERE, 0)
    assert tuple(found.aims) == SCHEDULES
    ambient, critical = (found.aims[name] for name in AIMED)
    assert (ambient.layers, ambient.called, ambient.added, ambient.stands_in) == ((3,), (3,), (), ())
    assert (critical.layers, critical.called) == ((4,), (4,))
    assert {GROUPS[name].layer for name, rate in ambient.rates.items() if rate < 1} == {3}
    assert len(found.aims["random"].layers) == 1
    assert found.aims["full"].share == 1
    for name in SCHEDULES[1:]:
        held = size(GROUPS, found.aims[name].rates, ELSEWHERE)
        assert asked - 10 < held <= asked  # a head is the largest unit
        assert found.aims[name].share == held / 440


@pytest.mark.parametrize(
    ("layers", "ambient", "critical"),
    [(2, (2, 3), (1, 4)), (3, (1, 2, 3), (1, 2, 4)), (4, (1, 2, 3, 4), (1, 2, 3, 4))],
)
def test_layers_are_added_until_a_client_is_small_enough(layers, ambient, critical):
    asked = ELSEWHERE + 400 - layers * (100 - LEAST)
    found = choose(GROUPS, evidence(), asked, ELSEWHERE, 0)
    for name, wanted in zip(AIMED, (ambient, critical), strict=True):
        aim = found.aims[name]
        assert aim.layers == wanted
        assert set(aim.added) == set(wanted) - set(aim.called)
        assert size(GROUPS, aim.rates, ELSEWHERE) == asked
    assert len(found.aims["random"].layers) == layers
    with pytest.raises(FederationError, match="smaller than this schedule"):
        choose(GROUPS, evidence(), ELSEWHERE + 4 * LEAST - 1, ELSEWHERE, 0)


def test_where_no_layer_is_ambient_the_least_important_stands_in():
    found = choose(GROUPS, evidence(labels=("intermediate",) * 4), 300, ELSEWHERE, 0)
    ambient, critical = (found.aims[name] for name in AIMED)
    assert (ambient.layers, ambient.called, ambient.stands_in, ambient.added) == ((2, 3), (), (3,), (2,))
    assert (critical.layers, critical.called, critical.stands_in, critical.added) == ((1, 4), (), (4,), (1,))


def test_random_layers_follow_from_the_seed():
    drawn = {choose(GROUPS, evidence(), 380, ELSEWHERE, seed).aims["random"].layers for seed in range(20)}
    assert drawn == {(1,), (2,), (3,), (4,)}


def test_importance_that_is_not_told_is_refused():
    with pytest.raises(TrainingError, match=r"how much layer\.2 matters"):
        choose(GROUPS, evidence(importance=(0.4, None, 0.02, 0.7)), 380, ELSEWHERE, 0)


def test_a_choice_is_kept(tmp_path):
    found = choose(GROUPS, evidence(), 300, ELSEWHERE, 0)
    found.save(tmp_path / "choice.json")
    assert Choice.load(tmp_path / "choice.json") == found
    with pytest.raises(TrainingError, match=r"no other\.json"):
        Choice.load(tmp_path / "other.json")


def test_short_and_long_utterances_are_apart():
    def of(lengths, name):
        arrays = [np.zeros(int(16000 * one), np.float32) for one in lengths]
        count = len(arrays)
        return Corpus.from_arrays(arrays, speakers=["s"] * count, ids=[f"{name}{k}" for k in range(count)], name=name)

    train, exam = of((1.0, 2.0, 3.0, 4.0), "train"), of((1.0, 5.0), "exam")
    found = parted(train, train, exam, None)
    assert found.shorter_than == 2.5
    assert [one.seconds for one in found.short] == [1.0, 2.0]
    assert [one.seconds for one in found.long] == [3.0, 4.0]
    assert {name: [one.seconds for one in there] for name, there in found.exam.items()} == {
        "short": [1.0],
        "long": [5.0],
    }
    assert len(parted(train, train, exam, 1.5).short) == 1
    with pytest.raises(TrainingError, match="No utterance"):
        parted(train, train, exam, 9.0)


def test_voices_are_apart():
    splits = {split: {one.name for one in speakers_of(split)} for split in ("train", "dev", "exam")}
    assert len(splits["train"]) >= 16
    assert len(splits["exam"]) == 14
    assert not splits["train"] & splits["exam"]
    assert not splits["dev"] & (splits["train"] | splits["exam"])
    assert len({one.name for one in speakers_of("train", 6)}) == 6


def small_recogniser(seed: int, vocabulary: Vocabulary = LETTERS) -> Recogniser:
    return Recogniser(normed(fresh(TINY, vocabulary, seed)), vocabulary)


def _heard(*tokens: int) -> torch.Tensor:
    """Log probabilities of one token a frame, nine in ten sure."""
    rows = torch.full((len(tokens), len(LETTERS.tokens)), 0.1 / (len(LETTERS.tokens) - 1))
    rows[range(len(tokens)), list(tokens)] = 0.9
    return rows.log()


def test_an_ensemble_takes_the_hypothesis_that_all_find_the_least_improbable(monkeypatch):
    members = [small_recogniser(seed) for seed in range(3)]
    early, late, other = _heard(2, 3, 0, 0, 0, 0), _heard(0, 0, 0, 0, 2, 3), _heard(2, 2, 2, 2, 2, 4)
    for one, rows in zip(members, (other, early, late), strict=True):
        monkeypatch.setattr(one, "log_probabilities", lambda samples, names=None, rows=rows: [rows] * len(samples))
    found = Ensemble(members).log_probabilities([np.zeros(16000, np.float32)] * 2)
    assert [best_path(one, 0) for one in found] == [[2, 3]] * 2  # of which no frame's average is sure
    assert best_path(torch.stack([early, late, other]).mean(0), 0) != [2, 3]


def test_an_ensemble_of_the_same_is_one_of_them():
    one, other = small_recogniser(0), small_recogniser(1)
    sound = [np.sin(np.arange(16000, dtype=np.float32) * pitch) for pitch in (0.05, 0.11)]
    for twice, once in zip(Ensemble([one, one]).log_probabilities(sound), one.log_probabilities(sound), strict=True):
        torch.testing.assert_close(twice, once)
    assert Ensemble([one, other]).parameters == 2 * one.parameters
    with pytest.raises(VocabularyError, match="different tokens"):
        Ensemble([one, small_recogniser(0, replace(LETTERS, tokens=("<pad>", "|", "a", "b", "d")))])


def test_what_is_not_there_is_left_out(tmp_path):
    assert folders("ensemble", 1, 2, tmp_path) == (tmp_path / "small1-1", tmp_path / "small2-1")
    assert folders("dense", 1, 2, tmp_path) == (tmp_path / "dense1-1",)
    assert folders("ambient", 1, 2, tmp_path) == (tmp_path / "ambient-1",)
    sides = [[folders(one, 0, 2, tmp_path)] for one in ("server", "full")]
    assert held_against(*sides, Corpus("none", ()), tmp_path / "x") is None
    assert spent("full", folders("full", 0, 2, tmp_path), 10) is None


def test_every_claim_is_decided_by_what_is_measured():
    assert {pair for one in CLAIMS for pair in one.pairs} <= set(PAIRS)
    assert all(one in VARIANTS for pair in PAIRS for one in pair)
    assert {("server", one) for one in VARIANTS[1:]} <= set(PAIRS)
    assert {("uniform", one) for one in VARIANTS if one not in ("server", "uniform")} <= set(PAIRS)
    assert set(SAME_BYTES) < set(VARIANTS)


def test_intervals_decide():
    better, worse, close = change([0.4], [0.3]), change([0.3], [0.4]), change([0.3], [0.305])
    claim = Claim("x", "y", (("a", "b"), ("a", "c")))
    assert claim.decided([better, better]) == "pass"
    assert claim.decided([better, close]) == "undecided"
    assert claim.decided([better, worse]) == claim.decided([close, worse]) == "fail"
    assert claim.decided([better, None]) == "nothing was measured"
    margin = Claim("x", "y", (("a", "b"),), 0.01)
    assert margin.decided([change([0.3], [0.3], 0.005)]) == margin.decided([better]) == "pass"
    assert margin.decided([close]) == "undecided"
    assert margin.decided([worse]) == "fail"


CHOICE = choose(GROUPS, evidence(), 300, ELSEWHERE, 0)
STOOD_IN = choose(GROUPS, evidence(labels=("intermediate",) * 4), 300, ELSEWHERE, 1)
COST = Spent(20, 498228, 0.6, 2**20, 2**19, 3 * 2**20, 0, 830380, 2_000_000)
FOUND = Found(
    0.6, 2, {0: CHOICE, 1: STOOD_IN},
    {
        ("short", "server", "full", "greedy"): change([0.40, 0.42], [0.30, 0.32]),
        ("short", "server", "uniform", "greedy"): change([0.40, 0.42], [0.33, 0.35]),
        ("short", "uniform", "full", "greedy"): change([0.33, 0.35], [0.30, 0.32]),
        ("short", "uniform", "ambient", "greedy"): change([0.33, 0.35], [0.31, 0.33]),
        ("short", "random", "ambient", "greedy"): change([0.32, 0.33], [0.31, 0.33]),
        ("short", "uniform", "ambient", "characters"): change([0.10, 0.12], [0.09, 0.11]),
        ("short", "uniform", "ensemble", "greedy"): change([0.33], [0.28]),
        ("long", "server", "full", "greedy"): change([0.10], [0.12]),
    },
    {
        "server": replace(COST, rounds=0), "full": replace(COST, elements=830380, share=1.0),
        "ensemble": replace(COST, elements=996456, share=1.2, parameters=994424, macs=3_000_000, memory=None),
    },
    "python -m recipes.federated", ["model: m"],
)  # fmt: skip


def section(text: str, title: str) -> str:
    return text.partition(f"### {title}")[2].partition("###")[0]


def test_tables_with_missing_runs():
    text = page_of(FOUND)
    rows = {row[0]: row for row in cells(section(text, "Error rates").partition("Of long")[0])}
    assert tuple(rows) == VARIANTS
    assert rows["server"][1:4] == ["41.0 % (40.0, 42.0)", "-", "-"]
    assert rows["ambient"][1:] == [
        "32.0 % (31.0, 33.0)", "-", "-2.0 (-3.0 to -1.0)", "10.0 % (9.0, 11.0)", "-", "-1.0 (-2.0 to +0.0)",
    ]  # fmt: skip
    assert rows["critical"][1:] == ["-"] * 6
    long = {row[0]: row for row in cells(section(text, "Error rates").partition("Of long")[2])}
    assert long["full"][1:4] == ["12.0 %", "+2.0 (+1.0 to +3.0)", "-"]
    costs = {row[0]: row for row in cells(section(text, "What it costs"))}
    assert costs["full"][1:] == ["20", "830,380", "100.0%", "1.00 and 0.50", "3.0", "0", "830,380", "2.0"]
    assert costs["server"][1:7] == ["-"] * 6
    assert costs["ensemble"][5] == "-"
    assert costs["small"][1:] == ["-"] * 8
    assert "it takes 1.50 times the operations" in text
    assert "1.2 of the model's bytes" in text
    for lines in (block.splitlines() for block in text.split("\n\n") if block.startswith("|")):
        table = [line for line in lines if line.startswith("|")]
        assert len({line.count("|") for line in table}) == 1, table[0]


def test_the_layers_are_told_as_they_are():
    text = section(page_of(FOUND), "Which layers")
    assert "| 3 | 0.020, ambient | 0.020, intermediate |" in text
    assert "- seed 0, ambient: layers 2, 3; 3 called ambient; 2 added, since" in text
    assert "- seed 1, ambient: layers 2, 3; 3 in their place; 2 added, since" in text
    assert "**No layer is ambient** by the diagnosis of seed 1: the least important ones stand in" in text
    assert "**No layer is critical** by the diagnosis of seed 1: the most" in text
    assert "are aimed at by ambient and by critical" not in text
    both = choose(GROUPS, evidence(), ELSEWHERE + 400 - 3 * (100 - LEAST), ELSEWHERE, 0)
    assert "seed 0: layers 1, 2 are aimed at by ambient and by critical" in page_of(replace(FOUND, choices={0: both}))
    assert "by another name" not in text
    everywhere = choose(GROUPS, evidence(), ELSEWHERE + 4 * LEAST, ELSEWHERE, 0)
    assert "**Seed 0: ambient reaches all layers, and is uniform" in page_of(replace(FOUND, choices={0: everywhere}))
    assert "No server's model was diagnosed." in page_of(replace(FOUND, choices={}))


def test_what_became_of_the_claims():
    by = {row[0]: row for row in claims(FOUND)}
    ends = [row[3] for row in claims(FOUND)]
    assert ends.count("nothing was measured") == len(CLAIMS) - 4  # the control lacks all of its models
    assert by[CLAIMS[0].words][2:] == ["uniform -> ambient -2.0 (-3.0 to -1.0)", "pass"]
    assert by[CLAIMS[1].words][3] == "undecided"
    assert by["an ensemble of small models is better than uniform dropout"][3] == "pass"
    assert summary(FOUND).endswith("**The idea does not win here.**")
    assert summary(FOUND).startswith("Dropout aimed at the least important layers, which stand in")


def test_the_page_tells_whether_the_idea_wins():
    def with_claims(*pairs):
        changes = {("short", *one.pairs[0], "greedy"): change(*pair) for one, pair in zip(CLAIMS, pairs, strict=False)}
        return summary(replace(FOUND, changes=changes, choices={0: CHOICE}))

    won = with_claims(([0.4], [0.3]), ([0.4], [0.3]))
    assert won == (
        "Dropout aimed at ambient layers is better than uniform dropout and is better than dropout of random layers at the "
        "same bytes."
    )
    lost = with_claims(([0.3], [0.4]), ([0.4], [0.3]))
    assert "is worse than uniform dropout and is better than" in lost
    assert "does not win" in lost
    assert "not measured" in with_claims()


def test_nothing_measured_is_said():
    text = page_of(Found(0.6, 2, {}, {}, {}, "x"))
    assert {row[3] for row in cells(section(text, "What was claimed, and what happened"))} == {"nothing was measured"}
    assert all(f"Of {length} utterances." in text for length in LENGTHS)


def test_the_page_has_a_place_for_the_tables(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE.read_text())
    put(page, NAME, page_of(FOUND))
    text = page.read_text()
    assert text.count(page_of(FOUND)) == text.count(mark(NAME)) == text.count(END) == 1
    assert text.partition(mark(NAME))[0] == PAGE.read_text().partition(mark(NAME))[0]


def test_an_aim_tells_who_stands_in():
    assert Aim((1, 2, 3), (1,), (3,), {}, 0.5).stands_in == (2,)


@pytest.mark.slow
@pytest.mark.espeak
def test_the_recipe_runs_in_small(tmp_path):
    page, work = tmp_path / "page.md", tmp_path / "work"
    page.write_text(f"before {mark(NAME)} {END} after")
    command = [
        sys.executable, "-m", f"recipes.{NAME}", "--work", str(work), "--page", str(page), "--train-seconds", "6",
        "--dev-seconds", "4", "--exam-seconds", "4", "--voices", "4", "--layers", "3", "--width", "16", "--heads", "2",
        "--feed-forward", "32", "--steps", "40", "--batch-seconds", "10", "--seeds", "1", "--rounds", "2", "--cohort", "2",
        "--client-steps", "1", "--workers", "1",
    ]  # fmt: skip
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    text = page.read_text()
    rates = cells(section(text, "Error rates").partition("Of long")[0])
    assert [row[0] for row in rates] == list(VARIANTS)
    assert all("%" in row[1] and "%" in row[4] for row in rates)
    costs = {row[0]: row for row in cells(section(text, "What it costs"))}
    held = {name: int(costs[name][2].replace(",", "")) for name in SAME_BYTES}
    asked = 0.6 * int(costs["full"][2].replace(",", ""))
    assert all(0.9 * asked < one <= asked for one in held.values())
    assert "nothing was measured" not in text
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)  # all of it is there
    assert page.read_text() == text
