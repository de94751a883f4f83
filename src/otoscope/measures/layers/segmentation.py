"""Unsupervised word segmentation: do frames change most where one word meets the next?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.signal import find_peaks, peak_prominences

from otoscope.errors import MeasureError
from otoscope.measures.layers.boundaries import claims, scores_of
from otoscope.measures.layers.dtw import unit_rows
from otoscope.measures.layers.labels import NO_LABELS
from otoscope.measures.layers.spans import word_spans
from otoscope.measures.measure import Result, Row
from otoscope.measures.rows import SEQUENCE, RowsMeasure, Segment
from otoscope.models.anatomy import layer_of
from otoscope.speech import Corpus
from otoscope.speech.audio import RATE
from otoscope.speech.utterance import Interval
from otoscope.statistics import jackknife, partition, uniform

LONGEST_GAP = 320
"""Samples between two words that are no pause yet: a frame."""

EDGE = 640
"""Samples at either end of a stretch of speech where no boundary is looked for: its ends are given."""

DISTANCES = ("euclidean", "cosine")
WIDTHS = (1, 2, 3, 4, 6)
"""Widths of the moving average, in frames."""

PROMINENCES = (0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0)
"""Least prominences of a peak, in standard deviations of the smoothed curve."""

SETTINGS = tuple((d, w, p) for d in DISTANCES for w in WIDTHS for p in PROMINENCES)
DRAWS = 5
"""Rolls that the floor is the mean of."""

FAR = 10 * RATE
"""Samples between stretches on the common time line: farther than any tolerance."""


@dataclass(frozen=True)
class Curve:
    """Peaks of one distance and width.

    Attributes:
        at: samples of the peaks on the common time line, shape (p,).
        stretch: of each peak, shape (p,).
        prominence: in standard deviations of the curve, shape (p,).
    """

    at: np.ndarray
    stretch: np.ndarray
    prominence: np.ndarray


class WordSegmentation(RowsMeasure):
    """Word boundaries at the peaks of the distance between neighbouring frames.

    After Pasad, Chien, Settle and Livescu (2024): every dimension is z-scored over the sample, the distance between
    neighbouring frames (euclidean, or 1 - cosine) is smoothed by a moving average, and peaks of enough prominence are
    boundaries, in the middle of the frames that they rest on. Distance, width and prominence are chosen by F1 on all
    folds but one and applied to that one, every fold once; folds are by speaker. Unlike the released code, which counts
    hits from either side, a true boundary is hit once (see `boundary_scores`), and prominence is relative to the
    curve's standard deviation, so that one grid fits all widths of layer.

    A stretch is a run of words with at most 20 ms between neighbours; pauses, noises and unknown words lie between
    stretches. A true boundary is where a word ends and the next one of the stretch begins (the middle of a gap). The ends
    of stretches are given, so they are no true boundaries and within 40 ms of them none are looked for. A stretch
    without a peak counts, with no boundary found.

    Five rows a stream: targets "f1", "precision", "recall" and "r-value" at a tolerance of 20 ms, and "f1-40ms" of the
    same boundaries at 40 ms. The floor rolls the boundaries of each stretch by a random number of frames, which leaves
    their number and their distances (mean of five draws); the ceiling is 1. The interval is a jackknife over speakers,
    with the settings chosen anew.

    Args:
        most_seconds: utterances are taken in the order of a hash until they are so long. Memory is a float32 vector for
            each of their frames and streams.
        folds: how many folds are wanted.

    Raises:
        MeasureError: there are fewer than two folds.
    """

    name = "word-segmentation"
    tiers = ("word",)
    span = SEQUENCE

    def __init__(self, *, most_seconds: float = 120.0, folds: int = 5) -> None:
        super().__init__()
        if folds < 2:
            raise MeasureError(f"{folds} folds leave none to choose by", "Ask for two folds or more.")
        self.most_seconds, self.wanted_folds = most_seconds, folds

    def choose(self, corpus: Corpus, seed: int) -> tuple[Segment, ...]:
        """Stretches of words of some utterances.

        Raises:
            MeasureError: no word meets another, or there is one utterance only.
            CorpusError: the corpus lacks the tier.
        """
        corpus.require_tier("word")
        stretches = {u.id: list(_stretches(u.tiers.get("word", ()))) for u in corpus}
        order = sorted(
            (u for u in corpus if stretches[u.id]), key=lambda u: (uniform(seed, u.id, 0, "stretches"), u.id)
        )
        lengths = np.cumsum([0] + [u.n_samples for u in order])
        taken = {u.id: u for u, before in zip(order, lengths, strict=False) if before < self.most_seconds * RATE}
        self._left_out = len(order) - len(taken)
        self._true = {(u, place): cuts for u in taken for place, _, _, cuts in stretches[u]}
        if not any(self._true.values()) or len(taken) < 2:
            raise MeasureError(
                f"{self.name} finds {sum(map(len, self._true.values()))} boundaries between words in {len(taken)} "
                f"utterance{'' if len(taken) == 1 else 's'} of corpus {corpus.name}",
                "Give two utterances or more in which words meet, or leave out the measure.",
            )
        speakers = {u.id: u.speaker for u in taken.values()}
        self._folds = partition({u.id: u.n_samples for u in taken.values()}, speakers, self.wanted_folds, seed)
        return tuple(
            Segment(u.id, u.speaker, place, start, end, "")
            for u in corpus
            if u.id in taken
            for place, start, end, _ in stretches[u.id]
        )

    def score(self) -> Result:
        """Five rows a stream.

        Raises:
            MeasureError: fewer than two folds have true boundaries.
        """
        segments = self.seen_segments()
        starts, ends = np.array([(one.start, one.end) for one in segments]).T
        # One time line for all: stretches far from each other.
        offsets = np.cumsum([0, *(ends - starts + FAR)])[:-1] - starts
        true = [np.array(self._true[one.utterance, one.place], dtype=np.int64) for one in segments]
        line = np.concatenate([cuts + offset for cuts, offset in zip(true, offsets, strict=True)])
        stretch_of_true = np.repeat(np.arange(len(segments)), [len(cuts) for cuts in true])
        folds = np.array([self._folds.of[one.utterance] for one in segments])
        groups = self.groups(segments)
        shape = (self._folds.count, int(groups.max()) + 1)
        unit = folds * shape[1] + groups

        def counted(stretches: np.ndarray) -> np.ndarray:
            return np.bincount(unit[stretches], minlength=shape[0] * shape[1]).reshape(shape)

        there = counted(stretch_of_true)
        if (there.sum(axis=1) > 0).sum() < 2:
            raise MeasureError(
                f"{self.name} has seen boundaries between words in fewer than two folds",
                "Pass the whole corpus through the model, better of three speakers or more.",
            )
        rolls = np.array([self._rolls(one) for one in segments])
        rows: list[Row] = []
        chosen: dict[str, list[Any]] = {}
        for stream in self.streams:
            curves = self._curves(stream, segments, offsets)
            best = {t: [_best(line, curve, t * RATE // 1000) for curve in curves] for t in (20, 40)}
            found = np.array([counted(c.stretch[c.prominence >= p]) for c in curves for p in PROMINENCES])
            hits = {
                t: np.array([counted(stretch_of_true[b >= p]) for b in best[t] for p in PROMINENCES]) for t in best
            }  # fmt: skip
            value, settings = _held_out(hits, found, there)
            without = [
                _held_out({t: np.delete(h, g, -1) for t, h in hits.items()}, np.delete(found, g, -1),
                          np.delete(there, g, -1))[0] for g in range(shape[1])
            ]  # fmt: skip
            hop = self.hop(stream)
            room = (ends - starts - 2 * EDGE) // hop + 1
            floors = self._floors(curves, settings, folds, rolls, starts + offsets + EDGE, room, hop, line)
            sizes = there.sum(axis=0).astype(np.float64)
            for target in value:
                left = np.array([one[target] for one in without])
                low, high = jackknife(value[target], np.where(np.isfinite(left), left, 0.0), sizes * np.isfinite(left))
                rows.append(
                    Row(
                        self.name, stream, layer_of(stream), target=target, value=value[target],
                        low=float(low) if np.isfinite(low) else None,
                        high=min(float(high), 1.0) if np.isfinite(high) else None,
                        floor=floors[target], ceiling=1.0, n=len(line),
                    )
                )  # fmt: skip
            chosen[stream] = [None if s is None else list(SETTINGS[s]) for s in settings]
        notes = {
            "settings": chosen, "folds": self._folds.count, "folds_by": self._folds.by, "boundaries": len(line),
            "utterances": len({one.utterance for one in segments}), "utterances_left_out": self._left_out,
        }  # fmt: skip
        return Result(rows, {}, notes)

    def _curves(self, stream: str, segments: tuple[Segment, ...], offsets: np.ndarray) -> list[Curve]:
        """Peaks for every distance and width."""
        sequences, grid = self.sequences(stream), self._grids[stream]
        counts = np.array([len(one) for one in sequences])
        frames = np.concatenate(sequences).astype(np.float64)
        frames -= frames.mean(axis=0)
        spread = frames.std(axis=0)
        frames /= np.where(spread > 0, spread, 1.0)
        starts, ends = np.array([(one.start, one.end) for one in segments]).T
        first = word_spans(starts, ends, grid.hop, int(ends.max()) // grid.hop + 2, grid.offset < 0)[0]
        # Between frames t and t + 1: where t + 1 begins, or in the middle of their centres.
        local = np.arange(len(frames)) - np.repeat(np.cumsum(counts) - counts, counts)
        middle = (np.repeat(first, counts) + local) * grid.hop + (grid.hop // 2 if grid.offset < 0 else grid.hop)
        stretch = np.repeat(np.arange(len(counts)), counts)
        ahead = {
            "euclidean": np.linalg.norm(np.diff(frames, axis=0), axis=1),
            "cosine": 1 - (lambda u: (u[1:] * u[:-1]).sum(axis=1))(unit_rows(frames)),
        }
        found = []
        for name in DISTANCES:
            # Infinity between stretches: no peak, no average and no prominence reaches across.
            steps = np.where(stretch[1:] == stretch[:-1], ahead[name], np.inf)
            for width in WIDTHS:
                curve = np.convolve(steps, np.full(width, 1 / width), "valid") if len(steps) >= width else steps[:0]
                finite = np.isfinite(curve)
                deviation = curve[finite].std() if finite.any() else 0.0
                peaks = find_peaks(curve)[0] if deviation > 0 else np.zeros(0, dtype=np.int64)
                peaks = peaks[finite[peaks]]
                at = (middle[peaks] + middle[peaks + width - 1]) // 2
                inside = (at >= starts[stretch[peaks]] + EDGE) & (at <= ends[stretch[peaks]] - EDGE)
                peaks, at = peaks[inside], at[inside]
                prominence = peak_prominences(curve, peaks)[0] / deviation if len(peaks) else np.zeros(0)
                found.append(Curve(at + offsets[stretch[peaks]], stretch[peaks], prominence))
        return found

    def _rolls(self, one: Segment) -> np.ndarray:
        """How far the boundaries of a stretch are rolled for the floor, as shares of it; shape (draws,)."""
        return np.array([uniform(self.seed, one.utterance, one.place, f"roll {k}") for k in range(DRAWS)])

    def _floors(
        self,
        curves: list[Curve],
        settings: list[int | None],
        folds: np.ndarray,
        rolls: np.ndarray,
        begin: np.ndarray,
        frames: np.ndarray,
        hop: int,
        line: np.ndarray,
    ) -> dict[str, float]:
        """Scores of the same boundaries rolled within their stretch: as many, as far apart, at other times.

        Args:
            curves: peaks for every distance and width.
            settings: what was chosen for each fold.
            folds: of each stretch, shape (n,).
            rolls: how far, as shares of each stretch, shape (n, draws).
            begin: where boundaries may begin in each stretch, on the common time line, shape (n,).
            frames: how many frames from there boundaries may lie, shape (n,).
            hop: samples from one frame to the next.
            line: true boundaries on the common time line.
        """
        held = []
        for fold, setting in enumerate(settings):
            if setting is not None:
                curve, p = curves[setting // len(PROMINENCES)], PROMINENCES[setting % len(PROMINENCES)]
                taken = (curve.prominence >= p) & (folds[curve.stretch] == fold)
                held.append((curve.at[taken], curve.stretch[taken]))
        at, stretch = (np.concatenate(v) for v in zip(*held, strict=True))
        room = np.maximum(frames[stretch], 1)
        told = []
        for k in range(DRAWS):
            shift = 1 + np.floor(rolls[stretch, k] * (room - 1)).astype(np.int64)
            rolled = begin[stretch] + (at - begin[stretch] + shift * hop) % (room * hop)
            hits = {}
            for t in (20, 40):
                nearest, within = claims(line, rolled, t * RATE // 1000)
                hits[t] = len(np.unique(nearest[within]))
            told.append(_told(hits, len(at), len(line)))
        return {target: float(np.mean([one[target] for one in told])) for target in told[0]}


def _stretches(words: tuple[Interval, ...]) -> Iterator[tuple[int, int, int, list[int]]]:
    """Index of the first word, first sample, one past the last, and the boundaries between words, of each run."""
    place, cuts = -1, list[int]()
    for i, word in enumerate(words):
        if word.label in NO_LABELS:
            continue
        before = words[i - 1] if i else None
        if place >= 0 and before is not None and before.label not in NO_LABELS and (
            word.start - before.end <= LONGEST_GAP
        ):  # fmt: skip
            cuts.append((before.end + word.start) // 2)
            end = word.end
            continue
        if place >= 0:
            yield place, words[place].start, end, cuts
        place, end, cuts = i, word.end, []
    if place >= 0:
        yield place, words[place].start, end, cuts


def _best(line: np.ndarray, curve: Curve, tolerance: int) -> np.ndarray:
    """Prominence of the most prominent peak that hits each true boundary; minus infinity where none does."""
    nearest, within = claims(line, curve.at, tolerance)
    best = np.full(len(line), -np.inf)
    np.maximum.at(best, nearest[within], curve.prominence[within])
    return best


def _held_out(
    hits: dict[int, np.ndarray], found: np.ndarray, there: np.ndarray
) -> tuple[dict[str, float], list[int | None]]:
    """Scores over all folds, each with the setting that is best on the others; counts are by setting, fold and group."""
    there_of = there.sum(axis=-1)
    found_of, hits_of = found.sum(axis=-1), {t: h.sum(axis=-1) for t, h in hits.items()}
    settings: list[int | None] = []
    held, held_found = dict.fromkeys(hits, 0), 0
    for fold in range(len(there_of)):
        rest = np.arange(len(there_of)) != fold
        if not there_of[rest].sum():
            settings.append(None)
            continue
        f1 = 2 * hits_of[20][:, rest].sum(axis=1) / (found_of[:, rest].sum(axis=1) + there_of[rest].sum())
        setting = int(f1.argmax())
        settings.append(setting)
        held = {t: held[t] + int(h[setting, fold]) for t, h in hits_of.items()}
        held_found += int(found_of[setting, fold])
    return _told(held, held_found, int(there_of.sum())), settings


def _told(hits: dict[int, int], found: int, true: int) -> dict[str, float]:
    """The scores that have rows."""
    if not true:
        return dict.fromkeys(("f1", "precision", "recall", "r-value", "f1-40ms"), float("nan"))
    near = scores_of(hits[20], found, true)
    return {
        "f1": near["f1"], "precision": near["precision"], "recall": near["recall"], "r-value": near["r_value"],
        "f1-40ms": scores_of(hits[40], found, true)["f1"],
    }  # fmt: skip
