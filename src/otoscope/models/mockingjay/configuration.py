"""Sizes of a Mockingjay."""

from typing import Any

from transformers import PreTrainedConfig


class MockingjayConfig(PreTrainedConfig):
    """Configuration of a Mockingjay; by default that of the large model.

    Source: Liu et al. 2020 (arXiv 1910.12638); Yang, Liu and Lee 2020 (arXiv 2006.03265), section 2, whose models M3, M6
    and M9 have these sizes.

    Args:
        input_size: features of a mel frame: 80 bands and their deltas.
        output_size: features of a frame that the head reconstructs; another number than `input_size` where it
            reconstructs another kind of spectrum.
        frame_stack: consecutive mel frames that are laid side by side to make one frame of the encoder (R_factor,
            downsample_rate).
        hidden_size: width of the residual stream.
        num_hidden_layers: transformer layers.
        num_attention_heads: heads a layer.
        intermediate_size: inner width of the feed-forwards.
        hidden_act: their activation, and that of the head.
        hidden_dropout: of residual branches and of the input.
        attention_dropout: of attention weights.
        initializer_range: standard deviation of initial weights.
        layer_norm_eps: what layer norms add to the variance.
        **other: of the base class.
    """

    model_type = "mockingjay"

    def __init__(
        self,
        input_size: int = 160,
        output_size: int = 160,
        frame_stack: int = 3,
        hidden_size: int = 768,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 12,
        intermediate_size: int = 3072,
        hidden_act: str = "gelu",
        hidden_dropout: float = 0.1,
        attention_dropout: float = 0.1,
        initializer_range: float = 0.02,
        layer_norm_eps: float = 1e-12,
        **other: Any,
    ) -> None:
        self.input_size, self.output_size, self.frame_stack = input_size, output_size, frame_stack
        self.hidden_size, self.intermediate_size, self.hidden_act = hidden_size, intermediate_size, hidden_act
        self.num_hidden_layers, self.num_attention_heads = num_hidden_layers, num_attention_heads
        self.hidden_dropout, self.attention_dropout = hidden_dropout, attention_dropout
        self.initializer_range, self.layer_norm_eps = initializer_range, layer_norm_eps
        super().__init__(**other)
