"""Closed forms through real forward passes: maps that are known beforehand, in padded batches of every family."""

import math

import numpy as np
import pytest
import torch

from otoscope.measures.heads.diagonality import Centrality, CumulativeDiagonality, Diagonality, MeanOffset
from otoscope.measures.heads.globalness import Globalness
from otoscope.measures.heads.information import HeadInformation
from otoscope.measures.heads.sharpness import Confidence, MaxWeight
from otoscope.measures.heads.verticality import Verticality
from otoscope.models import load
from otoscope.models.edits import HEADS, HeadEdits
from otoscope.models.families import submodule
from otoscope.models.reductions import WholeMap
from otoscope.speech.corpus import Corpus
from tests.models.small import CASES

FRAMES = (37, 10, 75)
LN10 = math.log(10)
# Of ten frames, in the order of the heads below: uniform, the query itself, frame 0, two frames ahead (at most the last).
EXPECTED = {
    Globalness: (LN10, 0, 0, 0),
    Verticality: (-LN10, -LN10, 0, -1.9730014),
    Diagonality: (-0.33, 0, -0.45, -0.17),
    HeadInformation: (0, LN10, 0, 1.9730014),
    Centrality: (0.5289286, 1, 0.3289286, 1 - (2 / 9 + 3 / 8 + 4 / 7 + 4 / 6 + 4 / 5) / 10),
    CumulativeDiagonality: (19 / 30, 1, 0.5, 1 - 1.7 / 9),
    MeanOffset: (0, 0, -4.5, 1.7),
    MaxWeight: (0.1, 1, 1, 1),
    Confidence: (0.1, 1, 1, 1),
}
SUMS = tuple(dict.fromkeys(make for kind in EXPECTED for make in kind.reductions))


class Given(HeadEdits):
    """Scores of the four maps, in place of a layer's own."""

    def replace(self, scores, first, lowest):
        rows, keys = scores.shape[-2:]
        query = torch.arange(first, first + rows)
        out = torch.zeros_like(scores)
        for head, target in enumerate((query, torch.zeros_like(query), (query + 2).clamp(max=keys - 1)), start=1):
            out[..., head, :, :] = lowest
            out[..., head, torch.arange(rows), target] = 0
        return out


def speech(model, frames):
    """Noise of as many frames in this model."""
    draw = np.random.default_rng(0)
    lengths = [next(n for n in range(400, 200_000, 80) if model.frontend.frames(n) == t) for t in frames]
    return Corpus.from_arrays([0.1 * draw.normal(size=n).astype(np.float32) for n in lengths])


def capture(model, corpus, reductions=SUMS):
    return model.capture(list(corpus), [one.read() for one in corpus], (), reductions)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_table_of_ten_frames_in_every_family(case):
    model = load(case.build())
    for layer in submodule(model.encoder, model.family.layers):
        attention = submodule(layer, model.family.attention)
        setattr(attention, HEADS, Given(4, 12, next(attention.parameters())))
    found = capture(model, speech(model, FRAMES)).attention
    # Whisper attends to silence beyond the utterance, and the last two queries have their key there.
    heads = 3 if case.family == "whisper" else 4
    for sums in (found[layer][1] for layer in (1, 2, 3)):
        for kind, expected in EXPECTED.items():
            values = kind().observe(sums)[:heads].tolist()
            assert values == pytest.approx(expected[:heads], abs=1e-6), kind.name


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_ten_frames_alone_and_among_longer_utterances(case):
    """The metrics of the model's own maps do not change with what else is in the batch."""
    model = load(case.build())
    corpus = speech(model, FRAMES)
    batch, alone = capture(model, corpus).attention, capture(model, corpus.subset([corpus[1].id])).attention
    for layer in batch:
        for kind in EXPECTED:
            mine, theirs = (kind().observe(found) for found in (batch[layer][1], alone[layer][0]))
            assert torch.allclose(mine, theirs, atol=1e-5), kind.name


def test_uniform_attention_where_queries_are_zero():
    model = CASES[0].build()
    with torch.no_grad():
        for layer in model.encoder.layers:
            layer.attention.q_proj.weight.zero_()
            layer.attention.q_proj.bias.zero_()
    ready = load(model)
    found = capture(ready, speech(ready, FRAMES)).attention
    for k, t in enumerate(FRAMES):
        for layer in found:
            expected = {
                Globalness: math.log(t),
                Verticality: -math.log(t),
                Diagonality: -(t**2 - 1) / (3 * t**2),
                HeadInformation: 0,
                CumulativeDiagonality: (2 * t - 1) / (3 * t),
                MeanOffset: 0,
                MaxWeight: 1 / t,
                Confidence: 1 / t,
            }
            for kind, value in expected.items():
                assert kind().observe(found[layer][k]).tolist() == pytest.approx([value] * 4, abs=2e-6), kind.name


def test_the_models_own_position_biases_make_diagonals():
    """WavLM's relative biases alone: head 0 attends to itself, head 1 two frames ahead, head 2 evenly, head 3 back."""
    source = next(case for case in CASES if case.name == "wavlm-group").build()
    first = source.encoder.layers[0].attention
    distances = torch.arange(-3, 4)[None]
    buckets = dict(zip(distances[0].tolist(), first._relative_positions_bucket(distances)[0].tolist(), strict=True))
    with torch.no_grad():
        first.rel_attn_embed.weight.zero_()
        for head, offset in ((0, 0), (1, 2), (3, -3)):
            first.rel_attn_embed.weight[buckets[offset], head] = 60
        for layer in source.encoder.layers:
            for part in (layer.attention.q_proj, layer.attention.gru_rel_pos_linear):
                part.weight.zero_()
                part.bias.zero_()
            layer.attention.gru_rel_pos_const.fill_(1)
    model = load(source)
    found = capture(model, speech(model, FRAMES), (*SUMS, WholeMap)).attention
    place = np.arange(10)
    maps = np.full((4, 10, 10), 0.1)  # queries without such a key attend evenly
    for head, offset in ((0, 0), (1, 2), (3, -3)):
        there = (place + offset >= 0) & (place + offset < 10)
        maps[head, there] = np.eye(10)[(place + offset)[there]]
    for sums in (found[layer][1] for layer in (1, 2, 3)):
        assert np.abs(sums["whole-map"].numpy() - maps).max() < 1e-6
        own = Diagonality().observe(sums).tolist()
        distance = np.abs(place[:, None] - place)
        assert own == pytest.approx((-(distance * maps).sum((1, 2)) / 100).tolist(), abs=1e-6)
        assert Globalness().observe(sums).tolist() == pytest.approx([0, 0.2 * LN10, LN10, 0.3 * LN10], abs=1e-6)
        assert Confidence().observe(sums).tolist() == pytest.approx([1, 0.82, 0.1, 0.73], abs=1e-6)


@pytest.mark.parametrize("name", ["wavlm-group", "wavlm-ctc-stable"])
def test_wavlms_heads_differ_and_its_own_output_is_kept(name):
    """With the heads kept apart the attention's output is that of the library's multi-head attention."""
    source = next(case for case in CASES if case.name == name).build().eval()
    model = load(source)
    corpus = speech(model, (75,))
    outputs = {}

    def keep(where, encoder):
        for k, layer in enumerate(encoder.encoder.layers):
            yield layer.attention.register_forward_hook(
                lambda module, args, out, k=k: outputs.__setitem__((where, k), out[0])
            )

    handles = [*keep("tap", model.encoder), *keep("library", model.family.encoder(source))]
    found = capture(model, corpus, (WholeMap,)).attention
    with torch.inference_mode():
        model.family.encoder(source)(**model.frontend.inputs([one.read() for one in corpus]))
    for handle in handles:
        handle.remove()
    for k in range(3):
        assert outputs["tap", k].shape == (1, 75, 48)
        assert torch.allclose(outputs["tap", k], outputs["library", k], atol=1e-5)
        maps = found[k + 1][0]["whole-map"]
        for a in range(4):
            for b in range(a):
                assert (maps[a] - maps[b]).abs().max() > 1e-3
