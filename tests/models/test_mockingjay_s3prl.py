"""Checkpoints with s3prl's names: read as they were meant, and refused where they hold anything but weights."""

import argparse
import math
import os
from collections import OrderedDict

import numpy as np
import pytest
import torch

import otoscope as oto
from otoscope.errors import CheckpointError
from otoscope.models import load
from otoscope.models.mockingjay import MockingjayForPreTraining, MockingjayModel
from otoscope.models.mockingjay.s3prl import read_s3prl

SIZES = {
    "downsample_rate": 3, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40,
    "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "initializer_range": 0.02,
    "layer_norm_eps": "1e-12", "mask_proportion": 0.15, "mask_consecutive": 3,
}  # fmt: skip


def linear(draw, name, inner, outer):
    return {f"{name}.weight": draw.normal(size=(outer, inner)) / inner**0.5, f"{name}.bias": draw.normal(size=outer)}


def norm(draw, name, width, words=("weight", "bias")):
    return {
        f"{name}.{words[0]}": 1 + 0.1 * draw.normal(size=width),
        f"{name}.{words[1]}": 0.1 * draw.normal(size=width),
    }


def tensors(state):
    return OrderedDict((name, torch.from_numpy(np.asarray(value, np.float32))) for name, value in state.items())


def encoder_state(seed=0, features=160, words=("weight", "bias")):
    """Random weights by s3prl's names."""
    draw, width = np.random.default_rng(seed), SIZES["hidden_size"]
    state = linear(draw, "input_representations.spec_transform", 3 * features, width)
    state |= norm(draw, "input_representations.LayerNorm", width, words)
    for k in range(SIZES["num_hidden_layers"]):
        at = f"encoder.layer.{k}"
        for part in ("query", "key", "value"):
            state |= linear(draw, f"{at}.attention.self.{part}", width, width)
        state |= linear(draw, f"{at}.attention.output.dense", width, width)
        state |= norm(draw, f"{at}.attention.output.LayerNorm", width, words)
        state |= linear(draw, f"{at}.intermediate.dense", width, SIZES["intermediate_size"])
        state |= linear(draw, f"{at}.output.dense", SIZES["intermediate_size"], width)
        state |= norm(draw, f"{at}.output.LayerNorm", width, words)
    return tensors(state)


def head_state(seed=1, features=160):
    draw, width = np.random.default_rng(seed), SIZES["hidden_size"]
    state = linear(draw, "dense", width, width) | norm(draw, "LayerNorm", width)
    return tensors(state | linear(draw, "output", width, 3 * features))


def checkpoint(**other):
    """What s3prl stored in 2020, with the command line and the optimiser beside the weights."""
    states = {
        "SpecHead": head_state(),
        "Transformer": encoder_state(),
        "Optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 4e-4, "betas": (0.9, 0.999)}]},
        "Global_step": 500000,
        "Settings": {"Config": {"transformer": SIZES}, "Paras": argparse.Namespace(seed=1337, name="M3")},
    }
    return {name: value for name, value in {**states, **other}.items() if value is not None}


def write(folder, states, **options):
    place = folder / "states-500000.ckpt"
    torch.save(states, place, **options)
    return place


def as_published(state, head, features):
    """The encoder and head as the papers and s3prl's names define them, for one utterance (T, d)."""
    width, heads = SIZES["hidden_size"], SIZES["num_attention_heads"]
    state = {name: value.double() for name, value in state.items()}
    head = {name: value.double() for name, value in head.items()}

    def dense(x, name, of=state):
        return x @ of[f"{name}.weight"].T + of[f"{name}.bias"]

    def normed(x, name, of=state):
        mean, variance = x.mean(-1, keepdim=True), x.var(-1, unbiased=False, keepdim=True)
        return (x - mean) / (variance + 1e-12).sqrt() * of[f"{name}.weight"] + of[f"{name}.bias"]

    def gelu(x):
        return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))

    frames = len(features) // 3
    x = dense(features[: 3 * frames].double().reshape(frames, -1), "input_representations.spec_transform")
    for position in range(frames):
        for j in range(width):
            angle = position / 10000 ** (2 * (j // 2) / width)
            x[position, j] += math.sin(angle) if j % 2 == 0 else math.cos(angle)
    x = normed(x, "input_representations.LayerNorm")
    for k in range(SIZES["num_hidden_layers"]):
        at = f"encoder.layer.{k}"
        query, key, value = (
            dense(x, f"{at}.attention.self.{part}").view(frames, heads, -1).transpose(0, 1)
            for part in ("query", "key", "value")
        )
        weights = torch.softmax(query @ key.transpose(1, 2) / math.sqrt(width / heads), -1)
        context = (weights @ value).transpose(0, 1).reshape(frames, width)
        x = normed(dense(context, f"{at}.attention.output.dense") + x, f"{at}.attention.output.LayerNorm")
        inner = gelu(dense(x, f"{at}.intermediate.dense"))
        x = normed(dense(inner, f"{at}.output.dense") + x, f"{at}.output.LayerNorm")
    return x, dense(normed(gelu(dense(x, "dense", head)), "LayerNorm", head), "output", head)


FEATURES = torch.randn(20, 160, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("zipped", [True, False], ids=["new format", "format of 2020"])
def test_a_checkpoint_computes_what_its_names_say(zipped, tmp_path):
    place = write(tmp_path, checkpoint(), _use_new_zipfile_serialization=zipped)
    model = oto.load(place)
    assert type(model.source) is MockingjayForPreTraining
    assert (model.anatomy.n_layers, model.anatomy.heads) == (2, (3, 3))
    assert model.name == "states-500000.ckpt"
    assert model.anatomy.grid.hop == 480
    states, reconstruction = as_published(encoder_state(), head_state(), FEATURES)
    with torch.inference_mode():
        out = model.source(FEATURES[None])
    assert torch.allclose(out.last_hidden_state[0].double(), states, atol=1e-4)
    assert torch.allclose(out.reconstruction[0].double(), reconstruction, atol=1e-4)


def test_it_is_examined_and_stored_as_any_model(tmp_path):
    model = load(write(tmp_path, checkpoint()))
    model.source.save_pretrained(tmp_path / "folder")
    assert load(tmp_path / "folder").fingerprint() == model.fingerprint()
    assert model.source.config.hidden_dropout == 0.1
    assert model.source.config.layer_norm_eps == 1e-12


@pytest.mark.parametrize(
    "states",
    [
        checkpoint(Settings=None, Upstream_Config={"transformer": SIZES, "task": {"sequence_length": 1500}}),
        checkpoint(Settings=None, Config={"transformer": SIZES, "runner": {"total_steps": 3}}),
        checkpoint(Transformer=None, Mockingjay=encoder_state(), Settings={"Config": {"mockingjay": SIZES}}),
        checkpoint(Transformer=encoder_state(words=("gamma", "beta"))),
        checkpoint(Transformer=OrderedDict((f"module.{k}", v) for k, v in encoder_state().items())),
    ],
    ids=["Upstream_Config", "Config", "Mockingjay", "gamma and beta", "several GPUs"],
)
def test_other_layouts_of_the_years_hold_the_same_model(states, tmp_path):
    found = read_s3prl(write(tmp_path, states)).state_dict()
    expected = read_s3prl(write(tmp_path, checkpoint())).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


def test_without_a_head_it_is_a_bare_encoder(tmp_path):
    assert type(read_s3prl(write(tmp_path, checkpoint(SpecHead=None)))) is MockingjayModel


def test_a_head_for_another_spectrum_is_kept(tmp_path):
    model = read_s3prl(write(tmp_path, checkpoint(SpecHead=head_state(features=201))))
    assert (model.config.input_size, model.config.output_size) == (160, 201)


def test_frames_that_are_not_stacked(tmp_path):
    sizes = {name: value for name, value in SIZES.items() if name != "downsample_rate"}
    states = checkpoint(Settings={"Config": {"transformer": sizes}}, SpecHead=None)
    weight = states["Transformer"]["input_representations.spec_transform.weight"]
    states["Transformer"]["input_representations.spec_transform.weight"] = weight[:, :240].clone()
    model = load(write(tmp_path, states))
    assert (model.source.config.frame_stack, model.source.config.input_size) == (1, 240)
    assert model.anatomy.grid.hop == 160


class Malicious:
    """Would make a folder when it is unpickled."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return os.mkdir, (self.place,)


class Call:
    def __reduce__(self):
        return eval, ("1 + 1",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code_is_refused_and_runs_none(zipped, tmp_path):
    target = tmp_path / "touched"
    place = write(tmp_path, checkpoint(Optimizer=Malicious(str(target))), _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        CheckpointError, match=r"asks for [\w.]+, which is neither a tensor nor a plain value.*refused"
    ) as raised:
        oto.load(place)
    assert not target.exists()
    assert "posix.mkdir" in str(raised.value)
    assert "save only its keys" in raised.value.cure
    with pytest.raises(CheckpointError, match=r"asks for [\w.]*eval"):
        oto.load(write(tmp_path, checkpoint(Global_step=Call())))


def test_what_is_allowed_is_allowed_only_while_a_checkpoint_is_read(tmp_path):
    before = set(torch.serialization.get_safe_globals())
    read_s3prl(write(tmp_path, checkpoint()))
    assert set(torch.serialization.get_safe_globals()) == before


def _without(name):
    state = encoder_state()
    del state[name]
    return state


def _reshaped():
    state = encoder_state()
    state["encoder.layer.1.output.dense.bias"] = torch.zeros(7)
    return state


SETTINGS = {"Config": {"transformer": SIZES}}


@pytest.mark.parametrize(
    ("states", "told"),
    [
        ({"Transformer": None}, "holds no encoder under Transformer or Mockingjay; it holds SpecHead"),
        ({"Settings": None}, "tells no sizes"),
        ({"Settings": {"Config": {"transformer": {**SIZES, "pre_layer_norm": True}}}}, "norms before its branches"),
        ({"Settings": {"Config": {"transformer": {**SIZES, "share_layer": True}}}}, "one layer used many times"),
        ({"Settings": {"Config": {"transformer": {**SIZES, "hidden_act": "tanh"}}}}, "activation 'tanh'"),
        ({"Settings": {"Config": {"transformer": {**SIZES, "hidden_size": "wide"}}}}, "no numbers"),
        ({"Settings": {"Config": {"transformer": {"hidden_size": 24}}}}, "lacks 'num_hidden_layers'"),
        ({"Settings": {"Config": {"transformer": SIZES, "audio": {"kaldi": {}}}}}, "Kaldi's filter banks"),
        ({"Settings": {"Config": {"transformer": SIZES, "audio": {"win_ms": 25}}}}, "torchaudio's mel features"),
        ({"Transformer": encoder_state(features=40), "SpecHead": None}, "takes 40 features a frame"),
        (
            {"Transformer": _without("encoder.layer.1.output.dense.bias")},
            "lacks.*layers.1.feed_forward.output_dense.bias",
        ),
        ({"Transformer": _without("input_representations.spec_transform.weight")}, "lacks 'input_projection.weight'"),
        ({"Transformer": _reshaped()}, "another shape of.*layers.1"),
        ({"Settings": {"Config": {"transformer": {**SIZES, "num_hidden_layers": 1}}}}, "beyond its configuration"),
    ],
)
def test_what_is_no_whole_mockingjay_is_named(states, told, tmp_path):
    with pytest.raises(CheckpointError, match=told) as raised:
        read_s3prl(write(tmp_path, checkpoint(**states)))
    assert raised.value.cure
    assert "states-500000.ckpt" in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"no pickle", None])
def test_a_file_that_is_no_checkpoint_is_named(content, tmp_path):
    place = tmp_path / "weights.ckpt"
    if content is None:
        torch.save([1, 2], place)
    else:
        place.write_bytes(content)
    with pytest.raises(CheckpointError, match="weights.ckpt"):
        oto.load(place)
