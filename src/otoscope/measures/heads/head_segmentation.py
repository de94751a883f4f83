"""Phone segmentation by heads: do the rows of an attention map fall into blocks where phones meet?"""

from __future__ import annotations

import hashlib
import json
from dataclasses import astuple
from functools import partial
from typing import Any

import numpy as np
import torch

from otoscope.errors import MeasureError, StateError
from otoscope.measures.heads.boundary_tallies import (
    ALPHAS,
    BETAS,
    TALLIES,
    TOLERANCE,
    HeadTallies,
    tallies,
    true_boundaries,
)
from otoscope.measures.measure import Measure, Result, Row
from otoscope.models.anatomy import Anatomy, Grid, layer_of
from otoscope.models.capture import Capture
from otoscope.speech import Corpus
from otoscope.speech.audio import RATE
from otoscope.speech.cepstra import mel_cepstra
from otoscope.speech.mel import HOP, WINDOW
from otoscope.speech.utterance import Utterance
from otoscope.statistics import groups, jackknife, partition, uniform
from otoscope.statistics.partition import FEWEST_SPEAKERS
from otoscope.statistics.state import take_over

MFCC = "mfcc"
"""What stands in the column of streams for mel cepstra of the sound itself."""

CEPSTRA_GRID = Grid(HOP, WINDOW, -WINDOW // 2)
TARGETS = ("r-value", "precision", "recall", "f1")
VALIDATION = 0  # the group of counts by which settings are chosen


class HeadSegmentation(Measure):
    """Phone boundaries at the minima of the kernel-Gram curve of each head's rows, of layers and of MFCC.

    After Yang, Liu and Lee (2020), section 5: see `kernel_gram_boundaries`. Every head and stream, and mel cepstra with
    their differences every 10 ms, has an alpha and a beta of its own: the pair with the best R-value on the validation
    utterances, of `ALPHAS` (in multiples of the mean distance between two frames of the utterance, so that one grid
    fits all) and `BETAS`. What is told comes of the test utterances, with hits one to one at 20 ms. Frames stand for as
    many label frames of 10 ms as their hop has. No speaker is in both parts, where there are three speakers or more.

    True boundaries are where an interval of the tier begins or ends, but not the ends of the recording.

    Four rows a head, a stream and MFCC: targets "r-value", "precision", "recall" and "f1". The floor is that of as
    many evenly spaced boundaries in every utterance; the interval is a jackknife over the test speakers (utterances
    where there are fewer than three), with the settings as they were chosen. Three rows for the model: "best-head" is
    the head with the best R-value on the validation utterances, and "best-head-less-mfcc" and "best-head-less-layer"
    are by how much it is better on the test utterances than MFCC and than the layer that was best in validation, with
    paired intervals; the label says "pass" where the interval lies above 0, "fail" below, else "undecided".

    Args:
        tier: whose boundaries are sought.
        most: utterances that are looked at, the first in the order of a hash.
        longest: seconds; longer utterances are left out. A float32 map of all heads of one layer is held at a time,
            and float64 matrices for one head: at 20 s, with 20 ms frames and 16 heads, 100 MB.

    Raises:
        MeasureError: fewer than two utterances are to be looked at.
    """

    name = "head-segmentation"

    def __init__(self, *, tier: str = "phone", most: int = 60, longest: float = 20.0) -> None:
        if most < 2:
            raise MeasureError(f"{most} utterances have no part to validate on", "Ask for two or more.")
        self.tier, self.most, self.longest = tier, most, longest
        self.tiers = (tier,)
        self._prepared = ""
        self._streams: tuple[str, ...] = ()

    @property
    def streams(self) -> tuple[str, ...]:
        """`input`, the layers and `final_norm`; known once it is prepared."""
        return self._streams

    def prepare(self, anatomy: Anatomy, corpus: Corpus, seed: int) -> None:
        """Chooses utterances, deals them out and allocates the counts.

        Raises:
            MeasureError: fewer than two utterances have boundaries.
            CorpusError: the corpus lacks the tier.
        """
        corpus.require_tier(self.tier)
        chosen, self._left_out = self._chosen(corpus, seed)
        true = {u.id: true_boundaries(u, self.tier) for u in chosen}
        speakers = {u.id: u.speaker for u in chosen}
        folds = partition({u.id: u.n_samples for u in chosen}, speakers, 3, seed)
        self._by, self.seed = folds.by, seed
        tested = {u: str(speakers[u]) for u, fold in folds.of.items() if fold}
        if folds.by == "utterance" or len(set(tested.values())) < FEWEST_SPEAKERS:
            tested = {u: u for u in tested}
        group_of = groups(tested.values(), seed)
        self.group_of = {u.id: 1 + group_of[tested[u.id]] if u.id in tested else VALIDATION for u in chosen}
        self._streams = tuple(s for s in anatomy.streams if s in ("input", "final_norm") or layer_of(s))
        self._heads = [(layer, head) for layer, names in enumerate(anatomy.head_names, 1) for head in names]
        self._first = np.cumsum([0, *anatomy.heads]) + 1 + len(self._streams)
        self.reductions = (partial(HeadTallies, true),)
        self._true = true
        count = max(self.group_of.values()) + 1
        shape = (count, int(self._first[-1]), len(ALPHAS), len(BETAS), len(TALLIES))
        self.counts = np.zeros(shape, dtype=np.int32)
        self.boundaries = np.zeros(count, dtype=np.int64)
        self.utterances = np.zeros(count, dtype=np.int64)
        told = [
            self.name, self.tier, seed, sorted(self.group_of.items()), self._streams, self._heads, ALPHAS, BETAS,
            {s: astuple(anatomy.grids[s]) for s in self._streams}, {u: cuts.tolist() for u, cuts in true.items()},
        ]  # fmt: skip
        self._prepared = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    def _chosen(self, corpus: Corpus, seed: int) -> tuple[list[Utterance], dict[str, int]]:
        """Utterances that are looked at, by name, and how many are not, by reason."""
        short = [u for u in corpus if u.n_samples <= self.longest * RATE]
        fit = [u for u in short if len(true_boundaries(u, self.tier))]
        taken = sorted(fit, key=lambda u: (uniform(seed, u.id, purpose=self.name), u.id))[: self.most]
        if len(taken) < 2:
            raise MeasureError(
                f"{self.name} finds boundaries of the tier {self.tier!r} in {len(taken)} utterances of at most "
                f"{self.longest:g} s of corpus {corpus.name}",
                "Give two such utterances or more, or leave out the measure.",
            )
        left_out = {
            "too_long": len(corpus) - len(short), "without_boundaries": len(short) - len(fit),
            "not_drawn": len(fit) - len(taken),
        }  # fmt: skip
        return sorted(taken, key=lambda u: u.id), left_out

    def update(self, capture: Capture) -> None:
        """Adds the counts of the utterances of a batch that are looked at.

        Raises:
            MeasureError: no attention was captured, or a stream holds values that are not finite.
        """
        self._require_prepared()
        for k, utterance in enumerate(capture.utterances):
            if utterance.id not in self._true:
                continue
            group, true = self.group_of[utterance.id], self._true[utterance.id]
            cepstra = torch.from_numpy(mel_cepstra(capture.samples[k]))
            self.counts[group, 0] += tallies(cepstra, CEPSTRA_GRID, true, utterance.n_samples)
            for place, stream in enumerate(self._streams, start=1):
                frames = capture.frames(stream, k).float()
                if not bool(torch.isfinite(frames).all()):
                    raise MeasureError(
                        f"{self.name}, stream {stream}, {utterance.id}: values are not finite",
                        "Check the model's weights and the recordings for NaN and infinity.",
                    )
                self.counts[group, place] += tallies(frames, capture.grids[stream], true, utterance.n_samples)
            for layer, (first, last) in enumerate(zip(self._first[:-1], self._first[1:], strict=True), start=1):
                if layer not in capture.attention or HeadTallies.name not in capture.attention[layer][k]:
                    raise MeasureError(
                        f"{self.name} sees no attention of layer {layer} for {utterance.id}",
                        "Capture with the measure's `reductions`.",
                    )
                self.counts[group, first:last] += capture.attention[layer][k][HeadTallies.name].cpu().numpy()
            self.boundaries[group] += len(true)
            self.utterances[group] += 1

    def merge(self, other: Measure) -> None:
        """Adds another part's counts, in place.

        Raises:
            StateError: the two were prepared differently.
        """
        self._same_kind(other)
        assert isinstance(other, HeadSegmentation)
        self._require_prepared()
        if self._prepared != other._prepared:
            raise StateError(
                f"Two states of {self.name} were prepared with different models, corpora or seeds",
                "Prepare all parts with the same model, the whole corpus and one seed.",
            )
        self.counts += other.counts
        self.boundaries += other.boundaries
        self.utterances += other.utterances

    def compute(self) -> Result:
        """Rows of heads, streams, MFCC and the model.

        Raises:
            MeasureError: no utterance of one of the two parts was seen.
        """
        self._require_prepared()
        test = self.boundaries.copy()
        test[VALIDATION] = 0
        if not self.boundaries[VALIDATION] or not test.any():
            raise MeasureError(
                f"{self.name} has seen {int(self.boundaries[VALIDATION])} boundaries to choose settings by and "
                f"{int(test.sum())} to test them on",
                "Pass the whole corpus through the model.",
            )
        validated = scores(self.counts[VALIDATION], np.asarray(self.boundaries[VALIDATION]))["r-value"]
        n_sources = len(validated)
        setting = validated.reshape(n_sources, -1).argmax(1)
        alphas, betas = np.unravel_index(setting, (len(ALPHAS), len(BETAS)))
        by_group = self.counts[1:, np.arange(n_sources), alphas, betas].astype(np.int64)  # (G, S, 3)
        sizes = self.boundaries[1:]
        there = sizes > 0
        by_group, sizes = by_group[there], sizes[there]
        whole = scores(by_group.sum(0), np.asarray(sizes.sum()))
        floor = scores(by_group.sum(0)[..., [2, 1]], np.asarray(sizes.sum()))
        # The only group that counts leaves nothing when it is left out; its interval is undefined anyway.
        remain = np.maximum(sizes.sum() - sizes, 1)
        without = scores(by_group.sum(0) - by_group, remain[:, None])
        rows = self._rows(whole, without, floor, sizes)
        best = validated.reshape(n_sources, -1).max(1)
        rows += self._model_rows(best, whole["r-value"], without["r-value"], floor["r-value"], sizes)
        at_edge = np.isin(alphas, (0, len(ALPHAS) - 1)) | np.isin(betas, (0, len(BETAS) - 1))
        names = [MFCC, *self._streams, *(f"{layer}.{head}" for layer, head in self._heads)]
        notes = {
            "settings": {name: [ALPHAS[a], BETAS[b]] for name, a, b in zip(names, alphas, betas, strict=True)},
            "settings_at_the_edge_of_the_grid": int(at_edge.sum()), "tolerance_ms": TOLERANCE * 1000 // RATE,
            "alpha_in": "mean distance between two frames of the utterance",
            "utterances_validation": int(self.utterances[VALIDATION]),
            "utterances_test": int(self.utterances[1:].sum()), "parts_by": self._by, "seed": self.seed,
            "boundaries_validation": int(self.boundaries[VALIDATION]), "left_out": self._left_out,
            "state_bytes": self.counts.nbytes,
        }  # fmt: skip
        return Result(rows, self._trade_offs(best, alphas, there), notes)

    def _rows(
        self,
        whole: dict[str, np.ndarray],
        without: dict[str, np.ndarray],
        floor: dict[str, np.ndarray],
        sizes: np.ndarray,
    ) -> list[Row]:
        """Four rows a source."""
        places: list[dict[str, Any]] = [
            {"stream": MFCC},
            *({"stream": s, "layer": layer_of(s)} for s in self._streams),
            *({"stream": f"layer.{layer}", "layer": layer, "head": head} for layer, head in self._heads),
        ]
        rows = []
        for target in TARGETS:
            low, high = jackknife(whole[target], without[target], sizes.astype(np.float64))
            for k, place in enumerate(places):
                rows.append(
                    Row(
                        self.name, **place, target=target, value=float(whole[target][k]), low=_number(low[k]),
                        high=_number(min(high[k], 1.0)), floor=float(floor[target][k]), ceiling=1.0, n=int(sizes.sum()),
                    )
                )  # fmt: skip
        return rows

    def _best(self, validated: np.ndarray) -> tuple[int, int]:
        """Which source is the best head, and which the best stream, in validation; -1 where there is no head."""
        first = 1 + len(self._streams)
        head = first + int(validated[first:].argmax()) if self._heads else -1
        return head, 1 + int(validated[1:first].argmax())

    def _model_rows(
        self, validated: np.ndarray, whole: np.ndarray, without: np.ndarray, floor: np.ndarray, sizes: np.ndarray
    ) -> list[Row]:
        """The best head, and by how much it is better than MFCC and than the best layer."""
        best, stream = self._best(validated)
        if best < 0:
            return []
        layer, head = self._heads[best - 1 - len(self._streams)]
        place: dict[str, Any] = {"stream": f"layer.{layer}", "layer": layer, "head": head, "n": int(sizes.sum())}
        told = sizes.astype(np.float64)
        low, high = jackknife(whole[best], without[:, best], told)
        rows = [
            Row(
                self.name, **place, target="best-head", value=float(whole[best]), low=_number(float(low)),
                high=_number(min(float(high), 1.0)), floor=float(floor[best]), ceiling=1.0,
            )
        ]  # fmt: skip
        for target, other, k in (("mfcc", MFCC, 0), ("layer", self._streams[stream - 1], stream)):
            value = whole[best] - whole[k]
            low, high = jackknife(value, without[:, best] - without[:, k], told)
            verdict = "pass" if low > 0 else "fail" if high < 0 else "undecided"
            rows.append(
                Row(
                    self.name, **place, target=f"best-head-less-{target}", other=other, value=float(value),
                    low=_number(float(low)), high=_number(float(high)), label=verdict,
                )
            )  # fmt: skip
        return rows

    def _trade_offs(self, validated: np.ndarray, alphas: np.ndarray, there: np.ndarray) -> dict[str, np.ndarray]:
        """Precision and recall on the test utterances for every beta, at the alpha that was chosen; shape (B, 2)."""
        best, stream = self._best(validated)
        told = {"mfcc": 0, "layer": stream} | ({"head": best} if best >= 0 else {})
        found = {}
        for what, k in told.items():
            counts = self.counts[1:, k, alphas[k]][there].sum(0, dtype=np.int64)
            curve = scores(counts, np.asarray(self.boundaries[1:].sum()))
            found[f"{self.name}-{what}"] = np.stack([curve["precision"], curve["recall"]], axis=-1)
        return found

    def state(self) -> dict[str, np.ndarray]:
        """The counts (not copies), and the digest of how they were prepared (bytes)."""
        self._require_prepared()
        return {
            "counts": self.counts, "boundaries": self.boundaries, "utterances": self.utterances,
            "prepared": np.frombuffer(bytes.fromhex(self._prepared), dtype=np.uint8),
        }  # fmt: skip

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Takes over a state; the measure must have been prepared in the same way.

        Raises:
            StateError: an array is missing, has another shape, or comes from another preparation.
        """
        take_over(self.state(), state, self.name)

    def _require_prepared(self) -> None:
        if not self._prepared:
            raise StateError(f"{self.name} was not prepared", "Call prepare(anatomy, corpus, seed) first.")


def scores(counts: np.ndarray, true: np.ndarray) -> dict[str, np.ndarray]:
    """The scores of `boundary_scores` for many counts at once.

    Args:
        counts: (..., 2 or more): true boundaries hit, and boundaries found.
        true: how many true boundaries there are, more than 0, of a shape that fits (...).
    """
    hits, found = counts[..., 0].astype(np.float64), counts[..., 1].astype(np.float64)
    recall, over = hits / true, found / true - 1
    return {
        "r-value": 1 - (np.hypot(1 - recall, over) + np.abs(recall - 1 - over) / np.sqrt(2)) / 2,
        "precision": np.divide(hits, found, out=np.zeros_like(hits), where=found > 0),
        "recall": recall,
        "f1": 2 * hits / (found + true),
    }


def _number(value: float) -> float | None:
    """A float for the table; None where there is none."""
    return float(value) if np.isfinite(value) else None
