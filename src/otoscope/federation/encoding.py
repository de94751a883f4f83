"""Deltas in fewer bits, and how many bytes travel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from otoscope.errors import FederationError
from otoscope.federation.channels import exchanged, groups_of
from otoscope.federation.submodels import Submodel, extract
from otoscope.models.model import SpeechModel

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class ClientSize:
    """How large a client's part of a model is.

    Attributes:
        elements: elements of the tensors that travel to it, parameters and running statistics.
        share: of those of the whole model.
        download_bytes: of what it is sent, in float32.
        upload_bytes: of what it sends back: no frozen tensors, in the type of the deltas.
    """

    elements: int
    share: float
    download_bytes: int
    upload_bytes: int


def encode(delta: Mapping[str, torch.Tensor], dtype: str = "float32") -> dict[str, torch.Tensor]:
    """A delta as it is sent.

    bfloat16 keeps float32's range and 8 bits of precision; float16 keeps 11 bits between 6e-5 and 65,504 in magnitude,
    fewer below, and nothing below 3e-8.

    Args:
        delta: tensors of floating-point numbers by name.
        dtype: "float32", "bfloat16" or "float16".

    Raises:
        FederationError: there is no such type, or a value is not finite or has no finite neighbour in it.

    >>> encode({"a": torch.tensor([1.0, 0.1])}, "bfloat16")["a"].tolist()
    [1.0, 0.10009765625]
    """
    if dtype not in DTYPES:
        raise FederationError(f"Deltas cannot be sent as {dtype!r}", f"Choose one of {', '.join(DTYPES)}.")
    made: dict[str, torch.Tensor] = {}
    for name, tensor in delta.items():
        if not tensor.is_floating_point():
            raise FederationError(
                f"{name} holds {str(tensor.dtype).removeprefix('torch.')}, which is no floating-point type",
                "Send parameters and running statistics alone.",
            )
        # A number beyond the largest of a type becomes infinite.
        made[name] = tensor.detach().to(DTYPES[dtype])
        if bool(torch.isfinite(made[name]).all()):
            continue
        if not bool(torch.isfinite(tensor).all()):
            raise FederationError(
                f"The delta of {name} is not finite", "Lower the clients' learning rate, or clip their gradients."
            )
        raise FederationError(
            f"The delta of {name} reaches {float(tensor.abs().max()):g}, and {dtype} ends at "
            f"{torch.finfo(DTYPES[dtype]).max:g}",
            "Send bfloat16 or float32, or look at why a client's weights move so far.",
        )
    return made


def decode(arrays: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What `encode` made, in float32."""
    return {name: tensor.float() for name, tensor in arrays.items()}


def bytes_of(arrays: Mapping[str, torch.Tensor]) -> int:
    """Bytes of tensors as they are sent, without their names.

    >>> bytes_of({"a": torch.zeros(3), "b": torch.zeros(2, dtype=torch.float16)})
    16
    """
    return sum(tensor.numel() * tensor.element_size() for tensor in arrays.values())


def sizes(model: SpeechModel, submodel: Submodel, dtype: str = "float32") -> ClientSize:
    """How large a sub-model is; no tensor is copied.

    Args:
        model: the server's.
        submodel: what a client holds of it.
        dtype: of the deltas.

    Raises:
        FederationError: the sub-model does not fit, or there is no such type.
    """
    if dtype not in DTYPES:
        raise FederationError(f"Deltas cannot be sent as {dtype!r}", f"Choose one of {', '.join(DTYPES)}.")
    whole = {name: tensor.to("meta", torch.float32) for name, tensor in exchanged(model).items()}
    held = extract(whole, submodel, groups_of(model))
    sent = {name: tensor.to(DTYPES[dtype]) for name, tensor in held.items() if name not in submodel.frozen}
    elements, total = (sum(tensor.numel() for tensor in one.values()) for one in (held, whole))
    return ClientSize(elements, elements / total, bytes_of(held), bytes_of(sent))
