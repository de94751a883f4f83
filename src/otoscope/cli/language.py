"""The command that estimates a language model: lm."""

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from otoscope.cli.app import Flag, Json, app


@app.command(name="lm")
def language_model(
    corpus: str = "embedded:train",
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    order: int = 4,
    dev: str | None = None,
    skip_bad: Flag = False,
    as_json: Json = False,
) -> None:
    """Estimate an n-gram language model from transcripts, by interpolated modified Kneser-Ney, and write it as ARPA.

    Examples:

        otoscope lm LibriSpeech/train-clean-100 -o lm.arpa --dev LibriSpeech/dev-clean
        otoscope evaluate my-model LibriSpeech/dev-clean --decoder beam --lm lm.arpa

    Parameters
    ----------
    corpus
        Folder, manifest, or `embedded:train`; with transcripts. No audio is heard.
    output
        The ARPA file.
    order
        Words that are looked at, the one that is foretold among them.
    dev
        Other speech, on whose transcripts the perplexity is taken.
    skip_bad
        Leave out utterances that cannot be read.
    as_json
        Print the result as JSON rather than as text.
    """
    from otoscope.workflow.language import estimate_language_model

    found = estimate_language_model(corpus, output, order, dev, skip_bad=skip_bad)
    if as_json:
        print(json.dumps(found.to_dict()))
        return
    console = Console()
    console.print(str(found), highlight=False, markup=False, emoji=False, soft_wrap=True)
    console.print(f"\nSaved in [bold]{found.path}[/bold].", highlight=False)
