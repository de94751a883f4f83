"""Configurations of small models that are trained from nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from transformers import HubertConfig, PretrainedConfig, Wav2Vec2Config, WavLMConfig

from otoscope.errors import TrainingError
from otoscope.models.mockingjay import MockingjayConfig

_CONFIGS: dict[str, Any] = {
    "wav2vec2": Wav2Vec2Config,
    "hubert": HubertConfig,
    "wavlm": WavLMConfig,
    "mockingjay": MockingjayConfig,
}
FAMILIES = tuple(_CONFIGS)


@dataclass(frozen=True)
class Size:
    """How large a new model is.

    Attributes:
        layers: transformer layers.
        heads: attention heads a layer.
        width: of the residual stream; a multiple of the heads.
        feed_forward: inner width of the feed-forwards.
        convolutions: channels of the seven convolutions over samples; a Mockingjay, which hears mel features, has none.
        position_kernel: frames that the positional convolution spans, where there is one.
        dropout: of attention, activations and residual branches.

    Raises:
        TrainingError: the width does not divide into heads, or a number is below one.
    """

    layers: int = 8
    heads: int = 4
    width: int = 192
    feed_forward: int = 768
    convolutions: tuple[int, ...] = (64, 64, 96, 96, 128, 128, 128)
    position_kernel: int = 32
    dropout: float = 0.05

    def __post_init__(self) -> None:
        numbers = (self.layers, self.heads, self.width, self.feed_forward, self.position_kernel, *self.convolutions)
        if min(numbers) < 1:
            raise TrainingError("A model has sizes of one or more", "Correct layers, heads, width and the others.")
        if not 0 <= self.dropout < 1:
            raise TrainingError(f"A dropout of {self.dropout} is no share", "Give a number from 0 to below 1.")
        if self.width % self.heads or self.width % _POSITION_GROUPS:
            raise TrainingError(
                f"A width of {self.width} does not divide by {self.heads} heads and {_POSITION_GROUPS} groups",
                f"Choose a multiple of both, such as {_POSITION_GROUPS * self.heads * 3}.",
            )
        if len(self.convolutions) != 7:
            raise TrainingError(f"{len(self.convolutions)} convolutions", "Give the channels of all seven.")

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {**asdict(self), "convolutions": list(self.convolutions)}


_POSITION_GROUPS = 16


def make_config(family: str, size: Size) -> PretrainedConfig:
    """The configuration of a small model: pre-norm with a group-norm front-end over samples, or a Mockingjay.

    Args:
        family: "wav2vec2", "hubert", "wavlm" or "mockingjay".
        size: its size.

    Raises:
        TrainingError: no such family.
    """
    if family not in _CONFIGS:
        raise TrainingError(
            f"otoscope makes no new model of family {family!r}",
            f"Choose {', '.join(FAMILIES)}, or name a folder with a model to go on from.",
        )
    if family == "mockingjay":
        return MockingjayConfig(
            hidden_size=size.width, num_hidden_layers=size.layers, num_attention_heads=size.heads,
            intermediate_size=size.feed_forward, hidden_dropout=size.dropout, attention_dropout=size.dropout,
        )  # fmt: skip
    extra: dict[str, Any] = {}
    if family == "wavlm":
        extra = {"num_buckets": 64, "max_bucket_distance": 200}
    if family == "wav2vec2":
        extra = {
            "num_codevector_groups": 2, "num_codevectors_per_group": 64, "codevector_dim": 96, "proj_codevector_dim": 96,
            "num_negatives": 100, "contrastive_logits_temperature": 0.1, "diversity_loss_weight": 0.1,
        }  # fmt: skip
    return _CONFIGS[family](
        vocab_size=32, hidden_size=size.width, num_hidden_layers=size.layers, num_attention_heads=size.heads,
        intermediate_size=size.feed_forward, conv_dim=size.convolutions, feat_extract_norm="group",
        do_stable_layer_norm=True, conv_bias=False, num_conv_pos_embeddings=size.position_kernel,
        num_conv_pos_embedding_groups=_POSITION_GROUPS, hidden_dropout=size.dropout, attention_dropout=size.dropout,
        activation_dropout=size.dropout, feat_proj_dropout=0.0, final_dropout=size.dropout, layerdrop=0.0,
        apply_spec_augment=True, mask_time_prob=0.05, mask_time_length=10, mask_time_min_masks=0, mask_feature_prob=0.0,
        pad_token_id=0, **extra,
    )  # fmt: skip


def seeded(seed: int, make: Any) -> Any:
    """Calls `make` under a seed of its own, and rounds the weights of what it makes to float16.

    Rounded, so that a copy of the initial weights that is stored in float16 is the initial weights: what differs
    from it later was learnt.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make().half().float()
