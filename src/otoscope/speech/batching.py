"""Batches of utterances of like length, read ahead of their use."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from otoscope.errors import AudioError, CorpusError
from otoscope.speech.audio import RATE
from otoscope.speech.corpus import LeftOut
from otoscope.speech.utterance import Utterance


@dataclass(frozen=True)
class Batch:
    """Utterances with their samples.

    Attributes:
        utterances: longest first.
        samples: one array an utterance, float32, shape (n_samples,), not padded.
    """

    utterances: tuple[Utterance, ...]
    samples: tuple[np.ndarray, ...]

    def __len__(self) -> int:
        return len(self.utterances)

    @property
    def seconds(self) -> float:
        """Length of all utterances together, without padding."""
        return sum(len(x) for x in self.samples) / RATE


def batches(corpus: Iterable[Utterance], seconds: int | float = 30.0) -> Iterator[tuple[Utterance, ...]]:
    """Deals utterances into batches, longest first.

    A batch holds as many as fit into the budget when all are padded to its longest; an utterance that is
    longer than the budget makes a batch of its own. The batches do not depend on the order of the corpus.

    Args:
        corpus: utterances.
        seconds: the budget: number of utterances times length of the longest.

    Yields:
        Utterances, longest first, ties by id.

    Raises:
        CorpusError: the budget is not positive.
    """
    if not seconds > 0:
        raise CorpusError(f"A batch of {seconds} seconds", "Give a positive number of seconds.")
    budget = seconds * RATE
    batch: list[Utterance] = []
    for utterance in sorted(corpus, key=lambda u: (-u.n_samples, u.id)):
        if batch and (len(batch) + 1) * batch[0].n_samples > budget:
            yield tuple(batch)
            batch = []
        batch.append(utterance)
    if batch:
        yield tuple(batch)


@dataclass
class BatchReader:
    """Batches with their samples, read ahead by threads; made by `read_batches`.

    Every iteration is a pass of its own, with threads of its own; they end when it is exhausted, closed or
    garbage. At most `workers + 1` batches are held beside the one in use.

    Attributes:
        plan: the batches to come.
        workers: number of threads.
        skip_bad: leave out what cannot be read.
        left_out: what the pass at hand could not read; filled while it runs.
        counts: "clipped_samples" and "clipped_utterances" of the pass at hand.
    """

    plan: tuple[tuple[Utterance, ...], ...]
    workers: int = 2
    skip_bad: bool = False
    left_out: list[LeftOut] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.plan)

    @property
    def seconds(self) -> float:
        """Length of all planned utterances together."""
        return sum(u.n_samples for batch in self.plan for u in batch) / RATE

    def __iter__(self) -> Iterator[Batch]:
        self.left_out, self.counts = [], {"clipped_samples": 0, "clipped_utterances": 0}
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="otoscope-read")
        ahead: deque[Future[_Read]] = deque()
        plan = iter(self.plan)
        try:
            for _ in range(self.workers + 1):
                self._submit(pool, ahead, plan)
            while ahead:
                read = ahead.popleft().result()
                self._submit(pool, ahead, plan)
                self.left_out += read.left_out
                self.counts["clipped_samples"] += sum(read.clipped)
                self.counts["clipped_utterances"] += sum(n > 0 for n in read.clipped)
                if len(read.batch):
                    yield read.batch
        finally:
            # Reached also by an exception in the caller's loop and by `close`.
            pool.shutdown(wait=True, cancel_futures=True)

    def _submit(
        self,
        pool: ThreadPoolExecutor,
        ahead: deque[Future[_Read]],
        plan: Iterator[tuple[Utterance, ...]],
    ) -> None:
        for batch in plan:
            ahead.append(pool.submit(_read, batch, self.skip_bad))
            return


def read_batches(
    corpus: Iterable[Utterance], seconds: int | float = 30.0, workers: int = 2, skip_bad: bool = False
) -> BatchReader:
    """Batches with their samples, in the order of `batches`; reading runs ahead in threads.

    Args:
        corpus: utterances.
        seconds: see `batches`.
        workers: threads that read.
        skip_bad: leave out utterances that cannot be decoded, are truncated or hold NaN, and list them in
            `left_out` of the result, rather than raise.

    Returns:
        An iterable of `Batch`; iterating raises AudioError where an utterance cannot be read.

    Raises:
        CorpusError: the budget or the number of workers is not positive.
    """
    if workers < 1:
        raise CorpusError(f"{workers} workers", "Give one reading thread or more.")
    return BatchReader(tuple(batches(corpus, seconds)), workers, skip_bad)


def readable(utterances: Sequence[Utterance], workers: int = 2) -> tuple[list[Utterance], list[LeftOut]]:
    """Reads every utterance once, and parts those whose samples can be used from the others, with the reason.

    For what takes utterances in an order of its own, and so cannot leave one out when it comes to it.

    Args:
        utterances: what is read.
        workers: threads that read.
    """
    with ThreadPoolExecutor(workers, thread_name_prefix="otoscope-read") as pool:
        faults = list(pool.map(_fault, utterances))
    kept = [one for one, fault in zip(utterances, faults, strict=True) if fault is None]
    return kept, [LeftOut(one.id, fault) for one, fault in zip(utterances, faults, strict=True) if fault is not None]


def _fault(utterance: Utterance) -> str | None:
    """Why an utterance cannot be read; None where it can."""
    try:
        utterance.recording()
    except AudioError as error:
        return str(error)
    return None


@dataclass(frozen=True)
class _Read:
    batch: Batch
    left_out: list[LeftOut]
    clipped: list[int]


def _read(utterances: tuple[Utterance, ...], skip_bad: bool) -> _Read:
    kept, samples, clipped, left_out = [], [], [], []
    for utterance in utterances:
        try:
            recording = utterance.recording()
        except AudioError as error:
            if not skip_bad:
                raise
            left_out.append(LeftOut(utterance.id, str(error)))
            continue
        kept.append(utterance)
        samples.append(recording.samples)
        clipped.append(recording.clipped)
    return _Read(Batch(tuple(kept), tuple(samples)), left_out, clipped)
