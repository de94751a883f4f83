"""Moments of labelled segments of streams, with counts and sums of every label."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from jaxtyping import Float

from otoscope.errors import MeasureError
from otoscope.measures.layers.folding import RowFolds, stranger
from otoscope.measures.layers.labels import LabelSet, Segments, tier_of
from otoscope.measures.layers.spans import SPANS, span_means
from otoscope.measures.source import Part, Source
from otoscope.models.anatomy import Anatomy
from otoscope.models.capture import Capture
from otoscope.statistics import ClassMoments, Moments, Scatter, Workspace


class SegmentSource(Source):
    """Moments of the mean vectors of labelled segments, per stream and fold, and what each label adds.

    Labels, and tables that give every label a vector, need nothing more than counts and sums of labels. Beside them are
    those of labels drawn from the corpus' distribution regardless of the segment, whose score is the floor.

    Streams are `input`, `layer.*` and `final_norm`.

    Args:
        anatomy: the model's streams, widths and grids.
        labels: the labels that are looked at.
        folds: fold of every segment.
        span: how a segment becomes frames; a name of `SPANS`.

    Raises:
        MeasureError: the model has none of the streams.
    """

    def __init__(self, anatomy: Anatomy, labels: LabelSet, folds: RowFolds, span: str) -> None:
        super().__init__()
        self.streams = tuple(s for s in anatomy.streams if s.startswith("layer.") or s in ("input", "final_norm"))
        if not self.streams:
            raise MeasureError(
                f"No stream of a layer among {', '.join(anatomy.streams) or 'none at all'}",
                "Choose measures that this model has streams for.",
            )
        self.labels, self.folds, self.span = labels, folds, span
        self._anatomy = anatomy
        chosen = hashlib.sha256(repr((labels.labels, labels.seed)).encode()).hexdigest()[:12]
        self.key = f"{labels.tier} segments ({span}) {folds.count} by {folds.by} {chosen}"

    def absorb(self, other: Source) -> None:
        """Sources of one key keep the same."""

    def prepared_as(self) -> Any:
        """All that the state depends on."""
        widths, grids = self._anatomy.widths, self._anatomy.grids
        shapes = {s: (widths[s], grids[s].hop, grids[s].field) for s in self.streams}
        return [self.labels.seed, self.folds.told(), list(self.labels.labels), self.span, shapes]

    def make(self) -> dict[str, Part]:
        """Moments, counts and sums of each stream."""
        widths = {s: self._anatomy.widths[s] for s in self.streams}
        workspace = Workspace(max(widths.values()))
        count = self.folds.count
        self._moments = {s: Moments(count, d, 0, workspace) for s, d in widths.items()}
        self._classes = {s: ClassMoments(count, len(self.labels), d) for s, d in widths.items()}
        self._permuted = {s: ClassMoments(count, len(self.labels), d) for s, d in widths.items()}
        held: dict[str, dict[str, Part]] = {
            "moments": dict(self._moments), "classes": dict(self._classes), "permuted": dict(self._permuted)
        }  # fmt: skip
        return {f"{stream}/{kind}": parts[stream] for kind, parts in held.items() for stream in self.streams}

    def add(self, capture: Capture) -> None:
        """Adds one batch.

        Raises:
            StateError: an utterance is not in the corpus that was prepared.
            MeasureError: a stream holds values that are not finite.
        """
        for k, utterance in enumerate(capture.utterances):
            if utterance.id not in self.folds:
                if tier_of(utterance, self.labels.tier):
                    raise stranger(utterance.id)
                continue
            segments = self.labels.segments(utterance)
            if len(segments.labels):
                folds = self.folds.rows(utterance.id, len(segments.labels))
                for stream in self.streams:
                    self._add(stream, utterance.id, self._means(capture, stream, k, segments), segments, folds)

    def _means(self, capture: Capture, stream: str, k: int, segments: Segments) -> Float[np.ndarray, "n d"]:
        grid, frames = capture.grids[stream], capture.frames(stream, k).detach().float().cpu().numpy()
        spans = SPANS[self.span](segments.starts, segments.ends, grid.hop, len(frames), grid.offset < 0)
        return span_means(frames, *spans)

    def _add(self, stream: str, utterance: str, x: np.ndarray, segments: Segments, folds: np.ndarray) -> None:
        for fold in np.unique(folds).tolist():
            mine = folds == fold
            try:
                self._moments[stream].update(fold, x[mine])
            except MeasureError as error:
                raise MeasureError(f"Stream {stream}, {utterance}: {error.problem}", error.cure) from None
            self._classes[stream].update(fold, x[mine], segments.labels[mine])
            self._permuted[stream].update(fold, x[mine], segments.permuted[mine])

    def rows(self, stream: str) -> Float[np.ndarray, " folds"]:
        """Rows of each fold."""
        _ = self.parts
        return self._moments[stream].n

    def pooled(
        self, stream: str, folds: list[int], codes: Float[np.ndarray, "k t"] | None = None
    ) -> tuple[Scatter, Scatter]:
        """Moments of a stream with the labels, and with permuted labels.

        Args:
            stream: name of the stream.
            folds: which folds together.
            codes: the target of each label; one-hot where None.
        """
        x = self._moments[stream].pooled(folds)
        return self._classes[stream].joined(x, folds, codes), self._permuted[stream].joined(x, folds, codes)
