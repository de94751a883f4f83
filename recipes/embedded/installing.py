"""Writes the model folders and the exam corpus as they are shipped."""

import json
from pathlib import Path

import soundfile
import torch
from praatio import textgrid
from transformers import Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC, Wav2Vec2Processor

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
    transcripts: dict[str, list[str]] = {}
    for item in items:
        k = counts[item.voice] = counts.get(item.voice, -1) + 1
        place = folder / item.voice
        place.mkdir(parents=True, exist_ok=True)
        name = f"{item.voice}-{k:04d}"
        soundfile.write(place / f"{name}.flac", item.samples, 16000, subtype="PCM_16", compression_level=1.0)
        transcripts.setdefault(item.voice, []).append(f"{name} {item.text}")
        seconds = len(item.samples) / 16000
        grid = textgrid.Textgrid(0, seconds)
        for tier, intervals in (("words", item.spoken.words), ("phones", item.spoken.phones)):
            rows = [(i.start / 16000, i.end / 16000, i.label) for i in intervals]
            grid.addTier(textgrid.IntervalTier(tier, rows, 0, seconds))
        grid.save(str(place / f"{name}.TextGrid"), format="short_textgrid", includeBlankSpaces=True)
    for voice, lines in transcripts.items():
        (folder / voice / f"{voice}.trans.txt").write_text("\n".join(lines) + "\n")
