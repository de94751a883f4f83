"""The registered attention function under masks and grouped heads, beside PyTorch's own and the library's maps."""

import numpy as np
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from otoscope.models import load
from otoscope.models.reductions import RowEntropy, WholeMap
from otoscope.models.tap import NAME, TILE, Observation, attach
from otoscope.speech.corpus import Corpus
from tests.models.small import CASES

FRAMES = (TILE + 22, TILE - 31)


def drawn(heads, key_heads, seed=0):
    """Query, key and value of a batch of two utterances."""
    draw = torch.Generator().manual_seed(seed)
    return [2 * torch.randn(2, h, max(FRAMES), 8, generator=draw) for h in (heads, key_heads, key_heads)]


def tapped(query, key, value, mask=None):
    """Context (B, H, T, D) and the statistics of each utterance."""
    module = torch.nn.Module()
    module.training = False
    seen = Observation(FRAMES, FRAMES, [RowEntropy, WholeMap])
    attach(module, 1, None).observation = seen
    context, _ = AttentionInterface()[NAME](module, query, key, value, mask, scaling=8**-0.5, is_causal=False)
    return context.transpose(1, 2), seen.results[1]


def valid_keys():
    """(2, 1, T, T): true where the key is no padding."""
    frames = torch.tensor(FRAMES)[:, None, None, None]
    return (torch.arange(max(FRAMES)) < frames).expand(2, 1, max(FRAMES), max(FRAMES))


def test_query_heads_share_keys_in_blocks():
    """8 query heads over 2 key heads: heads 0 to 3 attend with key head 0, heads 4 to 7 with key head 1."""
    query, key, value = drawn(8, 2)
    context, found = tapped(query, key, value)
    expected = scaled_dot_product_attention(query, key, value, attn_mask=valid_keys(), enable_gqa=True)
    for b, frames in enumerate(FRAMES):
        assert torch.allclose(context[b, :, :frames], expected[b, :, :frames], atol=1e-5)
        scores = query[b, :, :frames] @ key[b, [0] * 4 + [1] * 4, :frames].transpose(1, 2) * 8**-0.5
        assert torch.allclose(found[b]["whole-map"], scores.softmax(-1), atol=1e-5)


@pytest.mark.parametrize("kind", ["minus infinity", "lowest", "bool"])
def test_a_causal_mask_within_the_attended_keys(kind):
    query, key, value = drawn(4, 4)
    allowed = valid_keys().tril()
    lowest = {"minus infinity": -torch.inf, "lowest": torch.finfo(torch.float32).min}
    mask = allowed if kind == "bool" else torch.zeros(allowed.shape).masked_fill(~allowed, lowest[kind])
    context, found = tapped(query, key, value, mask)
    expected = scaled_dot_product_attention(query, key, value, attn_mask=allowed)
    for b, frames in enumerate(FRAMES):
        assert torch.allclose(context[b, :, :frames], expected[b, :, :frames], atol=1e-5)
        scores = (query[b, :, :frames] @ key[b, :, :frames].transpose(1, 2)).double() * 8**-0.5
        maps = scores.masked_fill(~allowed[b, :, :frames, :frames], -torch.inf).softmax(-1)
        entropy = torch.special.entr(maps).sum(-1).mean(-1)
        assert torch.allclose(found[b]["whole-map"].double(), maps, atol=1e-5)
        assert torch.allclose(found[b]["row-entropy"], entropy, atol=1e-5)
        assert not found[b]["whole-map"].triu(1).any()


def test_attention_outside_is_what_the_librarys_map_has_on_padding():
    """1 - sum over valid keys of the eager map over all 100 frames, averaged over valid queries."""
    source = next(case for case in CASES if case.name == "whisper").build().eval()
    model = load(source)
    draw = np.random.default_rng(0)
    corpus = Corpus.from_arrays([0.1 * draw.normal(size=n).astype(np.float32) for n in (12800, 20001, 32000)])
    capture = model.capture(list(corpus), [one.read() for one in corpus], (), [RowEntropy])
    source.set_attn_implementation("eager")
    with torch.inference_mode():
        library = source.encoder(**model.frontend.inputs(capture.samples), output_attentions=True).attentions
    for layer, outside in capture.outside.items():
        for k, frames in enumerate((40, 63, 100)):
            maps = library[layer - 1][k].double()
            expected = (1 - maps[:, :frames, :frames].sum(-1)).mean(-1)
            assert outside[k].numpy() == pytest.approx(expected.numpy(), abs=1e-6)
            assert frames == 100 or expected.min() > 0.1
