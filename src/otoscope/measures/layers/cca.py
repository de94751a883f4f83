"""How well a layer predicts mel features, phones or words: held-out PWCCA from streamed moments."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from typing import Any

import numpy as np
import torch

from otoscope.errors import MeasureError, StateError
from otoscope.measures.layers.held_out import FoldScores, fold_scores
from otoscope.measures.layers.labels import LabelSet, choose_labels
from otoscope.measures.layers.pooling import MEL_HOP, mel_transform, mel_window, pool_to_mel
from otoscope.measures.layers.ridge import RIDGES, View
from otoscope.measures.layers.spans import phone_spans, span_means, word_spans
from otoscope.measures.measure import Measure, Result, Row
from otoscope.models.anatomy import Anatomy, layer_of
from otoscope.models.capture import Capture, Transform
from otoscope.speech import Corpus, log_mel
from otoscope.statistics import (
    ClassMoments,
    Folds,
    Moments,
    Scatter,
    Workspace,
    corrected_t,
    partition,
    uniform,
)
from otoscope.statistics.state import matching

N_MELS = 80
MOST_WORDS = 500
SPANS = {"phone": phone_spans, "word": word_spans}


class CCA(Measure):
    """PWCCA of streams with mel features, phones or words, held out by fold.

    The analysis of Pasad, Chou and Livescu (2021) and Pasad, Shi and Livescu (2023), with three targets:

    - "mel": 80 log-mel features, frame by frame; streams finer than 10 ms are averaged down to them, and for
      coarser ones the features are subsampled. Streams `conv.*`, `input`, `layer.*`, `final_norm`.
    - "phone": the phone of each segment of the tier, one-hot; the mean of its middle frames stands for a
      segment. Streams `input`, `layer.*`, `final_norm`.
    - "word": the same with the 500 most frequent words and the mean of all frames of a segment.

    Folds are by speaker, or by utterance where there are fewer than three. Every fold is the test fold
    once, the next one chooses the ridge, the rest are trained on; the score is the mean over test folds.
    With only two folds there is none to choose by and the ridge is the middle of the grid. The interval is
    the corrected resampled t. One-hot targets of K labels have K - 1 directions, so the ceiling is 1.

    The floor is the same computation (with the ridge of the score) for a target that is not there: labels
    drawn from the corpus' distribution regardless of the segment, or mel features rolled by a quarter to
    three quarters of the utterance. The latter keeps what a whole utterance has in common (voice, level,
    channel), so the mel floor lies above 0 by as much as the score owes to it.

    Args:
        target: "mel", "phone" or "word".
        folds: how many folds are wanted.
        weights: the view that weighs the correlations: "y", the target, as in the released code of Pasad et
            al. where the target is the narrower view; "x", the stream; or "mean".
        ridges: ridges to choose from, relative to the mean eigenvalue of each view.
        most_labels: the most frequent labels that are looked at; None for 500 words or any number of phones.

    Raises:
        MeasureError: there is no such target.
    """

    def __init__(
        self,
        target: str,
        *,
        folds: int = 5,
        weights: str = "y",
        ridges: tuple[float, ...] = RIDGES,
        most_labels: int | None = None,
    ) -> None:
        if target not in ("mel", "phone", "word"):
            raise MeasureError(f"There is no CCA with {target!r}", 'Choose "mel", "phone" or "word".')
        self.target, self.weights, self.ridges = target, weights, tuple(ridges)
        self.name = f"cca-{target}"
        self.tiers = () if target == "mel" else (target,)
        self._wanted_folds = folds
        self._most = most_labels if most_labels is not None or target != "word" else MOST_WORDS
        self._streams: tuple[str, ...] = ()
        self._prepared = ""

    @property
    def streams(self) -> tuple[str, ...]:
        """Names of the streams it wants captured; known once it is prepared."""
        return self._streams

    def transforms(self, anatomy: Anatomy) -> dict[str, Transform]:
        """Convolutional streams are averaged down to the mel features as soon as they are computed.

        Layers stay as they are, for other measures look at them too.

        Raises:
            MeasureError: a stream's hop and the mel features' do not fit together.
        """
        fine = [s for s in self._chosen(anatomy) if s.startswith("conv.")]
        found = {s: mel_transform(anatomy.grids[s]) for s in fine}
        return {s: transform for s, transform in found.items() if transform is not None}

    def _chosen(self, anatomy: Anatomy) -> tuple[str, ...]:
        starts = ("conv.", "layer.") if self.target == "mel" else ("layer.",)
        return tuple(s for s in anatomy.streams if s.startswith(starts) or s in ("input", "final_norm"))

    def prepare(self, anatomy: Anatomy, corpus: Corpus, seed: int) -> None:
        """Fixes streams, folds and labels and allocates the whole state.

        Raises:
            MeasureError: there are fewer than two folds or labels, no stream, or a stream's hop and the mel
                features' do not fit together.
            CorpusError: the corpus lacks the tier.
        """
        self._streams = self._chosen(anatomy)
        if not self._streams:
            raise MeasureError(
                f"{self.name} finds none of its streams among {', '.join(anatomy.streams) or 'none at all'}",
                "Choose measures that this model has streams for.",
            )
        if self.target == "mel":
            for stream in self._streams:
                mel_window(anatomy.grids[stream])
        else:
            corpus.require_tier(self.target)
        taking_part = [u for u in corpus if self.target == "mel" or self.target in u.tiers]
        if len(taking_part) < 2:
            raise MeasureError(
                f"{self.name} has {len(taking_part)} utterances of corpus {corpus.name} to train and test on",
                "Give at least two utterances, better of three speakers or more.",
            )
        self._seed = seed
        self._folds: Folds = partition(
            {u.id: u.n_samples for u in taking_part},
            {u.id: u.speaker for u in taking_part},
            self._wanted_folds,
            seed,
        )
        self._without_tier = len(corpus) - len(taking_part)
        self._labels: LabelSet | None = None
        if self.target != "mel":
            self._labels = choose_labels(corpus, self.target, self._folds.of, seed, self._most)
        self._allocate({s: anatomy.widths[s] for s in self._streams})
        self._prepared = hashlib.sha256(
            json.dumps(
                [
                    self.name,
                    seed,
                    self._folds.of,
                    self._labels.labels if self._labels else None,
                    {s: (anatomy.widths[s], anatomy.grids[s].hop, anatomy.grids[s].field) for s in self._streams},
                ],
                sort_keys=True,
            ).encode()
        ).hexdigest()

    def _allocate(self, widths: dict[str, int]) -> None:
        count, labels = self._folds.count, self._labels
        # The features and, for the floor, the rolled features share one product.
        targets = 2 * N_MELS if labels is None else 0
        workspace = Workspace(max(widths.values()), targets)
        self._moments = {s: Moments(count, d, targets, workspace) for s, d in widths.items()}
        self._classes: dict[str, ClassMoments] = {}
        self._permuted: dict[str, ClassMoments] = {}
        if labels is not None:
            self._classes = {s: ClassMoments(count, len(labels), d) for s, d in widths.items()}
            self._permuted = {s: ClassMoments(count, len(labels), d) for s, d in widths.items()}

    def update(self, capture: Capture) -> None:
        """Adds one batch to the state.

        Raises:
            StateError: an utterance is not in the corpus that the measure was prepared with.
            MeasureError: a stream holds values that are not finite.
        """
        self._require_prepared()
        batch: defaultdict[int, list[int]] = defaultdict(list)
        for i, utterance in enumerate(capture.utterances):
            if utterance.id in self._folds.of:
                batch[self._folds.of[utterance.id]].append(i)
            elif self.target == "mel" or self.target in utterance.tiers:
                raise StateError(
                    f"Utterance {utterance.id} is not in the corpus that {self.name} was prepared with",
                    "Prepare the measure with the whole corpus, also where only a part of it is seen.",
                )
        if self._labels is None:
            self._update_mel(capture, batch)
        else:
            self._update_segments(capture, batch, self._labels)

    def _update_mel(self, capture: Capture, batch: dict[int, list[int]]) -> None:
        mel = {i: self._mel_rows(capture, i) for inside in batch.values() for i in inside}
        for stream in self._streams:
            frames, grid, lengths = pool_to_mel(capture.streams[stream], capture.grids[stream], capture.lengths[stream])
            step = grid.hop // MEL_HOP
            for fold, inside in batch.items():
                rows = [min(lengths[i], -(-len(mel[i]) // step)) for i in inside]
                x = [_rows(frames, i, n) for i, n in zip(inside, rows, strict=True)]
                y = [mel[i][::step][:n] for i, n in zip(inside, rows, strict=True)]
                self._add(stream, capture, inside, fold, _joined(x), _joined(y))

    def _mel_rows(self, capture: Capture, i: int) -> np.ndarray:
        """Log-mel features and, beside them, the same rolled in time; shape (T, 160)."""
        mel = log_mel(capture.samples[i])
        place = 0.25 + 0.5 * uniform(self._seed, capture.utterances[i].id, purpose="roll")
        return np.concatenate([mel, np.roll(mel, int(place * len(mel)), axis=0)], axis=1)

    def _update_segments(self, capture: Capture, batch: dict[int, list[int]], chosen: LabelSet) -> None:
        spans = SPANS[self.target]
        for fold, inside in batch.items():
            segments = {i: chosen.segments(capture.utterances[i]) for i in inside}
            inside = [i for i in inside if len(segments[i].labels)]
            if not inside:
                continue
            labels = np.concatenate([segments[i].labels for i in inside])
            permuted = np.concatenate([segments[i].permuted for i in inside])
            for stream in self._streams:
                grid, lengths = capture.grids[stream], capture.lengths[stream]
                means = [
                    span_means(
                        _rows(capture.streams[stream], i, lengths[i]),
                        *spans(segments[i].starts, segments[i].ends, grid.hop, lengths[i], grid.offset < 0),
                    )
                    for i in inside
                ]
                x = _joined(means)
                self._add(stream, capture, inside, fold, x, None)
                self._classes[stream].update(fold, x, labels)
                self._permuted[stream].update(fold, x, permuted)

    def _add(
        self, stream: str, capture: Capture, inside: list[int], fold: int, x: np.ndarray, y: np.ndarray | None
    ) -> None:
        try:
            self._moments[stream].update(fold, x, y)
        except MeasureError as error:
            names = ", ".join(capture.utterances[i].id for i in inside)
            raise MeasureError(f"{self.name}, stream {stream}, {names}: {error.problem}", error.cure) from None

    def merge(self, other: Measure) -> None:
        """Adds another part's state to this one, in place.

        Raises:
            StateError: the two were prepared differently.
        """
        self._same_kind(other)
        assert isinstance(other, CCA)
        self._require_prepared()
        if self._prepared != other._prepared:
            raise StateError(
                f"Two states of {self.name} were prepared with different models, corpora or seeds",
                "Prepare all parts with the same model, the whole corpus and one seed.",
            )
        for mine, theirs in zip(self._parts().values(), other._parts().values(), strict=True):
            mine.merge(theirs)  # type: ignore[arg-type]

    def compute(self) -> Result:
        """One row for each stream: the held-out score with its interval and floor.

        A stream that is constant, or whose score is undefined on all but one fold, gets a row without a
        value and is named in the notes. Arrays: `<name>.scores` and `<name>.ridges`, shape (streams,
        folds), NaN where undefined.

        Raises:
            MeasureError: fewer than two folds have rows.
        """
        self._require_prepared()
        rows, undefined = [], []
        scores = np.full((len(self._streams), self._folds.count), np.nan)
        ridges = np.full_like(scores, np.nan)
        views: dict[bytes, View] = {}
        for place, stream in enumerate(self._streams):
            usable = [int(f) for f in np.flatnonzero(self._moments[stream].n >= 2)]
            if len(usable) < 2:
                raise MeasureError(
                    f"{self.name} has rows in {len(usable)} folds; it needs rows in two to train and to test",
                    "Give more speech, better of three speakers or more.",
                )
            found = fold_scores(
                lambda folds, name=stream: self._pooled(name, folds),  # type: ignore[misc]
                usable,
                self.ridges,
                self.weights,
                views if self._labels is not None else None,
            )
            scores[place, usable], ridges[place, usable] = found.scores, found.ridges
            rows.append(self._row(stream, found))
            if rows[-1].value is None:
                undefined.append(stream)
        notes: dict[str, Any] = {
            "seed": self._seed,
            "weights": self.weights,
            "folds": self._folds.count,
            "folds_by": self._folds.by,
            "ridge_grid": list(self.ridges),
            "ridges": {s: [None if np.isnan(r) else float(r) for r in ridges[i]] for i, s in enumerate(self._streams)},
            "undefined": undefined,
            "utterances_without_tier": self._without_tier,
            "state_bytes": sum(array.nbytes for array in self.state().values()),
        }
        if self._labels is not None:
            notes["labels"] = len(self._labels)
            notes["labels_left_out"] = self._labels.labels_left_out
            notes["rows_left_out"] = self._labels.rows_left_out
        return Result(rows, {f"{self.name}.scores": scores, f"{self.name}.ridges": ridges}, notes)

    def _pooled(self, stream: str, folds: list[int]) -> tuple[Scatter, Scatter]:
        """Moments of the stream with the target and with the floor's target."""
        both = self._moments[stream].pooled(folds)
        if self._labels is None:
            return both.target(slice(0, N_MELS)), both.target(slice(N_MELS, None))
        return self._classes[stream].joined(both, folds), self._permuted[stream].joined(both, folds)

    def _row(self, stream: str, found: FoldScores) -> Row:
        n = int(self._moments[stream].n.sum())
        row = Row(self.name, stream, layer_of(stream), target=self.target, ceiling=1.0, n=n)
        defined = found.scores[np.isfinite(found.scores)]
        if len(defined) >= 2:
            mean, low, high = corrected_t(defined, found.test_to_train)
            # A correlation is never outside [-1, 1], whatever the t distribution says.
            row.value, row.low, row.high = float(mean), max(float(low), -1.0), min(float(high), 1.0)
        floors = found.floors[np.isfinite(found.floors)]
        if len(floors):
            row.floor = float(floors.mean())
        return row

    def _parts(self) -> dict[str, Moments | ClassMoments]:
        parts: dict[str, Moments | ClassMoments] = {}
        for stream in self._streams:
            parts[f"{stream}/moments"] = self._moments[stream]
            if self._labels is not None:
                parts[f"{stream}/classes"] = self._classes[stream]
                parts[f"{stream}/permuted"] = self._permuted[stream]
        return parts

    def state(self) -> dict[str, np.ndarray]:
        """The state as named float64 arrays (not copies), and the digest of how it was prepared (bytes)."""
        self._require_prepared()
        arrays = {f"{part}/{k}": v for part, held in self._parts().items() for k, v in held.state().items()}
        return arrays | {"prepared": np.frombuffer(bytes.fromhex(self._prepared), dtype=np.uint8)}

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Takes over a state; the measure must have been prepared in the same way.

        Raises:
            StateError: an array is missing, has another shape, or comes from another preparation.
        """
        mine = self.state()
        matching(mine, state)
        if not np.array_equal(mine["prepared"], state["prepared"]):
            raise StateError(
                f"A state of {self.name} was prepared with another model, corpus or seed",
                "Prepare the measure with the same model, the whole corpus and the same seed.",
            )
        for name, array in mine.items():
            if name != "prepared":
                array[...] = state[name]

    def _require_prepared(self) -> None:
        if not self._prepared:
            raise StateError(f"{self.name} was not prepared", "Call prepare(anatomy, corpus, seed) first.")


def _rows(stream: torch.Tensor, utterance: int, length: int) -> np.ndarray:
    """The valid frames of an utterance, float32, without a copy where they are on the CPU already."""
    return stream[utterance, :length].detach().float().cpu().numpy()


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
