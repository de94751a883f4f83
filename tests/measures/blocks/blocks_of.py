"""Made-up blocks whose attention is around the query, and widens smoothly with depth; and faults in them."""

import numpy as np
import torch

from otoscope.measures.blocks.abnormality import Sums
from otoscope.measures.blocks.degenerate import copy_distances
from otoscope.measures.blocks.summary import PARTS, observed

BLOCKS, HEADS = 8, 2
FRAMES = (24, 31, 40, 28, 36, 22, 33, 27, 38, 30, 26, 35)


def around(frames, width, draw):
    """Heads that look a little behind and a little ahead, (heads, T, T)."""
    q, k = np.arange(frames)[:, None], np.arange(frames)
    centre = np.array([-1.5, 1.5])[:, None, None]
    scores = -(((k - q - centre) / width) ** 2) / 2 + 0.3 * draw.normal(size=(HEADS, frames, frames))
    maps = np.exp(scores)
    return maps / maps.sum(-1, keepdims=True)


def sound(seed=0, blocks=BLOCKS, frames=FRAMES):
    """Maps of every utterance and block, each (heads, T, T)."""
    draw = np.random.default_rng(seed)
    return [[around(t, 3 + 0.25 * block, draw) for block in range(blocks)] for t in frames]


def planted(kind, block, maps):
    """The same with one faulty block, counted from 0."""
    out = []
    for one in maps:
        frames = one[0].shape[-1]
        faulty = {
            "uniform": lambda t: np.full((HEADS, t, t), 1 / t),
            "copy": lambda t, one=one: one[block - 1],
            "sink": lambda t: np.full((HEADS, t, t), 0.2 / t) + 0.8 * (np.arange(t) == 0),
            "same column": lambda t: np.full((HEADS, t, t), 0.2 / t) + 0.8 * (np.arange(t) == t // 2),
            "self": lambda t: 0.9 * np.stack([np.eye(t)] * HEADS) + 0.1 / t,
        }[kind](frames)
        out.append([*one[:block], faulty, *one[block + 1 :]])
    return out


def margins(maps):
    """Mean attention at each offset and on each key of a block's maps, (heads, 2 T - 1) and (heads, T)."""
    frames = maps.shape[-1]
    places = (np.arange(frames) - np.arange(frames)[:, None] + frames - 1).ravel()
    offsets = np.stack([np.bincount(places, head.ravel(), 2 * frames - 1) for head in maps]) / frames
    return offsets, maps.mean(1)


def summed(maps, groups=None):
    """Sums of whole maps by group, utterances in turn; each its own group by default."""
    groups, blocks = groups or len(maps), len(maps[0])
    counts = np.zeros(groups)
    observations, copies = np.zeros((groups, blocks, sum(PARTS.values()))), np.zeros((groups, blocks, blocks))
    for k, one in enumerate(maps):
        sides = [margins(m) for m in one]
        counts[k % groups] += 1
        copies[k % groups] += copy_distances([side[0] for side in sides], [side[1] for side in sides])
        for block, (m, side) in enumerate(zip(one, sides, strict=True)):
            mean = m.mean(0)
            entropies = [-(x * np.log(np.maximum(x, 1e-300))).sum(-1).mean(-1) for x in (m, mean)]
            found = {
                "row-entropy": torch.as_tensor(entropies[0]),
                "block-map": torch.tensor([entropies[1], (mean**2).sum(-1).mean()]),
                "offset-mean": torch.as_tensor(side[0]),
                "column-mean": torch.as_tensor(side[1]),
            }
            observations[k % groups, block] += observed(found)
    return Sums(counts, observations, copies, (HEADS,) * blocks)
