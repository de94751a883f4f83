"""The conformance suite: every family must pass all of it, on models written and read back by transformers."""

import copy
import warnings

import numpy as np
import pytest
import torch

import otoscope.models.tap  # noqa: F401 - registers the attention function
from otoscope.models import load
from otoscope.models.families import FAMILIES, submodule
from otoscope.models.reductions import ColumnMean, OffsetMean, RowEntropy, WholeMap
from otoscope.speech.corpus import Corpus
from tests.models.small import CASES

SECONDS = (0.7, 1.1, 0.5)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def case(request):
    return request.param


@pytest.fixture(scope="module")
def model(case, tmp_path_factory):
    return load(case.write(tmp_path_factory.mktemp(case.name)))


@pytest.fixture(scope="module")
def corpus():
    draw = np.random.default_rng(0)
    t = [np.arange(int(16000 * s)) / 16000 for s in SECONDS]
    return Corpus.from_arrays(
        [
            (0.3 * np.sin(2 * np.pi * 300 * x * (1 + x)) + 0.1 * draw.standard_normal(len(x))).astype(np.float32)
            for x in t
        ]
    )


def run(model, corpus, which=None, **options):
    chosen = list(corpus) if which is None else [corpus[k] for k in which]
    return model.capture(chosen, [one.read() for one in chosen], **options)


def full_length(model, corpus):
    """An utterance that fills a fixed-length input, so that nothing of the maps is cut off."""
    if model.family.name != "whisper":
        return corpus
    draw = np.random.default_rng(1)
    return Corpus.from_arrays([draw.standard_normal(32000).astype(np.float32) * 0.1])


def library_states(model, capture):
    """Hidden states by the library's own recording, of a model that otoscope has not touched."""
    encoder = copy.deepcopy(model.family.encoder(model.source)).eval()
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return encoder(**model.frontend.inputs(capture.samples), output_hidden_states=True)


def test_family_and_sizes(case, model):
    assert model.anatomy.family == case.family
    assert model.anatomy.n_layers == 3
    assert model.anatomy.heads == (4, 4, 4)
    assert "input" in model.anatomy.streams
    assert not model._encoder.training


def test_every_family_has_a_case():
    assert {family.name for family in FAMILIES} == {case.family for case in CASES}


def test_streams_equal_the_librarys_hidden_states(model, corpus):
    capture = run(model, corpus, [1])
    out = library_states(model, capture)
    states = list(out.hidden_states)
    assert len(states) == model.anatomy.n_layers + 1
    frames = capture.lengths["input"][0]
    names = ["input", *(f"layer.{k}" for k in range(1, model.anatomy.n_layers + 1))]
    if "final_norm" in model.anatomy.streams:
        assert torch.allclose(capture.frames("final_norm", 0), out.last_hidden_state[0, :frames], atol=1e-5)
        # Where the library ties its last hidden state to the normed output, the layer's own output is not among them.
        if torch.allclose(states[-1], out.last_hidden_state):
            states, names = states[:-1], names[:-1]
    for name, state in zip(names, states, strict=True):
        assert capture.frames(name, 0).shape == state[0, :frames].shape, name
        assert torch.allclose(capture.frames(name, 0), state[0, :frames], atol=1e-5), name


def test_frame_counts_are_those_of_the_model(model, corpus):
    capture = run(model, corpus, [1])
    out = library_states(model, capture)
    if model.family.name != "whisper":
        mask = model.frontend.inputs(capture.samples).get("attention_mask")
        expected = out.last_hidden_state.shape[1]
        if model.family.name == "parakeet":
            expected = int(out.attention_mask.sum())
        assert capture.lengths["input"] == (expected,)
        assert mask is None or mask.any()
    for name, stream in capture.streams.items():
        assert stream.shape[2] == model.anatomy.widths[name]


def test_grid_gives_the_frame_count(model, corpus):
    n = corpus[1].n_samples
    for name, counts in run(model, corpus, [1]).lengths.items():
        grid = model.anatomy.grids[name]
        if grid.offset == 0:
            assert counts[0] == (n - grid.field) // grid.hop + 1, name
        else:
            assert abs(counts[0] - n / grid.hop) <= 1, name


def test_rows_of_attention_sum_to_one_and_heads_differ(model, corpus):
    capture = run(model, corpus, reductions=[WholeMap])
    for layer in range(1, model.anatomy.n_layers + 1):
        for k, found in enumerate(capture.attention[layer]):
            maps = found["whole-map"]
            frames = capture.lengths["input"][k]
            assert maps.shape == (4, frames, frames)
            assert torch.allclose(maps.sum(-1), torch.ones(4, frames), atol=1e-5)
            for other in range(1, 4):
                assert (maps[0] - maps[other]).abs().max() > 1e-4


def test_output_recomputed_from_the_map_is_the_modules_own(model, corpus):
    """out_proj(A V) of the tapped map equals what the attention module gave."""
    corpus = full_length(model, corpus)
    layers = submodule(model._encoder, model.family.layers)
    attentions = [submodule(layer, model.family.attention) for layer in layers]
    seen = {}
    handles = [
        module.register_forward_hook(
            lambda module, args, kwargs, out, k=k: seen.update({k: (args, kwargs, out[0])}), with_kwargs=True
        )
        for k, module in enumerate(attentions)
    ]
    try:
        capture = run(model, corpus, [0], reductions=[WholeMap])
    finally:
        for handle in handles:
            handle.remove()
    _, _, value, out = model.family.projections
    for k, module in enumerate(attentions):
        args, kwargs, given = seen[k]
        hidden = args[0] if args else kwargs["hidden_states"]
        maps = capture.attention[k + 1][0]["whole-map"]
        frames = maps.shape[-1]
        with torch.inference_mode():
            values = getattr(module, value)(hidden)[0, :frames].view(frames, 4, -1).transpose(0, 1)
            context = (maps @ values).transpose(0, 1).reshape(frames, -1)
            again = getattr(module, out)(context)
        assert torch.allclose(again, given[0, :frames], atol=1e-5)


def test_tapped_pass_equals_the_fused_one(model, corpus):
    fused = run(model, corpus)
    tapped = run(model, corpus, reductions=[RowEntropy, ColumnMean, OffsetMean])
    for name in fused.streams:
        for k in range(len(corpus)):
            assert torch.allclose(fused.frames(name, k), tapped.frames(name, k), atol=1e-5), name


def test_padded_batch_equals_single_utterances(model, corpus):
    options = {"reductions": [RowEntropy, ColumnMean, OffsetMean]}
    batch = run(model, corpus, **options)
    for k in range(len(corpus)):
        single = run(model, corpus, [k], **options)
        for name in batch.streams:
            assert batch.lengths[name][k] == single.lengths[name][0]
            assert torch.allclose(batch.frames(name, k), single.frames(name, 0), atol=2e-5), name
        for layer, found in batch.attention.items():
            for statistic, value in found[k].items():
                assert torch.allclose(value, single.attention[layer][0][statistic], atol=2e-5), (
                    layer,
                    statistic,
                )


def test_sums_in_the_stream_equal_those_of_the_whole_map(model, corpus):
    capture = run(model, corpus, reductions=[WholeMap, RowEntropy, ColumnMean, OffsetMean])
    for found in capture.attention.values():
        for one in found:
            maps = one["whole-map"].double()
            frames = maps.shape[-1]
            entropy = -torch.special.xlogy(maps, maps).sum(-1).mean(-1)
            assert torch.allclose(one["row-entropy"], entropy, atol=1e-5)
            assert torch.allclose(one["column-mean"], maps.mean(1), atol=1e-6)
            offsets = torch.stack([maps.diagonal(d, -2, -1).sum(-1) / frames for d in range(1 - frames, frames)], -1)
            assert torch.allclose(one["offset-mean"], offsets, atol=1e-6)


def test_the_users_model_is_never_changed(case, corpus):
    source = case.build().train()
    before = {name: value.clone() for name, value in source.state_dict().items()}
    implementation = source.config._attn_implementation
    modules = [type(module) for module in source.modules()]
    model = load(source)
    run(model, corpus, reductions=[RowEntropy])
    assert source.training
    assert source.config._attn_implementation == implementation
    assert [type(module) for module in source.modules()] == modules
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in source.modules())
    assert not any(hasattr(module, "_otoscope_tap") for module in source.modules())
    for name, value in source.state_dict().items():
        assert torch.equal(value, before[name])


def test_live_module_equals_its_folder(case, model, corpus):
    live = load(case.build())
    assert live.fingerprint() == model.fingerprint()
    assert torch.equal(run(live, corpus).streams["layer.3"], run(model, corpus).streams["layer.3"])


def test_description_is_plain_and_counts_macs(model):
    told = model.describe()
    assert told["layers"] == 3
    assert told["parameters"] == sum(p.numel() for p in model.family.encoder(model.source).parameters())
    assert told["macs_per_second"] > 0
