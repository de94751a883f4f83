"""A diagnosis in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from otoscope.diagnosis.result import Diagnosis

_READ = {
    "cca-phone": ("Phones are", "phones"),
    "cca-word": ("Words are", "words"),
}
_NEAR_MS = 100


def sentences(diagnosis: Diagnosis) -> list[str]:
    """Findings in words; a measure that was not taken gives none."""
    return [
        *(line for name in _READ if (line := _best_read(diagnosis, name))),
        *_sound(diagnosis),
        *_heads(diagnosis),
        *_blocks(diagnosis),
    ]


def _place(stream: str) -> str:
    kind, _, number = stream.partition(".")
    names = {"layer": f"layer {number}", "conv": f"convolution {number}", "input": "the input of layer 1"}
    return names.get(kind, "the final norm")


def _scores(diagnosis: Diagnosis, name: str) -> list[dict[str, object]]:
    return diagnosis.measure(name).drop_nulls("value").to_dicts()


def _best_read(diagnosis: Diagnosis, name: str) -> str | None:
    rows = _scores(diagnosis, name)
    if not rows:
        return None
    best = max(rows, key=lambda row: row["value"])  # type: ignore[arg-type, return-value]
    subject, plural = _READ[name]
    low, high, floor = best["low"], best["high"], best["floor"]
    if low is not None and floor is not None and low <= floor:  # type: ignore[operator]
        return f"No layer reads {plural} above chance on this corpus (best {best['value']:.2f}, floor {floor:.2f})."
    text = f"{subject} best read at {_place(str(best['stream']))} (PWCCA {best['value']:.2f}"
    text += f", 95 % {low:.2f} to {high:.2f}" if low is not None else ""
    text += f", floor {floor:.2f})" if floor is not None else ")"
    # Where another stream's value lies within the best one's interval, the order is not settled.
    close = [row for row in rows if row is not best and low is not None and row["value"] >= low]  # type: ignore[operator]
    if close:
        text += f"; {len(close)} other stream{'s' if len(close) > 1 else ''} within that interval"
    return text + "."


def _sound(diagnosis: Diagnosis) -> list[str]:
    rows = _scores(diagnosis, "cca-mel")
    layers = [row for row in rows if row["layer"] is not None]
    if len(rows) < 2 or not layers:
        return []
    most = max(rows, key=lambda row: row["value"])  # type: ignore[arg-type, return-value]
    least = min(layers, key=lambda row: row["value"])  # type: ignore[arg-type, return-value]
    text = (
        f"The sound itself (log-mel) is closest at {_place(str(most['stream']))} (PWCCA {most['value']:.2f}) and "
        f"faintest at {_place(str(least['stream']))} ({least['value']:.2f})"
    )
    last = layers[-1]
    if last is not least and last["low"] is not None and least["high"] is not None and last["low"] > least["high"]:  # type: ignore[operator]
        text += f", returning to {last['value']:.2f} at the top"
    return [text + "."]


def _heads(diagnosis: Diagnosis) -> list[str]:
    lines = []
    most = []
    for name, word in (("diagonality", "diagonal"), ("globalness", "global"), ("verticality", "vertical")):
        rows = _scores(diagnosis, name)
        if rows:
            best = max(rows, key=lambda row: row["value"])  # type: ignore[arg-type, return-value]
            most.append(f"{best['layer']}.{best['head']} is the most {word}")
    if most:
        lines.append(f"Head {', '.join(most)}.")
    labels = diagnosis.measure("category")["label"].to_list()
    if labels:
        counts = ", ".join(f"{labels.count(word)} {word}" for word in ("diagonal", "vertical", "global"))
        lines.append(f"Of {len(labels)} heads: {counts} (each by the list in which it ranks highest).")
    return lines


def _blocks(diagnosis: Diagnosis) -> list[str]:
    table = diagnosis.measure("relative-profile")
    if not table.height:
        return []
    reach = max(1, round(_NEAR_MS / diagnosis.provenance["model"]["hop_ms"]))
    near = table.with_columns(pl.col("target").cast(pl.Int64, strict=False).alias("offset")).filter(
        pl.col("offset").abs() <= reach
    )
    mass = near.group_by("layer").agg(pl.col("value").sum(), pl.col("floor").sum()).sort("layer").to_dicts()
    most, least = max(mass, key=lambda row: row["value"]), min(mass, key=lambda row: row["value"])
    uniform = f"uniform attention would give {most['floor']:.0%}"
    if f"{most['value']:.0%}" == f"{least['value']:.0%}":
        return [f"All blocks attend about as widely ({most['value']:.0%} within {_NEAR_MS} ms; {uniform})."]
    return [
        f"Block {most['layer']} attends most locally ({most['value']:.0%} within {_NEAR_MS} ms) and block "
        f"{least['layer']} least ({least['value']:.0%}); {uniform}."
    ]
