"""Which client holds which utterances."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from otoscope.errors import FederationError
from otoscope.speech.corpus import Corpus
from otoscope.speech.utterance import Utterance
from otoscope.statistics.hashing import uniform

_FORMS = "Write speaker (a client a speaker), speaker:8 (eight clients) or dirichlet:8:0.3 (and their concentration)."


@dataclass(frozen=True)
class Share:
    """The speech of one client.

    Attributes:
        client: its name.
        utterances: what it holds, by id.
    """

    client: str
    utterances: Corpus


def partition(corpus: Corpus, how: str, seed: int = 0) -> tuple[Share, ...]:
    """Deals the utterances of a corpus to clients, each to one; the order of the corpus does not count.

    - "speaker": every speaker is a client and gives it its name.
    - "speaker:K": speakers are dealt to K clients. Longest first, each goes to the client that has least so far (Graham's
      rule, at most 4/3 of the best).
    - "dirichlet:K:C": of every speaker's utterances the K clients get shares that are drawn from a symmetric Dirichlet
      distribution of concentration C, whole utterances by largest remainder. A high C makes clients alike; a low C
      leaves most of a speaker with one client. The draw over label proportions is Hsu et al.'s (2019, arXiv 1909.06335)
      with speakers for labels.

    Clients that are not speakers are called "client.1", "client.2", ..., with as many digits as the last one has.

    Args:
        corpus: the speech; every utterance has a speaker.
        how: see above.
        seed: of the shares and between speakers of equal length.

    Returns:
        Shares by name of the client.

    Raises:
        FederationError: there is no such way, no speech, an utterance without a speaker, fewer speakers than clients, or a
            client that would hold nothing.

    >>> corpus = Corpus.from_arrays([np.zeros(16000), np.zeros(8000)], speakers=["ann", "bob"])
    >>> [(share.client, share.utterances.seconds) for share in partition(corpus, "speaker")]
    [('ann', 1.0), ('bob', 0.5)]
    """
    kind, *numbers = how.split(":")
    if kind not in ("speaker", "dirichlet") or len(numbers) not in ((0, 1) if kind == "speaker" else (2,)):
        raise FederationError(f"There is no partition {how!r}", _FORMS)
    spoken = _by_speaker(corpus)
    if not numbers:
        return _shares(corpus, spoken)
    if not numbers[0].isdecimal() or int(numbers[0]) < 1:
        raise FederationError(f"The partition {how!r} names no number of clients", _FORMS)
    clients = _names(int(numbers[0]))
    if kind == "speaker":
        return _shares(corpus, _grouped(corpus.name, spoken, clients, seed))
    try:
        concentration = float(numbers[1])
    except ValueError:
        concentration = math.nan
    if not 0 < concentration < math.inf:
        raise FederationError(f"The partition {how!r} names no concentration above zero", _FORMS)
    held = _skewed(spoken, clients, concentration, seed)
    empty = [client for client, inside in held.items() if not inside]
    if empty:
        raise FederationError(
            f"Of {len(corpus)} utterances {how!r} leaves none to {len(empty)} of {len(clients)} clients (seed {seed})",
            "Choose fewer clients, a higher concentration or another seed.",
        )
    return _shares(corpus, held)


def _by_speaker(corpus: Corpus) -> dict[str, list[Utterance]]:
    """Utterances by speaker, both by name.

    Raises:
        FederationError: there is none, or one without a speaker.
    """
    if not len(corpus):
        raise FederationError(f"Corpus {corpus.name} holds no utterance", "Choose a corpus with speech.")
    unknown = [one.id for one in corpus if one.speaker is None]
    if unknown:
        raise FederationError(
            f"{len(unknown)} of {len(corpus)} utterances of corpus {corpus.name} have no speaker, the first {min(unknown)!r}",
            "Give every utterance its speaker: in a manifest, or by a folder for each speaker.",
        )
    found: dict[str, list[Utterance]] = {speaker: [] for speaker in corpus.speakers}
    for one in sorted(corpus, key=lambda one: one.id):
        found[str(one.speaker)].append(one)
    return found


def _grouped(
    corpus: str, spoken: dict[str, list[Utterance]], clients: list[str], seed: int
) -> dict[str, list[Utterance]]:
    """Whole speakers, dealt to clients so that these have about as much speech each."""
    if len(spoken) < len(clients):
        raise FederationError(
            f"Corpus {corpus} has too few speakers ({len(spoken)}) for {len(clients)} clients",
            "Choose no more clients than speakers, or split speakers: dirichlet:8:0.3.",
        )
    length = {speaker: sum(one.n_samples for one in inside) for speaker, inside in spoken.items()}
    heap = [(0, client) for client in clients]
    held: dict[str, list[Utterance]] = {client: [] for client in clients}
    for speaker in sorted(spoken, key=lambda one: (-length[one], uniform(seed, one, purpose="clients"), one)):
        so_far, client = heapq.heappop(heap)
        held[client] += spoken[speaker]
        heapq.heappush(heap, (so_far + length[speaker], client))
    return held


def _skewed(
    spoken: dict[str, list[Utterance]], clients: list[str], concentration: float, seed: int
) -> dict[str, list[Utterance]]:
    """Shares of every speaker's utterances; a speaker's depend on the seed and the own name alone."""
    held: dict[str, list[Utterance]] = {client: [] for client in clients}
    for speaker, inside in spoken.items():
        draw = np.random.default_rng(int(uniform(seed, speaker, purpose="shares of clients") * 2**53))
        wanted = draw.dirichlet(np.full(len(clients), concentration)) * len(inside)
        if not np.isfinite(wanted).all():  # every gamma variable of a tiny concentration came out as zero
            wanted = np.eye(len(clients))[draw.integers(len(clients))] * len(inside)
        counts = np.floor(wanted).astype(int)
        left = len(inside) - int(counts.sum())
        counts[np.argsort(counts - wanted, kind="stable")[:left]] += 1
        bounds = np.concatenate([[0], np.cumsum(counts)])
        order = sorted(inside, key=lambda one: (uniform(seed, one.id, purpose="utterances of clients"), one.id))
        for client, start, end in zip(clients, bounds[:-1], bounds[1:], strict=True):
            held[client] += order[start:end]
    return held


def _names(count: int) -> list[str]:
    """Names that stand in the order of their numbers when they are sorted."""
    return [f"client.{k:0{len(str(count))}d}" for k in range(1, count + 1)]


def _shares(corpus: Corpus, held: dict[str, list[Utterance]]) -> tuple[Share, ...]:
    def own(client: str, inside: Iterable[Utterance]) -> Corpus:
        # What was left out when the corpus was read is nobody's.
        ordered = tuple(sorted(inside, key=lambda one: one.id))
        return replace(corpus, name=f"{corpus.name} of {client}", utterances=ordered, left_out=(), counts={})

    return tuple(Share(client, own(client, held[client])) for client in sorted(held))
