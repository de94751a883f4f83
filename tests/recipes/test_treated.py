"""The recipe of the treated embedded model: its voices, its dry run, and what its page says of made-up outcomes."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from otoscope.evaluation.paired import Difference
from otoscope.plans.plan import Plan
from otoscope.speech.synthesis.speakers import speakers
from recipes.treated.speech import exam_voices
from recipes.treated.stages import VARIANTS
from recipes.treated.telling import END, START, judged, tables

ROOT = Path(__file__).resolve().parents[2]


def outcome(high=0.004, parameters=70, ratio=0.9):
    difference = Difference(
        "wer", "errors per word", False, 0.05, 0.048, -0.002, -0.008, high, 0.95, 0.7, 14, "speaker", 900, 1000, 0
    )
    time = SimpleNamespace(ratio=ratio, low=ratio - 0.05, high=ratio + 0.05)
    change = SimpleNamespace(difference=difference, worse_by_less_than=lambda margin: high < margin)
    return SimpleNamespace(first=change, time=time, savings=[("parameters", 100.0, float(parameters))])


def test_no_voice_of_the_examination_speaks_in_training_or_development():
    heard = {one.variant.lower() for split in ("train", "dev") for one in speakers(split)}
    assert not heard & {one.variant.lower() for one in exam_voices()}
    assert len({one.variant for one in exam_voices()}) == len(exam_voices()) == 14


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({}, "both within what was aimed at"),
        ({"high": 0.011}, "Aimed at were 25 % of either, and an end below +1.0."),
        ({"parameters": 80}, "Aimed at were"),
        ({"parameters": 80, "ratio": 0.65}, "at least 30 % of the time saved; the WER's interval ends at +0.40"),
    ],
)
def test_the_judgement(parts, words):
    assert words in judged(outcome(**parts))


def test_the_table_tells_every_variant_and_those_that_were_not_run():
    text = tables(Plan(goal="size"), {VARIANTS[1]: outcome()}, "2026-01-02")
    assert "Held against each other on 2026-01-02." in text
    row = "| 5.00 % | 4.80 % | -0.20 (-0.80 to +0.40) | -30.0 % | x 0.90 (0.85 to 0.95) |"
    assert f"| {VARIANTS[1].words} {row}" in text
    assert "900 utterances of 14 voices" in text
    assert f"Not run: {VARIANTS[0].words}; {VARIANTS[2].words}; {VARIANTS[3].words}." in text
    assert "Not run" not in tables(Plan(goal="size"), dict.fromkeys(VARIANTS, outcome()), "")


def test_a_dry_run_names_the_variants_and_does_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "recipes.treated", "--dry-run", "--work", str(tmp_path / "work"), "--steps", "7"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "7 steps" in done.stdout
    assert all(one.words in done.stdout for one in VARIANTS)
    assert not (tmp_path / "work").exists()


def test_the_page_has_the_marks():
    page = (ROOT / "docs" / "treated.md").read_text()
    assert page.count(START) == page.count(END) == 1
