"""Fine-tuning with CTC over characters or pieces, and on request a frame-wise phone loss on a middle layer beside it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from otoscope.errors import TrainingError, TranscriptError
from otoscope.evaluation.error_rates import CharacterErrorRate, WordErrorRate
from otoscope.evaluation.metric import recognise
from otoscope.evaluation.pretext import has_mask_vector
from otoscope.evaluation.references import check_frames, reference_of
from otoscope.models.families import submodule
from otoscope.models.model import SpeechModel
from otoscope.models.recogniser import Recogniser
from otoscope.speech.corpus import Corpus
from otoscope.speech.utterance import Utterance
from otoscope.surgery.units import Parts
from otoscope.training.architectures import seeded
from otoscope.training.augmentation import Augmentation
from otoscope.training.objective import Objective
from otoscope.training.spec_augment import masks_for, spec_augment
from otoscope.training.teacher import Teacher
from otoscope.training.vocabulary import write_vocabulary

PHONE_SHARE = 0.3
_IGNORED = -100
_MEL_HOP = 160  # samples between two frames of mel features


@dataclass(frozen=True)
class CtcSettings:
    """What belongs to CTC alone.

    Masks are SpecAugment's (Park et al. 2019, arXiv 1904.08779). Where transformers masks what enters the layers, its
    masks are used: `mask_span` frames or `feature_span` channels each. Families that it has none for (Parakeet) get masks
    on the mel features, of widths drawn evenly from 0 to twice the span; see `spec_augment`.

    Attributes:
        mask: share of frames under masks if these did not overlap; 0 masks none.
        mask_span: frames a mask.
        freeze_convolutions: leave the convolutions over samples as they are.
        phone_layer: the layer with a phone loss beside CTC, or None; its head is not kept. It shortens the plateau of
            a model that is trained from nothing. It weighs as much as CTC for the first 30 % of the run, 0.3 after.
        feature_mask: share of channels, or of mel bands, under masks if these did not overlap; 0 masks none.
        feature_span: channels or bands a mask.
        open_at: steps in which only what lies above the encoder is trained (wav2vec 2.0: 10,000 of its steps); the encoder
            is trained with it from then on.

    Raises:
        TrainingError: a number is out of its range.
    """

    mask: float = 0.05
    mask_span: int = 6
    freeze_convolutions: bool = True
    phone_layer: int | None = None
    feature_mask: float = 0.0
    feature_span: int = 10
    open_at: int = 0

    def __post_init__(self) -> None:
        for what, share, span in (
            ("mask", self.mask, self.mask_span),
            ("feature_mask", self.feature_mask, self.feature_span),
        ):
            if not 0 <= share < 1 or span < 1:
                raise TrainingError(
                    f"A {what} of {share} in spans of {span}", "Give a share below 1, and spans of 1 or more."
                )
        if self.open_at < 0:
            raise TrainingError(f"open_at is {self.open_at}", "Give a number of steps, zero or more.")


def check_transcript(utterance: Utterance) -> None:
    """Makes sure that there is something to spell.

    Raises:
        TranscriptError: there is no transcript, or an empty one.
    """
    if not (utterance.transcript or "").split():
        absent = "has no transcript" if utterance.transcript is None else "has an empty transcript"
        raise TranscriptError(
            f"Utterance {utterance.id!r} {absent}",
            "Write what is said, or leave the utterance out (skip_bad=True, --skip-bad).",
        )


class Ctc(Objective):
    """Connectionist temporal classification (Graves et al. 2006) over characters or pieces of words.

    Args:
        recogniser: what is trained: the CTC model that it was made from changes in place.
        settings: see `CtcSettings`.
        augmentation: what is done to the speech that the model hears.
        phones: labels of the phone loss, where there is one.
        seed: of the phone loss's head.
        teacher: what is followed beside the transcripts, or None.

    Raises:
        TrainingError: the model has no such layer, or there are no phones for the phone loss; or masks would hide
            nothing, or be wider than all features.
    """

    name = "ctc"
    judged_by = "wer"

    def __init__(
        self,
        recogniser: Recogniser,
        settings: CtcSettings | None = None,
        augmentation: Augmentation | None = None,
        phones: Sequence[str] = (),
        seed: int = 0,
        teacher: Teacher | None = None,
    ) -> None:
        super().__init__()
        self.teacher = teacher
        speech, model = recogniser.model, recogniser.model.source
        self.recogniser, self.vocabulary, self.frontend, self.model = (
            recogniser, recogniser.vocabulary, speech.frontend, model,
        )  # fmt: skip
        self.settings, self.augmentation = settings or CtcSettings(), augmentation or Augmentation()
        self.grid, self.phones = speech.anatomy.grid, {label: k for k, label in enumerate(phones)}
        self.phone_head: nn.Module | None = None
        layer = self.settings.phone_layer
        if layer is not None:
            if f"layer.{layer}" not in speech.anatomy.streams:
                raise TrainingError(
                    f"{speech.name} has no layer {layer} for a phone loss",
                    f"Name one of 1 to {speech.anatomy.n_layers} that it has.",
                )
            if not phones:
                raise TrainingError(
                    "The phone loss needs phone times, and the corpus has none",
                    "Add alignments, or leave the phone loss out.",
                )
            width = speech.anatomy.widths["input"]
            self.phone_head = seeded(seed + 1, lambda: nn.Linear(width, len(phones)))
        self._family = speech.family
        if layer is not None or (teacher is not None and teacher.shared):
            # A dropped layer gives neither anything to read phones from nor anything to compare.
            Parts(self.encoder, self._family).keep_every_layer()
        self._held: list[nn.Parameter] | None = None
        self.judged_from = self.settings.open_at  # a head on what it cannot change may stand still until then
        self._set_masks(speech)
        convolutions = getattr(self.encoder, "feature_extractor", None)
        if convolutions is not None:
            convolutions.requires_grad_(not self.settings.freeze_convolutions)

    @property
    def encoder(self) -> nn.Module:
        """What lies under the head."""
        return self._family.encoder(self.model)

    def _set_masks(self, speech: SpeechModel) -> None:
        """Has transformers mask what enters the layers, or notes that the features are to be masked before."""
        given = self.settings
        config: Any = self.model.config
        self._masks_features = not hasattr(self.encoder.config, "mask_time_prob")
        width = int(self.frontend.description["bands"]) if self._masks_features else speech.anatomy.widths["input"]
        if given.feature_mask and given.feature_span > width:
            raise TrainingError(
                f"{speech.name} has {width} features to mask, and a mask is {given.feature_span} wide",
                "Give narrower masks: CtcSettings(feature_span=...) (--feature-span).",
            )
        if self._masks_features:
            return
        if given.mask and not has_mask_vector(self.model):
            raise TrainingError(
                f"{speech.name} ({type(self.model).__name__}) has no vector that stands for masked frames, so a mask of "
                f"{given.mask:g} would hide nothing",
                "Train without masks: CtcSettings(mask=0) (--mask 0).",
            )
        config.apply_spec_augment = given.mask > 0 or given.feature_mask > 0
        config.mask_time_prob, config.mask_time_length = given.mask, given.mask_span
        config.mask_time_min_masks = 1 if given.mask else 0
        config.mask_feature_prob, config.mask_feature_length = given.feature_mask, given.feature_span
        config.mask_feature_min_masks = 0  # some families' configurations lack it

    def begin_step(self, step: int) -> None:
        """See `Objective`: the encoder is held until the step at which it is opened.

        It is held by turning gradients off, so that processes that train together agree on what there is to train.
        """
        if self._held is None:
            self._held = [one for one in self.encoder.parameters() if one.requires_grad]
        for parameter in self._held:
            parameter.requires_grad_(step >= self.settings.open_at)

    def check(self, utterance: Utterance) -> None:
        """Makes sure that an utterance can be trained on, also at the highest speed of the augmentation.

        Raises:
            TranscriptError: there is no transcript, or an empty one.
            VocabularyError: a character has no token.
            EvaluationError: the transcript needs more frames than there are.
        """
        check_transcript(utterance)
        check_frames(self.recogniser, utterance, reference_of(self.recogniser, utterance), self.augmentation.speed[1])

    def assemble(
        self, utterances: Sequence[Utterance], waves: Sequence[np.ndarray], draw: np.random.Generator
    ) -> dict[str, torch.Tensor]:
        """See `Objective`; `targets` are the tokens of all utterances end to end."""
        changed = [self.augmentation.apply(wave, draw) for wave in waves]
        frames = [self.frontend.frames(len(wave)) for wave, _ in changed]
        texts = [reference_of(self.recogniser, u).tokens for u in utterances]
        batch = {
            **self.frontend.inputs([wave for wave, _ in changed]),
            "targets": torch.tensor([number for text in texts for number in text]),
            "target_lengths": torch.tensor([len(text) for text in texts]),
            "frames": torch.tensor([self.recogniser.frames(len(wave)) for wave, _ in changed]),
        }
        if self.teacher is not None:
            batch["layer_frames"] = torch.tensor(frames)
        if self._masks_features and (self.settings.mask or self.settings.feature_mask):
            self._mask_features(batch, draw)
        if self.phone_head is not None:
            labels = [
                torch.from_numpy(self.phone_labels(u, n, speed))
                for u, n, (_, speed) in zip(utterances, frames, changed, strict=True)
            ]
            batch["phones"] = torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=_IGNORED)
        return batch

    def _mask_features(self, batch: dict[str, torch.Tensor], draw: np.random.Generator) -> None:
        """Puts masks on the features of a batch, each utterance's within its own frames."""
        given, features = self.settings, batch["input_features"]
        span = given.mask_span * self.grid.hop // _MEL_HOP
        for row, frames in zip(features, batch["attention_mask"].sum(-1).tolist(), strict=True):
            row[:frames] = spec_augment(
                row[:frames], draw,
                time_masks=masks_for(frames, given.mask, span, draw), time_width=2 * span,
                band_masks=masks_for(features.shape[-1], given.feature_mask, given.feature_span, draw),
                band_width=2 * given.feature_span,
            )  # fmt: skip

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
        phones, layer_frames = batch.pop("phones", None), batch.pop("layer_frames", None)
        config: Any = self.model.config
        if not self._masks_features:  # transformers refuses masks that are longer than all that they could lie in
            config.mask_time_length = min(self.settings.mask_span, int(frames.max()))
        with contextlib.ExitStack() as stack:
            heard = stack.enter_context(self._listening(phones is not None))
            followed = {} if self.teacher is None else stack.enter_context(self.teacher.listening(self.model))
            out = self.model(**batch)
        if not self._masks_features:
            config.mask_time_length = self.settings.mask_span
        scores = F.log_softmax(out.logits.float(), -1)
        ctc = F.ctc_loss(
            scores.transpose(0, 1), targets, frames, lengths, blank=self.vocabulary.blank, zero_infinity=True
        )
        found = {"loss": ctc, "ctc": ctc}
        if self.teacher is not None and layer_frames is not None:
            taught = self.teacher.losses(batch, scores, followed, frames, layer_frames)
            found["loss"] = found["loss"] + taught.pop("loss")
            found |= {f"teacher_{name}": value for name, value in taught.items()}
        if phones is None or self.phone_head is None:
            return found
        guess = self.phone_head(heard[0]).float()
        known = phones != _IGNORED
        if not bool(known.any()):
            return found | {"loss": found["loss"] + 0 * guess.sum()}
        phone = F.cross_entropy(guess.flatten(0, 1), phones.flatten(), ignore_index=_IGNORED)
        weight = 1.0 if float(progress) < PHONE_SHARE else 0.3
        return found | {
            "loss": found["loss"] + weight * phone,
            "phone": phone,
            "phone_accuracy": (guess.argmax(-1) == phones)[known].float().mean(),
        }

    @contextlib.contextmanager
    def _listening(self, on: bool) -> Iterator[list[torch.Tensor]]:
        """What the layer of the phone loss gives in a pass; transformers' list of layers lacks those that were removed."""
        heard: list[torch.Tensor] = []

        def note(module: nn.Module, args: object, out: Any) -> None:
            heard.append(out[0] if isinstance(out, tuple) else out)

        layer = self.settings.phone_layer
        layers: Any = submodule(self.encoder, self._family.layers)
        handle = layers[layer - 1].register_forward_hook(note) if on and layer is not None else None
        try:
            yield heard
        finally:
            if handle is not None:
                handle.remove()

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
            **({} if self.teacher is None else self.teacher.describe()),
            "augmentation": asdict(self.augmentation),
        }
