"""What a model consists of: its named streams, their widths and time grids, its layers and heads."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Grid:
    """How the frames of a stream lie over the samples at 16 kHz.

    Attributes:
        hop: samples from one frame to the next.
        field: samples that one frame sees through the convolutional front-end or the features.
        offset: first sample that frame 0 sees; negative where frames are centred on multiples of the hop.
    """

    hop: int
    field: int
    offset: int = 0


@dataclass(frozen=True)
class Anatomy:
    """Names and sizes, in the order in which the signal passes.

    Attributes:
        family: name of the model's family.
        streams: "conv.1" ... "conv.C" where there is a convolutional front-end on samples, "input" (what enters
            layer 1), "layer.1" ... "layer.L", and "final_norm" where a norm follows the last layer.
        widths: dimensions of each stream.
        grids: time grid of each stream.
        heads: heads of each layer, layer 1 first.
        head_names: numbers that each layer's heads have in the original model, in the order of the tensors; an edited
            model may have lost some. By default 0, 1, ...
        removed: layers and branches that were taken out of an edited model, by name; layers that are gone have no
            stream and no heads, and are counted all the same.
        borrowed: layer of an edited model -> the layer whose attention map it uses.
        fixed: layers of an edited model whose attention map is the same whatever is heard.
        replaced: layers of an edited model where a module of another kind stands in place of attention.
    """

    family: str
    streams: tuple[str, ...]
    widths: Mapping[str, int]
    grids: Mapping[str, Grid]
    heads: tuple[int, ...]
    head_names: tuple[tuple[int, ...], ...] = ()
    removed: tuple[str, ...] = ()
    borrowed: Mapping[int, int] = field(default_factory=dict)
    fixed: tuple[int, ...] = ()
    replaced: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.head_names:
            object.__setattr__(self, "head_names", tuple(tuple(range(count)) for count in self.heads))

    @property
    def n_layers(self) -> int:
        """Number of transformer layers L, those that were taken out included."""
        return len(self.heads)

    @property
    def layers(self) -> tuple[int, ...]:
        """Numbers of the layers that are there."""
        return tuple(k for k in range(1, self.n_layers + 1) if f"layer.{k}" not in self.removed)

    @property
    def grid(self) -> Grid:
        """The grid of `input` and all layers, on which attention lives."""
        return self.grids["input"]


def layer_of(stream: str) -> int | None:
    """The number of a layer's stream, None for any other.

    >>> layer_of("layer.12"), layer_of("conv.1")
    (12, None)
    """
    found = re.fullmatch(r"layer\.(\d+)", stream)
    return int(found.group(1)) if found else None


def conv_grids(kernels: tuple[int, ...], strides: tuple[int, ...]) -> list[Grid]:
    """Grid after each of a stack of unpadded convolutions over samples.

    >>> conv_grids((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2))[-1]
    Grid(hop=320, field=400, offset=0)
    """
    hop, field = 1, 1
    grids = []
    for kernel, stride in zip(kernels, strides, strict=True):
        field += (kernel - 1) * hop
        hop *= stride
        grids.append(Grid(hop, field))
    return grids
