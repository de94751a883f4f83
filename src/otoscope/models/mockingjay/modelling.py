"""Mockingjay: a BERT over stacked mel frames, with the head that reconstructs them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForPreTraining, PreTrainedModel
from transformers.activations import ACT2FN
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils.generic import ModelOutput, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from otoscope.errors import ModelError
from otoscope.models.mockingjay.configuration import MockingjayConfig
from otoscope.models.mockingjay.features import MockingjayFeatureExtractor


def stack_frames(features: torch.Tensor, count: int) -> torch.Tensor:
    """Lays consecutive frames side by side; those that are left over at the end are dropped.

    Args:
        features: (B, T, d).
        count: frames that make one.

    Returns:
        (B, T // count, count * d).
    """
    batch, frames, width = features.shape
    return features[:, : frames // count * count].reshape(batch, frames // count, count * width)


def sinusoids(frames: int, width: int, like: torch.Tensor) -> torch.Tensor:
    """Position encodings of Vaswani et al. 2017 (section 3.5), sines and cosines in turns, shape (frames, width)."""
    # In double precision: the angle of a late position, many turns on, would lose its last digits otherwise.
    positions = torch.arange(frames, device=like.device, dtype=torch.float64)
    pairs = torch.arange(0, width, 2, device=like.device, dtype=torch.float64)
    angles = positions[:, None] * torch.exp(pairs * (-math.log(10000.0) / width))
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[:, :width].to(like.dtype)


def eager_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **other: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention written out, which hands on its weights.

    Args:
        module: the attention module.
        query: (B, H, T, D).
        key: (B, H, T, D).
        value: (B, H, T, D).
        attention_mask: what is added to the scores, or None.
        scaling: factor on the product of query and key.
        dropout: probability that a weight is dropped.
        **other: what other attention functions take.

    Returns:
        (B, T, H, D), and the weights (B, H, T, T).
    """
    scores = query @ key.transpose(2, 3) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = torch.softmax(scores, -1, dtype=torch.float32).to(query.dtype)
    weights = nn.functional.dropout(weights, dropout, module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights


class MockingjayAttention(nn.Module):
    """Self-attention of one layer.

    Raises:
        ModelError: the width does not divide into heads.
    """

    def __init__(self, config: MockingjayConfig) -> None:
        super().__init__()
        if config.hidden_size % config.num_attention_heads:
            raise ModelError(
                f"A Mockingjay of width {config.hidden_size} does not divide into {config.num_attention_heads} heads",
                "Choose a width that is a multiple of the heads.",
            )
        self.config = config
        self.num_heads = config.num_attention_heads
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.is_causal = False
        width = config.hidden_size
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, **other: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(B, T, d) to (B, T, d), and the weights where the attention function gives them."""
        shape = (*hidden_states.shape[:-1], -1, self.head_dim)
        query, key, value = (
            project(hidden_states).view(shape).transpose(1, 2) for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        attend: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation,
            eager_attention,
        )
        dropout = self.config.attention_dropout if self.training else 0.0
        context, weights = attend(
            self, query, key, value, attention_mask, dropout=dropout, scaling=self.scaling, **other
        )
        return self.out_proj(context.flatten(2)), weights


class MockingjayFeedForward(nn.Module):
    """Feed-forward branch of one layer."""

    def __init__(self, config: MockingjayConfig) -> None:
        super().__init__()
        self.intermediate_dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.output_dense = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(B, T, d) to (B, T, d)."""
        return self.output_dense(self.activation(self.intermediate_dense(hidden_states)))


class MockingjayLayer(GradientCheckpointingLayer):
    """A transformer layer whose norms stand after the additions (post-norm)."""

    def __init__(self, config: MockingjayConfig) -> None:
        super().__init__()
        self.attention = MockingjayAttention(config)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.feed_forward = MockingjayFeedForward(config)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, **other: Any
    ) -> torch.Tensor:
        """(B, T, d) to (B, T, d)."""
        attended, _ = self.attention(hidden_states, attention_mask, **other)
        hidden_states = self.layer_norm(hidden_states + self.dropout(attended))
        return self.final_layer_norm(hidden_states + self.dropout(self.feed_forward(hidden_states)))


class MockingjayPreTrainedModel(PreTrainedModel):
    """What Mockingjay models have in common."""

    config: MockingjayConfig
    config_class = MockingjayConfig
    base_model_prefix = "mockingjay"
    main_input_name = "input_features"
    supports_gradient_checkpointing = True
    _no_split_modules = ["MockingjayLayer"]  # noqa: RUF012 - what the library declares
    _supports_sdpa = True
    _supports_attention_backend = True
    _can_record_outputs = {"hidden_states": MockingjayLayer, "attentions": MockingjayAttention}  # noqa: RUF012


class MockingjayModel(MockingjayPreTrainedModel):
    """The encoder: stacked mel frames and position encodings, projected, normed, and put through the layers."""

    def __init__(self, config: MockingjayConfig) -> None:
        super().__init__(config)
        self.input_projection = nn.Linear(config.input_size * config.frame_stack, config.hidden_size)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.layers = nn.ModuleList([MockingjayLayer(config) for _ in range(config.num_hidden_layers)])
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self, input_features: torch.Tensor, attention_mask: torch.Tensor | None = None, **other: Any
    ) -> BaseModelOutput:
        """Runs the encoder.

        Args:
            input_features: (B, T, input_size), mel frames of 10 ms.
            attention_mask: (B, T), which of them are not padding; None is all. A stacked frame counts where all of its
                mel frames do.
            **other: `output_hidden_states`, `output_attentions` (with eager attention).

        Returns:
            `last_hidden_state`, (B, T // frame_stack, hidden_size).
        """
        stack = self.config.frame_stack
        projected = self.input_projection(stack_frames(input_features, stack))
        hidden_states = projected + sinusoids(projected.shape[1], projected.shape[2], projected)
        hidden_states = self.dropout(self.layer_norm(hidden_states))
        if attention_mask is not None:
            attention_mask = stack_frames(attention_mask[..., None], stack).bool().all(-1)
        mask = create_bidirectional_mask(config=self.config, inputs_embeds=hidden_states, attention_mask=attention_mask)
        for layer in self.layers:
            hidden_states = layer(hidden_states, mask, **other)
        return BaseModelOutput(last_hidden_state=hidden_states)


class MockingjayHead(nn.Module):
    """From the last layer to the stacked mel frames."""

    def __init__(self, config: MockingjayConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = ACT2FN[config.hidden_act]
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.output = nn.Linear(config.hidden_size, config.output_size * config.frame_stack)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(B, T, hidden_size) to (B, T, frame_stack * output_size)."""
        return self.output(self.layer_norm(self.activation(self.dense(hidden_states))))


@dataclass
class MockingjayOutput(ModelOutput):
    """What `MockingjayForPreTraining` gives.

    Attributes:
        loss: mean absolute difference over masked frames, where labels were given.
        reconstruction: (B, T, frame_stack * output_size).
        last_hidden_state: (B, T, hidden_size).
        hidden_states: what enters the first layer, and the output of each, where asked for.
        attentions: (B, H, T, T) of each layer, where asked for.
    """

    loss: torch.Tensor | None = None
    reconstruction: torch.Tensor | None = None
    last_hidden_state: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class MockingjayForPreTraining(MockingjayPreTrainedModel):
    """The encoder with the head that reconstructs the spectrum."""

    def __init__(self, config: MockingjayConfig) -> None:
        super().__init__(config)
        self.mockingjay = MockingjayModel(config)
        self.reconstruction_head = MockingjayHead(config)
        self.post_init()

    def forward(
        self,
        input_features: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        mask_time_indices: torch.Tensor | None = None,
        **other: Any,
    ) -> MockingjayOutput:
        """Reconstructs what was heard.

        Args:
            input_features: see `MockingjayModel.forward`; frames to be guessed are zeroed or exchanged before.
            attention_mask: see `MockingjayModel.forward`.
            labels: (B, T // frame_stack, frame_stack * output_size), the true spectrum.
            mask_time_indices: (B, T // frame_stack), stacked frames that the loss is taken over, with labels.
            **other: see `MockingjayModel.forward`.
        """
        out = self.mockingjay(input_features, attention_mask=attention_mask, **other)
        reconstruction = self.reconstruction_head(out.last_hidden_state)
        loss = None
        if labels is not None and mask_time_indices is not None:
            loss = nn.functional.l1_loss(reconstruction[mask_time_indices].float(), labels[mask_time_indices].float())
        return MockingjayOutput(
            loss=loss, reconstruction=reconstruction, last_hidden_state=out.last_hidden_state,
            hidden_states=out.hidden_states, attentions=out.attentions,
        )  # fmt: skip


AutoConfig.register(MockingjayConfig.model_type, MockingjayConfig, exist_ok=True)
AutoModel.register(MockingjayConfig, MockingjayModel, exist_ok=True)
AutoModelForPreTraining.register(MockingjayConfig, MockingjayForPreTraining, exist_ok=True)
AutoFeatureExtractor.register(MockingjayConfig, MockingjayFeatureExtractor, exist_ok=True)
