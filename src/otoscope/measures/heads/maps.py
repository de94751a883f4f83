"""What every pure function of attention maps asks of its input."""

from typing import Any

from array_api_compat import array_namespace

from otoscope.errors import MeasureError


def checked_maps(maps: Any) -> tuple[Any, Any]:
    """The namespace of the array (numpy or torch), and the array in single or double precision.

    Keys that no query attends to are no error: padding that was masked as a key but kept as a query cannot be told
    from a head that leaves those frames out.

    Args:
        maps: (..., T, T), floating point; rows are queries and sum to one.

    Raises:
        MeasureError: another shape or type, values that are negative or not finite, rows of zeros at the end (padding),
            or rows that do not sum to one.
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
    sums = xp.sum(maps, axis=-1)
    # Written so that NaN fails as well.
    if not (bool(xp.all(maps >= 0)) and bool(xp.all(xp.abs(sums - 1) < tolerance))):
        raise _refusal(xp, maps, sums)
    return xp, maps


def _refusal(xp: Any, maps: Any, sums: Any) -> MeasureError:
    """What is wrong with maps whose values are no weights or whose rows do not sum to one."""
    frames = maps.shape[-1]
    if not bool(xp.all(xp.isfinite(maps))):
        problem, cure = "values that are not finite", "Run the model in float32, and check its weights."
    elif bool(xp.any(maps < 0)):
        problem, cure = "negative values", "Pass weights after the softmax, not scores."
    else:
        rows = xp.reshape(sums, (-1, frames))
        empty = next((k for k in range(frames) if bool(xp.any(xp.all(rows[:, k:] == 0, axis=-1)))), frames)
        if 0 < empty < frames:
            problem = f"padding: from frame {empty} on, all rows of a map are zero"
            cure = f"Cut each map to its valid frames, such as maps[..., :{empty}, :{empty}]."
        else:
            problem = f"rows that do not sum to one, but to {float(xp.min(sums)):.4g} ... {float(xp.max(sums)):.4g}"
            cure = "Pass weights after the softmax, without dropout, cut to the valid frames, with no head removed."
    return MeasureError(f"Attention maps of shape {tuple(maps.shape)} have {problem}", cure)


def offsets(xp: Any, maps: Any) -> Any:
    """Key minus query position in frames, (T, T), in the maps' type and on their device."""
    place = xp.astype(xp.arange(maps.shape[-1]), maps.dtype)
    if hasattr(maps, "device") and hasattr(place, "to"):
        place = place.to(maps.device)
    return place[None, :] - place[:, None]


def at_least(frames: int, fewest: int, what: str) -> None:
    """Refuses maps that are too short for a figure.

    Raises:
        MeasureError: there are fewer frames.
    """
    if frames < fewest:
        raise MeasureError(
            f"{what} of a map of {frames} frame{'s' * (frames != 1)} is not defined",
            f"Leave out utterances of fewer than {fewest} frames.",
        )


def entropy(weights: Any, xp: Any) -> Any:
    """Entropy over the last axis in nat, with 0 log 0 = 0; shape (...)."""
    logs = xp.log(xp.where(weights > 0, weights, xp.ones_like(weights)))
    return -xp.sum(weights * logs, axis=-1)
