"""Model families as tables: where each family keeps its layers, its attention and its norms."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from torch import nn

from otoscope.errors import UnknownFamilyError


@dataclass(frozen=True)
class Family:
    """Where things are in one family's encoder; paths are relative to the encoder module.

    Attributes:
        name: the family's name in otoscope.
        model_types: `config.model_type` of its configurations.
        encoder_paths: where the encoder is, seen from a model of the family; the first that exists is taken.
        bare: class of the encoder's model without a head.
        with_head: classes that `load` keeps whole where a folder names them.
        frontend: "wave" (samples), or the features that the encoder wants: "mel-whisper", "mel-bert", "mel-parakeet",
            "mel-mockingjay".
        conv_layers: list of convolutions over samples, or None.
        layers: list of transformer layers.
        attention: the attention module within a layer.
        projections: query, key, value and output projection within the attention module.
        norm_last: the norm after the last layer, or None.
        norm_last_if: configuration attribute that must be true for `norm_last` to stand there, or None.
        alone: modules that mix frames before attention masks padding, and so must see each utterance by itself.
        own_attention: attention that does not go through transformers' registry ("wavlm"), or None.
        size_names: configuration names of width, heads and layers.
        position_tensors: parameters of the attention module that hold something for every head beside the
            projections, with the axis along which heads lie.
        feed_forwards: the feed-forward branches within a layer, in order; the modules of each, of which the last gives
            what is added to the residual stream (in Conformers, half of it).
        convolution: the convolution branch within a layer, or None.
        ctc_head: the CTC head, seen from a model of the family; None where the library has none.
        library: the package that has its classes.
    """

    name: str
    model_types: tuple[str, ...]
    bare: str
    with_head: tuple[str, ...]
    encoder_paths: tuple[str, ...]
    frontend: str = "wave"
    conv_layers: str | None = "feature_extractor.conv_layers"
    layers: str = "encoder.layers"
    attention: str = "attention"
    projections: tuple[str, str, str, str] = ("q_proj", "k_proj", "v_proj", "out_proj")
    norm_last: str | None = "encoder.layer_norm"
    norm_last_if: str | None = "do_stable_layer_norm"
    alone: tuple[str, ...] = ("feature_extractor", "encoder.pos_conv_embed")
    own_attention: str | None = None
    size_names: tuple[str, str, str] = ("hidden_size", "num_attention_heads", "num_hidden_layers")
    position_tensors: tuple[tuple[str, int], ...] = ()
    feed_forwards: tuple[tuple[str, ...], ...] = (("feed_forward",),)
    convolution: str | None = None
    ctc_head: str | None = "lm_head"
    library: str = "transformers"

    def model_class(self, name: str) -> Any:
        """A class of the family's models by name."""
        return getattr(import_module(self.library), name)

    def encoder(self, model: nn.Module) -> nn.Module:
        """The encoder inside a bare model or one with a head."""
        for path in self.encoder_paths:
            found = submodule(model, path)
            if found is not None and submodule(found, self.layers) is not None:
                return found
        raise UnknownFamilyError(
            f"{type(model).__name__} holds no {self.name} encoder at {', '.join(self.encoder_paths) or 'its root'}",
            "Pass the bare encoder or a CTC model of the family.",
        )

    def has_norm_last(self, config: Any) -> bool:
        """Whether a norm follows the last layer under this configuration."""
        return self.norm_last is not None and (self.norm_last_if is None or bool(getattr(config, self.norm_last_if)))


def submodule(module: nn.Module, path: str) -> nn.Module | None:
    """A module by dotted path ("" is the module itself), or None."""
    for name in path.split(".") if path else ():
        module = getattr(module, name, None)  # type: ignore[assignment]
        if module is None:
            return None
    return module


def _wave(name: str, model_type: str, prefix: str, attribute: str, **other: Any) -> Family:
    heads = tuple(f"{prefix}For{head}" for head in other.pop("heads", ("CTC", "PreTraining")))
    return Family(name, (model_type,), f"{prefix}Model", heads, (attribute, ""), **other)


_CONFORMER: dict[str, Any] = {
    "attention": "self_attn",
    "projections": ("linear_q", "linear_k", "linear_v", "linear_out"),
    "position_tensors": (("linear_pos.weight", 0), ("pos_bias_u", 0), ("pos_bias_v", 0)),
    "feed_forwards": (("ffn1",), ("ffn2",)),
    "convolution": "conv_module",
}

FAMILIES: tuple[Family, ...] = (
    _wave("wav2vec2", "wav2vec2", "Wav2Vec2", "wav2vec2"),
    _wave("hubert", "hubert", "Hubert", "hubert", heads=("CTC",)),
    _wave("wavlm", "wavlm", "WavLM", "wavlm", heads=("CTC",), own_attention="wavlm",
          position_tensors=(("gru_rel_pos_const", 1),)),
    _wave(
        "data2vec-audio", "data2vec-audio", "Data2VecAudio", "data2vec_audio", heads=("CTC",),
        norm_last=None, norm_last_if=None,
    ),
    _wave("unispeech-sat", "unispeech-sat", "UniSpeechSat", "unispeech_sat"),
    _wave(
        "wav2vec2-conformer", "wav2vec2-conformer", "Wav2Vec2Conformer", "wav2vec2_conformer",
        norm_last_if=None, alone=("feature_extractor", "encoder.layers.*.conv_module"), **_CONFORMER,
    ),
    _wave(
        "wav2vec2-bert", "wav2vec2-bert", "Wav2Vec2Bert", "wav2vec2_bert", heads=("CTC",), frontend="mel-bert",
        conv_layers=None, norm_last=None, norm_last_if=None, alone=(), **_CONFORMER,
    ),
    Family(
        "whisper", ("whisper",), "WhisperModel", ("WhisperForConditionalGeneration", "WhisperForAudioClassification"),
        ("model.encoder", "encoder", ""), frontend="mel-whisper", conv_layers=None, layers="layers",
        attention="self_attn", norm_last="layer_norm", norm_last_if=None, alone=(),
        size_names=("d_model", "encoder_attention_heads", "encoder_layers"), feed_forwards=(("fc1", "fc2"),),
        ctc_head=None,
    ),
    Family(
        "parakeet", ("parakeet_encoder", "parakeet_ctc"), "ParakeetEncoder", ("ParakeetForCTC",), ("encoder", ""),
        frontend="mel-parakeet", conv_layers=None, layers="layers", attention="self_attn",
        projections=("q_proj", "k_proj", "v_proj", "o_proj"), norm_last=None, norm_last_if=None, alone=(),
        position_tensors=(("relative_k_proj.weight", 0), ("bias_u", 0), ("bias_v", 0)),
        feed_forwards=(("feed_forward1",), ("feed_forward2",)), convolution="conv", ctc_head="ctc_head",
    ),
    Family(
        "mockingjay", ("mockingjay",), "MockingjayModel", ("MockingjayForPreTraining",), ("mockingjay", ""),
        frontend="mel-mockingjay", conv_layers=None, layers="layers", norm_last=None, norm_last_if=None, alone=(),
        ctc_head=None, library="otoscope.models.mockingjay",
    ),
)  # fmt: skip

# Families whose attention cannot be read head by head, with the reason that is given to whoever asks.
REFUSED = {
    "sew-d": "its disentangled attention does not pass through transformers' attention registry",
    "speecht5": "its encoder's relative attention does not pass through transformers' attention registry",
    "granite_speech": "what transformers records as its attention are module outputs, not weights",
    "granite_speech_encoder": "what transformers records as its attention are module outputs, not weights",
}


def family_of(model_type: str) -> Family:
    """The table of a configuration's `model_type`.

    Raises:
        UnknownFamilyError: there is none, or per-head numbers of this family would be wrong.
    """
    for family in FAMILIES:
        if model_type in family.model_types:
            return family
    known = ", ".join(family.name for family in FAMILIES)
    if model_type in REFUSED:
        raise UnknownFamilyError(
            f"Models of type {model_type!r} are refused: {REFUSED[model_type]}, so numbers by head would be wrong",
            f"Use a model of one of these families: {known}.",
        )
    raise UnknownFamilyError(
        f"otoscope has no table for models of type {model_type!r}",
        f"Use a model of one of these families: {known}.",
    )
