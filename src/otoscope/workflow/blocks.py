"""Blocks: verdicts on those that attend abnormally, and which layers are ambient or critical, by many passes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from otoscope.diagnosis.block_entries import NOISE
from otoscope.diagnosis.metric_words import called
from otoscope.diagnosis.observation import Observation
from otoscope.diagnosis.result import Diagnosis, rows_of
from otoscope.embedded import MODELS
from otoscope.errors import CorpusError, EvaluationError, MeasureError, ModelError, SurgeryError, TranscriptError
from otoscope.evaluation.metric import Metric
from otoscope.interventions.blocks import abnormal_of, block_interventions, block_verdicts, suited_metrics
from otoscope.interventions.churn import churn
from otoscope.interventions.criticality.modes import Sources, chosen_modes
from otoscope.interventions.criticality.module import module_criticality
from otoscope.interventions.criticality.resets import criticality
from otoscope.interventions.criticality.weights import FEWEST_DRAWS, weights_of
from otoscope.interventions.engine import Progress
from otoscope.interventions.losses import own_loss
from otoscope.interventions.prediction import criticality_prediction
from otoscope.interventions.sequential import Stopping
from otoscope.interventions.unit_gradients import unit_gradients
from otoscope.measures.measure import Result
from otoscope.models.model import SpeechModel
from otoscope.reporting.facts import duration
from otoscope.speech.corpus import Corpus
from otoscope.surgery.reset import unit_values
from otoscope.surgery.units import GRANULARITIES, Parts, units_of
from otoscope.training.probes import probed_speech

VERDICTS = ("block-intervention", "block-verdict", "block-control")
RESETS = ("criticality", "criticality-normalised", "criticality-spread")
GRADIENTS = ("gradient-norm-relative", "gradient-fisher")
CHURN, PREDICTION = "churn", "criticality-prediction"

# What a corpus or a model may give no ground for; what else goes wrong is an error.
_NO_GROUND = (ModelError, MeasureError, EvaluationError, CorpusError, TranscriptError)


@dataclass(frozen=True)
class BlockPasses:
    """How blocks and layers are examined in many passes.

    Attributes:
        granularity: units whose weights are set back: "block", "sub-module", "tensor", or patterns of names.
        modes: how; None for every way that there are weights for.
        initial: the model at initialisation: a folder or a name that `load` knows.
        checkpoints: others along its training, by name, in their order.
        twins: models of the same training under another seed, by name.
        draws: how often weights are drawn anew.
        width: of the local window that blocks are limited to, in frames on either side; None for the default.
        cache_gb: memory for what the unedited model gave before a change; None for as much as there is to keep.
        together: how many variants with a change in the same place are run as one batch.
        stop: when the change of a metric counts as decided; None runs all variants on all of the speech.

    Raises:
        EvaluationError: a number is too small.
    """

    granularity: str | Sequence[str] = "block"
    modes: Sequence[str] | None = None
    initial: str | Path | SpeechModel | None = None
    checkpoints: Mapping[str, str | Path | SpeechModel] = field(default_factory=dict)
    twins: Mapping[str, str | Path | SpeechModel] = field(default_factory=dict)
    draws: int = 3
    width: int | None = None
    cache_gb: float | None = None
    together: int = 1
    stop: Stopping | None = None

    def __post_init__(self) -> None:
        if self.draws < FEWEST_DRAWS:
            raise EvaluationError(f"{self.draws} draw(s) show no spread", f"Draw {FEWEST_DRAWS} times or more.")
        if self.cache_gb is not None and not self.cache_gb > 0:
            raise EvaluationError(
                f"A cache of {self.cache_gb} GB", "Give a positive bound, or none; a small one holds nothing."
            )
        if self.together < 1:
            raise EvaluationError(f"{self.together} variants in a batch", "Run one variant or more at a time.")


def with_own_checkpoints(given: BlockPasses, model: SpeechModel) -> BlockPasses:
    """With the checkpoints that an embedded model comes with, where none are given.

    Args:
        given: left as it is.
        model: any model; only those that are embedded come with checkpoints.
    """
    if given.initial is not None or given.checkpoints:
        return given
    place = str(getattr(model.source, "name_or_path", ""))
    name = next((name for name, folder in MODELS.items() if place == str(folder)), None)
    if name is None or name.count("-"):
        return given
    along = {key.removeprefix(f"{name}-"): str(folder) for key, folder in MODELS.items() if key.startswith(f"{name}-")}
    return replace(given, initial=along.pop("initial"), checkpoints=along)


def check_blocks(given: BlockPasses, wanted: Collection[str], model: SpeechModel) -> None:
    """Refuses what was named and cannot be used, before any speech is run.

    Args:
        given: see `BlockPasses`.
        wanted: names of measures of the catalogue.
        model: the model.

    Raises:
        SurgeryError: a unit does not exist, or a checkpoint is of another family or shape.
        EvaluationError: there is no such mode, or a checkpoint's weights are not finite.
        ModelError: a checkpoint cannot be loaded.
    """
    if not {*RESETS, *GRADIENTS, CHURN, NOISE}.intersection(wanted):
        return
    parts = Parts(model.family.encoder(model.source), model.family)
    try:
        units = units_of(parts, given.granularity)
    except SurgeryError as error:
        if not isinstance(given.granularity, str):
            raise
        raise SurgeryError(error.problem, f"Choose {', '.join(GRANULARITIES)}, or name units. {error.cure}") from error
    chosen_modes(given.modes, Sources(given.initial, given.checkpoints, given.draws))
    named = {**({} if given.initial is None else {"initial": given.initial}), **given.checkpoints, **given.twins}
    for name, checkpoint in named.items():
        weights = weights_of(parts, checkpoint, name)
        for unit in units:
            values = unit_values(parts, unit, weights.state, weights.called)
            if not all(bool(torch.isfinite(value).all()) for value in values.values()):
                raise EvaluationError(
                    f"Weights of {unit.name} in {weights.called} are not finite", "Use the checkpoint of another step."
                )


def examine_blocks(
    diagnosis: Diagnosis,
    wanted: Collection[str],
    model: SpeechModel,
    corpus: Corpus,
    seed: int,
    *,
    given: BlockPasses,
    metrics: Sequence[Metric] = (),
    seconds: float = 120.0,
    batch_seconds: float = 30.0,
    store: Path | None = None,
    refused: Collection[str] = (),
    tell: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> tuple[dict[str, Result], list[dict[str, str]]]:
    """Changes blocks and layers, and runs the model again.

    Args:
        diagnosis: what one pass gave: which blocks attend abnormally, where it was asked, and cheap scores.
        wanted: names of measures of the catalogue.
        model: the model.
        corpus: the speech.
        seed: of every random choice.
        given: see `BlockPasses`.
        metrics: metrics that are taken; by default those that suit the model, see `suited_metrics`.
        seconds: at most so much speech is used, as much of each speaker as of any other.
        batch_seconds: budget of a batch, in seconds of padded speech.
        store: folder for what is finished.
        refused: measures that are an error where there is no ground for them, rather than left out.
        tell: called with a line before each stage.
        progress: called with what is done and to do of the stage at hand.

    Returns:
        Results by what they came of, and what there was no ground for, with the reason.

    Raises:
        SpeechError: an utterance cannot be read or used.
        ResultError: the folder holds another run, or cannot be written.
        MeasureError: there is no ground for a measure in `refused`.
    """
    stages = _Stages(
        diagnosis, model, corpus, seed, given, batch_seconds, store, refused, tell or (lambda line: None), progress
    )
    changing = [name for name in (*VERDICTS, *RESETS, NOISE) if name in wanted]
    pulling = [name for name in GRADIENTS if name in wanted]
    heard, taken = False, list[Metric]()
    if changing or pulling:
        with stages.trying(*changing, *pulling):
            stages.choose_speech(seconds)
            heard = True
    if heard and changing:
        with stages.trying(*changing):
            taken = stages.metrics(metrics)
    if taken and any(name in wanted for name in VERDICTS):
        stages.verdicts(taken)
    if taken and any(name in wanted for name in RESETS):
        stages.resets(taken)
    if taken and NOISE in wanted:
        stages.noise(taken)
    if heard and pulling:
        stages.gradients()
    if CHURN in wanted:
        stages.churn()
    if PREDICTION in wanted:
        stages.prediction()
    for result in stages.found.values():
        result.rows = [row for row in result.rows if row.measure in wanted]
    return stages.found, [one for one in stages.skipped if one["measure"] in wanted]


class _Stages:
    """The stages of an examination, which skip what there is no ground for and say so."""

    def __init__(
        self,
        diagnosis: Diagnosis,
        model: SpeechModel,
        corpus: Corpus,
        seed: int,
        given: BlockPasses,
        batch_seconds: float,
        store: Path | None,
        refused: Collection[str],
        tell: Callable[[str], None],
        progress: Progress | None,
    ) -> None:
        self.diagnosis, self.model, self.corpus, self.seed, self.given = diagnosis, model, corpus, seed, given
        self.tell, self.progress, self.store, self.batch_seconds = tell, progress, store, batch_seconds
        self.refused = refused
        self.found: dict[str, Result] = {}
        self.skipped: list[dict[str, str]] = []

    @contextmanager
    def trying(self, *measures: str) -> Iterator[None]:
        """Notes what there is no ground for, under the name of every measure that it would have given."""
        try:
            yield
        except _NO_GROUND as error:
            for name in measures:
                if name in self.refused:
                    raise MeasureError(f"{name}: {error.problem}", error.cure) from error
            self.skipped += [{"measure": name, "reason": str(error)} for name in measures]

    @property
    def spoken(self) -> str:
        """How much speech there is, in words."""
        return f"{duration(self.corpus.seconds)} of speech"

    def choose_speech(self, seconds: float) -> None:
        """Takes as much of the speech as there is time for.

        Raises:
            MeasureError: that is too little for an interval.
        """
        try:
            self.corpus = probed_speech(self.model, self.corpus, seconds=seconds, seed=self.seed).corpus
        except MeasureError as error:
            raise MeasureError(
                f"Fewer than two utterances of corpus {self.corpus.name} fit into {seconds:g} seconds, and one gives no "
                "interval",
                "Give more speech, or more seconds.",
            ) from error

    def metrics(self, named: Sequence[Metric]) -> list[Metric]:
        """Those that were named, or that suit the model; a probe brings its own speech."""
        if named:
            return list(named)
        taken, self.corpus = suited_metrics(self.model, self.corpus, seconds=self.corpus.seconds + 1, seed=self.seed)
        return taken

    def verdicts(self, metrics: Sequence[Metric]) -> None:
        """Interventions on every block, verdicts, and their control."""
        layers = self.model.anatomy.n_layers
        names = " and ".join(called(metric.name) for metric in metrics)
        self.tell(f"Blocks: {4 * layers} interventions on {names}, over {self.spoken}")
        with self.trying(*VERDICTS):
            abnormal = self._abnormal()
            found = block_interventions(
                self.model, self.corpus, metrics, width=self.given.width, layers=sorted(abnormal), seed=self.seed,
                progress=self.progress, **self._run("interventions"),
            )  # fmt: skip
            self.found["block-intervention"] = found
            self.found["block-verdict"] = block_verdicts(abnormal, found, called)

    def _abnormal(self) -> dict[int, bool]:
        """Which blocks attend abnormally: by the diagnosis, or by a pass over the speech at hand."""
        rows = rows_of(self.diagnosis.measure("abnormality"))
        if not rows:
            observation = Observation.prepare(self.model, self.corpus, ["abnormality"], self.seed)
            observation.update(batch_seconds=self.batch_seconds)
            rows = rows_of(observation.compute().measure("abnormality"))
        if not rows:
            raise MeasureError(
                f"Too little speech to tell whether blocks attend abnormally ({len(self.corpus)} utterances)",
                "Give more speech, or more seconds.",
            )
        return abnormal_of(rows)

    def resets(self, metrics: Sequence[Metric]) -> None:
        """Criticality by every mode that there are weights for."""
        names = " and ".join(called(metric.name) for metric in metrics)
        kind = self.given.granularity if isinstance(self.given.granularity, str) else "unit"
        self.tell(f"Criticality: every {kind} set back in turn, on {names}, over {self.spoken}")
        with self.trying(*RESETS):
            self.found["criticality"] = criticality(
                self.model, self.corpus, metrics, self.given.granularity, modes=self.given.modes,
                initial=self.given.initial, checkpoints=self.given.checkpoints, draws=self.given.draws,
                stop=self.given.stop, seed=self.seed, progress=self.progress, **self._run("criticality"),
            )  # fmt: skip

    def noise(self, metrics: Sequence[Metric]) -> None:
        """Module criticality by the first loss among the metrics."""
        with self.trying(NOISE):
            loss = next(
                (metric for metric in metrics if not metric.higher_is_better and metric.name != "wer"), metrics[0]
            )
            self.tell(f"Module criticality: noise on every unit until {called(loss.name)} is worse, over {self.spoken}")
            self.found[NOISE] = module_criticality(
                self.model, self.corpus, loss, self.given.initial, self.given.granularity, seed=self.seed,
                progress=self.progress, **self._run(NOISE),
            )  # fmt: skip

    def gradients(self) -> None:
        """How strongly the model's own loss pulls at every unit."""
        with self.trying(*GRADIENTS):
            loss = own_loss(self.model, self.corpus)
            self.tell(f"Gradients of every unit: one pass forward and backward, of {called(loss.name)}")
            self.found["gradient-norm-relative"] = unit_gradients(
                self.model, self.corpus, loss, self.given.granularity, seed=self.seed, progress=self.progress
            )

    def churn(self) -> None:
        """How far training moved the weights; no pass."""
        with self.trying(CHURN):
            self.found[CHURN] = churn(
                self.model, self.given.initial, self.given.granularity, checkpoints=self.given.checkpoints,
                twins=self.given.twins,
            )  # fmt: skip

    def prediction(self) -> None:
        """How well cheap scores predict criticality, from all rows that there are."""
        with self.trying(PREDICTION):
            rows = [*rows_of(self.diagnosis.table), *(row for one in self.found.values() for row in one.rows)]
            self.found[PREDICTION] = criticality_prediction(rows)

    def _run(self, folder: str) -> dict[str, Any]:
        """How variants are run."""
        return {
            "batch_seconds": self.batch_seconds,
            "store": None if self.store is None else self.store / folder,
            "cache_gb": self.given.cache_gb,
            "together": self.given.together,
        }
