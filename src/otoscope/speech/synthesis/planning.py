"""Who says what in a corpus: lengths of the splits, speakers heard, sentences dealt out."""

import math
from dataclasses import replace
from pathlib import Path

from otoscope.speech.synthesis.effects import Effects
from otoscope.speech.synthesis.rendering import Job
from otoscope.speech.synthesis.sentences import Sentences
from otoscope.speech.synthesis.speakers import SPLITS, Speaker, speakers

_LEAST_EACH = 10.0
"""Seconds: in small corpora fewer speakers are heard, rather than any for less than this."""

_SHORTEST = 1.0
"""Seconds that a speaker's sentences last on average at the least."""

_TALKERS, _TALK = 6, 30.0
"""How many babble in a split, and the seconds that each says."""


def split_seconds(hours: float) -> dict[str, float]:
    """Seconds of each split.

    Args:
        hours: of train. Dev and exam are a twentieth of it each, but at least 3 and 6 minutes, or as much as train
            where that is less.
    """
    train = hours * 3600
    return {
        "train": train,
        "dev": max(train / 20, min(180.0, train)),
        "exam": max(train / 20, min(360.0, train)),
    }


def plan(
    folder: Path, hours: float, seed: int, flite: bool, effects: Effects, common: int | None = None
) -> tuple[dict[str, list[Job]], list[Job]]:
    """What every speaker says.

    Args:
        folder: of the corpus.
        hours: of train.
        seed: of sentences and effects.
        flite: whether flite's voices speak too.
        effects: what is done to the recordings.
        common: of each kind of word so many, the most frequent; None for all.

    Returns:
        The jobs by split, no sentence in two of them; and the jobs of those who babble in the background, which
        come before and whose recordings are no part of the corpus.
    """
    sentences = Sentences(seed, common)

    def deal(seconds: float) -> list[str]:
        return [sentences.new() for _ in range(math.ceil(seconds / _SHORTEST) + 20)]

    jobs: dict[str, list[Job]] = {}
    lengths = split_seconds(hours)
    for split in SPLITS:
        table = _spread(speakers(split, flite), int(lengths[split] / _LEAST_EACH))
        each = lengths[split] / len(table)
        jobs[split] = [Job(one, deal(each), each, seed, str(folder / split), effects) for one in table]
    # Dealt last, so that the corpus says the same with babble and without.
    babble: list[Job] = []
    for split in SPLITS if "babble" in effects.noise else ():
        place = str(folder / ".babble" / split)
        talkers = [Job(one, deal(_TALK), _TALK, seed, place) for one in _spread(speakers(split, False), _TALKERS)]
        jobs[split] = [replace(job, talkers=_others(job, talkers)) for job in jobs[split]]
        babble += talkers
    return jobs, babble


def _spread(table: list[Speaker], n: int) -> list[Speaker]:
    """At most n of a table, at least one, evenly spread."""
    n = max(1, min(len(table), n))
    return [table[k * len(table) // n] for k in range(n)]


def _others(job: Job, talkers: list[Job]) -> list[str]:
    """Folders of talkers with other voices than the speaker's."""
    others = [one for one in talkers if one.speaker.variant != job.speaker.variant]
    return [str(Path(one.folder) / one.speaker.name) for one in others]
