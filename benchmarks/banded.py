"""What attention within a band costs beside fused attention over everything, and beside masking all scores."""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.material import base_model
from otoscope.models import banded, load
from otoscope.models.edits import HeadEdits, Ingredients
from otoscope.models.model import SpeechModel
from otoscope.surgery import Span, apply
from otoscope.surgery.edit import Edit

FRAMES = (250, 750, 1500)
RADII = (8, 16, 50, 100, 200)
SHORT = {250: 8, 750: 50, 1500: 50}
"""Frames -> the largest radius for which attention in a band must be faster than fused attention."""
FORMS = ("alone", "padded", "biased")


def ratios(ways: Mapping[str, Callable[[], object]], first: str, rounds: int) -> dict[str, float]:
    """CPU time of each way as a multiple of the first one's: medians over rounds in which the ways take turns."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for k in range(rounds + 1):
        for name, run in ways.items():
            began = time.process_time()
            with torch.inference_mode():
                run()
            if k:  # the first round warms up
                spent[name].append(time.process_time() - began)
    return {
        name: statistics.median(t / p for t, p in zip(times, spent[first], strict=True))
        for name, times in spent.items()
    }


def attention_ways(frames: int, radius: int, form: str) -> dict[str, Callable[[], object]]:
    """Attention of 12 heads of 64 dimensions, with spans of one radius.

    Args:
        frames: T.
        radius: of the spans.
        form: "alone", one utterance; "padded", two with a padding mask, and heads of two radii; "biased", one with a
            position bias for every pair of frames.
    """
    batch = 2 if form == "padded" else 1
    query, key, value = (torch.randn(batch, frames, 12, 64).transpose(1, 2) for _ in range(3))
    lengths = frames - torch.arange(batch)[:, None] * (frames // 8)
    mask = (torch.arange(frames) < lengths)[:, None, None] if form == "padded" else None
    bias = torch.randn(1, 12, frames, frames) if form == "biased" else None
    edits = HeadEdits(12, 64, query)
    edits.put("radius", list(range(12)), radius)
    if form == "padded":
        edits.put("radius", [0, 5], radius // 2)
    made = Ingredients(query, key, mask, bias, None)

    def with_share(share: float) -> Callable[[], object]:
        def run() -> object:
            kept, banded.SHARE = banded.SHARE, share
            try:
                return edits.attend(made, value, 0.0)
            finally:
                banded.SHARE = kept

        return run

    return {
        "fused": lambda: F.scaled_dot_product_attention(query, key, value, mask if bias is None else bias),
        "masked": with_share(0.0),
        "banded": with_share(float("inf")),
    }


def model_ways(seconds: float, radii: Iterable[int]) -> dict[str, Callable[[], object]]:
    """Forward passes of a model of wav2vec 2.0 Base's size: as it is, and with spans in all heads."""
    samples = [(0.1 * np.random.default_rng(0).standard_normal(int(16000 * seconds))).astype(np.float32)]
    model = load(base_model(), name="Base")

    def way(edits: list[Edit]) -> Callable[[], object]:
        changed: SpeechModel = apply(model, edits, share=True)
        return lambda: changed.encode(samples)

    return {"plain": way([])} | {f"radius {radius}": way([Span("layer.*", radius, "banded")]) for radius in radii}


def main(rounds: int = 5) -> bool:
    """Prints ratios of CPU seconds within one run, on one thread."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    kept = True
    print(f"attention, 12 heads of 64, as multiples of fused attention over all frames; tiles of {banded.TILE}:")
    for form in FORMS:
        for frames in FRAMES:
            for radius in RADII:
                if 2 * radius >= frames:
                    continue
                found = ratios(attention_ways(frames, radius, form), "fused", rounds)
                taken = banded.pays(radius, frames, frames)
                print(
                    f"  {form:7} T {frames:4}, radius {radius:3}: banded {found['banded']:.2f}, all scores masked "
                    f"{found['masked']:.2f}{', taken' if taken else ''}",
                    flush=True,
                )
                kept &= form != "alone" or radius > SHORT[frames] or found["banded"] < 1
                kept &= not taken or found["banded"] < found["masked"]
    for seconds in (5.0, 15.0, 30.0):
        found = ratios(model_ways(seconds, RADII[:3]), "plain", 3)
        told = ", ".join(f"{name} {ratio:.2f}" for name, ratio in found.items() if name != "plain")
        print(f"forward pass of {seconds:g} s, as multiples of that without spans: {told}", flush=True)
    return kept


if __name__ == "__main__":
    raise SystemExit(not main())
