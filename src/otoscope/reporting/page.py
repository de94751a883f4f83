"""The page: figures, tables and words of a diagnosis put into the template, written whole or not at all."""

from __future__ import annotations

import base64
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from otoscope._version import __version__
from otoscope.errors import ResultError
from otoscope.reporting import facts
from otoscope.reporting.abnormal import VERDICT_COLOURS, abnormal_panel
from otoscope.reporting.block_pictures import block_pictures
from otoscope.reporting.blocks import lift_figure
from otoscope.reporting.cheap import cheap_panel
from otoscope.reporting.criticality import criticality_panel
from otoscope.reporting.figures import CATEGORY_COLOURS, Figure
from otoscope.reporting.heads import category_table, extreme_heads, head_figure, scatter_figure
from otoscope.reporting.importance import importance_panel
from otoscope.reporting.layers import layer_panels, whole_model_scores
from otoscope.reporting.maps import stream_maps
from otoscope.reporting.mixing import mixing_figures
from otoscope.reporting.relations import relation_panels
from otoscope.reporting.segmentation import segmentation_panel
from otoscope.reporting.values import Reportable, Row, finite, rows_by_measure


@dataclass(frozen=True)
class Beside:
    """What stands on the page beside a diagnosis.

    Attributes:
        sections: names of the template with what stands for them: "plan", "outcome", "front", "federated"; None leaves one
            away.
        figures: of these sections.
        sentences: that go before those of the diagnosis.
    """

    sections: Mapping[str, Any] = field(
        default_factory=lambda: dict.fromkeys(("plan", "outcome", "front", "federated")) | {"outcome_colours": {}}
    )
    figures: Sequence[Figure] = ()
    sentences: Sequence[str] = ()


def check_place(path: str | os.PathLike[str]) -> Path:
    """Makes sure that a page may be written to a path; to be called before long work.

    Returns:
        The path, with links followed: the file that a link leads to is replaced, not the link.

    Raises:
        ResultError: the path is a folder or a device, or cannot be written.
    """
    try:
        goal = Path(path).resolve()
        if goal.is_dir():
            raise ResultError(
                f"The report cannot be written to {goal}: it is a folder",
                "Name a file in that folder, report.html for example.",
            )
        if goal.exists() and not goal.is_file():
            raise ResultError(
                f"The report cannot be written to {goal}: it is no ordinary file",
                "Name a file, report.html for example.",
            )
        there = next(parent for parent in goal.parents if parent.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise OSError(f"{there} is no folder that can be written to")
    except (OSError, RuntimeError) as error:
        raise ResultError(
            f"The report cannot be written to {path}: {getattr(error, 'strerror', None) or error}",
            "Name a file in a folder that you may write to.",
        ) from error
    return goal


def write_report(diagnosis: Reportable, path: str | os.PathLike[str]) -> Path:
    """Writes the report of a diagnosis as one HTML page that loads nothing from anywhere.

    The page is written beside its place under a temporary name and then renamed: at `path` is the old page or
    the new one, never a half.

    Args:
        diagnosis: what to report.
        path: the file to write; folders that are missing are made.

    Returns:
        The path.

    Raises:
        ResultError: the file cannot be written there.
    """
    return write_page(lambda: render_page(diagnosis), path)


def write_page(render: Callable[[], str], path: str | os.PathLike[str]) -> Path:
    """Writes a page, whole or not at all; it is rendered only where it can be written.

    Raises:
        ResultError: the file cannot be written there.
    """
    goal = check_place(path)
    page = render()
    temporary = goal.with_name(f".{goal.name}.{os.getpid()}.tmp")
    try:
        goal.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(page, encoding="utf-8")
        temporary.replace(goal)
    except OSError as error:
        raise ResultError(
            f"The report cannot be written to {goal}: {error.strerror or error}",
            "Name a file in a folder that you may write to and that has room.",
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return goal


def render_page(diagnosis: Reportable, beside: Beside | None = None) -> str:
    """The report as HTML text.

    Args:
        diagnosis: what to report; measures that it lacks leave a line that says so in their place.
        beside: what else stands on the page, such as a plan.
    """
    rows = rows_by_measure(diagnosis.table)
    return render_template("template.html", _context(diagnosis, rows, beside or Beside()))


def render_template(name: str, context: Mapping[str, Any]) -> str:
    """One of the templates beside this file, filled in."""
    return str(_environment().get_template(name).render(context))


def _context(diagnosis: Reportable, rows: Mapping[str, Sequence[Row]], beside: Beside) -> dict[str, Any]:
    provenance = diagnosis.provenance
    hop_ms = finite(facts.part(provenance, "model").get("hop_ms"))
    single = {
        "heads": head_figure(rows),
        "scatter": scatter_figure(rows),
        "lift": lift_figure(rows, hop_ms),
    }
    panels, maps = layer_panels(diagnosis.table), stream_maps(rows)
    layers = [panel.figure for panel in panels]
    notes = facts.part(provenance, "notes")
    relations, importance = relation_panels(rows, diagnosis.arrays, notes), importance_panel(rows, notes)
    segmentation, mixing = segmentation_panel(rows, diagnosis.arrays), mixing_figures(rows)
    of_heads = [figure for panel in relations for figure in (*panel.maps, panel.scatter)]
    of_heads += [figure for panel in (segmentation, importance) if panel is not None for figure in panel.figures]
    of_heads += mixing
    abnormal, criticality, cheap = abnormal_panel(rows, notes), criticality_panel(rows, notes), cheap_panel(rows)
    blocks = block_pictures(rows, hop_ms, abnormal.patterns if abnormal is not None else {})
    of_blocks = [picture.figure for picture in blocks]
    of_blocks += [figure for panel in (abnormal, criticality, cheap) if panel is not None for figure in panel.figures]
    drawn = [figure for figure in (*layers, *maps, *single.values(), *of_heads, *of_blocks) if figure is not None]
    drawn += beside.figures
    return (
        single
        | dict(beside.sections)
        | {
            "model": facts.model_name(provenance),
            "corpus": facts.corpus_name(provenance),
            "headline": facts.headline(provenance),
            "sentences": [*beside.sentences, *(str(sentence) for sentence in diagnosis.sentences())],
            "examined": facts.examined(provenance),
            "left_out": facts.left_out(provenance),
            "provenance": facts.all_facts(provenance),
            "panels": panels,
            "floor": facts.floor(provenance),
            "maps": maps,
            "whole": whole_model_scores(diagnosis.table),
            "categories": category_table(rows),
            "category_colours": CATEGORY_COLOURS,
            "extremes": extreme_heads(rows),
            "relations": relations,
            "segmentation": segmentation,
            "importance": importance,
            "mixing": mixing,
            "blocks": blocks,
            "abnormal": abnormal,
            "verdict_colours": VERDICT_COLOURS,
            "criticality": criticality,
            "cheap": cheap,
            "csv": csv_link(diagnosis.table),
            "n_rows": diagnosis.table.height,
        }
        | page_parts(drawn)
    )


def page_parts(drawn: Sequence[Figure]) -> dict[str, Any]:
    """What every page needs beside its words: figures, the library that draws them, the style."""
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    return {
        "n_figures": len(drawn),
        "figures_json": Markup(script_json({figure.id: figure.plotly() for figure in drawn})),
        "plotly": Markup(get_plotlyjs()),
        "style": Markup(_resource("style.css")),
        "version": __version__,
    }


def script_json(value: Any) -> str:
    """JSON that may stand inside a script element: no NaN, no `<`, numbers to six digits."""
    text = json.dumps(_rounded(value), allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _rounded(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    return value


def csv_link(table: Any) -> str:
    """The table as comma-separated values in a `data:` address.

    Args:
        table: a polars frame.
    """
    return "data:text/csv;charset=utf-8;base64," + base64.b64encode(table.write_csv().encode()).decode("ascii")


def figure_style(figure: Figure) -> str:
    """The inline style that gives a figure its room before it is drawn."""
    style = f"height:{figure.height}px"
    if figure.min_width:
        style += f";min-width:{figure.min_width}px"
    if figure.max_width:
        style += f";max-width:{figure.max_width}px"
    return style


def _resource(name: str) -> str:
    return (files("otoscope.reporting") / name).read_text(encoding="utf-8")


@cache
def _environment() -> Any:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        loader=FunctionLoader(_resource),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure_style"] = figure_style
    return environment
