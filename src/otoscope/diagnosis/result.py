"""The diagnosis: one long table, arrays beside it, and where all of it comes from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from otoscope.diagnosis.places import check_result_place, write_result
from otoscope.errors import ResultError
from otoscope.measures.measure import Result, Row

SCHEMA: dict[str, Any] = {
    "measure": pl.String, "stream": pl.String, "layer": pl.Int32, "head": pl.Int32, "target": pl.String,
    "other": pl.String, "value": pl.Float64, "low": pl.Float64, "high": pl.Float64, "floor": pl.Float64,
    "ceiling": pl.Float64, "label": pl.String, "n": pl.Int64,
}  # fmt: skip
FORMAT = 1
_TABLE, _ARRAYS, _ABOUT = "table.parquet", "arrays.safetensors", "diagnosis.json"


def table_of(rows: Iterable[Row]) -> pl.DataFrame:
    """Rows as a table with the columns of `SCHEMA`; what does not apply is null."""
    return pl.DataFrame([asdict(row) for row in rows], schema=SCHEMA, orient="row")


def rows_of(table: pl.DataFrame) -> list[Row]:
    """The rows of a table with the columns of `SCHEMA`."""
    return [Row(**row) for row in table.to_dicts()]


def with_results(
    diagnosis: Diagnosis, results: Mapping[str, Result], measures: Sequence[str], skipped: Sequence[Mapping[str, str]]
) -> Diagnosis:
    """The diagnosis with further results.

    Args:
        diagnosis: left as it is.
        results: rows, arrays and notes, by what they came of.
        measures: names of the measures among them.
        skipped: what could not be taken, with the reason.
    """
    rows = table_of(row for result in results.values() for row in result.rows)
    arrays = {key: array for result in results.values() for key, array in result.arrays.items()}
    about = diagnosis.provenance
    told = {
        "measures": [*about["measures"], *measures],
        "skipped": [*about["skipped"], *map(dict, skipped)],
        "notes": about["notes"] | {name: result.notes for name, result in results.items()},
    }
    return Diagnosis(pl.concat([diagnosis.table, rows]), diagnosis.arrays | arrays, about | told)


class Diagnosis:
    """What was found, as it is printed, saved and read back.

    Attributes:
        table: a row a number: measure, stream, layer (from 1), head (from 0), target, other, value, low, high (95 %),
            floor, ceiling, label, n.
        arrays: arrays that belong to measures, by name.
        provenance: model, corpus, measures, what was skipped and why, notes, versions, seed, command, time.
    """

    def __init__(self, table: pl.DataFrame, arrays: Mapping[str, np.ndarray], provenance: Mapping[str, Any]) -> None:
        self.table = table
        self.arrays = dict(arrays)
        self.provenance = dict(provenance)

    def measure(self, name: str) -> pl.DataFrame:
        """The rows of one measure; empty where it was not taken."""
        return self.table.filter(pl.col("measure") == name)

    def sentences(self) -> list[str]:
        """The findings in words, the most telling first."""
        from otoscope.diagnosis.sentences import sentences

        return sentences(self)

    def __str__(self) -> str:
        model, corpus = self.provenance["model"], self.provenance["corpus"]
        lines = [
            f"{model['name']} ({model['family']}, {model['layers']} layers) on {corpus['name']}: "
            f"{corpus['utterances']} utterances, {corpus['seconds'] / 60:.1f} minutes"
        ]
        layers = [name for name in ("cca-mel", "cca-phone", "cca-word") if self.measure(name).height]
        categories = self.measure("category")
        header = ["stream", *layers, *(["global", "vertical", "diagonal"] if categories.height else [])]
        rows = [header]
        for stream in model["streams"]:
            cells = [stream]
            for name in layers:
                value = self.measure(name).filter(pl.col("stream") == stream)["value"].to_list()
                cells.append(f"{value[0]:.3f}" if value and value[0] is not None else "")
            if categories.height:
                found = categories.filter(pl.col("stream") == stream)["label"].to_list()
                cells += [str(found.count(name)) if found else "" for name in header[-3:]]
            if any(cells[1:]):
                rows.append(cells)
        widths = [max(len(row[k]) for row in rows) for k in range(len(header))]
        lines += [
            "  ".join(
                cell.rjust(w) if k else cell.ljust(w) for k, (cell, w) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        return "\n".join(lines)

    @staticmethod
    def check_place(folder: str | Path) -> Path:
        """Makes sure that a diagnosis may be written to a folder; to be called before long work.

        Returns:
            The folder, with links followed.

        Raises:
            ResultError: it is a file, holds something other than a diagnosis, or cannot be written.
        """
        return check_result_place(folder, "a diagnosis", _is_diagnosis)

    def save(self, folder: str | Path) -> Path:
        """Writes the diagnosis as a folder, whole or not at all.

        Of an earlier diagnosis there the three files are replaced; whatever else lies in the folder stays.

        Raises:
            ResultError: the folder holds something else, or cannot be written.
        """
        folder = self.check_place(folder)
        arrays = {key: np.ascontiguousarray(array) for key, array in self.arrays.items()}
        files = {_TABLE: self.table.write_parquet, _ARRAYS: lambda path: save_file(arrays, path)}
        write_result(folder, "a diagnosis", files, (_ABOUT, {"format": FORMAT, **self.provenance}))
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> Diagnosis:
        """Reads what `save` wrote.

        Raises:
            ResultError: the folder holds no whole diagnosis, or one of a later format.
        """
        folder = Path(folder)
        absent = [name for name in (_ABOUT, _TABLE, _ARRAYS) if not (folder / name).exists()]
        if absent:
            raise ResultError(
                f"{folder} holds no diagnosis: {absent[0]} is absent",
                "Name a folder that `otoscope diagnose -o` wrote.",
            )
        try:
            about = json.loads((folder / _ABOUT).read_text())
            table = pl.read_parquet(folder / _TABLE)
            arrays = load_file(folder / _ARRAYS)
            if not isinstance(about, dict) or table.schema != pl.Schema(SCHEMA):
                raise ValueError("its table or its description is not one of a diagnosis")
        except (ValueError, OSError, SafetensorError, pl.exceptions.PolarsError) as error:
            raise ResultError(
                f"The diagnosis in {folder} cannot be read: {error}", "Run `otoscope diagnose` again."
            ) from error
        if about.pop("format", None) != FORMAT:
            raise ResultError(
                f"The diagnosis in {folder} has another format than {FORMAT}",
                "Read it with the otoscope that wrote it.",
            )
        return cls(table, arrays, about)


def _is_diagnosis(folder: Path) -> bool:
    """Whether a folder holds the description of a diagnosis, as `save` writes it."""
    try:
        about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(about, dict) and {"format", "model"} <= about.keys()
