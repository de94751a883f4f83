"""The speech that probes are trained and tested on: utterances that are chosen and dealt into folds beforehand."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from otoscope.errors import MeasureError
from otoscope.models.anatomy import Grid
from otoscope.models.model import SpeechModel
from otoscope.speech.corpus import Corpus
from otoscope.statistics import uniform


@dataclass(frozen=True)
class ProbedSpeech:
    """Utterances whose frames probes read, one after another.

    Attributes:
        corpus: the utterances, by id.
        frames: frames of each utterance in the stream that is probed.
        grid: of that stream.
        stream: its name.
        left_out: utterances of the whole corpus that were not chosen.
        seed: of the choice.
    """

    corpus: Corpus
    frames: Mapping[str, int]
    grid: Grid
    stream: str
    left_out: int
    seed: int

    def __len__(self) -> int:
        return sum(self.frames.values())

    @cached_property
    def begins(self) -> dict[str, int]:
        """Row of each utterance's first frame, among the frames of all utterances in their order."""
        ends = np.cumsum([self.frames[u.id] for u in self.corpus])
        return {u.id: int(end) - self.frames[u.id] for u, end in zip(self.corpus, ends, strict=True)}

    def centres(self, utterance: str) -> np.ndarray:
        """The sample in the middle of what each frame of an utterance sees, shape (T,).

        A frame belongs to the label in which its centre lies; times are whole samples throughout.
        """
        return np.arange(self.frames[utterance]) * self.grid.hop + self.grid.offset + self.grid.field // 2


def probed_speech(
    model: SpeechModel, corpus: Corpus, stream: str | None = None, seconds: float = 240.0, seed: int = 0
) -> ProbedSpeech:
    """Chooses utterances by a hash of (seed, utterance), as many of each speaker as of any other.

    Args:
        model: the model that is probed.
        corpus: the speech; its order does not matter.
        stream: what is probed; by default the last one, which is what the encoder hands to a head.
        seconds: at most so much speech is taken; every variant of the model is run on it.
        seed: of the choice.

    Raises:
        MeasureError: the model has no such stream, or the stream is one of the convolutional front-end, which has no
            heads before it; or fewer than two utterances fit.
        AudioError: an utterance is too short or too long for the model.
    """
    stream = stream or model.anatomy.streams[-1]
    if stream not in model.anatomy.streams or stream.startswith("conv."):
        there = [name for name in model.anatomy.streams if not name.startswith("conv.")]
        raise MeasureError(
            f"No probe can be put on stream {stream!r} of {model.name}", f"Name one of {', '.join(there)}."
        )
    for utterance in corpus:
        model.frontend.check(utterance.n_samples, f"Utterance {utterance.id!r}")
    spoken: defaultdict[str, list[tuple[float, str]]] = defaultdict(list)
    for utterance in corpus:
        spoken[utterance.speaker or ""].append((uniform(seed, utterance.id, purpose="probed"), utterance.id))
    turns = sorted((rank, drawn, name) for found in spoken.values() for rank, (drawn, name) in enumerate(sorted(found)))
    length = {u.id: u.seconds for u in corpus}
    kept, total = set(), 0.0
    for _, _, name in turns:
        if total + length[name] <= seconds:
            kept.add(name)
            total += length[name]
    if len(kept) < 2:
        raise MeasureError(
            f"{len(kept)} utterance(s) of corpus {corpus.name} fit into {seconds:g} seconds; probes need two",
            "Give more speech, or more seconds.",
        )
    utterances = tuple(sorted((u for u in corpus if u.id in kept), key=lambda u: u.id))
    chosen = Corpus(corpus.name, utterances, corpus.root)
    frames = {u.id: model.frontend.frames(u.n_samples) for u in utterances}
    return ProbedSpeech(chosen, frames, model.anatomy.grids[stream], stream, len(corpus) - len(kept), seed)


def counted_speakers(corpus: Corpus) -> Counter[str]:
    """How many utterances each known speaker has."""
    return Counter(u.speaker for u in corpus if u.speaker is not None)
