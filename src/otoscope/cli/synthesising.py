"""The command that renders labelled speech: synthesise."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from otoscope.cli.app import Flag, Json, Range, app, progress_bar
from otoscope.errors import SpeechError


@app.command
def synthesise(
    *,
    hours: float,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    seed: int = 0,
    no_flite: Flag = False,
    common: int | None = None,
    noise: str | None = None,
    snr: Range | None = None,
    rooms: Flag = False,
    rt60: Range | None = None,
    workers: int | None = None,
    as_json: Json = False,
) -> None:
    """Render labelled speech with espeak-ng and flite: train, dev and exam, kept apart by voice and by sentence.

    The folder is in LibriSpeech's layout, with a TextGrid of words and phones beside each recording.

    Examples:

        otoscope synthesise --hours 10 -o speech
        otoscope synthesise --hours 1 --noise pink,babble --snr 0 15 --rooms -o noisy
        otoscope diagnose embedded speech/exam

    Parameters
    ----------
    hours
        Hours of train; dev and exam are a twentieth of it each, but at least 3 and 6 minutes (or as much as train).
    output
        Folder for the corpus. What an interrupted run with the same settings left there is gone on with.
    seed
        Seed of sentences, and of how each is said.
    no_flite
        Go without flite's recorded voices.
    common
        Of each kind of word this many, the most frequent: a small vocabulary, which small models can learn. Default: all.
    noise
        Kinds of noise to add, separated by commas: white, pink, babble.
    snr
        The least and the greatest signal-to-noise ratio, dB, of `--noise`. Default: 5 20.
    rooms
        Let each recording be heard in a room of its own.
    rt60
        The least and the greatest reverberation time of a room, seconds, of `--rooms`. Default: 0.2 0.8.
    workers
        Processes at a time; as many as there are cores if not given.
    as_json
        Print the summary as JSON.
    """
    from otoscope.workflow.synthesising import synthesise as run

    console = Console(stderr=as_json)
    with progress_bar(console, "counting") as progress:
        made = run(
            output,
            hours,
            seed,
            flite=not no_flite,
            common=common,
            noise=_kinds(noise),
            snr=snr,
            rooms=rooms,
            rt60=rt60,
            workers=workers,
            progress=progress,
        )
    if as_json:
        print(json.dumps(asdict(made), default=str))
        return
    from rich.table import Table

    table = Table("", "hours", "speakers", "sentences", "words", box=None, padding=(0, 2, 0, 0))
    for column in table.columns[1:]:
        column.justify = "right"
    for split, told in made.splits.items():
        counts = (f"{told[key]:,.0f}" for key in ("speakers", "sentences", "words"))
        table.add_row(split, f"{told['hours']:.2f}", *counts)
    console.print(table)
    console.print(f"\nSaved in [bold]{made.folder}[/bold]   ({made.seconds:.0f} s)", highlight=False)
    console.print(f"Next: [bold]otoscope diagnose embedded {made.folder / 'exam'}[/bold]", highlight=False)


def _kinds(noise: str | None) -> list[str]:
    """Kinds of noise, as they are given.

    Raises:
        SpeechError: the option is given and names none.
    """
    kinds = [kind.strip() for kind in (noise or "").split(",") if kind.strip()]
    if noise is not None and not kinds:
        raise SpeechError(f"--noise {noise!r} names no noise", "Name some of white, pink, babble, or leave it out.")
    return kinds
