"""Everything that is told of the embedded family: losses, error rates by voice, heads."""

import json
from pathlib import Path
from typing import Any

import polars as pl

from otoscope.embedded import MODELS
from otoscope.evaluation import WordErrorRate, paired_bootstrap
from otoscope.evaluation.metric import Metric
from otoscope.evaluation.self_supervised import (
    ContrastiveAccuracy,
    ContrastiveLoss,
    MaskedPredictionAccuracy,
    MaskedPredictionLoss,
)  # fmt: skip
from otoscope.models.loading import load
from otoscope.models.recogniser import recogniser_of
from otoscope.speech import Corpus
from otoscope.surgery import Gate, apply
from otoscope.workflow import diagnose, evaluate, read_corpus
from recipes.embedded.stages import MASK, MASK_SPAN

FLITE = "rms"
HIGH, LOW = 0.5, 0.1  # nat, of I = -(G + V)
CHEAP = 0.5  # points of WER
SEED = 0


def examine() -> dict[str, Any]:
    """Examines the shipped models on the shipped examination speech."""
    exam = read_corpus("embedded")
    espeak = exam.subset(lambda utterance: utterance.speaker != FLITE, name="exam, espeak-ng voices")
    flite = exam.subset(lambda utterance: utterance.speaker == FLITE, name="exam, flite voice")
    return {
        "exam": {"utterances": len(exam), "minutes": round(exam.seconds / 60, 2), "speakers": list(exam.speakers)},
        "self_supervised": {name: _pretext(name, exam) for name in sorted(MODELS) if _is_pretext(name)},
        "recognition": {
            name: _recognition(name, exam, espeak, flite) for name in ("embedded:wav2vec2", "embedded:wavlm")
        },
        "heads": {name: _heads(name, exam) for name in sorted(set(MODELS) - {"embedded"})},
        "heads_left_out": {name: _left_out(name, espeak) for name in ("embedded:wav2vec2", "embedded:wavlm")},
    }


def _is_pretext(name: str) -> bool:
    return any(part in name for part in ("-initial", "-step-", "-pretrained"))


def _estimate(scores: Any) -> list[float]:
    found = scores.interval(SEED)
    return [round(float(value), 4) for value in (found.value, found.low, found.high)]


def _pretext(name: str, exam: Corpus) -> dict[str, list[float]]:
    model = load(name)
    metrics: tuple[Metric, ...]
    if "wav2vec2" in name:
        metrics = (ContrastiveLoss(MASK, MASK_SPAN), ContrastiveAccuracy(MASK, MASK_SPAN))
    else:
        metrics = (MaskedPredictionLoss(None, MASK, MASK_SPAN), MaskedPredictionAccuracy(None, MASK, MASK_SPAN))
    return {metric.name: _estimate(metric.values(model, exam)) for metric in metrics}


def _recognition(name: str, exam: Corpus, espeak: Corpus, flite: Corpus) -> dict[str, Any]:
    found = evaluate(name, exam, seed=SEED, cost=False)
    speakers = found.scores["wer"].by_speaker()
    return {
        "wer_all": _estimate(found.scores["wer"]),
        "wer_espeak": _estimate(evaluate(name, espeak, "wer", SEED, cost=False).scores["wer"]),
        "wer_flite": _estimate(evaluate(name, flite, "wer", SEED, cost=False).scores["wer"]),
        "cer_all": _estimate(found.scores["cer"]),
        "ctc_loss_all": _estimate(found.scores["ctc-loss"]),
        "wer_by_voice": {row["speaker"]: round(row["value"], 4) for row in speakers.to_dicts()},
        "wer_espeak_without_attention": _without_attention(name, espeak),
    }


def _without_attention(name: str, corpus: Corpus) -> float:
    model = load(name)
    recogniser = recogniser_of(apply(model, [Gate("layer.*")], share=True), recogniser_of(model).vocabulary)
    return round(WordErrorRate().values(recogniser, corpus).value, 4)


def _heads(name: str, exam: Corpus) -> dict[str, Any]:
    """Query-key mutual information of each head, and how many are surely high and surely low."""
    table = diagnose(name, exam, "head-information", SEED).table.filter(pl.col("measure") == "head-information")
    rows = table.sort("layer", "head").select("layer", "head", "value", "low", "high").to_dicts()
    return {
        "heads": len(rows),
        "high": sum(row["value"] > HIGH for row in rows),
        "surely_high": sum(row["low"] > HIGH for row in rows),
        "low": sum(row["value"] < LOW for row in rows),
        "surely_low": sum(row["high"] < LOW for row in rows),
        "information": {
            f"{row['layer']}.{row['head']}": [round(row[key], 3) for key in ("value", "low", "high")] for row in rows
        },
    }


def _left_out(name: str, corpus: Corpus) -> dict[str, Any]:
    """WER with each single head gated, less the WER with all, in points; paired over speakers."""
    model = load(name)
    vocabulary = recogniser_of(model).vocabulary
    metric = WordErrorRate()
    whole = metric.values(recogniser_of(model, vocabulary), corpus)
    costs = {}
    for layer, heads in enumerate(model.anatomy.heads, start=1):
        for head in range(heads):
            gated = apply(model, [Gate(f"layer.{layer}.head.{head}")], share=True)
            change = paired_bootstrap(whole, metric.values(recogniser_of(gated, vocabulary), corpus), seed=SEED)
            costs[f"{layer}.{head}"] = [round(100 * value, 2) for value in (change.value, change.low, change.high)]
    values = sorted(value for value, _, _ in costs.values())
    return {
        "wer": round(whole.value, 4),
        "worst": max(costs, key=lambda head: costs[head][0]),
        "worst_cost": values[-1],
        "cheap": sum(value < CHEAP for value in values),
        "heads": len(values),
        "costs": costs,
    }


def write_outcome(place: Path) -> dict[str, Any]:
    """Examines, and stores what was found."""
    found = examine()
    place.write_text(json.dumps(found, indent=1) + "\n")
    return found
