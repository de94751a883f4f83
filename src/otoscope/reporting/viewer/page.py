"""The viewer's page: one HTML file that asks the local server for what it draws, or holds all of it itself."""

import base64
import gzip
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from otoscope._version import __version__
from otoscope.errors import ResultError
from otoscope.reporting.page import script_json, write_page
from otoscope.reporting.viewer.exact import ExactMaps
from otoscope.reporting.viewer.scene import Scene
from otoscope.reporting.viewer.side import Side

BUDGET = 40_000_000
"""Bytes of the largest page that is written."""

SCRIPTS = ("colour", "data", "sound", "view", "map", "strips", "details", "wall", "pane", "main")
"""The parts of the page's program, in the order in which they are read."""

_LIMITED = ", so that the page keeps to its size"
_COARSER: dict[str, Callable[[Side], Side]] = {
    "": lambda side: side,
    f". The averages have 52 shades rather than 256{_LIMITED}": lambda side: side.with_fewer_shades(),
    f". The averages are twice as coarse as usual{_LIMITED}": lambda side: side.with_coarser(2),
    f". The averages are four times as coarse as usual{_LIMITED}": lambda side: side.with_coarser(4),
}
"""What is tried in turn until the page is small enough, and how the page says so."""

Place = tuple[int, int]
"""Layer (from 1) and head (from 0)."""


def live_page(scene: Scene, memory: str) -> str:
    """The page that the local server gives out; it holds no maps.

    Args:
        scene: what is shown.
        memory: what the server keeps in memory, in words.
    """
    return _rendered({**scene.describe(), "live": True, "exact": [], "note": memory}, {})


def save_page(
    scene: Scene, exact: list[ExactMaps], heads: Iterable[Place] | None, path: str | Path, budget: int = BUDGET
) -> tuple[Path, str]:
    """Writes a page that needs no server: overviews of all heads, and chosen heads exactly.

    Where the page would be larger than the budget, overviews have fewer shades, then fewer cells, down to a quarter along
    each axis.

    Args:
        scene: what is shown.
        exact: the exact maps of each model.
        heads: the heads that are held exactly, of each model; None for the most global, the most vertical and the most
            diagonal one of each.
        path: the file.
        budget: bytes.

    Returns:
        The path, and what the page holds, in words.

    Raises:
        ResultError: a model has no such head, the page would be too large, or it cannot be written.
    """
    chosen = [_chosen(side, None if heads is None else list(heads)) for side in scene.sides]
    packed = {
        f"m{k}/exact/{layer}.{head}": _packed(_planes(_exact_map(maps, layer, head)))
        for k, (maps, places) in enumerate(zip(exact, chosen, strict=True))
        for layer, head in places
    }
    names = [f"{k}:{layer}.{head}" for k, places in enumerate(chosen) for layer, head in places]
    for how, coarsened in _COARSER.items():
        shown = Scene(scene.utterance, scene.samples, [coarsened(side) for side in scene.sides])
        blocks = {name: _packed(block()) for name, block in shown.blocks().items()}
        note = _held(shown, chosen) + how
        text = _rendered({**shown.describe(), "live": False, "exact": names, "note": note}, blocks | packed)
        if len(text.encode()) <= budget:
            return write_page(partial(str, text), path), note
    held = sum(map(len, packed.values())) / 1e6
    raise ResultError(
        f"The page would take {len(text.encode()) / 1e6:.0f} MB, {held:.0f} of them for {len(packed)} exact maps; "
        f"{budget / 1e6:g} MB are allowed",
        "Choose fewer heads (--heads), or a shorter utterance.",
    )


def default_heads(side: Side) -> list[Place]:
    """The most global, the most vertical and the most diagonal head, as far as they were measured."""
    found: dict[Place, None] = {}
    for measure in ("globalness", "verticality", "diagonality"):
        values = {head: parts["value"] for head, parts in side.metrics.get(measure, {}).items() if "value" in parts}
        if values:
            layer, head = max(values, key=lambda name: values[name]).split(".")
            found[int(layer), int(head)] = None
    return list(found)


def _chosen(side: Side, heads: list[Place] | None) -> list[Place]:
    if heads is None:
        return default_heads(side)
    there = set(side.heads)
    absent = [place for place in heads if place not in there]
    if absent:
        layers = side.model.anatomy.n_layers
        raise ResultError(
            f"{side.model.name} has no head {absent[0][0]}.{absent[0][1]}",
            f"Write heads as LAYER.HEAD; layers are 1 to {layers}, heads of layer 1 are "
            f"{', '.join(map(str, side.model.anatomy.head_names[0]))}.",
        )
    return list(dict.fromkeys(heads))


def _exact_map(maps: ExactMaps, layer: int, head: int) -> np.ndarray:
    return maps.layer(layer)[maps.model.anatomy.head_names[layer - 1].index(head)]


def _planes(array: np.ndarray) -> bytes:
    """Float32 numbers with their first bytes together, then their second ones, ...: so they compress by a fifth more."""
    return np.ascontiguousarray(array, "<f4").reshape(-1, 1).view(np.uint8).T.tobytes()


def _held(scene: Scene, chosen: list[list[Place]]) -> str:
    parts = []
    for side, places in zip(scene.sides, chosen, strict=True):
        cells = -(-side.frames // side.span)
        text = (
            f"{side.model.name}: all {len(side.heads)} heads as averages over {side.span} x {side.span} frames "
            f"({cells} x {cells} cells), {len(places)} exactly"
        )
        names = ", ".join(f"{layer}.{head}" for layer, head in places)
        parts.append(f"{text} ({names})" if places else text)
    return "; ".join(parts)


def _packed(block: bytes) -> str:
    return base64.b64encode(gzip.compress(block, 6, mtime=0)).decode("ascii")


def _rendered(about: Mapping[str, Any], blocks: Mapping[str, str]) -> str:
    from markupsafe import Markup

    models = [model["name"] for model in about["models"]]
    return str(
        _environment()
        .get_template("viewer.html")
        .render(
            title=f"{' and '.join(models)} on {about['utterance']['id']}",
            style=Markup(_asset("viewer.css")),
            script=Markup("\n".join(_asset(f"{name}.js") for name in SCRIPTS)),
            about=Markup(script_json(about)),
            blocks=blocks,
            live=about["live"],
            version=__version__,
        )
    )


def _asset(name: str) -> str:
    return (files("otoscope.reporting.viewer") / "assets" / name).read_text(encoding="utf-8")


@cache
def _environment() -> Any:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    return Environment(
        loader=FunctionLoader(_asset), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
