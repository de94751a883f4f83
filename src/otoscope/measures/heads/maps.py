"""What every pure function of attention maps asks of its input."""

from typing import Any

from array_api_compat import array_namespace

from otoscope.errors import MeasureError


def checked_maps(maps: Any) -> tuple[Any, Any]:
    """The namespace of the array (numpy or torch), and the array in single or double precision.

    Args:
        maps: (..., T, T), floating point; rows are queries and sum to one.

    Raises:
        MeasureError: another shape or type, values that are negative or not finite, or rows that do not sum to one.
    """
    try:
        xp = array_namespace(maps)
    except TypeError as error:
        raise MeasureError(
            f"Attention maps are a {type(maps).__name__}", "Pass a numpy array or a torch tensor of shape (..., T, T)."
        ) from error
    if maps.ndim < 2 or maps.shape[-1] != maps.shape[-2] or maps.shape[-1] < 1:
        raise MeasureError(
            f"Attention maps have shape {tuple(maps.shape)}, not (..., T, T)",
            "Pass self-attention with one row per query frame, cut to the valid frames.",
        )
    if not xp.isdtype(maps.dtype, "real floating"):
        raise MeasureError(f"Attention maps are of type {maps.dtype}", "Pass weights in floating point.")
    tolerance = 1e-3
    if xp.finfo(maps.dtype).bits < 32:  # sums over frames overflow, and rows have lost digits already
        maps, tolerance = xp.astype(maps, xp.float32), 2e-2
    # Written so that NaN fails as well.
    if not (bool(xp.all(maps >= 0)) and bool(xp.all(xp.abs(xp.sum(maps, axis=-1) - 1) < tolerance))):
        raise MeasureError(
            f"Attention maps of shape {tuple(maps.shape)} have rows that do not sum to one, or values that are "
            "negative or not finite",
            "Pass weights after the softmax, cut to the valid frames, with no head removed.",
        )
    return xp, maps


def entropy(weights: Any, xp: Any) -> Any:
    """Entropy over the last axis in nat, with 0 log 0 = 0; shape (...)."""
    logs = xp.log(xp.where(weights > 0, weights, xp.ones_like(weights)))
    return -xp.sum(weights * logs, axis=-1)
