"""The command that holds a changed model against the one before: verify."""

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from otoscope.cli.app import Flag, Json, Output, app, progress_bar, use_threads
from otoscope.errors import EvaluationError


@app.command
def verify(
    before: str,
    after: str,
    corpus: str = "embedded",
    *,
    output: Output = None,
    metrics: str = "wer,cer",
    decoder: str | None = None,
    lm: Path | None = None,
    alpha: float | None = None,
    beta: float | None = None,
    beam_width: int | None = None,
    vocabulary: str | None = None,
    pairs: Annotated[bool | None, Parameter(negative="--no-pairs")] = None,
    margin: float | None = None,
    seed: int = 0,
    skip_bad: Flag = False,
    strict: Flag = False,
    batch_seconds: float = 30.0,
    repeats: int = 15,
    time: Annotated[bool, Parameter(negative="--no-time")] = True,
    card: Flag = False,
    plan: Path | None = None,
    device: str | None = None,
    threads: int | None = None,
    as_json: Json = False,
) -> None:
    """Tell whether a changed model is better than the one before, by how much, and what it saves.

    Both hear the same utterances in the same batches. The interval of the difference is by bootstrap over speakers, at
    95 %; times are taken in turn.

    Examples:

        otoscope verify embedded treated
        otoscope verify original treated LibriSpeech/dev-clean -o outcome.json --card
        otoscope verify seed-1,seed-2,seed-3 treated-1,treated-2,treated-3 my-speech
        otoscope verify original treated my-speech --margin 0.01 --decoder beam --lm lm.arpa

    Parameters
    ----------
    before
        Folder, Hub name, or `embedded`; several seeds of one model are separated by commas.
    after
        The changed model; likewise.
    corpus
        Folder, manifest, recording, or `embedded`; with transcripts, and nothing was trained on it.
    output
        File for the outcome, in JSON.
    metrics
        wer, cer, ctc-loss, separated by commas.
    decoder
        greedy or beam. Default: beam where a language model is named.
    lm
        Language model of a beam search: a file of the ARPA format, or a KenLM binary.
    alpha
        Weight of the language model.
    beta
        What each word adds in a beam search with a language model.
    beam_width
        Prefixes that a beam search keeps.
    vocabulary
        Folder or Hub name of the tokenizer, where it does not lie beside the weights.
    pairs
        Whether the k-th model of AFTER was made from the k-th of BEFORE. Default: where there are as many.
    margin
        Also say whether the interval of the first metric leaves out that it is worse by this or more; 0.01 is one error
        in a hundred words.
    seed
        Seed of the intervals.
    skip_bad
        Leave out utterances that one of the models cannot use, and list them in the outcome.
    strict
        Refuse a model whose results depend on the batch; by default all then decode one utterance at a time.
    batch_seconds
        Seconds of padded speech in a batch.
    repeats
        Pairs of timed runs.
    time
        Time both models.
    card
        Write the outcome into the model card of AFTER, a treated folder, as well.
    plan
        What AFTER was treated by, for its model card. Default: the plan.toml in its folder.
    device
        Where the models run, such as cpu or cuda.
    threads
        Threads on the CPU; for small models, or beside other work, one is the quickest.
    as_json
        Print the outcome as JSON rather than as text.
    """
    from otoscope.evaluation.outcome import check_outcome_place
    from otoscope.models.recogniser import load_recogniser
    from otoscope.plans.plan import Plan
    from otoscope.reporting.model_card import check_card_place, write_card
    from otoscope.workflow import read_corpus
    from otoscope.workflow.decoding import settings_of
    from otoscope.workflow.verifying import verify as run

    folders = _listed(after)
    if margin is not None and not margin > 0:
        raise EvaluationError(f"The margin is {margin}", "Give a number above zero, such as --margin 0.01.")
    if output is not None:
        check_outcome_place(output)  # before the work, not after it
    if card:
        for folder in folders:
            check_card_place(folder)
    elif plan is not None:
        raise EvaluationError("A plan is read for the model card alone", "Ask for the card (--card).")
    why = None if plan is None else Plan.load(plan)
    decoding = settings_of(decoder, lm, alpha, beta, beam_width)
    use_threads(threads)
    console = Console(stderr=as_json)
    with progress_bar(console) as progress:
        old, new = (
            [load_recogniser(one, vocabulary, device=device) for one in _listed(side)] for side in (before, after)
        )
        found = run(
            old, new, read_corpus(corpus, skip_bad=skip_bad), metrics, seed, decoder=decoding, paired=pairs,
            skip_bad=skip_bad, strict=strict, batch_seconds=batch_seconds, time=time, repeats=repeats, progress=progress,
        )  # fmt: skip
    kept = None if margin is None else found.first.worse_by_less_than(margin)
    try:  # saved before it is printed, lest a closed pipe lose it; and printed even where it cannot be saved
        if output is not None:
            found.save(output)
        if card:
            for folder in folders:
                write_card(folder, why, found)
    finally:
        if as_json:
            told = {} if kept is None else {"margin": margin, "within_margin": kept}
            print(json.dumps({**found.to_dict(), **told, "output": None if output is None else str(output)}))
        else:
            console.print(str(found), highlight=False, markup=False, soft_wrap=True)
            if kept is not None:
                word = "leaves out" if kept else "does not leave out"
                console.print(f"The interval {word} that it is worse by {margin:g} or more.", highlight=False)
    if output is not None and not as_json:
        console.print(f"\nSaved in [bold]{output}[/bold].", highlight=False, soft_wrap=True)


def _listed(places: str) -> list[str]:
    return [place.strip() for place in places.split(",") if place.strip()]
