"""The recipe of the three Mockingjays: its page by hand from a few rows, and in small from beginning to end."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from otoscope.models.loading import load
from otoscope.workflow import read_corpus
from recipes.mockingjay.examination import ORDERS, Examination, _first
from recipes.mockingjay.published import CURVES, PRUNED, RADII, SPANS
from recipes.mockingjay.stages import MODELS, pretrain_one
from recipes.mockingjay.telling import END, START, TASKS, _curve, tables, tell

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "mockingjay.md"


def _curves(task):
    """Rows of curves whose values are known: 0.9 whole, and 0.1 less for each sixth of the heads."""
    rows = [{"measure": f"pruning-{task}", "value": 0.9}, {"measure": f"span-{task}", "value": 0.9}]
    for order in (*ORDERS, "random-0", "random-1"):
        shift = 0.02 * (order == "random-1")
        rows += [
            {"measure": f"pruning-{task}", "target": order, "other": str(4 * k), "value": 0.9 - 0.1 * k + shift}
            for k in range(1, 7)
        ]
    rows += [
        {"measure": f"span-{task}", "target": "literal", "other": str(radius), "value": radius / 100}
        for radius in RADII
    ]
    return [*rows, {"measure": f"pruning-{task}-change", "target": "globalness", "other": "4", "value": 77.0}]


def _one():
    place = {"stream": "layer.2", "layer": 2, "head": 3}
    segmentation = [
        {"measure": "head-segmentation", **place, "target": "best-head", "value": 0.8, "low": 0.7, "high": 0.9, "floor": 0.5},
        {"measure": "head-segmentation", "stream": "layer.4", "layer": 4, "target": "r-value", "value": 0.75},
        {"measure": "head-segmentation", "stream": "mfcc", "target": "r-value", "value": 0.7},
    ]  # fmt: skip
    relations = [
        {"measure": "relation-phone", **place, "label": "sil", "value": -1.5},
        {"measure": "operation-phone", **place, "label": "not sil"},
        {"measure": "relation-verticality-phone", "value": 0.5, "low": 0.1, "high": 0.9, "floor": 0.4},
    ]
    heads = [
        {"measure": "category", **place, "label": "diagonal"},
        {"measure": "category", **place, "head": 1, "label": "global"},
        *({"measure": "peak-offset", **place, "head": head, "value": -2.0} for head in (1, 3)),
        *({"measure": "peak-mass", **place, "head": head, "value": 0.5} for head in (1, 3)),
    ]
    sign = {"number": "i", "claim": "Claimed", "published": "said", "outcome": "pass", "found": "seen"}
    return {
        "model": {"parameters": 1_070_000, "reconstruction": [0.5, 0.4, 0.6]},
        "heads": heads, "segmentation": segmentation, "relations": relations,
        "reconstruction": _curves("reconstruction"),
        "probes": {"rows": [row for task in TASKS if task != "reconstruction" for row in _curves(task)], "signs": [sign] * 6},
    }  # fmt: skip


FOUND = {name: _one() for name in MODELS}


def _lines(text, start):
    return [line for line in text.splitlines() if line.startswith(start)]


def test_curves_are_read_in_their_order():
    rows = _curves("phone")
    assert _curve(rows, "pruning-phone", "globalness") == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3])
    assert _curve(rows, "pruning-phone", "random") == pytest.approx([0.9, 0.81, 0.71, 0.61, 0.51, 0.41, 0.31])
    assert _curve(rows, "span-phone", "literal") == [0.9, 0.0, 0.01, 0.02, 0.03, 0.05, 0.15, 0.25, 0.5]


def test_the_tables_hold_ours_and_the_published_figures():
    text = tables(FOUND)
    assert "| M3 | 3 | 1.07 million | 0.500 (0.400 to 0.600) | 0.258 |" in text
    assert "| M9 | 1 | 0 | 1 | 2.0 | 2.3: -2 (50%) |" in text
    assert "| (i) Claimed | said | **pass**: seen | **pass**: seen | **pass**: seen |" in text
    assert "| diagonality | M3, published | 62.5 | 58.2 | 59.4 | 59.7 | 60.7 | 60.7 | 60.5 |" in text
    assert "| diagonality | M6 | 90.0 | 80.0 | 70.0 | 60.0 | 50.0 | 40.0 | 30.0 |" in text
    assert "| L1 | M6, published | 0.267 | 0.279 |" in text
    assert "| phone, % | M3 | 90.0 | 50.0 | 25.0 | 15.0 | 5.0 | 3.0 | 2.0 | 1.0 | 0.0 |" in text
    assert "| M3 | 0.8000 (0.7000 to 0.9000) (head 2.3) | 0.7999 | 0.7500 (layer.4) | 0.7000 | 0.5000 |" in text
    assert "| M3 | 2.3 sil -1.50 | not sil 1 | 0.5000 (0.1000 to 0.9000) | 0.4000 |" in text
    tables_in = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    for lines in tables_in:
        assert len({line.count("|") for line in lines}) == 1, lines[0]


def test_the_page_has_a_place_for_them(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE.read_text())
    tell(page, FOUND)
    tell(page, FOUND)
    text = page.read_text()
    assert text.count(tables(FOUND)) == text.count(START) == text.count(END) == 1
    assert text.partition(START)[0] == PAGE.read_text().partition(START)[0]


def test_published_curves_are_whole():
    for curves in CURVES.values():
        assert all(len(curve) == len(PRUNED) for by_order in curves.values() for curve in by_order.values())
    for curves in SPANS.values():
        assert all(len(curve) == 1 + len(RADII) for curve in curves.values())


def test_speakers_take_turns_where_the_speech_is_cut_short():
    corpus = read_corpus("embedded")
    cut = _first(corpus, 60)
    assert 50 < cut.seconds <= 60
    assert set(cut.speakers) == set(corpus.speakers)
    assert len(_first(corpus, 1e6)) == len(corpus)


def test_a_part_is_examined_once_and_anew_for_another_model(tmp_path):
    def examination(folder):
        return Examination(folder, tmp_path / "found", seconds=12)

    one, two = (pretrain_one("M3", tmp_path / str(seed), scale=0.001, seed=seed) for seed in (0, 1))
    assert load(one).anatomy.heads == (6,) * 4
    told = examination(one).part("model", lambda: {"x": 1})
    assert examination(one).part("model", lambda: pytest.fail("again")) == told
    assert examination(two).part("model", lambda: {"x": 2}) == {"x": 2}


@pytest.mark.slow
def test_the_recipe_runs_in_small(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before {START} {END} after")
    command = [sys.executable, "-m", "recipes.mockingjay", "--scale", "0.003", "--seconds", "60", "--page", str(page)]
    subprocess.run([*command, "--work", str(tmp_path)], check=True, cwd=ROOT, capture_output=True)
    found = json.loads((tmp_path / "found.json").read_text())
    assert list(found) == list(MODELS)
    assert all(len(one["probes"]["signs"]) == 6 for one in found.values())
    assert tables(found) in page.read_text()
