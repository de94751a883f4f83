"""The recipe of refined attention: what it lists and refuses, its figures by hand, and in small from beginning to end."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from otoscope.errors import EvaluationError, OtoscopeError, ResultError, TrainingError
from otoscope.evaluation.scores import Scores
from otoscope.interventions.orders import random_orders
from otoscope.interventions.signs import FAIL, PASS, UNDECIDED
from otoscope.models.recogniser import Recogniser, load_recogniser
from otoscope.surgery import apply
from otoscope.workflow.corpora import read_corpus
from otoscope.workflow.treating import treat
from recipes.attention_refinement.__main__ import ROOT, main
from recipes.attention_refinement.comparing import at, change, signs, steps_of, trained_change
from recipes.attention_refinement.design import WHOLE, Design, Point, Run, removed
from recipes.attention_refinement.speech import Source, hours_trained
from recipes.attention_refinement.stages import Found, Refinement, gathered, listed
from recipes.attention_refinement.telling import tables, tell
from recipes.trials.tables import END, mark

PAGE = ROOT / "docs" / "attention_refinement.md"


def libri(folder: Path, utterances) -> Path:
    """Utterances as LibriSpeech lays them out."""
    speakers = sorted({one.speaker for one in utterances})
    for number, speaker in enumerate(speakers, start=1):
        name = f"{number + 10 * (sum(map(ord, folder.name)) % 90 + 10)}"
        place = folder / name / "1"
        place.mkdir(parents=True)
        lines = []
        for k, one in enumerate(one for one in utterances if one.speaker == speaker):
            soundfile.write(place / f"{name}-1-{k:04}.flac", one.read(), 16000)
            lines.append(f"{name}-1-{k:04} {one.transcript.upper()}\n")
        (place / f"{name}-1.trans.txt").write_text("".join(lines))
    return folder


def few(corpus, speakers: slice, each: int):
    """The shortest utterances of some speakers."""
    chosen = sorted(corpus.speakers)[speakers]
    return [
        one
        for speaker in chosen
        for one in sorted((u for u in corpus if u.speaker == speaker), key=lambda u: u.n_samples)[:each]
    ]


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """Small corpora as LibriSpeech has them."""
    root = tmp_path_factory.mktemp("LibriSpeech")
    train, exam = read_corpus("embedded:train"), read_corpus("embedded")
    return {
        "train": str(libri(root / "train-clean-100", few(train, slice(0, 4), 4))),
        "dev": str(libri(root / "dev-clean", few(train, slice(4, 8), 2))),
        "exam": str(libri(root / "test-clean", few(exam, slice(0, 3), 3))),
    }


def options(paths) -> list[str]:
    return [part for name, path in paths.items() for part in (f"--{name}", path)]


def test_points_have_names():
    assert Point.named(" globalness:3") == Point("globalness", 3)
    assert [Point.named(name).name for name in ("banded:15", "random-0:1")] == ["banded:15", "random-0:1"]
    assert [Point.named(name).span for name in ("banded:15", "literal:0", "globalness:1")] == [True, True, False]
    for name in ("globalness", "globalness:", "banded:-1", "banded:1.5", ""):
        with pytest.raises(EvaluationError, match="is no point"):
            Point.named(name)


def test_what_is_looked_at():
    design = Design(steps=6, random=2, radii=(50, 1), points=())
    assert len(design.orders) == 3 + 2 + 1 + 2
    assert len(design.curves) == 8 * 6 + 2 * 2
    assert [removed(step, 6, 32) for step in range(7)] == [0, 5, 11, 16, 21, 27, 32]
    names = [run.name for run in replace(design, points=("globalness:3", "banded:50"), seeds=2).runs]
    assert names == [f"{of}-seed-{k}" for of in (WHOLE, "globalness-3", "banded-50") for k in (0, 1)]
    assert {Point("globalness", k) for k in range(1, 7)} | {Point("banded", 50)} <= set(design.costed)
    assert Point("literal", 50) not in design.costed


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"steps": 1}, "steps is 1"), ({"seeds": 0}, "seeds is 0"), ({"repeats": 5}, "repeats is 5"),
        ({"learning_rate": 0.0}, "learning_rate is 0"), ({"ranked_seconds": float("nan")}, "ranked_seconds is nan"),
        ({"radii": ()}, "give no curve"), ({"radii": (1, 1)}, "give no curve"), ({"radii": (15, -1)}, "give no curve"),
        ({"points": ("globalness:7",)}, "no point globalness:7"), ({"points": ("globalness:0",)}, "no point"),
        ({"points": ("banded:14",)}, "no point banded:14"), ({"points": ("size:1",)}, "Nothing is called 'size'"),
        ({"points": ("random-3:1",)}, "Nothing is called 'random-3'"),
        ({"points": ("globalness:1", "globalness:1")}, "twice"),
    ],
)  # fmt: skip
def test_designs_that_make_no_sense_are_refused(given, told):
    with pytest.raises(EvaluationError, match=told):
        Design(**given)


def test_gates_and_treatments_are_the_same_model():
    recogniser = load_recogniser("embedded:wavlm")
    heads = [(k, h) for k, names in enumerate(recogniser.model.anatomy.head_names, 1) for h in names]
    orders = {order.name: order for order in random_orders(heads)}
    samples = [read_corpus("embedded")[0].read()[:24000]]
    whole = recogniser.log_probabilities(samples)[0]
    for point in (Point("random-0", 3), Point("banded", 5), Point("literal", 3)):
        gated = Recogniser(apply(recogniser.model, point.edits(orders, 6)), recogniser.vocabulary)
        model = treat(recogniser.model, point.treatments(orders, 6))
        physical = Recogniser(model, recogniser.vocabulary)
        one, other = (model.log_probabilities(samples)[0] for model in (gated, physical))
        assert torch.allclose(one, other, atol=1e-3), point
        assert not torch.allclose(one, whole, atol=1e-2), point
        left = 32 if point.span else 32 - removed(point.amount, 6, 32)
        assert sum(model.anatomy.heads) == left


def test_the_small_scale_is_listed(tmp_path, capsys):
    main(
        [
            "--dry-run",
            "--work",
            str(tmp_path / "work"),
            "--seeds",
            "1",
            "--points",
            "globalness:3,banded:15",
            "--teacher",
        ]
    )
    lines = capsys.readouterr().out.splitlines()
    assert not (tmp_path / "work").exists()
    assert lines[0].startswith("speech: rendered: train 0.5 h, dev 0.03 h, exam 0.09 h of 14 voices")
    assert lines[2].startswith("curves: 54 points of pruning in 6 steps and 16 of spans")
    assert [line.partition(":")[0] for line in lines[4:]] == ["whole-seed-0", "globalness-3-seed-0", "banded-15-seed-0"]
    assert lines[5] == (
        "globalness-3-seed-0: model embedded:wavlm, plan 16 of 32 heads taken out by globalness, subset all, seed 0, 40 "
        "steps of 24 s, 0.50 h of speech, teacher embedded:wavlm"
    )


def test_the_papers_scale_is_listed(paths, tmp_path, capsys):
    model = "facebook/wav2vec2-base-100h"
    main([
        "--dry-run", "--work", str(tmp_path / "work"), "--model", model, *options(paths), "--subset", "9s", "--updates",
        "2000", "--seeds", "3", "--batch-seconds", "200", "--points", "globalness:3",
    ])  # fmt: skip
    lines = capsys.readouterr().out.splitlines()
    assert not (tmp_path / "work").exists()
    assert all(f"{name}: {path}, 0.0" in lines[0] for name, path in paths.items())
    assert lines[-1] == (
        f"globalness-3-seed-2: model {model}, plan 3/6 of the heads taken out by globalness, subset 9s, seed 2, 2000 steps "
        "of 200 s, 0.00 h of speech"
    )
    assert len(lines) == 4 + 6


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--train", "embedded:train"], "1 of train, dev, exam are given"),
        (["--train", "embedded", "--dev", "embedded:train", "--exam", "embedded"], "given twice"),
        (["--train", "embedded", "--dev", "embedded:train", "--exam", "nowhere"], "for examination"),
        (["--train", "embedded:train", "--dev", "nowhere", "--exam", "embedded"], "nowhere"),
        (["--hours", "0"], "hours is 0"), (["--subset", "2h"], "A subset of 2h"), (["--subset", "much"], "no amount"),
        (["--model", "nowhere"], "no model nowhere"), (["--model", "./a/b"], "no model"),
        (["--model", "embedded:large"], "no embedded model"), (["--model", "embedded:wavlm-pretrained"], "no CTC head"),
        (["--steps", "40", "--points", "globalness:1"], "32 heads are not taken out in 40 steps"),
        (["--only", "globalness-9-seed-0"], "no run 'globalness-9-seed-0'"), (["--radii", "5,x"], "whole numbers"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(given, told, tmp_path):
    with pytest.raises(SystemExit, match=told):
        main(["--dry-run", "--work", str(tmp_path / "work"), *given])
    assert not (tmp_path / "work").exists()


def test_voices_of_the_exam_are_heard_nowhere_else(paths, tmp_path):
    exam = Path(paths["exam"])
    speaker = sorted(exam.iterdir())[0].name
    mixed = tmp_path / "dev-other"
    (mixed / speaker / "2").mkdir(parents=True)
    wave, rate = soundfile.read(next(exam.rglob("*.flac")))
    soundfile.write(mixed / speaker / "2" / f"{speaker}-2-0000.flac", wave[: len(wave) // 2], rate)
    (mixed / speaker / "2" / f"{speaker}-2.trans.txt").write_text(f"{speaker}-2-0000 OTHER WORDS\n")
    with pytest.raises(OtoscopeError, match="speaks in dev and in exam"):
        Source((paths["train"], str(mixed), paths["exam"])).read(tmp_path)
    (mixed / speaker / "2" / f"{speaker}-2.trans.txt").unlink()
    with pytest.raises(OtoscopeError, match="no transcript"):
        Source((paths["train"], str(mixed), paths["exam"])).read(tmp_path)
    with pytest.raises(TrainingError):
        hours_trained(1.0, "-1h")


SPEAKERS = tuple("abcdef")


def scores(percent: int) -> Scores:
    """Errors in 100 words of each of six speakers; some have one more and some one less, and the mean is as given."""
    errors = np.full(6, float(percent))
    if percent:
        errors += np.random.default_rng(percent).permutation([-1, -1, 0, 0, 1, 1])
    return Scores("wer", "errors per word", False, SPEAKERS, SPEAKERS, errors, np.full(6, 100.0))


AFTER = {
    "globalness:1": scores(14), "globalness:2": scores(41), "verticality:1": scores(25), "diagonality:1": scores(60),
    "max-weight:1": scores(22), "confidence:1": scores(30), "random-0:1": scores(35), "random-1:1": scores(45),
    "literal:50": scores(7), "banded:50": scores(30), "literal:2": scores(50), "literal:1": scores(70),
}  # fmt: skip
COST = {"parameters": [400, 300], "macs_per_second": [1000, 750], "time": [0.9, 0.8, 1.01]}
TRAINED = {
    WHOLE: {0: scores(10), 1: scores(6)}, "globalness:1": {1: scores(8)}, "diagonality:1": {0: scores(40), 1: scores(46)},
}  # fmt: skip
FOUND = Found(
    32, 20.0, scores(10), AFTER, {"globalness:1": COST, "banded:50": COST | {"macs_per_second": [1000, None]}}, TRAINED,
    {"model": "small", "command": "python -m recipes.attention_refinement"},
)  # fmt: skip


def test_differences_by_hand():
    assert FOUND.before.value == pytest.approx(0.1)
    assert change(FOUND, "diagonality:1").value == pytest.approx(0.5)
    assert change(FOUND, "diagonality:1", "verticality:1").value == pytest.approx(0.35)
    both = [AFTER[f"random-{k}:1"].numerator for k in (0, 1)]
    assert at(FOUND, "random:1").numerator.tolist() == (sum(both) / 2).tolist()
    assert change(FOUND, "random:1").value == pytest.approx(0.3)
    assert change(FOUND, "random:2") is None
    assert change(FOUND, "confidence:2") is None
    assert steps_of(FOUND) == 2


def test_trained_points_are_held_against_the_control_of_their_seeds():
    assert trained_change(FOUND, "globalness:1").value == pytest.approx(0.02)  # seed 1 alone
    assert trained_change(FOUND, "diagonality:1").value == pytest.approx((0.3 + 0.4) / 2)
    assert trained_change(FOUND, "diagonality:1", None).value == pytest.approx(0.33)
    assert trained_change(FOUND, "diagonality:1", "globalness:1").value == pytest.approx(0.38)
    assert trained_change(FOUND, "banded:50") is None
    assert trained_change(replace(FOUND, trained={"globalness:1": {0: scores(1)}}), "globalness:1") is None


def by_number(found) -> dict[str, list]:
    told: dict[str, list] = {}
    for one in signs(found):
        told.setdefault(one.number, []).append(one)
    return told


def test_signs_are_decided_by_intervals():
    told = by_number(FOUND)
    outcomes = {number: [one.outcome for one in ones] for number, ones in told.items()}
    assert outcomes["i"] == outcomes["ii"] == outcomes["iii"] == outcomes["vii"] == [PASS]
    assert outcomes["vi"] == [PASS, FAIL]
    assert "globalness +46.0 (" in told["i"][0].found
    assert "globalness +38.0 (" in told["ii"][0].found
    assert "verticality +11.0 (" in told["iii"][0].found
    assert "50 frames of 20 ms" in told["vi"][0].claim
    other = replace(FOUND, after=AFTER | {"verticality:1": scores(65)})
    assert by_number(other)["i"][0].outcome == FAIL  # one order surely hurts more
    odd = replace(AFTER["diagonality:1"], numerator=np.array([50.0, 70, 48, 72, 64, 55]))
    close = replace(FOUND, after=AFTER | {"verticality:1": odd})
    assert by_number(close)["i"][0].outcome == UNDECIDED
    assert by_number(replace(FOUND, after=AFTER | {"max-weight:1": scores(12)}))["iii"][0].outcome == FAIL


def test_what_does_not_hurt_is_held_against_a_margin():
    told = by_number(FOUND)["iv"]
    assert [one.outcome for one in told] == [FAIL, UNDECIDED]
    assert told[0].found.startswith("+4.0 (")
    assert told[1].found.startswith("+2.0 (")  # of one seed
    same = replace(FOUND, after=AFTER | {"globalness:1": scores(10)})
    assert by_number(same)["iv"][0].outcome == UNDECIDED  # nothing differs on six speakers: that tells little of others
    better = replace(FOUND, after=AFTER | {"globalness:1": scores(7)})
    assert by_number(better)["iv"][0].outcome == PASS


def test_what_was_not_examined_is_undecided():
    empty = Found(32, 20.0, scores(10), {})
    told = signs(empty)
    assert {one.outcome for one in told} == {UNDECIDED}
    assert all(one.found == "Not examined" for one in told)
    assert "| none | 0 of 32 | 10.0 % |" in tables(empty)


def test_the_tables_hold_what_was_found():
    text = tables(FOUND)
    assert "WER of the unpruned model 10.0 % (" in text
    assert "| diagonality | 16 of 32 | 60.0 % | +50.0 (" in text
    assert "72 of 144 | 59.7 | 0.350 | 18.0 |" in text  # half of their heads, by diagonality
    assert "| random | 16 of 32 | 40.0 % | +30.0 (" in text
    assert "| 50 | 1000 | 7.0 %: -3.0 (" in text
    assert "| 1500 | 62.8 | 64.6 | 65.7 | 0.269 | 72.3 |" in text
    assert "| 2 | 40 | 50.0 %: +40.0 (" in text
    assert "| the whole model (control) | 10.0 % | 10.0 %, 6.0 % | 8.0 % | -2.0 (" in text
    assert "| 16 of 32 heads taken out by globalness | 14.0 % | 8.0 % | 8.0 % | -2.0 (" in text
    assert "| -25.0 % | -25.0 % | x 0.90 (0.80 to 1.01) |" in text
    assert "within 50 frames, banded | -25.0 % | - | x 0.90 (0.80 to 1.01) | 30.0 %: +20.0 (" in text
    for lines in (block.splitlines() for block in text.split("\n\n") if block.startswith("|")):
        assert len({line.count("|") for line in lines}) == 1, lines[0]


def test_runs_that_failed_do_not_stop_the_others():
    def take(run: Run) -> Scores:
        if run.of == "globalness:1" or run.name == "whole-seed-1":
            raise TrainingError("it broke")
        return scores(run.seed)

    found, failed = gathered(Design(points=("globalness:1", "banded:15")).runs, take, OtoscopeError)
    assert {name: list(by_seed) for name, by_seed in found.items()} == {WHOLE: [0], "banded:15": [0, 1]}
    assert failed == dict.fromkeys(["whole-seed-1", "globalness-1-seed-0", "globalness-1-seed-1"], "it broke")


def test_a_list_says_everything_of_a_run():
    lines = listed(Design(subset="10min", seeds=1, points=("literal:5",)), 1 / 6, None)
    assert lines[-1] == (
        "literal-5-seed-0: model embedded:wavlm, plan spans of all heads within 5 frames, literal, subset 10min, seed 0, 40 "
        "steps of 24 s, 0.17 h of speech"
    )


def test_the_page_has_a_place_for_them(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE.read_text())
    tell(page, FOUND)
    tell(page, FOUND)
    text, start = page.read_text(), mark("attention_refinement")
    assert text.count(tables(FOUND).strip()) == text.count(start) == text.count(END) == 1
    assert text.partition(start)[0] == PAGE.read_text().partition(start)[0]


@pytest.mark.slow
def test_the_recipe_runs_in_small(paths, tmp_path, capsys):
    page, work = tmp_path / "page.md", tmp_path / "work"
    page.write_text(f"before {mark('attention_refinement')} {END} after")
    small = [
        "--work", str(work), "--page", str(page), *options(paths), "--steps", "2", "--random", "1", "--radii", "50,1",
        "--points", "globalness:1,banded:50", "--seeds", "1", "--updates", "2", "--batch-seconds", "6", "--repeats", "6",
    ]  # fmt: skip
    main([*small, "--only", "globalness-1-seed-0"])
    assert "globalness-1-seed-0: WER 0." in capsys.readouterr().out
    main(small)
    text = page.read_text()
    assert "the whole model (control)" in text
    assert text.count("| -15.7 % |") == 2  # half of the heads gone for good, among points and among costs
    assert "--steps 2 --random 1" in text
    main(small)  # everything is there
    assert page.read_text() == text
    other = Design(steps=3, points=(), radii=(1,))
    with pytest.raises(ResultError, match="another model, design or speech"):
        Refinement(other, work, Source(tuple(paths.values())).read(work))
