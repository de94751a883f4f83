"""Evaluate: a model and speech with transcripts in, error rates and losses of every utterance out."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl
from torch import nn

from otoscope.diagnosis.places import check_result_place, write_result
from otoscope.diagnosis.provenance import versions
from otoscope.errors import EvaluationError, ResultError
from otoscope.evaluation.catalogue import RECOGNITION, SELF_SUPERVISED, metric_by_name
from otoscope.evaluation.cost import Cost, cost_of
from otoscope.evaluation.decoders import DecoderSettings
from otoscope.evaluation.decoding import Decoder
from otoscope.evaluation.language.perplexity import Perplexity
from otoscope.evaluation.metric import Metric, Progress, RecognitionMetric, recognise
from otoscope.evaluation.references import split_usable
from otoscope.evaluation.scores import Scores
from otoscope.evaluation.word_errors import word_errors_of
from otoscope.models.loading import load
from otoscope.models.model import SpeechModel
from otoscope.models.recogniser import Recogniser, load_recogniser
from otoscope.models.vocabulary import Vocabulary
from otoscope.speech.corpus import Corpus
from otoscope.workflow.corpora import read_corpus
from otoscope.workflow.decoding import Decoding, decoding_of, is_greedy, told_decoding

FORMAT = 1
_ABOUT = "evaluation.json"
_MOST_SPEAKERS = 20  # that are printed, the worst first


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation gave; prints as a short table.

    Attributes:
        scores: by name of the metric.
        cost: what the model costs, or None where it was not asked for.
        provenance: model, corpus, decoder, perplexity of the transcripts where there is a language model, what was left
            out and why, seed, versions, command.
    """

    scores: Mapping[str, Scores]
    cost: Cost | None
    provenance: Mapping[str, Any]

    def table(self) -> pl.DataFrame:
        """A row a metric and speaker: metric, speaker, utterances, value, low, high, numerator, denominator.

        Rows without a speaker are of the whole corpus; only they have an interval.
        """
        rows: list[dict[str, Any]] = []
        for name, scores in self.scores.items():
            found, totals = scores.interval(self.provenance["seed"]), scores.totals()
            ends = {} if found.low != found.low else {"low": found.low, "high": found.high}
            sums = {key: totals[key] for key in ("numerator", "denominator")}
            rows.append({"metric": name, "utterances": len(scores), "value": scores.value, **ends, **sums})
            rows += [{"metric": name, **row} for row in scores.by_speaker().to_dicts() if row["speaker"] is not None]
        return pl.DataFrame(rows, schema=_SCHEMA)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON: a summary of every metric, the cost, the provenance."""
        told = {}
        for name, scores in self.scores.items():
            found = asdict(scores.interval(self.provenance["seed"]))
            ends = {key: None if found[key] != found[key] else found[key] for key in ("low", "high")}
            speakers = {row["speaker"]: row["value"] for row in scores.by_speaker().to_dicts() if row["speaker"]}
            told[name] = {"unit": scores.unit, **found, **ends, "totals": scores.totals(), "by_speaker": speakers}
            errors = word_errors_of(scores) if name == "wer" else None
            if errors is not None:
                told[name]["by_word"] = errors.to_dict()
        return {"metrics": told, "cost": None if self.cost is None else self.cost.to_dict(), **self.provenance}

    def __str__(self) -> str:
        lines = [f"{self.provenance['model']} on {self.provenance['corpus']}", *told_decoding(self.provenance)]
        longest = max((10, *map(len, self.scores)))
        for name, scores in self.scores.items():
            found = scores.interval(self.provenance["seed"])
            known = found.low == found.low
            width = f" [{found.low:.4f}, {found.high:.4f}] over {found.blocks} {found.by}s" if known else ""
            kinds = ", ".join(f"{scores.totals()[part]:g} {part}" for part in scores.parts)
            lines.append(
                f"{name:<{longest}} {found.value:.4f}{width}  {scores.unit}" + (f" ({kinds})" if kinds else "")
            )
        errors = word_errors_of(self.scores["wer"]) if "wer" in self.scores else None
        lines += errors.lines() if errors is not None else []
        wide = self.table().filter(pl.col("speaker").is_not_null()).pivot("metric", index="speaker", values="value")
        if wide.height > 1:
            width_of, names = max(len(name) for name in wide["speaker"]), wide.columns[1:]
            lines.append(f"{'speaker':<{width_of}}  " + "  ".join(f"{name:>8}" for name in names))
            for row in wide.sort(wide.columns[1], descending=True, nulls_last=True).rows()[:_MOST_SPEAKERS]:
                cells = (
                    f"{'' if value is None else format(value, '.4f'):>{max(8, len(name))}}"
                    for name, value in zip(names, row[1:], strict=True)
                )
                lines.append(f"{row[0]:<{width_of}}  " + "  ".join(cells))
            if wide.height > _MOST_SPEAKERS:
                lines.append(f"... and {wide.height - _MOST_SPEAKERS} speakers more")
        if self.cost is not None:
            macs, more = self.cost.macs_per_second, self.cost.head_macs_per_second
            beside = f" and {more / 1e9:.3g} billion in its head" if more is not None else ""
            counted = (
                f", {macs / 1e9:.3g} billion multiply-accumulates a second of speech in its encoder{beside}"
                if macs
                else ""
            )
            lines.append(
                f"{self.cost.parameters / 1e6:.3g} million parameters{counted}, {self.cost.bytes_float32 / 1e6:.3g} MB "
                f"in float32, {self.cost.peak_bytes / 1e6:.3g} MB at work on {self.cost.peak_seconds:g} s"
            )
        left_out = self.provenance["left_out"]
        if left_out:
            lines.append(f"left out: {len(left_out)}, the first {left_out[0]['id']}: {left_out[0]['reason']}")
        return "\n".join(lines)

    def facts(self) -> list[tuple[str, str]]:
        """Names and values in words: every metric with its interval, and how the speech was decoded."""
        told = []
        for name, scores in self.scores.items():
            found = scores.interval(self.provenance["seed"])
            ends = f" [{found.low:.4f}, {found.high:.4f}]" if found.low == found.low else ""
            told.append((name, f"{found.value:.4f}{ends} {scores.unit}"))
        told += [("utterances", str(self.provenance["utterances"]))]
        told.append(("decoding", (told_decoding(self.provenance) or ["greedy"])[0]))
        if "perplexity" in self.provenance:
            told.append(("perplexity", str(Perplexity(**self.provenance["perplexity"])).removeprefix("perplexity ")))
        return told

    @staticmethod
    def check_place(folder: str | Path) -> Path:
        """Makes sure that an evaluation may be written to a folder; to be called before long work.

        Raises:
            ResultError: it is a file, holds something other than an evaluation, or cannot be written.
        """
        return check_result_place(folder, "an evaluation", lambda place: (place / _ABOUT).exists())

    def save(self, folder: str | Path) -> Path:
        """Writes evaluation.json and a Parquet file of the utterances for every metric; whole or not at all.

        Raises:
            ResultError: see `check_place`.
        """
        folder = self.check_place(folder)
        files = {f"{name}.parquet": scores.save for name, scores in self.scores.items()}
        outdated = [f"{name}.parquet" for name in {*RECOGNITION, *SELF_SUPERVISED} - self.scores.keys()]
        write_result(folder, "an evaluation", files, (_ABOUT, {"format": FORMAT, **self.to_dict()}), outdated)
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> Evaluation:
        """Reads what `save` wrote.

        Raises:
            ResultError: the folder holds no whole evaluation, or one of another format.
        """
        folder = Path(folder)
        try:
            about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
            if about.pop("format") != FORMAT:
                raise ValueError(f"its format is not {FORMAT}")
            names, cost = about.pop("metrics"), about.pop("cost")
            scores = {name: Scores.load(folder / f"{name}.parquet") for name in names}
            return cls(scores, None if cost is None else Cost(**cost), about)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ResultError(
                f"{folder} holds no evaluation that can be read: {error}", "Name a folder that `evaluate` wrote."
            ) from error


_SCHEMA: dict[str, Any] = {
    "metric": pl.String, "speaker": pl.String, "utterances": pl.Int64, "value": pl.Float64, "low": pl.Float64,
    "high": pl.Float64, "numerator": pl.Float64, "denominator": pl.Float64,
}  # fmt: skip


def evaluate(
    model: Recogniser | SpeechModel | nn.Module | str | Path = "embedded",
    corpus: Corpus | str | Path = "embedded",
    metrics: str | Sequence[str | Metric] = tuple(RECOGNITION),
    seed: int = 0,
    *,
    vocabulary: Vocabulary | Mapping[str, int] | str | Path | None = None,
    skip_bad: bool = False,
    decoder: Decoder | DecoderSettings | str = "greedy",
    tune: Corpus | str | Path | None = None,
    batch_seconds: float = 30.0,
    cost: bool = True,
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluates a model; the metrics of recognition are taken in one pass over the audio.

    Args:
        model: a recogniser, a loaded model with a CTC head, a folder, a Hub name, or "embedded".
        corpus: a `Corpus` with transcripts, a path, or "embedded".
        metrics: names of `otoscope.evaluation.catalogue`, such as "wer" or "contrastive-loss" (a string may hold several,
            separated by commas), or metrics.
        seed: of the intervals.
        vocabulary: of models that do not come with theirs; see `recogniser_of`.
        skip_bad: leave out utterances that cannot be used (no transcript, characters without a token, more tokens than
            frames), and list them in the result.
        decoder: "greedy", "beam", settings with a language model, or a decoder for the model's vocabulary.
        tune: speech to choose the weights of the language model on; other speech than the corpus.
        batch_seconds: budget of a batch, in seconds of padded speech; results do not depend on it.
        cost: also count what the model costs.
        progress: called after each batch with the seconds done and in all.

    Raises:
        ModelError: the model cannot be loaded, has no CTC head or no vocabulary, or a character of a transcript has no
            token.
        SpeechError: the corpus cannot be read, or holds an utterance that is bad or has no transcript.
        EvaluationError: a metric is unknown or cannot be taken on this corpus, the seed is below zero, the language model
            cannot be read, or weights are to be chosen without one or on the corpus itself.
        TrainingError: weights are to be chosen on the speech of an examination.
    """
    if seed < 0:
        raise EvaluationError(f"The seed is {seed}", "Give zero or more.")
    named = [part.strip() for part in metrics.split(",") if part.strip()] if isinstance(metrics, str) else metrics
    wanted = [one if isinstance(one, Metric) else metric_by_name(one) for one in named]
    if not wanted:
        raise EvaluationError("No metric is asked for", f"Name some of {', '.join(RECOGNITION)}.")
    together = [metric for metric in wanted if isinstance(metric, RecognitionMetric)]
    if not together and not (is_greedy(decoder) and tune is None):
        raise EvaluationError(
            f"Nothing is decoded for {', '.join(metric.name for metric in wanted)}",
            f"Leave the decoder out, or ask for some of {', '.join(RECOGNITION)}.",
        )
    ready = _ready(model, vocabulary, bool(together))
    speech = corpus if isinstance(corpus, Corpus) else read_corpus(corpus, skip_bad=skip_bad)
    left_out = speech.left_out
    if skip_bad and isinstance(ready, Recogniser):
        speech, more = split_usable(ready, speech)
        left_out = (*left_out, *more)
    scores: dict[str, Scores] = {}
    decoding = Decoding()
    if isinstance(ready, Recogniser) and together:
        decoding = decoding_of(decoder, ready, speech, tune, skip_bad, batch_seconds)
        scores |= recognise(
            together, ready, speech, decoder=decoding.decoder, batch_seconds=batch_seconds, progress=progress
        )
    for metric in wanted:
        if metric not in together:
            scores[metric.name] = metric.values(ready, speech, batch_seconds=batch_seconds, progress=progress)
    examined = ready.model if isinstance(ready, Recogniser) else ready
    about = {
        "model": ready.name,
        "model_fingerprint": examined.fingerprint(),
        "corpus": speech.name,
        "corpus_fingerprint": speech.fingerprint(),
        "utterances": len(speech),
        "seconds": speech.seconds,
        "left_out": [asdict(one) for one in left_out],
        **decoding.to_dict(),
        "seed": seed,
        "versions": versions(),
        "command": shlex.join(sys.argv),
    }
    ordered = {metric.name: scores[metric.name] for metric in wanted}
    return Evaluation(ordered, cost_of(ready) if cost else None, about)


def _ready(
    model: Recogniser | SpeechModel | nn.Module | str | Path,
    vocabulary: Vocabulary | Mapping[str, int] | str | Path | None,
    recognises: bool,
) -> Recogniser | SpeechModel:
    """The model loaded, with its vocabulary where metrics of recognition are asked for."""
    if recognises:
        return load_recogniser(model, vocabulary)
    if isinstance(model, Recogniser):
        return model.model
    return model if isinstance(model, SpeechModel) else load(model)
