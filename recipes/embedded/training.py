"""Trains a small wav2vec 2.0 with CTC over characters; a frame-wise phone loss on a middle layer shortens the plateau."""

import json
import math
import random
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

from recipes.embedded.speech import Item

CHARACTERS = ["<pad>", "|", *"abcdefghijklmnopqrstuvwxyz", "'"]
INDEX = {character: k for k, character in enumerate(CHARACTERS)}
PHONES = (
    "sil aa ae ah ao aw ay b ch d dh eh er ey f g hh ih iy jh k l m n ng ow oy p r s sh t th uh uw v w y z zh"
).split()
PHONE_INDEX = {phone: k for k, phone in enumerate(PHONES)}


@dataclass(frozen=True)
class Settings:
    """Everything that the outcome depends on."""

    steps: int = 3200
    seed: int = 0
    width: int = 192
    layers: int = 6
    heads: int = 6
    position_kernel: int = 32
    mask: float = 0.06
    learning_rate: float = 1e-3
    batch_seconds: float = 40.0
    phone_layer: int = 4


def make_model(settings: Settings) -> Wav2Vec2ForCTC:
    """The untrained model, its weights rounded to float16 so that what changes later is what was learnt."""
    torch.manual_seed(settings.seed)
    config = Wav2Vec2Config(
        vocab_size=len(CHARACTERS), hidden_size=settings.width, num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads, intermediate_size=4 * settings.width,
        conv_dim=(64, 64, 96, 96, 128, 128, 128), feat_extract_norm="group", do_stable_layer_norm=True, conv_bias=False,
        num_conv_pos_embeddings=settings.position_kernel, num_conv_pos_embedding_groups=16,
        hidden_dropout=0.05, attention_dropout=0.05, activation_dropout=0.05, feat_proj_dropout=0.0, final_dropout=0.05,
        layerdrop=0.0, apply_spec_augment=True, mask_time_prob=settings.mask, mask_time_length=6, mask_time_min_masks=1,
        mask_feature_prob=0.0, pad_token_id=0, ctc_zero_infinity=True, num_codevector_groups=2,
        num_codevectors_per_group=64, codevector_dim=64, proj_codevector_dim=64,
    )  # fmt: skip
    return Wav2Vec2ForCTC(config).half().float()


def normalise(samples: np.ndarray) -> np.ndarray:
    """Zero mean, unit variance, as the model's feature extractor does."""
    return (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)


def augment(samples: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Adds white or coloured noise to most sentences and a telephone band to a few."""
    x = samples.astype(np.float32) / 32768
    if draw.random() < 0.6:
        noise = draw.standard_normal(len(x)).astype(np.float32)
        if draw.random() < 0.5:
            noise = np.cumsum(noise)
            noise -= np.convolve(noise, np.ones(400, np.float32) / 400, "same")
        x = x + noise / (noise.std() + 1e-6) * (x.std() + 1e-4) * 10 ** (-draw.uniform(8, 35) / 20)
    if draw.random() < 0.15:
        spectrum = np.fft.rfft(x)
        spectrum[len(spectrum) // 2 :] = 0
        x = np.fft.irfft(spectrum, len(x)).astype(np.float32)
    return normalise(x)


def phone_targets(item: Item, frames: int) -> np.ndarray:
    """The phone at the centre of each frame's receptive field (400 samples, hop 320)."""
    ends = np.array([phone.end for phone in item.spoken.phones])
    labels = np.array([PHONE_INDEX[phone.label] for phone in item.spoken.phones])
    centres = np.arange(frames) * 320 + 200
    return labels[np.minimum(np.searchsorted(ends, centres, side="right"), len(labels) - 1)]


def batches(items: list[Item], seconds: float, draw: random.Random) -> list[list[int]]:
    """Sentences of like length together, in random order, at most `seconds` with padding."""
    order = sorted(range(len(items)), key=lambda k: len(items[k].samples) + draw.uniform(-4000, 4000))
    found: list[list[int]] = []
    current: list[int] = []
    longest = 0
    for k in order:
        n = len(items[k].samples)
        if current and max(longest, n) * (len(current) + 1) > seconds * 16000:
            found.append(current)
            current, longest = [], 0
        current.append(k)
        longest = max(longest, n)
    found.append(current)
    draw.shuffle(found)
    return found


def train(model: Wav2Vec2ForCTC, items: list[Item], dev: list[Item], settings: Settings, log: Path) -> None:
    """Trains in place, one line of progress every 50 steps, into `log` as well."""
    from recipes.embedded.examination import word_error_rate

    draw, noise = random.Random(settings.seed + 1), np.random.default_rng(settings.seed + 2)
    np.random.seed(settings.seed + 3)  # noqa: NPY002 - transformers draws its time masks from numpy's global generator
    torch.manual_seed(settings.seed + 4)
    phone_head = nn.Linear(settings.width, len(PHONES))
    parameters = [*model.parameters(), *phone_head.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.01, betas=(0.9, 0.98))
    model.train()
    queue: list[list[int]] = []
    sums: list[tuple[float, float, float]] = []
    began = time.time()
    for step in range(settings.steps):
        queue = queue or batches(items, settings.batch_seconds, draw)
        chosen = [items[k] for k in queue.pop()]
        done = step / settings.steps
        rate = settings.learning_rate * min(1, (step + 1) / 200)
        rate *= 1 if done < 0.3 else 0.5 * (1 + math.cos(math.pi * (done - 0.3) / 0.7)) + 0.005
        for group in optimiser.param_groups:
            group["lr"] = rate
        waves = [augment(one.samples, noise) for one in chosen]
        longest = max(map(len, waves))
        inputs = torch.zeros(len(waves), longest)
        mask = torch.zeros(len(waves), longest, dtype=torch.long)
        for k, wave in enumerate(waves):
            inputs[k, : len(wave)] = torch.from_numpy(np.ascontiguousarray(wave, np.float32))
            mask[k, : len(wave)] = 1
        frames = model._get_feat_extract_output_lengths(mask.sum(-1))
        phones = torch.full((len(chosen), int(frames.max())), -100)
        for k, one in enumerate(chosen):
            phones[k, : frames[k]] = torch.from_numpy(phone_targets(one, int(frames[k])))
        texts = [[INDEX[c] for c in one.text.replace(" ", "|")] for one in chosen]
        targets = torch.tensor([c for text in texts for c in text])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = model.wav2vec2(inputs, attention_mask=mask, output_hidden_states=True)
            logits = model.lm_head(model.dropout(out.last_hidden_state))
            guess = phone_head(out.hidden_states[settings.phone_layer])
        ctc = F.ctc_loss(
            F.log_softmax(logits.float(), -1).transpose(0, 1), targets, frames,
            torch.tensor([len(text) for text in texts]), zero_infinity=True,
        )  # fmt: skip
        phone = F.cross_entropy(guess.float().flatten(0, 1), phones.flatten(), ignore_index=-100)
        optimiser.zero_grad(set_to_none=True)
        (ctc + (1.0 if done < 0.3 else 0.3) * phone).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        known = phones >= 0
        sums.append((ctc.item(), phone.item(), (guess.argmax(-1) == phones)[known].float().mean().item()))
        if (step + 1) % 50 == 0:
            elapsed = time.time() - began
            row = {
                "step": step + 1, "ctc": round(float(np.mean([s[0] for s in sums])), 3),
                "phone": round(float(np.mean([s[1] for s in sums])), 3),
                "phone_accuracy": round(float(np.mean([s[2] for s in sums])), 3),
                "minutes": round(elapsed / 60, 1),
                "minutes_left": round(elapsed / 60 / (step + 1) * (settings.steps - step - 1), 1),
            }  # fmt: skip
            sums = []
            if (step + 1) % 600 == 0:
                row["dev_wer"] = round(word_error_rate(model, dev), 4)
                model.train()
            print(json.dumps(row), flush=True)
            with log.open("a") as file:
                file.write(json.dumps(row) + "\n")
    model.eval()
