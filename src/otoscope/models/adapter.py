"""A linear map with a low-rank adapter beside it, as PEFT computes it; to be imported where adapters are used only."""

from hashlib import blake2b
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora import Linear as LoraLinear
from torch import nn

from otoscope.models.edits import Replacement

NAME = "default"  # of the adapter within PEFT's layer


class LowRankLinear(Replacement, LoraLinear):
    """y = W x + b + alpha / rank B A dropout(x), with A (rank, inputs) and B (outputs, rank).

    A is drawn uniformly from +- 1 / sqrt(inputs) and B is zero, so that a new adapter changes nothing. Source: Hu et al.
    2022, "LoRA: Low-rank adaptation of large language models" (arXiv 2106.09685), equation 3.

    Args:
        base: the linear map that is adapted.
        rank: rows of A.
        alpha: see above.
        dropout: probability that an input of the adapter is dropped in training.
        seed: of A.
        name: of the unit, so that each of them draws its own A.
    """

    def __init__(self, base: nn.Linear, rank: int, alpha: float, dropout: float, seed: int, name: str) -> None:
        config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, init_lora_weights=False)  # type: ignore[arg-type]
        with torch.random.fork_rng(devices=[]):  # PEFT's own first weights are replaced below
            super().__init__(base, NAME, config, r=rank, lora_alpha=alpha)  # type: ignore[arg-type]
        self.made_by = (rank, alpha, dropout, seed)
        number = int.from_bytes(blake2b(f"{seed}/{name}".encode(), digest_size=8).digest(), "big") >> 1
        drawn = torch.empty(rank, base.in_features)
        bound = base.in_features**-0.5
        drawn.uniform_(-bound, bound, generator=torch.Generator().manual_seed(number))
        with torch.no_grad():
            self.lora_A[NAME].weight.copy_(drawn)  # type: ignore[operator]
            self.lora_B[NAME].weight.zero_()  # type: ignore[operator]
        self.to(base.weight.device, base.weight.dtype).train(base.training)

    @property
    def weight(self) -> torch.Tensor:
        """W + alpha / rank B A, for those who read the weight instead of calling the module."""
        return self.base_layer.weight + self.get_delta_weight(NAME)  # type: ignore[operator]

    def folded(self) -> nn.Linear:
        """The linear map that was adapted, with the adapter folded into its weight."""
        base: Any = self.base_layer
        base.weight = nn.Parameter(self.weight.detach(), base.weight.requires_grad)
        return base

    def description(self) -> tuple[Any, ...]:
        """See `Replacement`."""
        return ("low-rank", *self.made_by)
