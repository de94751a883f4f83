"""The command that takes error rates and losses: evaluate."""

import json
from pathlib import Path

from rich.console import Console

from otoscope.cli.app import Flag, Json, Output, app, progress_bar, use_threads


@app.command
def evaluate(
    model: str = "embedded",
    corpus: str = "embedded",
    *,
    output: Output = None,
    metrics: str = "wer,cer,ctc-loss",
    vocabulary: str | None = None,
    seed: int = 0,
    skip_bad: Flag = False,
    decoder: str | None = None,
    lm: Path | None = None,
    alpha: float | None = None,
    beta: float | None = None,
    beam_width: int | None = None,
    tune: str | None = None,
    report: Path | None = None,
    batch_seconds: float = 30.0,
    check_batches: Flag = False,
    device: str | None = None,
    threads: int | None = None,
    as_json: Json = False,
) -> None:
    """Take error rates or losses of a model on speech, by utterance and speaker, with intervals and costs.

    Decoding is greedy, or by beam search with a language model. Intervals are by bootstrap over speakers, at 95 %.

    Examples:

        otoscope evaluate
        otoscope evaluate facebook/hubert-large-ls960-ft LibriSpeech/dev-clean -o hubert
        otoscope evaluate my-model my-speech --metrics wer --skip-bad --check-batches
        otoscope evaluate my-model my-speech --lm lm.arpa --tune my-dev --report errors.html
        otoscope evaluate pretrained my-speech --metrics contrastive-loss,contrastive-accuracy

    Parameters
    ----------
    model
        Folder, Hub name, or `embedded`; for metrics of recognition with a CTC head.
    corpus
        Folder, manifest, recording, or `embedded`; with transcripts.
    output
        Folder for the result: evaluation.json, and a Parquet file of the utterances for every metric.
    metrics
        Of recognition: wer, cer, ctc-loss. Of a pre-trained model: contrastive-loss, contrastive-accuracy,
        masked-prediction-loss, masked-prediction-accuracy, reconstruction. Separated by commas.
    vocabulary
        Folder or Hub name of the tokenizer, where it does not lie beside the weights.
    seed
        Seed of the intervals.
    skip_bad
        Leave out utterances that cannot be used, and list them in the result.
    decoder
        greedy or beam. Default: beam where a language model is named, else greedy.
    lm
        Language model, an ARPA file (see `otoscope lm`) or a binary file of KenLM.
    alpha
        Weight of the language model. Default: 0.5.
    beta
        What each word adds to a hypothesis, in nats. Default: 1.
    beam_width
        Hypotheses that are kept after each frame. Default: 25.
    tune
        Speech to choose alpha and beta on; it must share no utterance with the corpus.
    report
        Where an HTML page with the aligned hypotheses goes.
    batch_seconds
        Seconds of padded speech in a batch; results do not depend on it.
    check_batches
        Also check whether results depend on what else is in a batch, by otoscope's way and by that of transformers.
    device
        Where the model runs, such as cpu or cuda.
    threads
        Threads on the CPU; for small models, or beside other work, one is the quickest.
    as_json
        Print the result as JSON rather than as text.
    """
    from otoscope.evaluation.catalogue import RECOGNITION
    from otoscope.evaluation.invariance import check_batch_invariance
    from otoscope.models.loading import load
    from otoscope.models.recogniser import load_recogniser
    from otoscope.reporting.page import check_place
    from otoscope.reporting.transcripts import write_transcripts
    from otoscope.workflow import read_corpus
    from otoscope.workflow.decoding import settings_of
    from otoscope.workflow.evaluating import Evaluation
    from otoscope.workflow.evaluating import evaluate as run

    settings = settings_of(decoder, lm, alpha, beta, beam_width, tune=tune is not None)
    if output is not None:
        Evaluation.check_place(output)  # before the work, not after it
    if report is not None:
        check_place(report)
    use_threads(threads)
    console = Console(stderr=as_json)
    with progress_bar(console) as progress:
        spells = any(name.strip() in RECOGNITION for name in metrics.split(",")) or check_batches
        ready = load_recogniser(model, vocabulary, device=device) if spells else load(model, device=device)
        speech = read_corpus(corpus, skip_bad=skip_bad)
        found = run(
            ready, speech, metrics, seed, skip_bad=skip_bad, decoder=settings, tune=tune, batch_seconds=batch_seconds,
            progress=progress,
        )  # fmt: skip
        checks = []
        if check_batches:
            bad = {one["id"] for one in found.provenance["left_out"]}
            usable = speech.subset(lambda utterance: utterance.id not in bad)
            checks = [check_batch_invariance(ready, usable, plain=plain) for plain in (False, True)]
    try:  # saved before it is printed, lest a closed pipe lose it; and printed even where it cannot be saved
        if output is not None:
            found.save(output)
        if report is not None:
            write_transcripts(
                found.scores, found.provenance["model"], found.provenance["corpus"], found.facts(), report
            )
    finally:
        if as_json:
            told = {"batches": [check.to_dict() for check in checks]} if checks else {}
            print(json.dumps({**found.to_dict(), **told, "output": None if output is None else str(output)}))
        else:
            for line in (found, *checks):
                console.print(str(line), highlight=False, markup=False, emoji=False, soft_wrap=True)
    if output is not None and not as_json:
        console.print(f"\nSaved in [bold]{output}[/bold].", highlight=False)
    if report is not None and not as_json:
        console.print(f"Report: [bold]{report}[/bold]", highlight=False)
