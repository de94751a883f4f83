"""A set of utterances under a name."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from otoscope.errors import CorpusError
from otoscope.speech.alignments import tidy
from otoscope.speech.audio import RATE, from_array
from otoscope.speech.utterance import NO_TIER_CURE, Interval, Utterance


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An utterance that was skipped.

    Attributes:
        id: its name, or the place it would have come from.
        reason: what was wrong with it.
    """

    id: str
    reason: str


@dataclass(frozen=True)
class Corpus:
    """Utterances with unique ids; prints as a short table.

    Attributes:
        name: how results call the corpus.
        utterances: in a fixed order.
        root: folder that it was read from, or None.
        left_out: what was skipped when it was read.
        counts: how often something was put right when it was read, e.g. "cut_intervals".

    Raises:
        CorpusError: two utterances have the same id.
    """

    name: str
    utterances: tuple[Utterance, ...]
    root: Path | None = None
    left_out: tuple[LeftOut, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        twice = [name for name, n in Counter(u.id for u in self.utterances).items() if n > 1]
        if twice:
            raise CorpusError(
                f"Corpus {self.name} has {len(twice)} id(s) more than once, the first {twice[0]!r}",
                "Give every utterance an id of its own.",
            )

    @classmethod
    def from_arrays(
        cls,
        arrays: Iterable[np.ndarray],
        rate: int = RATE,
        *,
        speakers: Sequence[str | None] | None = None,
        transcripts: Sequence[str | None] | None = None,
        ids: Sequence[str] | None = None,
        tiers: Sequence[Mapping[str, Iterable[Interval]]] | None = None,
        name: str = "arrays",
    ) -> Corpus:
        """A corpus of samples in memory.

        Args:
            arrays: one per utterance, shape (n,): floats with full scale at 1, or signed integers.
            rate: samples per second of all of them; resampled to 16 kHz.
            speakers: one per utterance.
            transcripts: one per utterance.
            ids: one per utterance; "0000", "0001", ... where not given.
            tiers: one mapping per utterance; times in samples at 16 kHz.
            name: of the corpus.

        Raises:
            AudioError: an array is not one-dimensional, too short, or holds NaN or infinity.
            AlignmentError: intervals overlap or run past the end by more than a frame (320 samples).
            CorpusError: the numbers of arrays, speakers, transcripts, ids and tiers differ.

        >>> corpus = Corpus.from_arrays([np.zeros(16000), np.zeros(8000)], speakers=["a", "b"])
        >>> len(corpus), corpus.seconds, corpus.speakers
        (2, 1.5, ('a', 'b'))
        """
        held = list(arrays)
        for what, given in (
            ("speakers", speakers),
            ("transcripts", transcripts),
            ("ids", ids),
            ("tiers", tiers),
        ):
            if given is not None and len(given) != len(held):
                raise CorpusError(f"{len(held)} arrays but {len(given)} {what}", f"Give as many {what} as arrays.")
        utterances, cut = [], 0
        for i, array in enumerate(held):
            name_of = ids[i] if ids is not None else f"{i:04d}"
            samples = from_array(array, rate, f"Array {name_of}").samples
            own: dict[str, tuple[Interval, ...]] = {}
            for tier, intervals in (tiers[i] if tiers is not None else {}).items():
                times = ((x.start, x.end, x.label) for x in intervals)
                own[tier], n = tidy(times, len(samples), f"tier {tier} of {name_of}")
                cut += n
            utterances.append(
                Utterance(
                    id=name_of,
                    speaker=None if speakers is None else speakers[i],
                    transcript=None if transcripts is None else transcripts[i],
                    n_samples=len(samples),
                    tiers=own,
                    source=samples,
                )
            )
        return cls(name, tuple(utterances), counts={"cut_intervals": cut} if cut else {})

    def __len__(self) -> int:
        return len(self.utterances)

    def __iter__(self) -> Iterator[Utterance]:
        return iter(self.utterances)

    def __getitem__(self, key: int | str) -> Utterance:
        """The utterance at a position or with an id.

        Raises:
            IndexError: the position is beyond the end.
            CorpusError: there is no such id.
        """
        if isinstance(key, str):
            for utterance in self.utterances:
                if utterance.id == key:
                    return utterance
            raise CorpusError(f"Corpus {self.name} has no utterance {key!r}", "Choose an id of corpus.utterances.")
        return self.utterances[key]

    @property
    def speakers(self) -> tuple[str, ...]:
        """Names of the known speakers, sorted."""
        return tuple(sorted({u.speaker for u in self.utterances if u.speaker is not None}))

    @property
    def seconds(self) -> float:
        """Length of all utterances together."""
        return sum(u.n_samples for u in self.utterances) / RATE

    @property
    def tiers(self) -> tuple[str, ...]:
        """Names of the tiers that at least one utterance has, sorted."""
        return tuple(sorted({name for u in self.utterances for name in u.tiers}))

    def has_tier(self, name: str) -> bool:
        """Whether at least one utterance has the tier."""
        return any(name in u.tiers for u in self.utterances)

    def require_tier(self, name: str) -> None:
        """Makes sure that a tier is there.

        Raises:
            CorpusError: no utterance has the tier; names the tiers there are.
        """
        if not self.has_tier(name):
            there = ", ".join(self.tiers) or "none at all"
            raise CorpusError(f"Corpus {self.name} has no tier {name!r}; its tiers: {there}", NO_TIER_CURE)

    def subset(self, choose: Collection[str] | Callable[[Utterance], bool], name: str | None = None) -> Corpus:
        """The utterances that are chosen, in the same order.

        Args:
            choose: ids, or a function that says whether an utterance stays.
            name: of the new corpus; the old name where None.

        Raises:
            CorpusError: an id is not in the corpus.
        """
        if callable(choose):
            kept = tuple(u for u in self.utterances if choose(u))
        else:
            wanted = {choose} if isinstance(choose, str) else set(choose)
            missing = wanted - {u.id for u in self.utterances}
            if missing:
                raise CorpusError(
                    f"Corpus {self.name} has no utterance {min(missing)!r}",
                    "Choose ids of corpus.utterances.",
                )
            kept = tuple(u for u in self.utterances if u.id in wanted)
        return replace(self, name=name or self.name, utterances=kept)

    def fingerprint(self) -> str:
        """SHA-256 (hex) over ids, speakers, lengths, transcripts and tiers; the order does not count.

        Samples are not read for it: two corpora that differ in nothing but their sound have the same one.
        """
        digests = sorted(_digest(u) for u in self.utterances)
        return hashlib.sha256(b"".join(digests)).hexdigest()

    def __str__(self) -> str:
        rows = [
            ("corpus", self.name),
            ("utterances", str(len(self))),
            ("speakers", str(len(self.speakers)) if self.speakers else "unknown"),
            ("minutes", f"{self.seconds / 60:.1f}"),
            ("tiers", ", ".join(self.tiers) or "none"),
            ("left out", str(len(self.left_out))),
            *((key.replace("_", " "), str(n)) for key, n in sorted(self.counts.items())),
        ]
        width = max(len(key) for key, _ in rows)
        return "\n".join(f"{key:<{width}}  {value}" for key, value in rows)


def _digest(utterance: Utterance) -> bytes:
    tiers = {k: [(x.start, x.end, x.label) for x in v] for k, v in utterance.tiers.items()}
    fields = [utterance.id, utterance.speaker, utterance.n_samples, utterance.transcript, tiers]
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).digest()
