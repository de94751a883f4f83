"""The Conformers that are compared: sizes, norms and contexts; how they are made, stored and read."""

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file
from torch import nn
from transformers import ParakeetCTCConfig, ParakeetEncoderConfig, ParakeetForCTC

from otoscope.errors import CheckpointError
from otoscope.models import load
from otoscope.models.model import SpeechModel
from otoscope.models.recogniser import Recogniser
from otoscope.models.vocabulary import Vocabulary, read_vocabulary
from otoscope.surgery import Causal, Edit, GroupNorm, NoNorm, edited, from_dict, record
from otoscope.training.architectures import seeded
from otoscope.training.folders import replace_text

EDITS = "edits.json"
WEIGHTS = "model.safetensors"
GROUPS = 8


@dataclass(frozen=True)
class Size:
    """Sizes of a Conformer."""

    layers: int
    width: int
    heads: int = 4


SIZES = {"small": Size(4, 64), "large": Size(8, 72), "deep": Size(16, 64)}
NORMS = ("batch", "group", "none")
CONTEXTS = ("full", "causal")


@dataclass(frozen=True)
class Conformer:
    """One model of the comparison.

    Attributes:
        size: of `SIZES`.
        context: "full", or "causal": layers do not look ahead.
        norm: of the convolution modules: "batch", "group" or "none".
        seed: of weights, batches and dropout.
    """

    size: str
    context: str
    norm: str
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.size}-{self.context}-{self.norm}-{self.seed}"

    @classmethod
    def named(cls, name: str) -> "Conformer":
        """The model of a folder's name.

        >>> Conformer.named("small-full-batch-0")
        Conformer(size='small', context='full', norm='batch', seed=0)
        """
        size, context, norm, seed = name.split("-")
        return cls(size, context, norm, int(seed))

    @property
    def edits(self) -> tuple[Edit, ...]:
        """What makes it of the library's Parakeet, which sees both sides and has batch norm."""
        found: list[Edit] = [Causal("layer.*")] if self.context == "causal" else []
        return tuple(found if self.norm == "batch" else [*found, norm_edit(self.context, self.norm)])


def norm_edit(context: str, norm: str) -> Edit:
    """What puts group norm, or none, in the place of batch norm."""
    if norm == "none":
        return NoNorm("layer.*")
    return GroupNorm("layer.*", GROUPS, "frame" if context == "causal" else "time")


def config_of(size: Size, vocabulary: Vocabulary) -> ParakeetCTCConfig:
    """A Parakeet with a frame every 40 ms and a CTC head."""
    encoder = ParakeetEncoderConfig(
        hidden_size=size.width, num_hidden_layers=size.layers, num_attention_heads=size.heads,
        intermediate_size=4 * size.width, conv_kernel_size=9, subsampling_factor=4, subsampling_conv_channels=16,
        num_mel_bins=80, dropout=0.1, activation_dropout=0.0, attention_dropout=0.0, layerdrop=0.0,
    )  # fmt: skip
    return ParakeetCTCConfig(
        vocab_size=len(vocabulary), pad_token_id=vocabulary.blank, encoder_config=encoder.to_dict()
    )


def made(one: Conformer, vocabulary: Vocabulary) -> nn.Module:
    """The model with fresh weights; of one seed and size they are the same for all norms and contexts."""
    return edited(seeded(one.seed, lambda: ParakeetForCTC(config_of(SIZES[one.size], vocabulary))), one.edits)


def store_edits(model: nn.Module, folder: Path) -> None:
    """Writes the edits of a model beside its weights, which fit the edited model alone."""
    found = record(model)
    edits = [edit.to_dict() for edit in found[0]] if found is not None else []
    replace_text(folder / EDITS, json.dumps(edits, indent=1) + "\n")


def load_conformer(folder: Path) -> SpeechModel:
    """Reads what `store_edits` and transformers wrote.

    Raises:
        CheckpointError: the folder lacks weights or holds others than the edited model has.
    """
    absent = [name for name in ("config.json", EDITS, WEIGHTS) if not (folder / name).is_file()]
    if absent:
        raise CheckpointError(f"{folder} holds no Conformer of this recipe: it has no {absent[0]}", "Train it anew.")
    edits = [from_dict(one) for one in json.loads((folder / EDITS).read_text())]
    source = edited(ParakeetForCTC(ParakeetCTCConfig.from_pretrained(folder)), edits)
    try:
        source.load_state_dict(load_file(folder / WEIGHTS))
    except RuntimeError as error:
        first = " ".join(str(error).split("\n")[1].split())
        raise CheckpointError(f"The weights in {folder} do not fit its edits: {first}", "Train it anew.") from error
    return load(source.eval(), name=folder.name)


def recogniser_in(folder: Path) -> Recogniser:
    """A stored model with its vocabulary."""
    model = load_conformer(folder)
    return Recogniser(model, read_vocabulary(folder, model.source.config.vocab_size))  # type: ignore[union-attr,arg-type]


def comparison(seeds: int, fewer: int, fewest: int) -> list[Conformer]:
    """All models.

    Args:
        seeds: of small and large models that see both sides, with each norm.
        fewer: of small models that do not look ahead, with each norm.
        fewest: of deep models, with batch norm and with group norm.
    """
    return [
        *(Conformer(size, "full", norm, k) for k in range(seeds) for size in ("small", "large") for norm in NORMS),
        *(Conformer("small", "causal", norm, k) for k in range(fewer) for norm in NORMS),
        *(Conformer("deep", "full", norm, k) for k in range(fewest) for norm in ("batch", "group")),
    ]
