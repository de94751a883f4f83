"""The batches of a whole training run, fixed in advance by the seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from otoscope.errors import TrainingError
from otoscope.speech.utterance import RATE, Utterance

Assemble = Callable[[Sequence[Utterance], Sequence[np.ndarray], np.random.Generator], dict[str, torch.Tensor]]

_HELD_BYTES = 4 * 2**30
_JITTER = RATE // 4


class BatchPlan(Dataset):
    """A run's batches as the items of one data set.

    Item k depends on the seed and k alone, with its noise and its masks: a run that is taken up at item k goes on as
    the unbroken one would, and processes that take items in turn share one plan.

    Args:
        utterances: the speech.
        seconds: budget of a batch, with padding.
        length: number of batches.
        seed: of order, noise and masks.
        assemble: makes a batch of utterances, their samples and a generator.

    Raises:
        TrainingError: there is no speech.
    """

    def __init__(
        self, utterances: Sequence[Utterance], seconds: float, length: int, seed: int, assemble: Assemble
    ) -> None:
        if not utterances:
            raise TrainingError("There is no utterance to train on", "Pass a corpus with speech.")
        self._utterances, self._seed, self._assemble, self._length = list(utterances), seed, assemble, length
        self._batches: list[list[int]] = []
        epoch = 0
        while len(self._batches) < length:
            self._batches += _epoch([u.n_samples for u in utterances], seconds, np.random.default_rng([seed, 1, epoch]))
            epoch += 1
        del self._batches[length:]
        self._held: dict[int, np.ndarray] = {}
        self._held_bytes = 0

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, k: int) -> dict[str, torch.Tensor]:
        chosen = self._batches[k]
        waves = [self._wave(i) for i in chosen]
        batch = self._assemble([self._utterances[i] for i in chosen], waves, np.random.default_rng([self._seed, 2, k]))
        return {**batch, "progress": torch.tensor(k / self._length)}

    def _wave(self, i: int) -> np.ndarray:
        """Samples of an utterance; kept, as 16-bit numbers where that loses nothing, while there is room."""
        held = self._held.get(i)
        if held is None:
            wave = self._utterances[i].read()
            whole = np.rint(wave * 32768)
            exact = bool(np.array_equal(whole, wave * 32768)) and bool((np.abs(whole) <= 32767).all())
            held = whole.astype(np.int16) if exact else wave
            if self._held_bytes + held.nbytes <= _HELD_BYTES:
                self._held[i] = held
                self._held_bytes += held.nbytes
        return held.astype(np.float32) / 32768 if held.dtype == np.int16 else held


def _epoch(lengths: Sequence[int], seconds: float, draw: np.random.Generator) -> list[list[int]]:
    """Every utterance once: those of like length together, the batches in random order."""
    keys = np.asarray(lengths) + draw.uniform(-_JITTER, _JITTER, len(lengths))
    batches: list[list[int]] = [[]]
    longest = 0
    for i in np.argsort(keys, kind="stable").tolist():
        if batches[-1] and max(longest, lengths[i]) * (len(batches[-1]) + 1) > seconds * RATE:
            batches.append([])
            longest = 0
        batches[-1].append(i)
        longest = max(longest, lengths[i])
    return [batches[int(k)] for k in draw.permutation(len(batches))]
