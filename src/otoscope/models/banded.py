"""Attention within a band: queries in tiles, each of which meets only the keys that its frames may attend to.

Scores outside the band are never computed: T (tile + 2 reach) of them instead of T squared.
"""

import torch
from torch.nn import functional as F

TILE = 32  # queries
SHARE = 0.6  # of the frames, beyond which masking all scores may be quicker: see `benchmarks.banded`
LOWEST = torch.finfo(torch.float32).min / 2  # a score so low that its weight is zero, with room for what is added


def pays(reach: int, queries: int, keys: int) -> bool:
    """Whether a band this narrow is quicker than all scores at once."""
    return queries == keys and TILE + 2 * reach <= SHARE * queries


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    reach: int,
    radius: torch.Tensor | None = None,
    *,
    mask: torch.Tensor | None = None,
    position_bias: torch.Tensor | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
) -> torch.Tensor:
    """Attention whose scores are masked before the softmax where query and key are more than a radius apart.

    Args:
        query: (B, H, T, D).
        key: (B, H, T, D).
        value: (B, H, T, D).
        reach: frames on either side that a head attends to at most.
        radius: (H,), those that each head attends to; None is `reach` for all.
        mask: (B or 1, H or 1, T or 1, T), true for what is attended to, or added to the scores.
        position_bias: (B or 1, H, T, T), added to the scores.
        scaling: factor on the product of query and key; by default one over the root of D.
        dropout: probability that a weight is dropped.

    Returns:
        (B, T, H, D). A row of which all is masked is some mean of values, as padding's are.
    """
    batch, _, frames, _ = query.shape
    tiles = -(-frames // TILE)
    beyond = tiles * TILE - frames
    rows = F.pad(query, (0, 0, 0, beyond)).unflatten(2, (tiles, TILE))
    around = (0, 0, reach, beyond + reach)
    keys, values = (F.pad(one, around).unfold(2, TILE + 2 * reach, TILE).mT for one in (key, value))
    # (B, H, tiles, rows or keys, D) to tiles as utterances of their own
    query, key, value = (one.transpose(1, 2).flatten(0, 1) for one in (rows, keys, values))
    added = _added(frames, reach, radius, mask, position_bias, query.device).to(query.dtype)
    added = added.expand(batch, *added.shape[1:]).flatten(0, 1)
    context = F.scaled_dot_product_attention(query, key, value, added, dropout, scale=scaling)
    return context.unflatten(0, (batch, tiles)).transpose(2, 3).flatten(1, 2)[:, :frames]


def _added(
    frames: int,
    reach: int,
    radius: torch.Tensor | None,
    mask: torch.Tensor | None,
    position_bias: torch.Tensor | None,
    device: torch.device,
) -> torch.Tensor:
    """What is added to the scores of tiles, (B or 1, tiles, H or 1, TILE, TILE + 2 reach)."""
    tiles = -(-frames // TILE)
    queries = torch.arange(TILE, device=device)
    keys = torch.arange(TILE + 2 * reach, device=device) - reach
    # All tiles have the same band; the first and the last ones reach beyond the utterance.
    offsets = (queries[:, None] - keys).abs()[None]
    outside = offsets > (reach if radius is None else radius[:, None, None])
    places = torch.arange(tiles, device=device)[:, None] * TILE + keys
    total = torch.zeros((1, tiles, *outside.shape), device=device)
    total = total.masked_fill(outside | ((places < 0) | (places >= frames))[:, None, None], LOWEST)
    if mask is not None:
        if mask.dtype == torch.bool:
            mask = torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, LOWEST)
        total = total + windows(mask.float().clamp(min=LOWEST), frames, reach)
    if position_bias is not None:
        total = total + windows(position_bias.float(), frames, reach)
    return total.clamp(min=2 * LOWEST)


def windows(map_: torch.Tensor, frames: int, reach: int) -> torch.Tensor:
    """The parts of a map that lie within the tiles of a band.

    Args:
        map_: (B, H, T or 1, T).
        frames: T.
        reach: frames on either side of a tile.

    Returns:
        (B, tiles, H, TILE or 1, TILE + 2 reach); zeros where a tile reaches beyond the map.
    """
    beyond = -frames % TILE
    whole = F.pad(map_, (reach, beyond + reach, 0, beyond if map_.shape[-2] > 1 else 0))
    wide = whole.unfold(-1, TILE + 2 * reach, TILE)  # (B, H, rows, tiles, keys), which takes no memory yet
    if map_.shape[-2] == 1:
        return wide.permute(0, 3, 1, 2, 4)
    tiles = wide.unfold(2, TILE, TILE)  # (B, H, tiles, tiles, keys, rows)
    return tiles.diagonal(dim1=2, dim2=3).permute(0, 4, 1, 3, 2)
