"""A speech model with a CTC head and its vocabulary: log probabilities of characters, frame by frame."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from otoscope.errors import CaptureError, HeadError, NotFiniteError, VocabularyError
from otoscope.models.families import submodule
from otoscope.models.frontends import RATE
from otoscope.models.loading import load
from otoscope.models.model import SpeechModel
from otoscope.models.view import view_of
from otoscope.models.vocabulary import Vocabulary, read_vocabulary


class Recogniser:
    """A speech model that spells what it hears.

    The encoder runs as it does for a diagnosis, so that results do not depend on what else is in a batch; its CTC head
    is applied to what it gives, without dropout. An adapter that shortens time after the last layer mixes frames, so
    models with one run on one utterance at a time.

    Args:
        model: a model whose source has a CTC head.
        vocabulary: what the head's outputs stand for.

    Attributes:
        model: the speech model.
        vocabulary: the vocabulary.

    Raises:
        HeadError: there is no CTC head.
        VocabularyError: the vocabulary does not fit the head.
    """

    def __init__(self, model: SpeechModel, vocabulary: Vocabulary) -> None:
        self.model, self.vocabulary = model, vocabulary
        self._head = view_of(ctc_head(model)).eval()
        outputs, blank = model.source.config.vocab_size, model.source.config.pad_token_id  # type: ignore[union-attr]
        if len(vocabulary) != outputs:
            raise VocabularyError(
                f"{model.name} has {outputs} outputs and its vocabulary {len(vocabulary)} tokens",
                "Give the vocabulary that this head was trained with.",
            )
        if vocabulary.blank != blank:
            raise VocabularyError(
                f"The vocabulary's blank is {vocabulary.blank} and that of {model.name} is {blank} (pad_token_id)",
                "Give the vocabulary that this head was trained with.",
            )
        adapter = getattr(model.family.encoder(model.source), "adapter", None)
        # The first convolution of each adapter layer sets its length; a second one beside it has the same shape.
        self._shortened_by = [_convolution(layer) for layer in adapter.layers] if adapter is not None else []

    @property
    def name(self) -> str:
        """What reports call it."""
        return self.model.name

    @property
    def parameters(self) -> int:
        """Number of parameters of encoder and head."""
        return self.model.parameters + sum(parameter.numel() for parameter in self._head.parameters())

    @property
    def head_macs_per_second(self) -> int:
        """Multiply-accumulates of the head for a second of speech, averaged over the length that the encoder's are.

        A head multiplies each of its weights once a frame; its biases are added only.
        """
        seconds = self.model.frontend.usual_seconds
        weights = sum(parameter.numel() for parameter in self._head.parameters() if parameter.ndim > 1)
        return int(weights * self.frames(int(seconds * RATE)) / seconds)

    def frames(self, n_samples: int) -> int:
        """Frames that an utterance gives at the head."""
        frames = self.model.frontend.frames(n_samples)
        for kernel, stride, padding in self._shortened_by:
            frames = (frames + 2 * padding - kernel) // stride + 1
        return frames

    def log_probabilities(
        self, samples: Sequence[np.ndarray], names: Sequence[str] | None = None
    ) -> list[torch.Tensor]:
        """Log probabilities of the tokens at every frame.

        Args:
            samples: float32 at 16 kHz, one array (n,) an utterance.
            names: what errors call the utterances; by default their place in the batch.

        Returns:
            One tensor an utterance, shape (T, V), float32, on the model's device.

        Raises:
            AudioError: an utterance is too short or too long for this model.
            CaptureError: values are not finite, or come in another number than expected.
        """
        named = [f"Utterance {name!r}" for name in names] if names is not None else [
            f"Utterance {k} of the batch" for k in range(len(samples))
        ]  # fmt: skip
        for name, one in zip(named, samples, strict=True):
            self.model.frontend.check(len(one), name)
        groups = [[one] for one in samples] if self._shortened_by else [list(samples)] if samples else []
        found: list[torch.Tensor] = []
        with torch.inference_mode():
            for group in groups:
                logits = self._head(self.model.encode(group))
                scores = torch.log_softmax(logits, -1, dtype=torch.float32)
                for row, one in zip(scores, group, strict=True):
                    frames, name = self.frames(len(one)), named[len(found)]
                    if len(row) < frames or (self._shortened_by and len(row) != frames):
                        raise CaptureError(
                            f"{name} gives {len(row)} frames at the head of {self.name}, not {frames}",
                            "Pass a model in the form its library builds it.",
                        )
                    if not bool(torch.isfinite(row[:frames]).all()):
                        raise NotFiniteError(
                            f"{self.name} gives values that are not finite for {name[0].lower()}{name[1:]}",
                            "Load the model in float32, and check its weights.",
                        )
                    found.append(row[:frames])
        return found


def ctc_head(model: SpeechModel) -> nn.Module:
    """The CTC head of a model's source.

    Raises:
        HeadError: there is none.
    """
    path = model.family.ctc_head
    head = submodule(model.source, path) if path is not None else None
    if head is None:
        raise HeadError(
            f"{model.name} ({type(model.source).__name__}) has no CTC head, so it cannot spell what it hears",
            "Use a ForCTC model of a family that has one, or fine-tune this one with CTC first.",
        )
    return head


def recogniser_of(
    model: SpeechModel | Recogniser, vocabulary: Vocabulary | Mapping[str, int] | str | Path | None = None
) -> Recogniser:
    """Adds the vocabulary to a loaded model.

    Args:
        model: the model; a recogniser is given back as it is where no other vocabulary is named.
        vocabulary: a vocabulary, tokens with their numbers, or a folder or Hub name with a tokenizer; by default the
            place that the model's weights were read from.

    Raises:
        HeadError: there is no CTC head.
        VocabularyError: there is no vocabulary, or it does not fit the head.
    """
    if isinstance(model, Recogniser):
        if vocabulary is None:
            return model
        model = model.model
    ctc_head(model)
    config: Any = model.source.config
    if isinstance(vocabulary, Vocabulary):
        return Recogniser(model, vocabulary)
    if isinstance(vocabulary, Mapping):
        return Recogniser(model, Vocabulary.from_mapping(vocabulary, config.pad_token_id))
    place = vocabulary or getattr(model.source, "name_or_path", "")
    if not place:
        raise VocabularyError(
            f"{model.name} was not read from a folder, so nothing says what its outputs stand for",
            "Save it with its tokenizer and load it from that folder, or pass vocabulary= where it is taken: tokens with "
            "their numbers, as in vocab.json, or a folder with the tokenizer.",
        )
    return Recogniser(model, read_vocabulary(place, config.vocab_size))


def load_recogniser(
    model: str | Path | nn.Module | SpeechModel | Recogniser,
    vocabulary: Vocabulary | Mapping[str, int] | str | Path | None = None,
    **options: Any,
) -> Recogniser:
    """Loads a model with its CTC head and vocabulary.

    Args:
        model: what `load` takes, or a model that is loaded already.
        vocabulary: see `recogniser_of`.
        **options: of `load`: name, feature_extractor, device, dtype.

    Raises:
        ModelError: see `load` and `recogniser_of`.

    >>> load_recogniser("embedded").vocabulary.case
    'lower'
    """
    ready = model if isinstance(model, SpeechModel | Recogniser) else load(model, **options)
    return recogniser_of(ready, vocabulary)


def _convolution(layer: nn.Module) -> tuple[int, int, int]:
    """Kernel, stride and padding of the first convolution in an adapter's layer."""
    found = next(module for module in layer.modules() if isinstance(module, nn.Conv1d))
    return found.kernel_size[0], found.stride[0], int(found.padding[0])
