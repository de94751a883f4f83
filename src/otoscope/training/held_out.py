"""Parts speech to train on from speech to watch the training with."""

from __future__ import annotations

from otoscope.errors import TrainingError
from otoscope.speech.corpus import Corpus
from otoscope.speech.utterance import Utterance
from otoscope.statistics.hashing import uniform

MOST_WATCHED = 64


def split(corpus: Corpus, share: float, seed: int) -> tuple[list[Utterance], list[Utterance]]:
    """Holds out whole speakers, chosen by a hash of their names; utterances where there are fewer than three.

    Args:
        corpus: the speech.
        share: of the speakers or utterances to hold out; at least one is held out, and one is not.
        seed: of the choice.

    Returns:
        Utterances to train on, and at most 64 to watch with, spread over the speakers held out.

    Raises:
        TrainingError: fewer than two utterances, or a share that is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise TrainingError(f"A share of {share} cannot be held out", "Give a number between 0 and 1.")
    if len(corpus) < 2:
        held = "one utterance" if len(corpus) else "no utterance"
        raise TrainingError(f"Corpus {corpus.name} has {held}", "Training needs two or more.")
    by_speaker = len(corpus.speakers) >= 3 and all(u.speaker is not None for u in corpus)

    def group(utterance: Utterance) -> str:
        return str(utterance.speaker) if by_speaker else utterance.id

    names = sorted({group(u) for u in corpus}, key=lambda name: uniform(seed, name, purpose="held out"))
    chosen = set(names[: min(max(1, round(share * len(names))), len(names) - 1)])
    train = [u for u in corpus if group(u) not in chosen]
    return train, watched([u for u in corpus if group(u) in chosen], seed)


def watched(utterances: list[Utterance], seed: int) -> list[Utterance]:
    """At most 64 of them, chosen by a hash of their names, in their order."""
    chosen = sorted(utterances, key=lambda u: uniform(seed, u.id, purpose="watched"))[:MOST_WATCHED]
    kept = {u.id for u in chosen}
    return [u for u in utterances if u.id in kept]
