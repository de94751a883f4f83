"""Criticality: what a metric loses when one unit after another is set back to weights that it had before training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from otoscope.errors import EvaluationError, NotFiniteError
from otoscope.evaluation.metric import Metric
from otoscope.interventions.criticality.changes import Change, change, mean_scores, share, spread
from otoscope.interventions.criticality.labels import Thresholds, label, labelling_metric, tolerance
from otoscope.interventions.criticality.modes import RERANDOMISE, Sources, Trial, chosen_modes, trials
from otoscope.interventions.criticality.weights import Checkpoint
from otoscope.interventions.engine import Progress
from otoscope.interventions.scoring import VariantScores, scores_of_variants
from otoscope.interventions.sequential import Stopping
from otoscope.measures.measure import Result, Row
from otoscope.models.model import SpeechModel
from otoscope.models.recogniser import Recogniser
from otoscope.speech.corpus import Corpus
from otoscope.surgery.units import GRANULARITIES, Parts, Unit, units_of

NAME, NORMALISED, SPREAD = "criticality", "criticality-normalised", "criticality-spread"
_LEAST = 1e-12  # what a relative change is divided by at least


def criticality(
    model: SpeechModel | Recogniser,
    corpus: Corpus,
    metrics: Metric | Sequence[Metric],
    granularity: str | Sequence[str] = "block",
    *,
    layers: Sequence[int] | None = None,
    modes: Sequence[str] | None = None,
    initial: Checkpoint | None = None,
    checkpoints: Mapping[str, Checkpoint] | None = None,
    draws: int = 3,
    seed: int = 0,
    thresholds: Thresholds | None = None,
    batch_seconds: float = 30.0,
    store: str | Path | None = None,
    cache_gb: float | None = None,
    together: int = 1,
    stop: Stopping | None = None,
    progress: Progress | None = None,
) -> Result:
    """Resets one unit at a time and takes a metric before and after, on the same utterances.

    Nothing is trained anew. Three modes are those of Zhang, Bengio and Singer 2022, "Are all layers created equal?":
    "re-initialise" sets a unit to its weights at initialisation; "rewind:NAME" to those of a named checkpoint;
    "re-randomise" to fresh draws from the law that the library initialises it by, of which each utterance's mean is taken.
    Two are usual ablations: "bypass" lets the residual stream pass by; "mean" puts the mean over the corpus in the place of
    what the unit gives. Norms and single tensors have no branch for these two.

    A unit whose weights are already those that it would be set to, bit for bit, changes the metric by exactly 0.
    Numerators that are not finite after a reset count as those under a reset of all layers.

    The labels are otoscope's own definition, see `label`. They go by one metric, see `labelling_metric`.

    Args:
        model: the model, or a recogniser for metrics of recognition.
        corpus: the speech.
        metrics: what is taken; each of them costs the same again.
        granularity: "block", "sub-module", "tensor", or names and patterns of units; see `units_of`.
        layers: only units of these layers.
        modes: names of modes, where "rewind" is that to every checkpoint; None is every one that there are weights for.
        initial: the checkpoint at initialisation: a folder, a name that `load` knows, a model or a state dict.
        checkpoints: others by name, such as that before fine-tuning.
        draws: how often weights are drawn anew, three times or more.
        seed: of the draws and of the bootstrap.
        thresholds: of the labels.
        batch_seconds: see `Metric.values`.
        store: folder for what is finished; a run that was cut off and is started again goes on with it.
        cache_gb: see `scores_of_variants`.
        together: see `scores_of_variants`.
        stop: see `scores_of_variants`.
        progress: called with the seconds of speech done and in all, over all metrics and modes.

    Returns:
        Rows, each with the unit's name as stream, the metric as target and the mode as other; intervals are paired, over
        speakers. `criticality`: the metric after the reset less that before it, D; ceiling is D of all layers together;
        label is "ambient", "intermediate" or "critical". `criticality-normalised`: D over that ceiling, where a reset
        of all layers makes things worse. `criticality-spread`, of re-randomise: the standard deviation of D over the
        draws, and its least and greatest value. The notes hold thresholds, D relative to the metric before, units that
        were not changed or skipped, utterances that counted as those under a reset of all layers, and modes that were
        left out because values are not finite even then.

    Raises:
        EvaluationError: there is no such mode, no initial checkpoint for it, or it acts on no unit; see also
            `scores_of_variants`.
        SurgeryError: a unit does not exist, or a checkpoint does not fit or is the model itself.
        ModelError: the model has not what a metric needs, or a checkpoint cannot be loaded.
        ResultError: the folder holds another run, or cannot be written.
        SpeechError: an utterance cannot be read or used.
        NotFiniteError: with all layers reset values are not finite, in a mode that was asked for by name, or in all.
    """
    taken = [metrics] if isinstance(metrics, Metric) else list(metrics)
    by = labelling_metric(corpus, taken)
    if len({metric.name for metric in taken}) < len(taken):
        raise EvaluationError("A metric is asked for twice", "Name every metric once.")
    ready = model.model if isinstance(model, Recogniser) else model
    parts = Parts(ready.family.encoder(ready.source), ready.family)
    units = units_of(parts, granularity, layers)
    sources = Sources(initial, checkpoints or {}, draws, seed)
    names = chosen_modes(modes, sources)
    chosen = modes is not None
    strict = chosen and granularity not in GRANULARITIES
    found = trials(ready, corpus, units, names, sources, strict=strict, chosen=chosen, batch_seconds=batch_seconds)
    limits = thresholds or Thresholds()
    result = Result(
        [], {}, {NAME: _notes(units, found, granularity, sources, limits, by) | {"utterances": len(corpus)}}
    )
    runs = [(metric, trial) for metric in taken for trial in found if trial.variants]
    for k, (metric, trial) in enumerate(runs):
        try:
            scores = scores_of_variants(
                model,
                corpus,
                trial.variants,
                metric,
                batch_seconds=batch_seconds,
                store=None if store is None else Path(store) / metric.name / trial.folder,
                cache_gb=cache_gb,
                together=together,
                stop=stop,
                chance=trial.of_all[0],
                progress=_within(progress, k, len(runs)),
            )
        except NotFiniteError as error:  # with all units reset too, so that nothing says what chance is
            if chosen:
                raise NotFiniteError(
                    f"In the mode {trial.mode} {error.problem[0].lower()}{error.problem[1:]}",
                    "Name other modes (modes=, --modes), or another checkpoint for this one.",
                ) from error
            result.notes[NAME]["not_finite"].setdefault(metric.name, {})[trial.mode] = error.problem
            continue
        _add(result, units, trial, metric, scores, limits, seed, labelled=metric is by)
    if not result.rows:
        raise NotFiniteError(
            f"No kind of reset of {ready.name} leaves values that are finite",
            "Load the model in float32, and check its weights and those of the checkpoints.",
        )
    return result


def _notes(
    units: Sequence[Unit],
    found: Sequence[Trial],
    granularity: str | Sequence[str],
    sources: Sources,
    limits: Thresholds,
    by: Metric,
) -> dict[str, Any]:
    return {
        "granularity": granularity if isinstance(granularity, str) else list(granularity),
        "units": len(units),
        "modes": [trial.mode for trial in found if trial.variants],
        "draws": sources.draws,
        "seed": sources.seed,
        "labelled_by": by.name,
        "thresholds": asdict(limits),
        "unchanged": {trial.mode: list(trial.unchanged) for trial in found if trial.unchanged},
        "skipped": {trial.mode: list(trial.skipped) for trial in found if trial.skipped},
        "before": {},
        "together": {},
        "tolerance": {},
        "relative": {},
        "counted_as_chance": {},
        "stopped": {},
        "not_finite": {},
        "interval_over": "",
    }


def _add(
    result: Result,
    units: Sequence[Unit],
    trial: Trial,
    metric: Metric,
    scores: VariantScores,
    limits: Thresholds,
    seed: int,
    *,
    labelled: bool,
) -> None:
    """Adds the rows of one mode by one metric, and what there is to be said of them."""
    before, notes = scores.before, result.notes[NAME]
    whole = mean_scores([scores.after[name] for name in trial.of_all])
    most = change(before, whole, seed)
    ambient = limits.ambient
    if ambient is None:
        ambient = tolerance(metric.name, before.value, most.value)
    relative = {}
    for unit in units:
        if unit.name in trial.skipped:
            continue
        row = Row(NAME, unit.name, unit.layer, unit.head, metric.name, trial.mode)
        names = trial.of_unit.get(unit.name, ())
        if names:
            after = mean_scores([scores.after[name] for name in names])
            found, part = change(before, after, seed), share(before, after, whole, seed)
        else:  # the same weights, so the same numbers for any utterance at all
            found, part = Change(0.0, 0.0, 0.0, len(before)), share(before, before, whole, seed)
            part = None if part is None else Change(0.0, 0.0, 0.0, part.n)
        called = None
        if labelled:
            ends = (None, None) if part is None else (part.low, part.high)
            called = label(
                (found.low, found.high), ends, ambient, limits.critical, higher_is_better=metric.higher_is_better
            )
        result.rows.append(_filled(row, NAME, found, ceiling=most.value, label=called))
        if part is not None:
            result.rows.append(_filled(row, NORMALISED, part))
        if trial.mode == RERANDOMISE:
            deviation, least, greatest = (
                spread(before, [scores.after[name] for name in names]) if names else (0.0, 0.0, 0.0)
            )
            result.rows.append(_filled(row, SPREAD, Change(deviation, least, greatest, found.n)))
        relative[unit.name] = found.value / max(abs(before.value), _LEAST)
    notes["before"][metric.name] = before.value
    notes["interval_over"] = before.blocks.by
    for key, value in (
        ("together", {"value": most.value, "low": most.low, "high": most.high}),
        ("tolerance", ambient),
        ("relative", relative),
        ("counted_as_chance", {name: count for name, count in scores.replaced.items() if count}),
        ("stopped", dict(scores.stopped)),
    ):
        if value or key in ("together", "tolerance"):
            notes[key].setdefault(metric.name, {})[trial.mode] = value


def _filled(row: Row, measure: str, found: Change, **more: Any) -> Row:
    return Row(
        measure, row.stream, row.layer, row.head, row.target, row.other, value=found.value, low=found.low,
        high=found.high, n=found.n, **more,
    )  # fmt: skip


def _within(progress: Progress | None, k: int, runs: int) -> Callable[[float, float], None] | None:
    """Progress of run k as that of all of them."""
    if progress is None:
        return None

    def told(done: float, total: float) -> None:
        progress(k * total + done, runs * total)

    return told
