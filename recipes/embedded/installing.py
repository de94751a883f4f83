"""Writes models and speech as they are shipped: float16, Opus."""

import shutil
from collections import defaultdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from otoscope.embedded import MODELS, SPEECH
from otoscope.speech import Corpus, Utterance, read_corpus, write_corpus

EMBEDDED = MODELS["embedded"].parents[1]
SPEAKERS = {
    "embedded": None,  # all of exam
    "embedded:train": (
        "m1_us", "m3_scots", "f1_rp", "f2_gb", "adam_nyc", "anika_us", "boris_scots", "grandma_rp", "michael_gb",
        "steph_us", "slt", "kal16_slow",
    ),
}  # fmt: skip
SECONDS = {"embedded": 41.0, "embedded:train": 52.0}  # of each speaker


def install_speech(rendered: Path, output: Path = EMBEDDED) -> None:
    """Of each speaker the first sentences that make up the time; TextGrids beside them."""
    for name, split in (("embedded", "exam"), ("embedded:train", "train")):
        corpus = read_corpus(rendered / split)
        speakers = SPEAKERS[name] or corpus.speakers
        absent = sorted(set(speakers) - set(corpus.speakers))
        if absent:
            raise SystemExit(f"{rendered / split} has no speaker {absent[0]}; it has {', '.join(corpus.speakers)}")
        target = output / SPEECH[name].relative_to(EMBEDDED)
        shutil.rmtree(target, ignore_errors=True)
        write_corpus(_first(corpus, speakers, SECONDS[name]), target, "opus")


def _first(corpus: Corpus, speakers: tuple[str, ...], seconds: float) -> list[Utterance]:
    spoken: dict[str, float] = defaultdict(float)
    chosen = []
    for utterance in corpus:
        speaker = str(utterance.speaker)
        if speaker in speakers and spoken[speaker] < seconds:
            spoken[speaker] += utterance.n_samples / 16000
            chosen.append(utterance)
    return chosen


def install_models(work: Path, scale: float = 1.0, output: Path = EMBEDDED) -> None:
    """Copies what was trained, with weights in float16."""
    for name, folder in places(work, scale).items():
        target = output / MODELS[name].relative_to(EMBEDDED)
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for path in sorted(folder.iterdir()):
            if path.suffix == ".safetensors":
                halved = {key: value.to(torch.float16) for key, value in load_file(path).items()}
                metadata = {"source": '"mfcc"'} if path.name.startswith("masked") else {"format": "pt"}
                save_file(halved, target / path.name, metadata=metadata)
            elif path.suffix == ".json":
                shutil.copyfile(path, target / path.name)


def places(work: Path, scale: float = 1.0) -> dict[str, Path]:
    """Where each shipped model lies after training."""
    found = {}
    for family in ("wav2vec2", "wavlm"):
        found[f"embedded:{family}"] = work / f"{family}-final"
        found[f"embedded:{family}-pretrained"] = work / f"{family}-ssl"
        found[f"embedded:{family}-initial"] = work / f"{family}-ssl" / "initial"
    for name in MODELS:
        family, _, step = name.removeprefix("embedded:").partition("-step-")
        if step:
            found[name] = work / f"{family}-ssl" / f"step-{round(int(step) * scale)}"
    return found
