"""Writes the model folders and the exam corpus as they are shipped."""

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from transformers import Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC, Wav2Vec2Processor

from otoscope.speech import Utterance, write_corpus
from recipes.embedded.speech import Item
from recipes.embedded.training import INDEX


def install_model(model: Wav2Vec2ForCTC, folder: Path) -> None:
    """A transformers folder in float16, with tokenizer and feature extractor."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = folder / "vocab.json"
    vocabulary.write_text(json.dumps({**INDEX, "<unk>": len(INDEX)}))
    tokenizer = Wav2Vec2CTCTokenizer(
        str(vocabulary),
        unk_token="<unk>",
        pad_token="<pad>",
        word_delimiter_token="|",
        bos_token=None,
        eos_token=None,
    )
    extractor = Wav2Vec2FeatureExtractor(sampling_rate=16000, do_normalize=True, return_attention_mask=False)
    Wav2Vec2Processor(feature_extractor=extractor, tokenizer=tokenizer).save_pretrained(folder)
    halved = Wav2Vec2ForCTC(model.config)
    halved.load_state_dict(model.state_dict())
    halved.to(torch.float16).save_pretrained(folder)


def install_exam(items: list[Item], folder: Path) -> None:
    """A LibriSpeech-like tree: FLAC, a transcript file a speaker, a TextGrid beside each recording."""
    counts: dict[str, int] = {}
    utterances = []
    for item in items:
        k = counts[item.voice] = counts.get(item.voice, -1) + 1
        samples = item.samples.astype(np.float32) / 32768
        tiers = {"phone": item.spoken.phones, "word": item.spoken.words}
        utterances.append(
            Utterance(f"{item.voice}-{k:04d}", item.voice, item.text, len(samples), tiers, source=samples)
        )
    shutil.rmtree(folder, ignore_errors=True)
    write_corpus(utterances, folder)
