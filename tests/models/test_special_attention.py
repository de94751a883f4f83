"""What single families do differently: WavLM's heads, Whisper's silence, a count of multiplications by hand."""

import numpy as np
import pytest
import torch

from otoscope.errors import AudioError, CaptureError
from otoscope.models import load
from otoscope.models.reductions import RowEntropy, WholeMap
from otoscope.models.view import Alone, view_of
from otoscope.speech.corpus import Corpus
from tests.models.small import CASES


def case(name):
    return next(case for case in CASES if case.name == name)


def speech(*seconds, seed=0):
    draw = np.random.default_rng(seed)
    return Corpus.from_arrays([draw.normal(size=int(16000 * s)).astype(np.float32) * 0.1 for s in seconds])


def run(model, corpus, **options):
    return model.capture(list(corpus), [one.read() for one in corpus], **options)


def test_wavlm_heads_average_to_the_librarys_map():
    source = case("wavlm-group").build().eval()
    corpus = speech(0.8)
    ready = load(source)
    capture = run(ready, corpus, reductions=[WholeMap])
    with torch.inference_mode():
        library = source(**ready.frontend.inputs(capture.samples), output_attentions=True)
    for layer, found in capture.attention.items():
        maps = found[0]["whole-map"]
        theirs = library.attentions[layer - 1][0]
        assert torch.equal(theirs[0], theirs[1])  # the trap: the library gives every head the average
        assert not torch.allclose(maps[0], maps[1], atol=1e-3)
        assert torch.allclose(maps.mean(0), theirs[0], atol=1e-5)


def test_whisper_is_cut_to_the_voice():
    model = load(case("whisper").build())
    corpus = speech(0.8)
    capture = run(model, corpus, reductions=[WholeMap, RowEntropy])
    assert capture.lengths["layer.1"] == (40,)
    for layer, found in capture.attention.items():
        assert found[0]["whole-map"].shape == (4, 40, 40)
        # 60 of the 100 frames are padding; some of the attention fell on them and is told apart.
        assert (capture.outside[layer][0] > 0.2).all()
        assert (capture.outside[layer][0] < 0.95).all()


def test_whisper_fills_its_input_without_a_cut():
    capture = run(load(case("whisper").build()), speech(2.0), reductions=[RowEntropy])
    assert capture.lengths["layer.1"] == (100,)
    assert all(not found[0].any() for found in capture.outside.values())


def test_whisper_refuses_what_is_longer_than_its_input():
    with pytest.raises(AudioError, match=r"lasts 2\.1 s, more than the 2 s"):
        run(load(case("whisper").build()), speech(2.1))


def test_too_short_for_two_frames():
    with pytest.raises(AudioError, match="fewer than two frames"):
        run(load(CASES[0].build()), speech(0.03))


def test_unknown_stream():
    with pytest.raises(CaptureError, match=r"no stream 'layer\.9'.*layer\.3"):
        run(load(CASES[0].build()), speech(0.5), streams=["layer.9"])


def test_weights_that_are_not_finite():
    source = CASES[0].build()
    with torch.no_grad():
        source.encoder.layers[1].feed_forward.output_dense.weight[0, 0] = float("nan")
    with pytest.raises(CaptureError, match=r"not finite for a batch .* first in stream layer\.2 of utterance "):
        run(load(source), speech(0.5))


def test_a_layer_that_is_skipped_is_noticed():
    ready = load(CASES[0].build())
    ready._encoder.encoder.layers = torch.nn.ModuleList(list(ready._encoder.encoder.layers)[:2])
    with pytest.raises(CaptureError, match=r"layer\.3.*0 rows for a batch of 1"):
        run(ready, speech(0.5))


def test_multiplications_counted_by_hand():
    model = load(case("wav2vec2-group").build())
    n, config = 160_000, model.config
    total, channels, frames = 0, 1, n
    for kernel, stride, width in zip(config.conv_kernel, config.conv_stride, config.conv_dim, strict=True):
        frames = (frames - kernel) // stride + 1
        total += frames * kernel * channels * width
        channels = width
    d, f = config.hidden_size, config.intermediate_size
    total += frames * channels * d
    total += (frames + 1) * d * d // config.num_conv_pos_embedding_groups * config.num_conv_pos_embeddings
    total += config.num_hidden_layers * frames * (4 * d * d + 2 * d * f + 2 * frames * d)
    assert model.macs_per_second() == pytest.approx(total / 10, rel=1e-3)


def test_a_view_shares_weights_and_nothing_else():
    source = CASES[0].build()
    view = view_of(source)
    assert all(a is b for a, b in zip(source.parameters(), view.parameters(), strict=True))
    assert not set(map(id, source.modules())) & set(map(id, view.modules()))
    assert view.config is not source.config


def test_alone_pads_what_it_ran_one_by_one():
    inner = torch.nn.Conv1d(1, 2, 3, stride=2)
    wrapped = Alone(inner, lambda: [9, 5], time_last=True)
    batch = torch.randn(2, 1, 9).squeeze(1)

    class OnSamples(torch.nn.Module):
        def forward(self, x):
            return inner(x[:, None])

    wrapped.inner = OnSamples()
    out = wrapped(batch)
    assert torch.allclose(out[0], inner(batch[:1, None])[0])
    assert torch.allclose(out[1, :, :2], inner(batch[1:, None, :5])[0])
    assert not out[1, :, 2:].any()
