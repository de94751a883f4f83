"""The recipe of the Conformers: its speech, its models, its figures by hand, and in small from beginning to end."""

import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from otoscope.errors import CheckpointError
from otoscope.evaluation import CTCLoss
from otoscope.evaluation.scores import Scores
from otoscope.interventions.scoring import scores_of_variants
from otoscope.models import load
from otoscope.models.vocabulary import Vocabulary
from otoscope.surgery import Reset
from recipes.conformers import speech
from recipes.conformers.comparing import agreement, changes, cost, pairs_of_norms, pairs_of_seeds, pairs_of_sizes
from recipes.conformers.examination import Examination, read_scores, stored_scores
from recipes.conformers.models import NORMS, SIZES, Conformer, comparison, load_conformer, made, recogniser_in
from recipes.conformers.stages import SETTINGS, alignable, train_one
from recipes.conformers.telling import END, START, tables, tell
from tests.training.small_training import spelt_speech

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "conformers.md"
VOCABULARY = Vocabulary(("<pad>", "|", *"abcd"), 0)


def test_commands_are_of_few_words_and_none_comes_twice():
    commands = speech._apart(random.Random(0))
    told = [next(commands) for _ in range(2000)]
    assert len(set(told)) == 2000
    assert {len(text.split()) for text in told} == {3, 4, 5, 6, 7}
    known = {*speech.VERBS, *speech.NUMBERS, *speech.COLOURS, *speech.THINGS, *speech.PLACES, *speech.WHERE, "the"}
    assert {word for text in told for word in text.split()} == known


def test_splits_are_apart_by_voice():
    by = {split: speech.voices(split) for split in ("train", "dev", "exam")}
    variants = [{one.variant for one in voices} for voices in by.values()]
    assert len(set.union(*variants)) == sum(map(len, variants))
    assert all(one.rate <= speech.FASTEST for voices in by.values() for one in voices)
    assert all(one.engine == "espeak-ng" for voices in by.values() for one in voices)


def test_models_of_one_seed_begin_with_the_same_weights():
    models = {one: made(one, VOCABULARY).state_dict() for one in comparison(2, 1, 0) if one.size == "small"}
    first = models[Conformer("small", "full", "batch", 0)]
    for one, state in models.items():
        shared = [name for name in first if name in state and ".norm." not in name]
        assert len(shared) > 80
        assert all(torch.equal(first[name], state[name]) for name in shared) == (one.seed == 0)
        norms = {name.rpartition(".")[2] for name in state if ".conv.norm." in name}
        batch = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
        assert norms == (batch if one.norm == "batch" else {"weight", "bias"})


def test_the_models_that_are_compared():
    models = comparison(3, 2, 1)
    assert len(models) == len({one.name for one in models}) == 18 + 6 + 2
    assert all(Conformer.named(one.name) == one for one in models)
    kinds = {one.name: [type(edit).__name__ for edit in one.edits] for one in models}
    assert kinds["small-full-batch-0"] == []
    assert kinds["large-full-group-2"] == ["GroupNorm"]
    assert kinds["small-causal-none-1"] == ["Causal", "NoNorm"]
    assert Conformer("small", "causal", "group", 0).edits[1].over == "frame"


SPEECH = spelt_speech(12)
QUICK = replace(SETTINGS, steps=3, batch_seconds=8.0, evaluate_every=3, save_every=3, log_every=1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    work = tmp_path_factory.mktemp("work")
    one = Conformer("small", "causal", "group", 0)
    train_one(one, {"train": SPEECH, "dev": SPEECH}, work, QUICK)
    return one, work


def test_a_model_is_stored_with_its_edits_and_read_again(trained):
    one, work = trained
    folder = work / one.name
    places = [folder, folder / "initial", folder / "step-1", folder / "step-2"]
    models = [load_conformer(place) for place in places]
    waves = [SPEECH[0].read()]
    outs = [model.encode(waves).detach() for model in models]
    assert len({model.fingerprint() for model in models}) == 4
    assert not any(torch.allclose(outs[0], other) for other in outs[1:])
    fresh = load(made(one, recogniser_in(folder).vocabulary).eval())
    assert fresh.fingerprint() == models[1].fingerprint()
    assert torch.allclose(fresh.encode(waves), outs[1], atol=1e-4)
    assert train_one(one, {}, work) == folder  # what is there is not trained again


def test_half_a_model_is_refused(trained, tmp_path):
    one, work = trained
    for name in ("config.json", "edits.json", "model.safetensors"):
        broken = tmp_path / name
        broken.mkdir()
        for path in (work / one.name).iterdir():
            if path.is_file() and path.name != name:
                (broken / path.name).write_bytes(path.read_bytes())
        with pytest.raises(CheckpointError, match="holds no Conformer of this recipe"):
            load_conformer(broken)
    (tmp_path / "config.json" / "config.json").write_bytes((work / one.name / "config.json").read_bytes())
    (tmp_path / "config.json" / "edits.json").write_text("[]")
    with pytest.raises(CheckpointError, match="do not fit its edits: Missing key.*running_mean"):
        load_conformer(tmp_path / "config.json")
    with pytest.raises(CheckpointError, match="running_mean"):  # the library's own class has other tensors
        load(work / one.name)


def test_an_examination_is_stored_and_told(trained, tmp_path):
    one, work = trained
    exam = Examination(one, work, SPEECH.subset([u.id for u in list(SPEECH)[:6]]))
    found = exam.all()
    again = Examination(one, work, exam.corpus)
    again.recogniser = None
    assert again.all() == found
    assert list(changes(found)) == [f"layer.{k}" for k in range(1, 5)]
    assert len(changes(found, "parts")) == 4 * 5
    assert {row["label"] for row in changes(found, "parts").values()} <= {"ambient", "intermediate", "critical"}
    paths = [row for row in found["churn"]["rows"] if row["target"] == "path"]
    assert len(paths) == 4 + 4 * 5
    lengths = {row["stream"]: row["value"] for row in found["churn"]["rows"] if row["target"] == "rms"}
    assert all(0 < lengths[row["stream"]] <= row["value"] * (1 + 1e-9) for row in paths)
    assert found["replaced"] == {}
    text = tables({one: found})
    assert "| small | causal | group | 0.4" in text


def test_the_engine_gives_what_each_variant_gives_alone(trained):
    one, work = trained
    recogniser, initial = recogniser_in(work / one.name), load_conformer(work / one.name / "initial")
    variants = {unit: [Reset(unit, initial)] for unit in ("layer.2", "layer.3", "layer.3.convolution")}
    corpus = SPEECH.subset([u.id for u in list(SPEECH)[:5]])
    plain, reused, stacked = (
        scores_of_variants(recogniser, corpus, variants, CTCLoss(), **options)
        for options in ({"reuse": False}, {}, {"together": 2})
    )
    for name, scores in plain.after.items():
        assert scores.numerator == pytest.approx(reused.after[name].numerator, rel=1e-5)
        assert scores.numerator == pytest.approx(stacked.after[name].numerator, rel=1e-5)


def test_a_norm_put_in_the_place_of_batch_norm_is_examined(tmp_path):
    one = Conformer("small", "full", "batch", 0)
    train_one(one, {"train": SPEECH, "dev": SPEECH}, tmp_path, QUICK)
    found = Examination(one, tmp_path, SPEECH.subset([u.id for u in list(SPEECH)[:4]])).replaced()
    assert found["ctc-loss"]["none"] == pytest.approx(found["ctc-loss"]["batch"], abs=1e-4)
    assert abs(found["ctc-loss"]["group"] - found["ctc-loss"]["batch"]) > 1e-4


def test_utterances_too_short_for_their_characters_are_left_out(trained):
    one, work = trained
    long = replace(SPEECH[0], id="long", transcript="abcd" * 40)
    corpus = replace(SPEECH, utterances=(*SPEECH.utterances[:2], long))
    assert len(alignable(corpus, recogniser_in(work / one.name))) == 2


def _one(labels, values, words, parts=False):
    def rows(names):
        return {
            "rows": [
                {"measure": measure, "stream": unit, "layer": 1, "target": "ctc-loss", "other": "re-initialise", **more}
                for unit, label, value in zip(names, labels, values, strict=True)
                for measure, more in (
                    ("criticality", {"value": value, "label": label}), ("criticality-normalised", {"value": value / 10}),
                )
            ]
        }  # fmt: skip

    blocks = [f"layer.{k}" for k in range(1, len(labels) + 1)]
    scores = Scores(
        "wer",
        "errors per word",
        False,
        ("a", "b", "c", "d"),
        ("x", "x", "y", "z"),
        np.array(words, float),
        np.full(4, 10.0),
    )
    return {
        "recognition": {
            "parameters": 430_000, "wer": [scores.value, 0.0, 1.0], "ctc-loss": [0.2, 0.1, 0.3],
            "words": stored_scores(scores),
        },
        "blocks": rows(blocks), "parts": rows([f"{block}.attention" for block in blocks]), "churn": {"rows": []},
        "prediction": {"rows": [
            {"target": "churn-rms", "stream": "block", "label": "ctc-loss", "value": 0.5, "n": 4},
            {"target": "churn-rms", "stream": "sub-module", "label": "ctc-loss", "value": 0.4, "low": 0.1, "high": 0.6},
        ]},
        "replaced": {"wer": dict.fromkeys(NORMS, 0.25), "ctc-loss": {"batch": 0.2, "group": 0.4, "none": 0.2}},
    }  # fmt: skip


A, M, C = "ambient", "intermediate", "critical"
FOUND = {
    Conformer("small", "full", "batch", 0): _one([C, M, A, A], [4, 3, 2, 1], [0, 1, 2, 3]),
    Conformer("small", "full", "batch", 1): _one([C, A, A, M], [4, 2, 1, 3], [2, 1, 2, 3]),
    Conformer("small", "full", "group", 0): _one([C, M, A, A], [40, 30, 20, 10], [0, 1, 2, 3]),
    Conformer("small", "full", "group", 1): _one([C, M, A, A], [4, 3, 2, 1], [6, 1, 2, 5]),
    Conformer("large", "full", "batch", 0): _one([A, C, M, M, M, A, C, M], [9, 4, 8, 3, 7, 2, 6, 5], [0] * 4),
}  # fmt: skip


def test_what_a_norm_costs_is_the_mean_over_seeds():
    found = cost(FOUND, "small", "full", "group", "batch")
    assert (found.before, found.after) == pytest.approx((7 / 40, 10 / 40))
    assert found.value == pytest.approx(3 / 40)
    assert found.low < found.value < found.high
    assert cost(FOUND, "large", "full", "group", "batch") is None


def test_agreement_of_labels_and_order():
    found = agreement(FOUND, pairs_of_seeds(FOUND, "small", "full", "batch"))
    assert (found["same"], found["n"]) == (0.5, 1)
    assert found["chance"] == pytest.approx((2 / 8) ** 2 + (2 / 8) ** 2 + (4 / 8) ** 2)
    assert found["rho"] == pytest.approx(0.4)
    norms = agreement(FOUND, pairs_of_norms(FOUND, "small", "full", ("batch", "group")))
    assert (norms["n"], norms["same"]) == (2, 0.75)
    assert (norms["least"], norms["most"]) == pytest.approx((0.4, 1.0))
    assert agreement(FOUND, pairs_of_seeds(FOUND, "large", "full", "batch")) is None


def test_layers_of_other_sizes_are_matched_by_depth():
    pairs = pairs_of_sizes(FOUND, ("small", "large"), "batch")
    assert pairs == [(Conformer("small", "full", "batch", 0), Conformer("large", "full", "batch", 0))]
    found = agreement(FOUND, pairs)  # layers 1 to 4 against 2, 4, 6 and 8
    assert found["same"] == 0.75
    assert found["rho"] == pytest.approx(-0.2)
    assert agreement(FOUND, pairs, "parts") == found
    assert [size.layers for size in SIZES.values()] == [4, 8, 16]


def test_the_tables_hold_what_was_found():
    text = tables(FOUND)
    assert "| small | full | batch | 0.43 million | 15.0 %, 20.0 % | 17.5 % (" in text
    assert "| small | full | group rather than batch | +7.5 (" in text
    assert ") | +0.0, +15.0 |" in text
    assert "| small | full | group | 25.0 %, 25.0 % | 0.400, 0.400 |" in text
    assert "| full | batch | 1 | critical 0.40 | ambient 0.20 | ambient 0.10 | intermediate 0.30 |" in text
    assert "| small | full | batch | 4 of 8 | 0 of 0 |" in text
    assert "| seeds (small, full, batch) | 1 | 50% | 38% | +0.40 (+0.40 to +0.40) | 50% |" in text
    assert "| small and large (full, batch) | 1 | 75% |" in text
    assert "| small | full | batch | blocks | +0.50 | - |" in text
    assert "| small | full | batch | parts | +0.40 (+0.10 to +0.60) | - |" in text
    for lines in (block.splitlines() for block in text.split("\n\n") if block.startswith("|")):
        assert len({line.count("|") for line in lines}) == 1, lines[0]


def test_scores_are_stored_whole():
    stored = FOUND[Conformer("small", "full", "batch", 0)]["recognition"]["words"]
    assert stored_scores(read_scores(json.loads(json.dumps(stored)))) == stored


def test_the_page_has_a_place_for_them(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE.read_text())
    tell(page, FOUND)
    tell(page, FOUND)
    text = page.read_text()
    assert text.count(tables(FOUND)) == text.count(START) == text.count(END) == 1
    assert text.partition(START)[0] == PAGE.read_text().partition(START)[0]


@pytest.mark.slow
def test_the_recipe_runs_in_small(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before {START} {END} after")
    speech.render_commands(tmp_path / "speech", scale=0.1)
    command = [
        sys.executable, "-m", "recipes.conformers", "--steps", "4", "--seeds", "1", "--causal-seeds", "1",
        "--deep-seeds", "0", "--work", str(tmp_path), "--page", str(page),
    ]  # fmt: skip
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    found = json.loads((tmp_path / "found.json").read_text())
    assert list(found) == [one.name for one in comparison(1, 1, 0)]
    assert tables({Conformer.named(name): parts for name, parts in found.items()}) in page.read_text()
    assert all(norm in page.read_text() for norm in NORMS)
