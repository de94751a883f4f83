"""Query-key information: how much a head's attention depends on where it looks from."""

from typing import Any

import torch

from otoscope.measures.heads.globalness import globalness
from otoscope.measures.heads.head_measure import HeadMeasure
from otoscope.measures.heads.verticality import Verticality, verticality
from otoscope.models.reductions import ColumnMean, RowEntropy


def head_information(attention: Any) -> Any:
    """Mutual information of query and key position of attention maps; the definition is otoscope's own.

        I = -(G + V) = H(1/T sum_q A[q]) - 1/T sum_q H(A[q])

    Args:
        attention: (..., T, T), torch or numpy; rows are queries and sum to one.

    Returns:
        (...), in nat: 0 where all rows are alike, ln T where each query attends to a key of its own.

    Raises:
        MeasureError: another shape, or rows that do not sum to one.

    >>> import numpy as np
    >>> round(float(head_information(np.eye(10))), 5)
    2.30259
    """
    return -(globalness(attention) + verticality(attention))


class HeadInformation(HeadMeasure):
    """Query-key information of every head, the mean of utterances' values."""

    name = "head-information"
    reductions = (RowEntropy, ColumnMean)

    def observe(self, found: dict[str, torch.Tensor]) -> torch.Tensor:
        """See `HeadMeasure`; rounding can leave a hair below zero."""
        return -(found["row-entropy"] + Verticality().observe(found)).clamp(max=0)
