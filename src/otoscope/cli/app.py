"""What the commands share: the application, types of options, the bar with the time left."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from rich.console import Console

from otoscope._version import __version__
from otoscope.errors import OtoscopeError

app = App(
    name="otoscope",
    version=__version__,
    help="""Look inside models that listen: what each layer knows and what each attention head does.

    MODEL is a folder that transformers wrote, a Hub name, or `embedded`; CORPUS is a folder of recordings
    (LibriSpeech's layout among them), a JSON-lines manifest, one recording, or `embedded`.
    """,
    help_format="markdown",
    result_action="return_value",
)

Output = Annotated[Path | None, Parameter(name=["--output", "-o"])]
Flag = Annotated[bool, Parameter(negative=())]
Range = Annotated[tuple[float, float], Parameter(negative=())]
Json = Annotated[bool, Parameter(name="--json", negative=())]


def use_threads(count: int | None) -> None:
    """Has torch use this many threads; None leaves their number as it is.

    Raises:
        OtoscopeError: fewer than one.
    """
    if count is None:
        return
    if count < 1:
        raise OtoscopeError(f"{count} threads compute nothing", "Give --threads 1 or more.")
    import torch

    torch.set_num_threads(count)


@contextlib.contextmanager
def progress_bar(console: Console, last: str = "computing") -> Iterator[Any]:
    """A bar with the time left, on a terminal; silent elsewhere.

    Args:
        console: where it is drawn.
        last: what is done when all speech has passed.

    Yields:
        A function that takes seconds of speech done and in all.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("left"), TimeRemainingColumn(compact=True), TextColumn("so far"), TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("loading", total=None)

        def step(done: float, total: float) -> None:
            text = last if done >= total else f"{done / 60:.1f} of {total / 60:.1f} min of speech"
            bar.update(task, completed=done, total=total, description=text)

        yield step
