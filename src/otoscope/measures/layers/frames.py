"""Moments of all frames of streams, with the sound and with other streams beside them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from otoscope.errors import MeasureError, StateError
from otoscope.measures.layers.folding import Folding, RowFolds, fold_rows, stranger
from otoscope.measures.layers.pooling import MEL_HOP, mel_transform, mel_window, pool_to_mel
from otoscope.measures.source import Part, Source
from otoscope.models.anatomy import Anatomy
from otoscope.models.capture import Capture, Transform
from otoscope.speech import Corpus, log_mel
from otoscope.statistics import Moments, Scatter, Workspace, uniform

N_MELS = 80
MEL, INPUT, OTHER = "mel", "input", "other"


class FrameSource(Source):
    """Moments of every frame, per stream and fold.

    Targets are frames too:

    - "mel": 80 log-mel features. Streams finer than 10 ms are averaged down to them; for coarser ones the features are
      subsampled.
    - "input": the stream `input` of the same model; of `layer.*` and `final_norm` only.
    - "other": the stream of the same depth of another model.

    Beside each stands the same target rolled by a quarter to three quarters of the utterance, whose score is the floor.
    It keeps what a whole utterance has in common (voice, level, channel).

    Args:
        anatomy: the model's streams, widths and grids.
        corpus: the whole corpus.
        seed: of folds and rolls.
        folding: how frames are dealt into folds.
        targets: names of targets.
        other: anatomy of the other model.

    Raises:
        MeasureError: the model has none of the streams, the other model has another hop, a stream's hop and the mel
            features' do not fit together, or there are fewer than two utterances.
    """

    def __init__(
        self,
        anatomy: Anatomy,
        corpus: Corpus,
        seed: int,
        folding: Folding,
        targets: Collection[str],
        other: Anatomy | None = None,
    ) -> None:
        super().__init__()
        self.key = f"frames {'beside another model ' if OTHER in targets else ''}{folding.count} by {folding.by}"
        self.targets = set(targets)
        self._anatomy, self._seed = anatomy, seed
        layers = tuple(s for s in anatomy.streams if s.startswith("layer.") or s in ("input", "final_norm"))
        self._of = {
            MEL: tuple(s for s in anatomy.streams if s.startswith("conv.")) + layers,
            INPUT: layers,
            OTHER: layers,
        }
        if not layers:
            raise MeasureError(
                f"No stream of a layer among {', '.join(anatomy.streams) or 'none at all'}",
                "Choose measures that this model has streams for.",
            )
        if MEL in self.targets:
            for stream in self._of[MEL]:
                mel_window(anatomy.grids[stream])
        self.other = other
        if other is not None and other.grid.hop != anatomy.grid.hop:
            raise MeasureError(
                f"The other model has a frame every {other.grid.hop} samples, this one every {anatomy.grid.hop}",
                "Compare models of one frame rate, or their scores with mel, phones and words.",
            )
        self.matched = {} if other is None else {s: matched_stream(s, anatomy, other) for s in layers}
        self.streams_of_other = tuple(dict.fromkeys(self.matched.values()))
        name = " and ".join(sorted(self.targets))
        self.folds: RowFolds = fold_rows(corpus, list(corpus), folding, seed, f"Correlation with {name}")

    @property
    def streams(self) -> tuple[str, ...]:  # type: ignore[override]
        """Names of the streams that it wants captured."""
        wanted = {s for target in self.targets for s in self._of[target]}
        return tuple(s for s in self._anatomy.streams if s in wanted)

    def transforms(self, anatomy: Anatomy) -> dict[str, Transform]:
        """Convolutional streams are averaged down to the mel features as soon as they are computed.

        Layers stay as they are, for other measures look at them too.
        """
        fine = {s: mel_transform(anatomy.grids[s]) for s in self.streams if s.startswith("conv.")}
        return {s: transform for s, transform in fine.items() if transform is not None}

    def absorb(self, other: Source) -> None:
        """Takes over the targets of another source."""
        assert isinstance(other, FrameSource)
        self.targets |= other.targets

    def prepared_as(self) -> Any:
        """All that the state depends on."""
        a, b = self._anatomy, self.other
        shapes = {s: (a.widths[s], a.grids[s].hop, a.grids[s].field) for s in self.streams}
        others = None if b is None else {s: b.widths[s] for s in sorted(self.matched.values())}
        return [self._seed, self.folds.told(), sorted(self.targets), shapes, others]

    def make(self) -> dict[str, Part]:
        """Moments of each stream, with its targets and their rolled copies."""
        columns = {s: self._columns(s) for s in self.streams}
        widest = max(n for found in columns.values() for n in found.values())
        workspace = Workspace(max(self._anatomy.widths[s] for s in self.streams), widest)
        # The input's own scatter is that of the stream `input`, on the same rows; rolled only their order is another,
        # which is no matter where an utterance is in one fold.
        borrowed = (INPUT,) if self.folds.by == "row" else (INPUT, f"{INPUT}-rolled")
        self._moments = {
            s: Moments(self.folds.count, self._anatomy.widths[s], found, workspace, borrowed)
            for s, found in columns.items()
        }
        return dict(self._moments)

    def _columns(self, stream: str) -> dict[str, int]:
        widths = {MEL: N_MELS, INPUT: self._anatomy.widths.get(INPUT, 0)}
        if self.other is not None and stream in self.matched:
            widths[OTHER] = self.other.widths[self.matched[stream]]
        chosen = [t for t in sorted(self.targets) if stream in self._of[t] and not (t == INPUT and stream == INPUT)]
        return {name: widths[t] for t in chosen for name in (t, f"{t}-rolled")}

    def streams_of(self, target: str) -> tuple[str, ...]:
        """Streams that stand beside a target."""
        return tuple(s for s in self._of[target] if not (target == INPUT and s == INPUT))

    def add(self, capture: Capture) -> None:
        """Adds one batch.

        Raises:
            StateError: an utterance is not in the corpus, or the other model's capture is absent.
            MeasureError: a stream holds values that are not finite.
        """
        for k, utterance in enumerate(capture.utterances):
            if utterance.id not in self.folds:
                raise stranger(utterance.id)
            place = 0.25 + 0.5 * uniform(self._seed, utterance.id, purpose="roll")
            mel = log_mel(capture.samples[k]) if MEL in self.targets else None
            rolled = None if mel is None else np.roll(mel, int(place * len(mel)), axis=0)
            beside: dict[str, np.ndarray] = {}
            for stream in self.streams:
                x, step = self._frames(capture, stream, k)
                y: dict[str, np.ndarray] = {}
                if mel is not None and rolled is not None:
                    # The rolled features are subsampled after they are rolled.
                    y |= {MEL: mel[::step], f"{MEL}-rolled": rolled[::step]}
                if INPUT in self.targets and stream in self._of[INPUT]:
                    beside[INPUT] = beside[INPUT] if INPUT in beside else self._frames(capture, INPUT, k)[0]
                    y[INPUT] = beside[INPUT]
                if OTHER in self.targets:
                    y[OTHER] = self._other(capture, stream, k)
                n = min([len(x), *(len(one) for one in y.values())])
                y = {name: one[:n] for name, one in y.items()}
                for name in (INPUT, OTHER):
                    if name in y:
                        y[f"{name}-rolled"] = np.roll(y[name], int(place * n), axis=0)
                self._add(stream, utterance.id, x[:n], {name: y[name] for name in self._moments[stream].targets})

    def _frames(self, capture: Capture, stream: str, k: int) -> tuple[np.ndarray, int]:
        """Frames of an utterance and how many mel frames they stand apart."""
        grid = capture.grids[stream]
        frames = capture.frames(stream, k)
        if stream.startswith("conv."):
            pooled, grid, lengths = pool_to_mel(frames[None], grid, [len(frames)])
            frames = pooled[0, : lengths[0]]
        return frames.detach().float().cpu().numpy(), max(1, grid.hop // MEL_HOP)

    def _other(self, capture: Capture, stream: str, k: int) -> np.ndarray:
        if capture.other is None:
            raise StateError("The other model's streams were not captured", "Pass both models through one observation.")
        return capture.other.frames(self.matched[stream], k).detach().float().cpu().numpy()

    def _add(self, stream: str, utterance: str, x: np.ndarray, y: dict[str, np.ndarray]) -> None:
        folds = self.folds.rows(utterance, len(x))
        try:
            for fold in np.unique(folds):
                mine = slice(None) if (folds == fold).all() else folds == fold
                self._moments[stream].update(int(fold), x[mine], {name: one[mine] for name, one in y.items()})
        except MeasureError as error:
            raise MeasureError(f"Stream {stream}, {utterance}: {error.problem}", error.cure) from None

    def rows(self, stream: str) -> np.ndarray:
        """Rows of each fold."""
        _ = self.parts
        return self._moments[stream].n

    def pooled(self, stream: str, target: str, folds: list[int]) -> tuple[Scatter, Scatter]:
        """Moments of a stream with a target, and with the rolled target."""
        own = self._moments[INPUT].pooled(folds) if target == INPUT else None
        moments = self._moments[stream]
        found = moments.pooled(folds, target, own)
        return found, moments.pooled(folds, f"{target}-rolled", own, found)


def matched_stream(stream: str, anatomy: Anatomy, other: Anatomy) -> str:
    """The stream of the same relative depth in another model.

    Layers go by l / L, rounded to the nearest (a half up); the input to the input, the final norm to the final norm or,
    where there is none, the last layer. What a layer that was taken out gives is what the one before it gives.
    """
    if stream == INPUT or (stream == "final_norm" and stream in other.streams):
        return stream
    layer = other.n_layers
    if stream != "final_norm":
        layer = max(1, int(int(stream.removeprefix("layer.")) / anatomy.n_layers * other.n_layers + 0.5))
    left = [number for number in other.layers if number <= layer]
    return f"layer.{left[-1]}" if left else INPUT
