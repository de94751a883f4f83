"""What is trained for the embedded family: sizes, steps and augmentation of each stage."""

import json
from pathlib import Path

import torch

from otoscope.speech import Corpus, Utterance, read_corpus
from otoscope.statistics.hashing import uniform
from otoscope.training.architectures import Size
from otoscope.training.augmentation import Augmentation
from otoscope.training.ctc import CtcSettings
from otoscope.training.settings import TrainingSettings
from otoscope.workflow.finetuning import finetune
from otoscope.workflow.pretraining import pretrain

FAMILY = ("wav2vec2", "wavlm")
COMMON = 4  # words of each kind in the speech for fine-tuning and the examination: some 500 word forms
SIZES = {
    "wav2vec2": Size(layers=8, heads=4, width=192, feed_forward=768, position_kernel=16, dropout=0.0),
    # Relative positions make up for a positional convolution of 8 frames.
    "wavlm": Size(layers=8, heads=4, width=192, feed_forward=768, position_kernel=8, dropout=0.0),
}
SECOND_ROUND = {"wav2vec2": 1000, "wavlm": 1400}  # steps at half the rate
THIRD_ROUND = 6000  # steps, with made-up voices
FOURTH_ROUND = 1500  # steps, with new sentences by them and fewer by espeak-ng's voices
ROUNDS = {"wav2vec2": 3, "wavlm": 4}
KEPT = {"wav2vec2": (300, 700), "wavlm": ()}
NOISY = Augmentation(noise=0.6, telephone=0.15)
NOISY_AT_ALL_SPEEDS = Augmentation(noise=0.5, snr=(12.0, 40.0), telephone=0.1, speed=(0.92, 1.1))
COLOURED = Augmentation(noise=0.4, snr=(12.0, 40.0), telephone=0.05, speed=(0.88, 1.14), colour=5.0)
PRETRAINING_SHARE, FINETUNING_SHARE, LAST_SHARE = (
    0.6,
    0.65,
    0.3,
)  # of the espeak-ng sentences; flite's, the scarce ones, are all taken
MASK, MASK_SPAN = 0.45, 5  # of pre-training: short masks, which a small model learns to fill sooner


def training_corpus(folder: Path, espeak_share: float) -> Corpus:
    """All flite sentences and a share of the espeak-ng ones, chosen by a hash."""
    speakers = json.loads((folder / "corpus.json").read_text())["splits"]["train"]["speakers"]
    recorded = {one["name"] for one in speakers if one["engine"] == "flite"}

    def stays(utterance: Utterance) -> bool:
        return utterance.speaker in recorded or uniform(0, utterance.id, purpose="embedded") < espeak_share

    return read_corpus(folder / "train").subset(stays, name="train")


def with_voices(train: Corpus, voices: Path) -> Corpus:
    """The speech with that of made-up voices."""
    return Corpus("train", (*train.utterances, *read_corpus(voices)))


def train_one(
    name: str, speech: Path, common: Path, voices: tuple[Path, Path], work: Path, scale: float = 1.0, seed: int = 0
) -> None:
    """Pre-trains and fine-tunes one model of the family, taking up what an interrupted run left.

    Args:
        name: "wav2vec2" or "wavlm".
        speech: folder that `otoscope synthesise` wrote, for pre-training.
        common: another, of the common words alone, for fine-tuning.
        voices: what `render_voices` wrote of two seeds, for the third round and the fourth.
        work: gets `NAME-ssl`, `NAME-ctc`, after a second round with half the rate `NAME-second`, after a third, with
            made-up voices, `NAME-third`, and after a fourth, with new sentences by them, `NAME-final`; `NAME-final` after the
            third where that is the last.
        scale: of the numbers of steps, above 1 where there is a GPU.
        seed: of weights, batches and noise.
    """
    torch.set_num_threads(1)  # a second thread gains little at this size, and loses much where the machine is shared

    def settings(steps: int, kept: tuple[int, ...] = (), rate: float = 1e-3, seed: int = seed) -> TrainingSettings:
        return TrainingSettings(
            steps=round(steps * scale), batch_seconds=32, learning_rate=rate, precision="bfloat16", seed=seed,
            log_every=25, warmup=0.06,
            hold=0.35, evaluate_every=250, save_every=250, keep=tuple(round(step * scale) for step in kept),
        )  # fmt: skip

    stages = ("ssl", *("ctc", "second", "third")[: ROUNDS[name] - 1], "final")
    pretrained, *_ = places = [work / f"{name}-{stage}" for stage in stages]
    if not (pretrained / "config.json").exists():
        train, dev = training_corpus(speech, PRETRAINING_SHARE), read_corpus(speech / "dev")
        pretrain(
            name, train, pretrained, size=SIZES[name], settings=settings(1200 if name == "wav2vec2" else 900, KEPT[name]),
            mask=MASK, mask_span=MASK_SPAN, clusters=100, augmentation=NOISY, dev=dev,
            resume=(pretrained / "run").exists(), report=_print,
        )  # fmt: skip
    train, dev = training_corpus(common, FINETUNING_SHARE), read_corpus(common / "dev")
    fewer = training_corpus(common, LAST_SHARE)
    rounds = (
        (settings(3300), train, NOISY_AT_ALL_SPEEDS),
        (settings(SECOND_ROUND[name], (), 5e-4, seed + 1), train, NOISY_AT_ALL_SPEEDS),
        (settings(THIRD_ROUND, (), 1e-3, seed + 2), with_voices(train, voices[0]), COLOURED),
        (settings(FOURTH_ROUND, (), 7e-4, seed + 3), with_voices(fewer, voices[1]), COLOURED),
    )
    for begin, end, (one, heard, augmentation) in zip(places, places[1:], rounds, strict=False):
        if not (end / "config.json").exists():
            finetune(
                begin, heard, end, settings=one, augmentation=augmentation, dev=dev,
                ctc=CtcSettings(mask=0.05, mask_span=6, freeze_convolutions=False, phone_layer=5),
                resume=(end / "run").exists(), report=_print,
            )  # fmt: skip


def _print(row: dict) -> None:
    print(
        json.dumps({key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}),
        flush=True,
    )
