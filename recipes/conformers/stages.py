"""Trains the Conformers, each in a folder of its own; what is there already is left as it is."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from otoscope.errors import EvaluationError
from otoscope.evaluation.references import check_frames, reference_of
from otoscope.models import load
from otoscope.models.recogniser import Recogniser
from otoscope.models.vocabulary import Vocabulary
from otoscope.speech import Corpus, Utterance
from otoscope.training.ctc import Ctc, CtcSettings
from otoscope.training.held_out import watched
from otoscope.training.loop import train
from otoscope.training.settings import TrainingSettings
from otoscope.training.vocabulary import vocabulary_of
from recipes.conformers.models import Conformer, made, store_edits

STEPS = 1000
SETTINGS = TrainingSettings(
    steps=STEPS, batch_seconds=32.0, learning_rate=3e-3, warmup=0.1, hold=0.4, clip=1.0, log_every=50,
    evaluate_every=500, save_every=500,
)  # fmt: skip
KEPT = (0.05, 0.2, 0.5)  # of the steps: models along the way


class Heard(Ctc):
    """CTC without augmentation, so that the features of every utterance are computed once.

    Args:
        recogniser: what is trained.
        features: filled as utterances come; several models may share it.
    """

    def __init__(self, recogniser: Recogniser, features: dict[str, torch.Tensor]) -> None:
        super().__init__(recogniser, CtcSettings(mask=0.0))
        self.features = features

    def assemble(
        self, utterances: Sequence[Utterance], waves: Sequence[np.ndarray], draw: np.random.Generator
    ) -> dict[str, torch.Tensor]:
        """See `Ctc`."""
        for utterance, wave in zip(utterances, waves, strict=True):
            if utterance.id not in self.features:
                self.features[utterance.id] = self.frontend.inputs([wave])["input_features"][0]
        parts = [self.features[utterance.id] for utterance in utterances]
        lengths = torch.tensor([len(part) for part in parts])
        texts = [self.vocabulary.encode(utterance.transcript or "") for utterance in utterances]
        features = torch.nn.utils.rnn.pad_sequence(parts, batch_first=True)
        return {
            "input_features": features,
            "attention_mask": torch.arange(features.shape[1]) < lengths[:, None],
            "targets": torch.tensor([number for text in texts for number in text]),
            "target_lengths": torch.tensor([len(text) for text in texts]),
            "frames": torch.tensor([self.recogniser.frames(len(wave)) for wave in waves]),
        }

    def write(self, folder: Path) -> None:
        """See `Ctc`; the edits lie beside the weights."""
        super().write(folder)
        store_edits(self.model, folder)


def train_one(
    one: Conformer,
    speech: dict[str, Corpus],
    work: Path,
    settings: TrainingSettings = SETTINGS,
    features: dict[str, torch.Tensor] | None = None,
) -> Path:
    """Trains one model, or takes up what an interrupted run left.

    Args:
        one: the model.
        speech: "train" and "dev".
        work: gets the folder, with `initial` and `step-N` in it.
        settings: of the training; the seed is the model's.
        features: see `Heard`.

    Returns:
        The model's folder.
    """
    folder = work / one.name
    if (folder / "config.json").exists():
        return folder
    vocabulary: Vocabulary = vocabulary_of(speech["train"])
    recogniser = Recogniser(load(made(one, vocabulary), name=one.name), vocabulary)
    objective = Heard(recogniser, {} if features is None else features)
    kept = tuple(sorted({round(share * settings.steps) for share in KEPT} - {0, settings.steps}))
    own = replace(settings, seed=one.seed, keep=kept)
    heard, dev = (list(alignable(speech[split], recogniser)) for split in ("train", "dev"))
    train(
        objective, heard, watched(dev, 0), own, folder,
        resume=(folder / "run").exists(), report=_print,
    )  # fmt: skip
    return folder


def alignable(corpus: Corpus, recogniser: Recogniser) -> Corpus:
    """The utterances that last long enough for their characters; which ones these are is the same for all models."""

    def fits(utterance: Utterance) -> bool:
        try:
            check_frames(recogniser, utterance, reference_of(recogniser, utterance))
        except EvaluationError:
            return False
        return True

    return corpus.subset(fits)


def _print(row: dict[str, Any]) -> None:
    short = {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
    print(json.dumps(short), flush=True)
