"""The command that shows attention heads: view."""

import json
import os
import sys
import threading
import webbrowser
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from otoscope.cli.app import Flag, Json, Output, app, use_threads
from otoscope.errors import ResultError

Given = Annotated[tuple[Path, ...], Parameter(consume_multiple=False, negative=())]
"""An option that may be given more than once."""


@app.command
def view(
    model: str = "embedded",
    audio: str = "embedded",
    *,
    utterance: str | None = None,
    against: str | None = None,
    output: Output = None,
    heads: str | None = None,
    measures: Annotated[str | None, Parameter(name=["--measures", "-m"])] = None,
    diagnosis: Given = (),
    alignments: Path | None = None,
    phone_set: str = "arpabet39",
    port: int = 0,
    no_browser: Flag = False,
    device: str | None = None,
    threads: int | None = None,
    as_json: Json = False,
) -> None:
    """Show what every attention head does with an utterance: maps to see and hear, in the browser.

    A server on this machine alone (127.0.0.1) gives out the page, until Ctrl-C. With --output the page is saved as one
    file instead, which needs neither server nor network.

    Examples:

        otoscope view
        otoscope view facebook/hubert-base-ls960 sentence.wav
        otoscope view embedded embedded --utterance rms-1-0001 --against embedded:wavlm-pretrained
        otoscope view my-model my-speech --utterance 1089-134686-0000 -o heads.html --heads 3.1,5.0

    Parameters
    ----------
    model
        Folder, Hub name, or `embedded`.
    audio
        A recording, a corpus (folder or manifest), or `embedded`; at most 60 seconds are shown.
    utterance
        Which utterance of the corpus. Default: the first.
    against
        Another model, side by side with the first.
    output
        Where one self-contained HTML page goes, of at most 40 MB.
    heads
        Heads that the saved page holds exactly, as LAYER.HEAD, separated by commas; the others are averages. Default: the
        most global, the most vertical and the most diagonal one.
    measures
        Measures by which heads are sorted and coloured, separated by commas. Default: the group heads.
    diagnosis
        Folder that `otoscope diagnose -o` wrote: sort and colour by its numbers rather than by this utterance alone. May be
        given once for each model.
    alignments
        Folder of TextGrids, or a CTM file, with phone and word times.
    phone_set
        What phone labels are folded to: arpabet39, arpabet61, timit39, or none.
    port
        Where the server listens; 0 for any port that is free.
    no_browser
        Print the address and open no browser, as where there is no screen.
    device
        Where the model runs, such as cpu or cuda.
    threads
        Threads on the CPU.
    as_json
        Print the address, or what was saved, as JSON rather than as text.
    """
    from otoscope.reporting import check_place
    from otoscope.workflow import read_corpus
    from otoscope.workflow.viewing import parse_heads
    from otoscope.workflow.viewing import view as run

    if output is not None:
        check_place(output)
    elif heads is not None:
        raise ResultError("--heads chooses what a saved page holds, and none is saved", "Add -o FILE, or leave it out.")
    if heads is not None:
        parse_heads(heads)
    use_threads(threads)
    console = Console(stderr=as_json)
    speech = read_corpus(audio, alignments=alignments, phone_set=None if phone_set == "none" else phone_set)
    found = run(
        model, speech, utterance=utterance, against=against, measures=measures, diagnoses=diagnosis, device=device,
    )  # fmt: skip
    heard = found.scene.utterance
    if found.others and utterance is None:
        console.print(
            f"Utterance {heard.id}, the first of {found.others + 1}; --utterance names another.",
            highlight=False,
            markup=False,
        )
    if output is not None:
        path, held = found.save(output, heads)
        if as_json:
            print(json.dumps({"utterance": heard.id, "output": str(path), "bytes": path.stat().st_size, "holds": held}))
            return
        console.print(f"Saved: {path}, {path.stat().st_size / 1e6:.1f} MB", highlight=False, markup=False)
        console.print(held + ".", highlight=False, markup=False, soft_wrap=True)
        return
    with found.serve(port) as server:
        if as_json:
            print(json.dumps({"utterance": heard.id, "address": server.address}), flush=True)
        else:
            console.print(f"Viewer: [bold]{server.address}[/bold]  (Ctrl-C ends it)", highlight=False, soft_wrap=True)
            console.print(found.memory + ".", highlight=False, soft_wrap=True)
        if not no_browser and _has_screen():
            # Beside the server: some browsers give the terminal back only when they are closed.
            threading.Thread(target=webbrowser.open, args=(server.address,), daemon=True).start()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            console.print("The viewer has ended.", highlight=False)


def _has_screen() -> bool:
    """Whether a browser could draw; a text browser in the terminal could not."""
    return sys.platform in ("darwin", "win32") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
