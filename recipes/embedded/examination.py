"""Word error rates of the trained model, with its attention and without."""

import contextlib
from collections.abc import Iterator

import jiwer
import numpy as np
import torch
from transformers import Wav2Vec2ForCTC

from recipes.embedded.speech import Item


@torch.inference_mode()
def transcribe(model: Wav2Vec2ForCTC, item: Item) -> str:
    """Greedy decoding of one sentence, unpadded."""
    from recipes.embedded.training import CHARACTERS, normalise

    wave = normalise(item.samples.astype(np.float32) / 32768)
    best = model(torch.from_numpy(wave)[None]).logits[0].argmax(-1)
    return "".join(CHARACTERS[k] for k in torch.unique_consecutive(best).tolist() if k).replace("|", " ").strip()


def word_error_rate(model: Wav2Vec2ForCTC, items: list[Item]) -> float:
    """Errors over words of the references, over all sentences."""
    model.eval()
    return jiwer.wer([item.text for item in items], [transcribe(model, item) or "-" for item in items])


@contextlib.contextmanager
def silenced(model: Wav2Vec2ForCTC) -> Iterator[None]:
    """Every attention sub-layer gives zeros inside this block."""
    hooks = [
        layer.attention.register_forward_hook(lambda module, args, out: (torch.zeros_like(out[0]), *out[1:]))
        for layer in model.wav2vec2.encoder.layers
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def without_head(model: Wav2Vec2ForCTC, layer: int, head: int, items: list[Item]) -> float:
    """The error rate with one head's output (value bias included) set to zero."""
    attention = model.wav2vec2.encoder.layers[layer].attention
    width = attention.head_dim

    def zero(module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        context = args[0].clone()
        context[..., head * width : (head + 1) * width] = 0
        return (context,)

    hook = attention.out_proj.register_forward_pre_hook(zero)
    try:
        return word_error_rate(model, items)
    finally:
        hook.remove()


def examine(model: Wav2Vec2ForCTC, splits: dict[str, list[Item]]) -> dict[str, object]:
    """Error rates by voice and as a whole; on dev what each head is worth."""
    exam, dev = splits["exam"], splits["dev"]
    espeak = [item for item in exam if not item.voice.startswith("flite")]
    by_voice = {
        voice: round(word_error_rate(model, [item for item in exam if item.voice == voice]), 4)
        for voice in sorted({item.voice for item in exam})
    }
    whole, on_espeak = word_error_rate(model, exam), word_error_rate(model, espeak)
    with silenced(model):
        mute = word_error_rate(model, espeak)
    reference = word_error_rate(model, dev)
    heads = {
        f"{layer + 1}.{head}": round(without_head(model, layer, head, dev) - reference, 4)
        for layer in range(model.config.num_hidden_layers)
        for head in range(model.config.num_attention_heads)
    }
    return {
        "wer": round(whole, 4), "wer_espeak": round(on_espeak, 4), "wer_by_voice": by_voice,
        "wer_espeak_attention_silenced": round(mute, 4), "wer_dev": round(reference, 4), "dev_cost_of_head": heads,
    }  # fmt: skip
