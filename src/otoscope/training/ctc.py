"""Fine-tuning with CTC over characters, and beside it, on request, a frame-wise phone loss on a middle layer."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from torch import nn

from otoscope.errors import HeadError, TrainingError, TranscriptError
from otoscope.evaluation.error_rates import CharacterErrorRate, WordErrorRate
from otoscope.evaluation.metric import recognise
from otoscope.evaluation.pretext import has_mask_vector
from otoscope.evaluation.references import check_frames, reference_of
from otoscope.models.edits import described
from otoscope.models.model import SpeechModel
from otoscope.models.recogniser import Recogniser
from otoscope.models.vocabulary import Vocabulary
from otoscope.speech.corpus import Corpus
from otoscope.speech.utterance import Utterance
from otoscope.training.architectures import seeded
from otoscope.training.augmentation import Augmentation
from otoscope.training.objective import Objective
from otoscope.training.vocabulary import write_vocabulary

PHONE_SHARE = 0.3
_IGNORED = -100


@dataclass(frozen=True)
class CtcSettings:
    """What belongs to CTC alone.

    Attributes:
        mask: share of frames under SpecAugment's time masks; 0 masks nothing, and is what families without such masks
            (Parakeet) want.
        mask_span: frames a mask.
        freeze_convolutions: leave the convolutions over samples as they are.
        phone_layer: the layer with a phone loss beside CTC, or None; its head is not kept. It shortens the plateau of
            a model that is trained from nothing. It weighs as much as CTC for the first 30 % of the run, 0.3 after.

    Raises:
        TrainingError: a number is out of its range.
    """

    mask: float = 0.05
    mask_span: int = 6
    freeze_convolutions: bool = True
    phone_layer: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.mask < 1 or self.mask_span < 1:
            raise TrainingError(
                f"A mask of {self.mask} in spans of {self.mask_span}", "Give a share below 1, and spans of 1 or more."
            )


def refuse_edited(model: SpeechModel) -> None:
    """Makes sure that what is trained can be stored.

    Raises:
        HeadError: the model is an edited copy.
    """
    if described(model.family.encoder(model.source), str):
        raise HeadError(
            f"{model.name} is an edited copy, and a folder of transformers has no place for its edits",
            "Fine-tune the original, then edit the result.",
        )


def with_ctc_head(model: SpeechModel, vocabulary: Vocabulary, seed: int) -> nn.Module:
    """A copy of a model in float32 with a fresh CTC head for a vocabulary.

    Raises:
        HeadError: the family has no CTC model, or the model lacks weights or was edited.
    """
    classes = [name for name in (*model.family.with_head,) if name.endswith("ForCTC")]
    if not classes:
        raise HeadError(f"transformers has no CTC model for the family {model.family.name}", "Use another family.")
    refuse_edited(model)
    made_by = getattr(transformers, classes[0])
    config: Any = copy.deepcopy(model.source.config)
    if not isinstance(config, made_by.config_class):  # an encoder whose configuration is a part of the whole one
        config = made_by.config_class(encoder_config=config.to_dict())
    config.vocab_size, config.pad_token_id = len(vocabulary), vocabulary.blank
    made = seeded(seed, lambda: made_by(config))
    absent, _ = model.family.encoder(made).load_state_dict(
        model.family.encoder(model.source).state_dict(), strict=False
    )
    missing = [name for name in absent if not name.endswith("masked_spec_embed")]
    if missing:
        raise HeadError(f"{model.name} lacks {missing[0]}, which {classes[0]} needs", "Use a complete checkpoint.")
    return made


class Ctc(Objective):
    """Connectionist temporal classification (Graves et al. 2006) over the characters of the transcripts.

    Args:
        recogniser: what is trained: the CTC model that it was made from changes in place.
        settings: see `CtcSettings`.
        augmentation: what is done to the speech that the model hears.
        phones: labels of the phone loss, where there is one.
        seed: of the phone loss's head.

    Raises:
        TrainingError: the model has no such layer, or there are no phones for the phone loss.
    """

    name = "ctc"

    def __init__(
        self,
        recogniser: Recogniser,
        settings: CtcSettings | None = None,
        augmentation: Augmentation | None = None,
        phones: Sequence[str] = (),
        seed: int = 0,
    ) -> None:
        super().__init__()
        speech, model = recogniser.model, recogniser.model.source
        self.recogniser, self.vocabulary, self.frontend, self.model = (
            recogniser, recogniser.vocabulary, speech.frontend, model,
        )  # fmt: skip
        self.settings, self.augmentation = settings or CtcSettings(), augmentation or Augmentation()
        self.grid, self.phones = speech.anatomy.grid, {label: k for k, label in enumerate(phones)}
        self.phone_head: nn.Module | None = None
        config: Any = model.config
        layer = self.settings.phone_layer
        if layer is not None:
            if not 1 <= layer <= speech.anatomy.n_layers:
                raise TrainingError(
                    f"{speech.name} has no layer {layer} for a phone loss", f"Name 1 to {speech.anatomy.n_layers}."
                )
            if not phones:
                raise TrainingError(
                    "The phone loss needs phone times, and the corpus has none",
                    "Add alignments, or leave the phone loss out.",
                )
            width = speech.anatomy.widths["input"]
            config.layerdrop = 0.0  # a dropped layer gives nothing to read phones from
            self.phone_head = seeded(seed + 1, lambda: nn.Linear(width, len(phones)))
        if self.settings.mask and not has_mask_vector(model):
            raise TrainingError(
                f"{speech.name} ({type(model).__name__}) has no vector that stands for masked frames, so a mask of "
                f"{self.settings.mask:g} would hide nothing",
                "Train without masks: CtcSettings(mask=0) (--mask 0).",
            )
        config.apply_spec_augment = self.settings.mask > 0
        config.mask_time_prob, config.mask_time_length = self.settings.mask, self.settings.mask_span
        config.mask_time_min_masks = 1 if self.settings.mask else 0
        convolutions = getattr(speech.family.encoder(model), "feature_extractor", None)
        if convolutions is not None:
            convolutions.requires_grad_(not self.settings.freeze_convolutions)

    def check(self, utterance: Utterance) -> None:
        """Makes sure that an utterance can be trained on, also at the highest speed of the augmentation.

        Raises:
            TranscriptError: there is no transcript, or an empty one.
            VocabularyError: a character has no token.
            EvaluationError: the transcript needs more frames than there are.
        """
        reference = reference_of(self.recogniser, utterance)
        if not reference.tokens:
            raise TranscriptError(
                f"The transcript of utterance {utterance.id!r} is empty",
                "Write what is said, or leave the utterance out (skip_bad=True, --skip-bad).",
            )
        check_frames(self.recogniser, utterance, reference, self.augmentation.speed[1])

    def assemble(
        self, utterances: Sequence[Utterance], waves: Sequence[np.ndarray], draw: np.random.Generator
    ) -> dict[str, torch.Tensor]:
        """See `Objective`; `targets` are the characters of all utterances end to end."""
        changed = [self.augmentation.apply(wave, draw) for wave in waves]
        frames = [self.frontend.frames(len(wave)) for wave, _ in changed]
        texts = [reference_of(self.recogniser, u).tokens for u in utterances]
        batch = {
            **self.frontend.inputs([wave for wave, _ in changed]),
            "targets": torch.tensor([number for text in texts for number in text]),
            "target_lengths": torch.tensor([len(text) for text in texts]),
            "frames": torch.tensor([self.recogniser.frames(len(wave)) for wave, _ in changed]),
        }
        if self.phone_head is not None:
            labels = [
                torch.from_numpy(self.phone_labels(u, n, speed))
                for u, n, (_, speed) in zip(utterances, frames, changed, strict=True)
            ]
            batch["phones"] = torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=_IGNORED)
        return batch

    def phone_labels(self, utterance: Utterance, frames: int, speed: float = 1.0) -> np.ndarray:
        """The phone at the centre of what each frame sees, shape (frames,); -100 where there is none."""
        found = np.full(frames, _IGNORED, np.int64)
        intervals = utterance.tiers.get("phone", ())
        if not intervals:
            return found
        centres = (self.grid.offset + np.arange(frames) * self.grid.hop + self.grid.field // 2) * speed
        k = np.searchsorted([x.end for x in intervals], centres, side="right")
        inside = k < len(intervals)
        labels = np.array([self.phones.get(x.label, _IGNORED) for x in intervals])
        starts = np.array([x.start for x in intervals])
        k = np.minimum(k, len(intervals) - 1)
        inside &= centres >= starts[k]
        found[inside] = labels[k[inside]]
        return found

    def forward(self, progress: torch.Tensor, **batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """See `Objective`."""
        targets, lengths, frames = (batch.pop(name) for name in ("targets", "target_lengths", "frames"))
        phones = batch.pop("phones", None)
        config: Any = self.model.config
        # transformers refuses masks that are longer than all that they could lie in.
        config.mask_time_length = min(self.settings.mask_span, int(frames.max()))
        out = self.model(**batch, output_hidden_states=phones is not None)
        config.mask_time_length = self.settings.mask_span
        scores = F.log_softmax(out.logits.float(), -1).transpose(0, 1)
        ctc = F.ctc_loss(scores, targets, frames, lengths, blank=self.vocabulary.blank, zero_infinity=True)
        if phones is None or self.phone_head is None:
            return {"loss": ctc, "ctc": ctc}
        guess = self.phone_head(out.hidden_states[self.settings.phone_layer]).float()
        known = phones != _IGNORED
        if not bool(known.any()):
            return {"loss": ctc + 0 * guess.sum(), "ctc": ctc}
        phone = F.cross_entropy(guess.flatten(0, 1), phones.flatten(), ignore_index=_IGNORED)
        weight = 1.0 if float(progress) < PHONE_SHARE else 0.3
        return {
            "loss": ctc + weight * phone,
            "ctc": ctc,
            "phone": phone,
            "phone_accuracy": (guess.argmax(-1) == phones)[known].float().mean(),
        }

    def held_out(self, utterances: Sequence[Utterance]) -> dict[str, float]:
        """WER and CER of greedy decoding, with the weights as they are."""
        examined = self.recogniser.model
        # Made ready anew, since moving a model to a GPU gives it new buffers.
        ready = SpeechModel(self.model, examined.family, examined.frontend, examined.name)
        metrics = (WordErrorRate(), CharacterErrorRate())
        found = recognise(metrics, Recogniser(ready, self.vocabulary), Corpus("held out", tuple(utterances)))
        return {name: scores.value for name, scores in found.items()}

    def write(self, folder: Path) -> None:
        """See `Objective`; the vocabulary lies beside the model."""
        super().write(folder)
        write_vocabulary(self.vocabulary, folder)

    def describe(self) -> dict[str, Any]:
        """See `Objective`."""
        return {
            "objective": self.name,
            "vocabulary": list(self.vocabulary.tokens),
            **asdict(self.settings),
            "augmentation": asdict(self.augmentation),
        }
