"""Blocks: verdicts on those that attend abnormally, and which layers are ambient or critical, by many passes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from otoscope.diagnosis.block_entries import NOISE
from otoscope.diagnosis.observation import Observation
from otoscope.diagnosis.result import Diagnosis, rows_of
from otoscope.embedded import MODELS
from otoscope.errors import CorpusError, EvaluationError, MeasureError, ModelError, TranscriptError
from otoscope.evaluation.metric import Metric
from otoscope.interventions.blocks import abnormal_of, block_interventions, block_verdicts, suited_metrics
from otoscope.interventions.churn import churn
from otoscope.interventions.criticality.module import module_criticality
from otoscope.interventions.criticality.resets import criticality
from otoscope.interventions.engine import Progress
from otoscope.interventions.losses import own_loss
from otoscope.interventions.prediction import criticality_prediction
from otoscope.interventions.sequential import Stopping
from otoscope.interventions.unit_gradients import unit_gradients
from otoscope.measures.measure import Result
from otoscope.models.model import SpeechModel
from otoscope.speech.corpus import Corpus
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
        tell: called with a line before each stage.
        progress: called with what is done and to do of the stage at hand.

    Returns:
        Results by what they came of, and what there was no ground for, with the reason.

    Raises:
        SpeechError: an utterance cannot be read or used.
        ResultError: the folder holds another run, or cannot be written.
        MeasureError: too little speech.
    """
    heard = probed_speech(model, corpus, seconds=seconds, seed=seed).corpus
    stages = _Stages(diagnosis, model, heard, seed, given, batch_seconds, store, tell or (lambda line: None), progress)
    taken: list[Metric] = []
    if any(name in wanted for name in (*VERDICTS, *RESETS, NOISE)):
        with stages.trying(*(name for name in (*VERDICTS, *RESETS, NOISE) if name in wanted)):
            taken = stages.metrics(metrics)
    if taken and any(name in wanted for name in VERDICTS):
        stages.verdicts(taken)
    if taken and any(name in wanted for name in RESETS):
        stages.resets(taken)
    if taken and NOISE in wanted:
        stages.noise(taken)
    if any(name in wanted for name in GRADIENTS):
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
        tell: Callable[[str], None],
        progress: Progress | None,
    ) -> None:
        self.diagnosis, self.model, self.corpus, self.seed, self.given = diagnosis, model, corpus, seed, given
        self.tell, self.progress, self.store, self.batch_seconds = tell, progress, store, batch_seconds
        self.found: dict[str, Result] = {}
        self.skipped: list[dict[str, str]] = []
        self.minutes = f"{corpus.seconds / 60:.1f} minutes of speech"

    @contextmanager
    def trying(self, *measures: str) -> Iterator[None]:
        """Notes what there is no ground for, under the name of every measure that it would have given."""
        try:
            yield
        except _NO_GROUND as error:
            self.skipped += [{"measure": name, "reason": str(error)} for name in measures]

    def metrics(self, named: Sequence[Metric]) -> list[Metric]:
        """Those that were named, or that suit the model; a probe brings its own speech."""
        if named:
            return list(named)
        taken, self.corpus = suited_metrics(self.model, self.corpus, seconds=self.corpus.seconds + 1, seed=self.seed)
        return taken

    def verdicts(self, metrics: Sequence[Metric]) -> None:
        """Interventions on every block, verdicts, and their control."""
        layers = self.model.anatomy.n_layers
        names = " and ".join(metric.name for metric in metrics)
        self.tell(f"Blocks: {4 * layers} interventions on {names}, over {self.minutes}")
        with self.trying(*VERDICTS):
            abnormal = self._abnormal()
            found = block_interventions(
                self.model, self.corpus, metrics, width=self.given.width, layers=sorted(abnormal), seed=self.seed,
                progress=self.progress, **self._run("interventions"),
            )  # fmt: skip
            self.found["block-intervention"] = found
            self.found["block-verdict"] = block_verdicts(abnormal, found)

    def _abnormal(self) -> dict[int, bool]:
        """Which blocks attend abnormally: by the diagnosis, or by a pass over the speech at hand."""
        rows = rows_of(self.diagnosis.measure("abnormality"))
        if not rows:
            observation = Observation.prepare(self.model, self.corpus, ["abnormality"], self.seed)
            observation.update(batch_seconds=self.batch_seconds)
            rows = rows_of(observation.compute().measure("abnormality"))
        return abnormal_of(rows)

    def resets(self, metrics: Sequence[Metric]) -> None:
        """Criticality by every mode that there are weights for."""
        names = " and ".join(metric.name for metric in metrics)
        kind = self.given.granularity if isinstance(self.given.granularity, str) else "unit"
        self.tell(f"Criticality: every {kind} set back in turn, on {names}, over {self.minutes}")
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
            self.tell(f"Module criticality: noise on every unit until {loss.name} is worse, over {self.minutes}")
            self.found[NOISE] = module_criticality(
                self.model, self.corpus, loss, self.given.initial, self.given.granularity, seed=self.seed,
                progress=self.progress, **self._run(NOISE),
            )  # fmt: skip

    def gradients(self) -> None:
        """How strongly the model's own loss pulls at every unit."""
        with self.trying(*GRADIENTS):
            loss = own_loss(self.model, self.corpus)
            self.tell(f"Gradients of every unit: one pass forward and backward, of {loss.name}")
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
