"""Small recordings and alignments, made where the test runs."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile


@pytest.fixture
def noise() -> Callable[..., np.ndarray]:
    """Makes quiet noise: noise(n, seed) has shape (n,)."""

    def make(n: int = 16000, seed: int = 0) -> np.ndarray:
        return (np.random.default_rng(seed).normal(size=n) * 0.1).clip(-0.9, 0.9).astype(np.float32)

    return make


@pytest.fixture
def audio(tmp_path: Path, noise: Callable[..., np.ndarray]) -> Callable[..., Path]:
    """Writes a recording below tmp_path: audio("a/x.wav", samples or length, rate)."""

    def write(name: str, samples: np.ndarray | int = 16000, rate: int = 16000, **options: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = noise(samples) if isinstance(samples, int) else samples
        soundfile.write(path, data, rate, **options)
        return path

    return write


@pytest.fixture
def textgrid(tmp_path: Path) -> Callable[..., Path]:
    """Writes a long TextGrid: textgrid("a/x.TextGrid", {"words": [("0.1", "0.2", "a")]}, "1.0")."""

    def write(name: str, tiers: dict[str, list[tuple[str, str, str]]], end: str = "1.0") -> Path:
        lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0", f"xmax = {end}"]
        lines += ["tiers? <exists>", f"size = {len(tiers)}", "item []:"]
        for number, (tier, entries) in enumerate(tiers.items(), 1):
            lines += [f"    item [{number}]:", '        class = "IntervalTier"', f'        name = "{tier}"']
            lines += [
                "        xmin = 0",
                f"        xmax = {end}",
                f"        intervals: size = {len(entries)}",
            ]
            for i, (start, stop, label) in enumerate(entries, 1):
                lines += [
                    f"        intervals [{i}]:",
                    f"            xmin = {start}",
                    f"            xmax = {stop}",
                ]
                lines += [f'            text = "{label}"']
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write


@pytest.fixture
def manifest(tmp_path: Path) -> Callable[..., Path]:
    """Writes a manifest: manifest({...}, "a raw line", ...)."""

    def write(*lines: dict | str) -> Path:
        path = tmp_path / "list.jsonl"
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        path.write_text("\n".join(texts) + "\n", encoding="utf-8")
        return path

    return write
