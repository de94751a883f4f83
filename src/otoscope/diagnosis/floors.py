"""The score of a network with fresh weights as the zero of every score."""

import polars as pl

from otoscope.diagnosis.result import SCHEMA, Diagnosis

_KEY = ("measure", "stream", "layer", "head", "target", "other")
KIND = "fresh weights"


def with_floors(diagnosis: Diagnosis, fresh: Diagnosis) -> Diagnosis:
    """The diagnosis with the values of another as its floors, row by row.

    Args:
        diagnosis: of the trained network.
        fresh: of the same architecture with fresh weights, on the same speech with the same seed.

    Returns:
        A diagnosis whose column `floor` holds the fresh network's values; rows without a counterpart keep none. Floors
        by permuted labels are gone. `provenance["floor"]` says so.
    """
    zeros = fresh.table.select(*_KEY, pl.col("value").alias("zero")).unique(_KEY, keep="first", maintain_order=True)
    table = diagnosis.table.join(zeros, on=_KEY, how="left", nulls_equal=True, maintain_order="left")
    table = table.with_columns(pl.col("zero").alias("floor")).select(*SCHEMA)
    told = {"kind": KIND, "model": fresh.provenance["model"]["fingerprint"], "seed": fresh.provenance["seed"]}
    return Diagnosis(table, diagnosis.arrays, {**diagnosis.provenance, "floor": told})
