"""One model listening to one utterance: overviews, profiles, relations and metrics of all heads, from one pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from otoscope.diagnosis.catalogue import CATALOGUE
from otoscope.diagnosis.observation import Observation
from otoscope.diagnosis.result import Diagnosis, table_of
from otoscope.errors import MeasureError, ResultError, StateError
from otoscope.measures.measure import Measure, Result
from otoscope.models.anatomy import Anatomy
from otoscope.models.capture import Capture
from otoscope.models.model import SpeechModel
from otoscope.models.reductions import LargestWeight, OffsetMean, Reduction
from otoscope.reporting.viewer.overview import THUMBNAIL, Overview, cell_frames, coarser, quantised, restored
from otoscope.reporting.viewer.relations import UtteranceRelations
from otoscope.speech.corpus import Corpus
from otoscope.speech.utterance import Utterance

REACH = 50
"""Offsets that a head's profile shows, in frames."""

MOST_TARGETS = 12
"""Measures of more targets, such as one for each phone, are not shown: there would be a choice for each."""

HEAD_MEASURES = ("heads",)
"""What is measured where nothing else is asked for."""


@dataclass
class Side:
    """What the viewer shows of one model.

    Attributes:
        model: the model.
        frames: of the utterance in this model.
        span: frames that a cell of the overviews spans along each axis.
        layers: for each layer the overviews (heads, n, n) in bytes; see `quantised`.
        largest: for each layer the largest cell of each head's overview.
        peaks: for each layer the largest weight of each head's map.
        thumbnails: likewise, all heads (heads of all layers, m, m), and their largest cells.
        profiles: attention at each offset from -REACH to REACH, (heads of all layers, 2 REACH + 1), float32.
        labels: labels of the frames, and the share of frames that each has.
        relations: share of attention from label to label, (heads of all layers, labels, labels), float32.
        metrics: by measure, for each head ("layer.head") a value, its interval and a word, as far as there are.
        source: what the metrics were computed on.
        skipped: measures that could not be taken, with the reason.
    """

    model: SpeechModel
    frames: int
    span: int
    layers: list[np.ndarray]
    largest: list[np.ndarray]
    peaks: list[np.ndarray]
    thumbnails: tuple[np.ndarray, np.ndarray]
    profiles: np.ndarray
    labels: tuple[list[str], np.ndarray]
    relations: np.ndarray
    metrics: dict[str, dict[str, dict[str, Any]]]
    source: str
    skipped: list[dict[str, str]] = field(default_factory=list)

    @property
    def heads(self) -> list[tuple[int, int]]:
        """Layer (from 1) and number in the original model of every head, in the order of the tensors."""
        names = self.model.anatomy.head_names
        return [(layer, head) for layer, heads in enumerate(names, start=1) for head in heads]

    @property
    def bytes(self) -> int:
        """What the arrays take in memory."""
        arrays = [*self.layers, *self.largest, *self.peaks, *self.thumbnails, self.profiles, self.relations]
        return sum(array.nbytes for array in arrays)

    def with_coarser(self, times: int) -> Side:
        """The same with `times` as many frames in a cell of the overviews."""
        pairs = [
            quantised(coarser(restored(cells, most), self.frames, self.span, times))
            for cells, most in zip(self.layers, self.largest, strict=True)
        ]
        layers, largest = [cells for cells, _ in pairs], [most for _, most in pairs]
        return replace(self, span=self.span * times, layers=layers, largest=largest)

    def with_fewer_shades(self, step: int = 5) -> Side:
        """The same with bytes that are multiples of `step`, a divisor of 255, in the overviews."""
        layers = [(np.rint(cells / step) * step).astype(np.uint8) for cells in self.layers]
        return replace(self, layers=layers)


def examine(
    model: SpeechModel,
    corpus: Corpus,
    measures: str | Sequence[str] | None = None,
    diagnosis: Diagnosis | None = None,
) -> Side:
    """Passes the one utterance of a corpus through a model, once.

    Args:
        model: the model.
        corpus: one utterance.
        measures: names and groups of the measures by head; None for those of the group "heads".
        diagnosis: where the metrics come from instead; a diagnosis of the same model.

    Raises:
        AudioError: the utterance cannot be read, or is too short or too long for the model.
        ModelError: the model cannot be examined.
        MeasureError: a measure that is asked for by name cannot be taken, or gives no numbers by head.
        ResultError: the diagnosis is of another model, or holds no numbers by head.
    """
    if diagnosis is not None:
        _same_model(model, diagnosis)
    observation = Observation.prepare(model, corpus, HEAD_MEASURES if measures is None else measures)
    if diagnosis is not None:
        observation.measures.clear()
    seen = _Seen(corpus.utterances[0])
    observation.measures[seen.name] = seen
    observation.update()
    del observation.measures[seen.name]
    if diagnosis is None:
        metrics, skipped = _metrics_of(observation)
        source = "this utterance alone"
        if measures is not None and not metrics:
            raise MeasureError(
                f"{measures if isinstance(measures, str) else ', '.join(measures)} gives no numbers by head",
                "Choose measures of heads that one pass gives (`otoscope diagnose --list`); for what takes many, diagnose "
                "with it first, and name the result (--diagnosis).",
            )
    else:
        metrics, skipped = by_head(diagnosis.table.to_dicts()), []
        about = diagnosis.provenance["corpus"]
        source = f"the diagnosis on {about['name']} ({about['utterances']} utterances)"
        if not metrics:
            raise ResultError("The diagnosis holds no numbers by head", "Diagnose with --measures heads.")
    return _side(model, corpus.utterances[0], seen, metrics, source, skipped)


def _side(
    model: SpeechModel, utterance: Utterance, seen: _Seen, metrics: dict[str, dict[str, dict[str, Any]]], source: str,
    skipped: list[dict[str, str]],
) -> Side:  # fmt: skip
    frames = model.frontend.frames(utterance.n_samples)
    span = cell_frames(frames)
    times = cell_frames(-(-frames // span), THUMBNAIL)
    layers, largest, small = [], [], []
    for layer in range(1, model.anatomy.n_layers + 1):
        overview = seen.found[Overview.name].pop(layer)  # one layer in float32 at a time
        small.append(coarser(overview, frames, span, times))
        cells, most = quantised(overview)
        layers.append(cells)
        largest.append(most)
    labels, shares = seen.relations.shares(model.anatomy.grid, frames)
    sums = seen.found.get(UtteranceRelations.name, {})
    between = [seen.relations.between(sums[layer]) for layer in sorted(sums)]
    none = np.zeros((sum(model.anatomy.heads), 0, 0), np.float32)
    return Side(
        model, frames, span, layers, largest, seen.all(LargestWeight.name), quantised(np.concatenate(small)),
        np.concatenate([near_profile(one) for one in seen.all(OffsetMean.name)]),
        (labels, shares), np.concatenate(between) if between else none, metrics, source, skipped,
    )  # fmt: skip


class _Seen(Measure):
    """Takes what the viewer draws out of the pass that the measures share."""

    name = "viewer"

    def __init__(self, utterance: Utterance) -> None:
        self.relations = UtteranceRelations(utterance)
        makers = (Overview, LargestWeight, OffsetMean, self.relations.maker)
        self.reductions: tuple[Callable[[], Reduction], ...] = tuple(make for make in makers if make is not None)
        self.found: dict[str, dict[int, np.ndarray]] = {}

    @property
    def streams(self) -> tuple[str, ...]:
        """None: everything comes from the tap."""
        return ()

    def prepare(self, anatomy: Anatomy, corpus: Corpus, seed: int) -> None:
        """Nothing is prepared."""

    def update(self, capture: Capture) -> None:
        """Keeps the sums of the only utterance."""
        for layer, (sums,) in capture.attention.items():
            for name in (Overview.name, LargestWeight.name, OffsetMean.name, UtteranceRelations.name):
                if name in sums:
                    self.found.setdefault(name, {})[layer] = sums[name].float().cpu().numpy()

    def all(self, name: str) -> list[np.ndarray]:
        """A sum of every layer, in their order."""
        return [self.found[name][layer] for layer in sorted(self.found[name])]

    def merge(self, other: Measure) -> None:
        """Refused: what is drawn is of one utterance."""
        raise StateError("What the viewer saw cannot be merged", "View one utterance in one pass.")

    def compute(self) -> Result:
        """No rows."""
        return Result()

    def state(self) -> dict[str, np.ndarray]:
        """Nothing is stored."""
        return {}

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Nothing is stored."""


def near_profile(offsets: np.ndarray, reach: int = REACH) -> np.ndarray:
    """Attention at offsets -reach to reach, (heads, 2 reach + 1) in float32; zero where the map does not reach.

    Args:
        offsets: attention at each key-minus-query offset, (heads, 2 T - 1).
        reach: largest offset that is kept.
    """
    frames = (offsets.shape[-1] + 1) // 2
    near = min(reach, frames - 1)
    out = np.zeros((len(offsets), 2 * reach + 1), np.float32)
    out[:, reach - near : reach + near + 1] = offsets[:, frames - 1 - near : frames + near]
    return out


def _metrics_of(observation: Observation) -> tuple[dict[str, dict[str, dict[str, Any]]], list[dict[str, str]]]:
    """Numbers by head of the measures that saw the utterance, and which of them could give none."""
    skipped = list(observation.skipped)
    rows = []
    for name, measure in observation.measures.items():
        try:
            rows += [row for row in measure.compute().rows if row.measure in observation.makers]
        except MeasureError as error:
            if name in observation.asked:
                raise
            skipped.append({"measure": name, "reason": str(error)})
    return by_head(table_of(rows).to_dicts()), skipped


def by_head(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Rows of a diagnosis that give numbers or words a head: measure -> "layer.head" -> its parts.

    A measure of a few targets, such as the importance for several losses, counts as one for each: "measure: target". Left
    out are measures of more than MOST_TARGETS, and rows with a second stream.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    targets: dict[str, set[str]] = {}
    for row in rows:
        targets.setdefault(row["measure"], set()).add(row["target"])
    for row in rows:
        if row["layer"] is None or row["head"] is None or row["other"] is not None:
            continue
        if len(targets[row["measure"]]) > MOST_TARGETS:
            continue
        parts = {name: row[name] for name in ("value", "low", "high", "label") if row[name] is not None}
        if parts:
            name = row["measure"] if row["target"] is None else f"{row['measure']}: {row['target']}"
            found.setdefault(name, {})[f"{row['layer']}.{row['head']}"] = parts
    return found


def metric_facts(names: Sequence[str]) -> list[dict[str, str]]:
    """Name, unit and meaning of measures, as the catalogue has them."""
    entries = {entry.name: entry for entry in CATALOGUE}
    return [
        {
            "name": name,
            "unit": entries[measure].unit if measure in entries else "",
            "tells": entries[measure].tells if measure in entries else "",
        }
        for name, measure in ((name, name.partition(":")[0]) for name in names)
    ]


def _same_model(model: SpeechModel, diagnosis: Diagnosis) -> None:
    about = diagnosis.provenance["model"]
    if about.get("fingerprint") != model.fingerprint():
        raise ResultError(
            f"The diagnosis is of {about.get('name')}, whose weights are not those of {model.name}",
            "Name a diagnosis of the model that is viewed, or leave --diagnosis out.",
        )
