"""The contrastive loss of wav2vec 2.0: which of a hundred quantised frames lies under the mask."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int


def contrastive_logits(
    predicted: Float[torch.Tensor, "m d"],
    targets: Float[torch.Tensor, "m d"],
    candidates: Float[torch.Tensor, "n d"],
    negatives: Int[torch.Tensor, "m k"],
    temperature: float = 0.1,
) -> Float[torch.Tensor, "m k_and_1"]:
    """Cosine similarities over the temperature; column 0 is the true frame.

    A negative whose quantised vector equals the true one is no alternative: its logit is minus infinity.

    Source: Baevski et al. 2020 (arXiv 2006.11477), equation 3.

    Args:
        predicted: projected outputs at the masked frames.
        targets: projected quantised vectors of the same frames.
        candidates: projected quantised vectors that negatives point to.
        negatives: rows of `candidates`.
        temperature: what similarities are divided by.
    """
    predicted, targets, candidates = predicted.float(), targets.float(), candidates.float()
    # One product of all predictions with all candidates is far cheaper than gathering k vectors a frame.
    similarity = F.normalize(predicted, dim=-1, eps=1e-8) @ F.normalize(candidates, dim=-1, eps=1e-8).T
    others = similarity.gather(1, negatives)
    same = equal_to_target(targets, candidates, negatives)
    true = F.cosine_similarity(predicted, targets, dim=-1, eps=1e-8)
    return torch.cat([true[:, None], others.masked_fill(same, float("-inf"))], 1) / temperature


def equal_to_target(
    targets: Float[torch.Tensor, "m d"], candidates: Float[torch.Tensor, "n d"], negatives: Int[torch.Tensor, "m k"]
) -> Bool[torch.Tensor, "m k"]:
    """Which negatives have the very vector of the true frame."""
    with torch.no_grad():
        _, kinds = torch.unique(torch.cat([targets, candidates]).float(), dim=0, return_inverse=True)
        return kinds[len(targets) :][negatives] == kinds[: len(targets), None]


def contrastive_terms(
    logits: Float[torch.Tensor, "m k_and_1"],
) -> tuple[Float[torch.Tensor, " m"], Float[torch.Tensor, " m"]]:
    """Loss and hits of each masked frame.

    Args:
        logits: from `contrastive_logits`.

    Returns:
        The cross-entropy in nats, and how surely the true frame is picked: 0 where an alternative scores as high or
        higher; else 1 over one plus the number of negatives that cannot be told from the true frame, so that a
        codebook that has collapsed to one entry scores 1 / (k + 1), which is chance.
    """
    loss = F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device), reduction="none")
    best = logits[:, 1:].amax(-1)
    same = torch.isneginf(logits[:, 1:]).sum(-1)
    return loss, (logits[:, 0] > best).float() / (1 + same)


def diversity_loss(perplexity: torch.Tensor, codes: int) -> torch.Tensor:
    """(codes - perplexity) / codes, from 0 (all codes alike often) to almost 1 (one code only).

    The form of the published implementations; equation 4 of Baevski et al. has the entropy in place of its exponential.
    """
    return (codes - perplexity) / codes
