"""Treated folders: written whole, read as they were, and refused where they are not what was written."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from transformers import Wav2Vec2CTCTokenizer, Wav2Vec2ForCTC

import otoscope.treatments.folders as folders
from otoscope.errors import CheckpointError, TreatmentError
from otoscope.models import load
from otoscope.models.vocabulary import read_vocabulary
from otoscope.surgery import Gate, apply
from otoscope.treatments import (
    Freeze,
    LimitSpan,
    PruneHeads,
    Reinitialise,
    RemoveBlocks,
    has_record,
    record_of,
    save_treated,
    treated,
    undone,
)
from tests.models.small import CASES
from tests.surgery.cases import run, same_bits, speech

CORPUS = speech(0.3)
STOCK, OWN = [RemoveBlocks("layer.2")], [RemoveBlocks("layer.2"), PruneHeads("layer.1.head.0"), LimitSpan("layer.3", 2)]


@pytest.fixture(scope="module")
def model():
    return load(next(case for case in CASES if case.name == "wav2vec2-ctc").build().eval(), name="original")


@pytest.fixture(params=["stock", "own"])
def made(request, model):
    return treated(model, STOCK if request.param == "stock" else OWN)


def test_what_is_in_a_folder(tmp_path, made):
    save_treated(made, tmp_path / "model", extra={"plan.toml": lambda path: path.write_text("goal = 'size'\n")})
    note = json.loads((tmp_path / "model" / "treatment.json").read_text())
    assert note["original"]["name"] == "original"
    assert note["treatments"][0]["treatment"] == "remove-blocks"
    assert (tmp_path / "model" / "plan.toml").read_text() == "goal = 'size'\n"
    stock = (tmp_path / "model" / "model.safetensors").exists()
    assert note["layers"] == ([1, 3] if stock else [1, 2, 3])
    assert json.loads((tmp_path / "model" / "config.json").read_text())["num_hidden_layers"] == (2 if stock else 3)
    files = {path.suffix for path in (tmp_path / "model").iterdir()}
    assert files == {".json", ".safetensors", ".toml"}
    assert not list(tmp_path.glob("model/.*"))
    assert made.source.config.num_hidden_layers == 3


def test_a_treated_folder_is_treated_again(tmp_path, model, made):
    save_treated(made, tmp_path / "once")
    more = [PruneHeads("layer.3.head.2"), Freeze("layer.1")]
    again = treated(load(tmp_path / "once"), more)
    save_treated(again, tmp_path / "twice")
    found = load(tmp_path / "twice")
    assert record_of(found.source).treatments == (*record_of(made.source).treatments, *more)
    expected = treated(model, record_of(found.source).treatments)
    assert same_bits(run(found, CORPUS).streams, run(expected, CORPUS).streams)
    assert same_bits(undone(found, model, more).source.state_dict(), made.source.state_dict())
    save_treated(again, tmp_path / "once")  # over the first one
    assert same_bits(run(load(tmp_path / "once"), CORPUS).streams, run(expected, CORPUS).streams)
    assert len(list((tmp_path / "once").glob("*.safetensors"))) == 1


def test_trained_weights_are_kept(tmp_path, model):
    treatments = [*OWN, Reinitialise("layer.3", seed=2)]
    made = treated(model, treatments)
    with torch.no_grad():
        for one in made.source.parameters():
            one.add_(0.01)
    save_treated(made, tmp_path / "model")
    found = load(tmp_path / "model")
    assert same_bits(found.source.state_dict(), made.source.state_dict())
    assert same_bits(run(found, CORPUS).streams, run(made, CORPUS).streams)
    half = load(tmp_path / "model", dtype=torch.bfloat16)
    assert {one.dtype for one in half.source.parameters()} == {torch.bfloat16}


def test_the_tokenizer_is_carried_along(tmp_path, model, made):
    model.source.save_pretrained(tmp_path / "from")
    tokens = {
        token: k for k, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", "|", *"abcdefghijklmnopqrstuvwxyz'"])
    }
    (tmp_path / "vocab.json").write_text(json.dumps(tokens))
    Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json")).save_pretrained(tmp_path / "from")
    origin = load(tmp_path / "from")
    save_treated(treated(origin, record_of(made.source).treatments), tmp_path / "to")
    save_treated(load(tmp_path / "to"), tmp_path / "further")
    told = [read_vocabulary(tmp_path / name, 32).tokens for name in ("from", "further")]
    assert told[0] == told[1]


@pytest.mark.parametrize(
    "treatments",
    [
        [LimitSpan("layer.3.head.0-1", 2), PruneHeads("layer.3.head.1")],
        [PruneHeads("layer.2.head.0"), RemoveBlocks("layer.2")],
    ],
)
def test_what_is_done_again_after_its_unit_was_taken_out_is_read_and_taken_back(tmp_path, model, treatments):
    once = treated(model, treatments)
    twice = treated(once, treatments[:1])
    assert record_of(twice.source).treatments == tuple(reversed(treatments))
    save_treated(twice, tmp_path / "model")
    found = load(tmp_path / "model")
    for one in (twice, found, undone(found, model, [])):
        assert same_bits(run(one, CORPUS).streams, run(once, CORPUS).streams)
    left = undone(found, model, treatments[1:])
    assert record_of(left.source).treatments == tuple(treatments[:1])


def test_of_two_of_the_same_thing_the_later_holds_after_reading_too(tmp_path, model):
    narrow, wide = LimitSpan("layer.1", 1), LimitSpan("layer.1", 5)
    made = treated(model, [narrow, wide, narrow])
    assert record_of(made.source).treatments == (wide, narrow)
    save_treated(made, tmp_path / "model")
    for one in (made, load(tmp_path / "model")):
        assert same_bits(run(one, CORPUS).streams, run(treated(model, [narrow]), CORPUS).streams)


def test_what_is_not_stored(tmp_path, model, made):
    with pytest.raises(TreatmentError, match="was not treated"):
        save_treated(model, tmp_path / "model")
    with pytest.raises(TreatmentError, match="changed by the edit 'gate' of layer.1.head.1"):
        save_treated(apply(made, [Gate("layer.1.head.1", 0.5)]), tmp_path / "model")
    assert not (tmp_path / "model").exists()
    assert has_record(made.source)
    assert not has_record(model.source)


def _cut_off(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
        (lambda folder: next(folder.glob("*.safetensors")).unlink(), r"lacks its \w+\.safetensors"),
        (lambda folder: _cut_off(next(folder.glob("*.safetensors"))), "SHA-256 differs"),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "lacks its preprocessor_config.json"),
        (lambda folder: _edit(folder, "preprocessor_config.json", "do_normalize", False), "SHA-256 differs"),
        (lambda folder: _cut_off(folder / "treatment.json"), "cannot be read"),
        (lambda folder: _edit(folder, "config.json", "num_attention_heads", 2), "SHA-256 differs"),
        (lambda folder: _edit(folder, "treatment.json", "format", 9), "has the format 9"),
        (
            lambda folder: _edit(folder, "treatment.json", "treatments", [{"treatment": "magic"}]),
            "no treatment 'magic'",
        ),
        (lambda folder: _edit(folder, "treatment.json", "treatments", []), "not those in|do not fit"),
        (lambda folder: _edit(folder, "treatment.json", "layers", [1]), "cannot have the layers|never"),
        (lambda folder: _edit(folder, "treatment.json", "heads", [[0], [0], [0]]), "heads of the model"),
        (lambda folder: _edit(folder, "treatment.json", "class", "HubertForCTC"), "cannot be read|do not fit"),
        (lambda folder: _edit(folder, "treatment.json", "class", "pipeline"), "no class of models"),
        (lambda folder: _edit(folder, "treatment.json", "sha256", {}), "names no file of weights"),
    ],
)
@pytest.mark.parametrize("treatments", [STOCK, OWN], ids=["stock", "own"])
def test_a_folder_that_is_not_what_was_written(tmp_path, model, treatments, harm, told):
    folder = tmp_path / "model"
    save_treated(treated(model, treatments), folder)
    harm(folder)
    if "never" in told and treatments is OWN:
        return  # such a folder has no layers to renumber
    if treatments is STOCK and _note(folder).get("treatments") == []:
        return  # a model that lost a layer is whole without the reason
    with pytest.raises(CheckpointError, match=told):
        load(folder)


def _note(folder):
    try:
        return json.loads((folder / "treatment.json").read_text())
    except ValueError:
        return {}


def _edit(folder, name, key, value):
    values = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**values, key: value}))


@pytest.mark.parametrize("fails", ["weights", "config", "note", "frontend", "move", "last move"])
@pytest.mark.parametrize("earlier", [False, True])
def test_a_full_disk_leaves_nothing_and_an_earlier_model_whole(tmp_path, monkeypatch, model, made, fails, earlier):
    folder = tmp_path / "below" / "model"
    if earlier:
        save_treated(treated(model, [PruneHeads("layer.1")]), folder)
        before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    moves = []

    def move(here, there):
        moves.append(there)
        if fails == "move" or Path(there) == folder / "config.json":
            full()
        Path(here).rename(there)

    with monkeypatch.context() as patch:
        if fails == "weights":
            patch.setattr(folders, "save_file", full)
        elif fails == "config":
            patch.setattr(type(model.source.config), "save_pretrained", full)
        elif fails == "note":
            patch.setattr(folders, "digest_of", full)
        elif fails == "frontend":
            patch.setattr(folders, "write_frontend", full)
        else:
            patch.setattr(os, "replace", move)
        with pytest.raises(TreatmentError, match="cannot be written.*No space left"):
            save_treated(made, folder)
    if earlier:
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
        assert load(folder).anatomy.heads == (0, 4, 4)
    else:
        assert not (tmp_path / "below").exists()


def test_a_stock_folder_runs_without_otoscope(tmp_path, model):
    made = treated(model, STOCK)
    save_treated(made, tmp_path / "model")
    stock = Wav2Vec2ForCTC.from_pretrained(tmp_path / "model").eval()
    inputs = model.frontend.inputs([CORPUS[0].read()])
    assert torch.allclose(stock(**inputs).logits, made.source(**inputs).logits, atol=1e-5)
    shutil.copytree(tmp_path / "model", tmp_path / "bare", ignore=shutil.ignore_patterns("treatment.json"))
    assert load(tmp_path / "bare").anatomy.n_layers == 2
