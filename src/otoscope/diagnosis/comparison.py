"""Diagnoses side by side: their curves over relative depth, their differences, and where each property peaks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from otoscope.diagnosis.curves import FOLDS, WHOLE_MODEL, group_of, titles
from otoscope.diagnosis.places import check_result_place, write_result
from otoscope.diagnosis.stability import FIGURE_SCHEMA, UNIT_SCHEMA, Stability
from otoscope.errors import ResultError

TABLE_SCHEMA: dict[str, Any] = {
    "measure": pl.String, "target": pl.String, "stream": pl.String, "layer": pl.Int32, "depth": pl.Float64,
    "diagnosis": pl.String, "against": pl.String, "other": pl.String, "value": pl.Float64, "low": pl.Float64,
    "high": pl.Float64, "floor": pl.Float64, "ceiling": pl.Float64, "pairing": pl.String, "n": pl.Int64,
}  # fmt: skip
PEAK_SCHEMA: dict[str, Any] = {
    "measure": pl.String, "target": pl.String, "diagnosis": pl.String, "stream": pl.String, "layer": pl.Int32,
    "depth": pl.Float64, "value": pl.Float64, "low": pl.Float64, "high": pl.Float64, "floor": pl.Float64,
    "above_floor": pl.Boolean, "lowest": pl.Boolean, "as_good": pl.List(pl.String), "pairing": pl.String,
    "from_depth": pl.Float64, "to_depth": pl.Float64,
}  # fmt: skip
FORMAT = 1
_TABLE, _PEAKS, _ABOUT = "table.parquet", "peaks.parquet", "comparison.json"
_FIGURES, _UNITS = "stability.parquet", "stability-units.parquet"


class Comparison:
    """Two or more diagnoses side by side, as they are printed, saved and read back.

    Attributes:
        table: a row a measure, stream and diagnosis with value, interval, floor and relative depth; and where `against`
            names the first diagnosis, a row with the difference from it: the score of `stream` in `diagnosis` less that
            of `other` in `against`. `pairing` says how the interval of a difference came about: "folds", "unpaired", or
            null where there is none. Without `against`, `other` is the stream of another model that a score relates
            the stream to.
        peaks: a row a measure and diagnosis: the stream of the best score (the lowest of error rates: `lowest`),
            whether its interval lies beyond the floor, the streams that cannot be told from it (`as_good`), and the
            range of relative depth of them all.
        provenance: the diagnoses, the first of them as `reference`; `absent`: what is absent in which and why;
            `stated`: in what the diagnoses differ beside their models.
        stability: whether they find the same units critical; None where no two of them say.
    """

    def __init__(
        self,
        table: pl.DataFrame,
        peaks: pl.DataFrame,
        provenance: Mapping[str, Any],
        stability: Stability | None = None,
    ) -> None:
        self.table = table
        self.peaks = peaks
        self.provenance = dict(provenance)
        self.stability = stability

    @property
    def names(self) -> list[str]:
        """Names of the diagnoses, the reference first."""
        return [one["name"] for one in self.provenance["diagnoses"]]

    @property
    def keys(self) -> list[tuple[str, str]]:
        """Measures and targets that were compared, in the order of the table."""
        return [(m, t) for m, t in self.table.select("measure", "target").unique(maintain_order=True).iter_rows()]

    def title(self, measure: str, target: str) -> str:
        """What to call a measure and target: the measure alone, unless it has several targets."""
        return titles(self.keys)[measure, target]

    def values(self, measure: str, target: str, name: str) -> list[dict[str, Any]]:
        """The rows of one curve, along the streams."""
        return self._rows(measure, target, name).filter(pl.col("against").is_null()).to_dicts()

    def differences(self, measure: str, target: str, name: str) -> list[dict[str, Any]]:
        """The rows of one curve less that of the reference, along the streams."""
        return self._rows(measure, target, name).filter(pl.col("against").is_not_null()).to_dicts()

    def _rows(self, measure: str, target: str, name: str) -> pl.DataFrame:
        return self.table.filter(
            (pl.col("measure") == measure) & (pl.col("target") == target) & (pl.col("diagnosis") == name)
        )

    def peak(self, measure: str, target: str, name: str) -> dict[str, Any] | None:
        """The peak of one curve; None where the diagnosis has none."""
        found = self.peaks.filter(
            (pl.col("measure") == measure) & (pl.col("target") == target) & (pl.col("diagnosis") == name)
        ).to_dicts()
        return found[0] if found else None

    def sentences(self) -> list[str]:
        """The findings in words: whether the same units are critical; where each measure peaks, and what differs."""
        found = [] if self.stability is None else self.stability.sentences()
        for measure, target in self.keys:
            peaks = [(name, self.peak(measure, target, name)) for name in self.names]
            held = [(name, peak) for name, peak in peaks if peak is not None]
            if all(peak["stream"] == WHOLE_MODEL for _, peak in held):
                found.append(self._of_all(measure, target, held))
                continue
            counts = {name: len(self.values(measure, target, name)) for name, _ in held}
            text = "; ".join(f"in {name} {_peak(peak, counts[name])}" for name, peak in held)
            # Of what a block does, much is neither good nor bad.
            high = "highest" if group_of(measure) == "blocks" else "best"
            best = "lowest" if held[0][1]["lowest"] else high
            found.append(f"{self.title(measure, target)} is {best} {text}.{self._differences(measure, target)}")
        return found

    def _of_all(self, measure: str, target: str, held: list[tuple[str, dict[str, Any]]]) -> str:
        """A score of all streams together in words."""
        text = f"{self.title(measure, target)} is " + "; ".join(f"{peak['value']:.2f} in {name}" for name, peak in held)
        for name in self.names[1:]:
            for row in self.differences(measure, target, name):
                if row["pairing"] is not None:
                    word = "higher than" if row["low"] > 0 else "lower than" if row["high"] < 0 else "not told from"
                    text += f". {name} is {word} {self.names[0]}"
        return f"{text}."

    def _differences(self, measure: str, target: str) -> str:
        text = ""
        for name in self.names[1:]:
            rows = [row for row in self.differences(measure, target, name) if row["pairing"] is not None]
            if not rows:
                continue
            higher = [row for row in rows if row["low"] > 0]
            lower = [row for row in rows if row["high"] < 0]
            if not higher and not lower:
                text += f" {name} cannot be told from {self.names[0]} at any of {len(rows)} streams."
                continue
            if len(higher) == len(rows) or len(lower) == len(rows):
                text += f" {name} is {'higher' if higher else 'lower'} than {self.names[0]} at all {len(rows)} streams"
            else:
                counts = [f"{word} at {len(part)}" for word, part in (("higher", higher), ("lower", lower)) if part]
                text += f" Against {self.names[0]}, {name} is {' and '.join(counts)} of {len(rows)} streams"
            most = max((*higher, *lower), key=lambda row: abs(row["value"]))
            text += (
                f", most at {place_name(most['stream'])} ({most['value']:+.2f}, 95 % {most['low']:+.2f} to "
                f"{most['high']:+.2f}{'' if most['pairing'] == FOLDS else ', unpaired'})."
            )
        return text

    def __str__(self) -> str:
        lines = [" against ".join([", ".join(self.names[1:]), self.names[0]])]
        stable = [] if self.stability is None else str(self.stability).splitlines()
        called = titles(self.keys)
        if not called:
            return "\n".join([*lines, *stable, *self.provenance["stated"]])
        width = max(map(len, ["peak of", *called.values()]))
        columns = [max(len(name), 18) for name in self.names]
        header = [f"{name:>{wide}}" for name, wide in zip(self.names, columns, strict=True)]
        lines.append("  ".join([f"{'peak of':<{width}}", *header]))
        for key, title in called.items():
            cells = []
            for name, wide in zip(self.names, columns, strict=True):
                peak = self.peak(*key, name)
                cells.append(f"{peak_cell(peak) if peak else '':>{wide}}")
            lines.append(f"{title:<{width}}  {'  '.join(cells)}".rstrip())
        return "\n".join([*lines, *stable, *self.provenance["stated"]])

    @staticmethod
    def check_place(folder: str | Path) -> Path:
        """Makes sure that a comparison may be written to a folder; to be called before long work.

        Raises:
            ResultError: it is a file, holds something other than a comparison, or cannot be written.
        """
        return check_result_place(folder, "a comparison", lambda place: (place / _ABOUT).exists())

    def save(self, folder: str | Path) -> Path:
        """Writes table.parquet, peaks.parquet and comparison.json, whole or not at all.

        Where there is a stability, stability.parquet and stability-units.parquet stand beside them.

        Raises:
            ResultError: see `check_place`.
        """
        folder = self.check_place(folder)
        files = {_TABLE: self.table.write_parquet, _PEAKS: self.peaks.write_parquet}
        if self.stability is not None:
            files |= {_FIGURES: self.stability.figures.write_parquet, _UNITS: self.stability.units.write_parquet}
        outdated = {_FIGURES, _UNITS} - files.keys()
        write_result(folder, "a comparison", files, (_ABOUT, {"format": FORMAT, **self.provenance}), outdated)
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> Comparison:
        """Reads what `save` wrote.

        Raises:
            ResultError: the folder holds no whole comparison, or one of another format.
        """
        folder = Path(folder)
        try:
            about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
            if about.pop("format") != FORMAT:
                raise ValueError(f"its format is not {FORMAT}")
            table, peaks = pl.read_parquet(folder / _TABLE), pl.read_parquet(folder / _PEAKS)
            if table.schema != pl.Schema(TABLE_SCHEMA) or peaks.schema != pl.Schema(PEAK_SCHEMA):
                raise ValueError("its tables are not those of a comparison")
            stability = None
            if (folder / _FIGURES).exists():
                stability = Stability(pl.read_parquet(folder / _FIGURES), pl.read_parquet(folder / _UNITS))
                if (stability.figures.schema, stability.units.schema) != (
                    pl.Schema(FIGURE_SCHEMA), pl.Schema(UNIT_SCHEMA),
                ):  # fmt: skip
                    raise ValueError("its tables are not those of a stability")
            return cls(table, peaks, about, stability)
        except (OSError, ValueError, KeyError, AttributeError, TypeError, pl.exceptions.PolarsError) as error:
            raise ResultError(
                f"{folder} holds no comparison that can be read: {error}", "Name a folder that `compare` wrote."
            ) from error


def place_name(stream: str) -> str:
    """A stream in words.

    >>> place_name("layer.3"), place_name("conv.1"), place_name("final_norm")
    ('layer 3', 'convolution 1', 'the final norm')
    """
    kind, _, number = stream.partition(".")
    names = {"layer": f"layer {number}", "conv": f"convolution {number}"}
    return names.get(kind, {"input": "the input of layer 1", "final_norm": "the final norm"}.get(stream, stream))


def peak_cell(peak: Mapping[str, Any]) -> str:
    """The peak's stream, value, and in brackets how many other streams are as good."""
    others = f" ({len(peak['as_good'])})" if peak["as_good"] else ""
    return f"{peak['stream']} {peak['value']:.3f}{others}"


def _peak(peak: Mapping[str, Any], streams: int) -> str:
    text = f"at {place_name(peak['stream'])} ({peak['value']:.2f}"
    if peak["above_floor"] is False:
        return f"{text}, not beyond its floor of {peak['floor']:.2f})"
    count = len(peak["as_good"])
    if count and count == streams - 1:
        return f"{text}, no stream differs from it)"
    if count:
        text += f", {count} other stream{'s' if count > 1 else ''} as good"
    return f"{text})"
