"""Speech for training: never the speech of an examination."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from otoscope.embedded import SPEECH
from otoscope.errors import AudioError, OtoscopeError, TrainingError
from otoscope.models.frontends import Frontend
from otoscope.speech.batching import readable
from otoscope.speech.corpus import Corpus, LeftOut
from otoscope.speech.utterance import RATE, Utterance
from otoscope.training.held_out import split, watched
from otoscope.training.loop import Report, train
from otoscope.training.objective import Objective
from otoscope.training.outcome import TrainingOutcome
from otoscope.training.settings import TrainingSettings
from otoscope.training.subsets import seconds_of, subset
from otoscope.workflow.corpora import read_corpus
from otoscope.workflow.synthesising import MANIFEST

EXAMINATION = "embedded"

Check = Callable[[Utterance], None]


@dataclass
class TrainingSpeech:
    """Speech parted into what is trained on and what the training is watched with.

    Attributes:
        corpus: what was read to train on.
        train: utterances to train on.
        held: utterances to watch with.
        skip_bad: whether utterances that cannot be used are left out; they stop the training otherwise.
        left_out: those that were, and why.
        subset: what was taken of the speech to train on, as plain values; None where all of it was.
    """

    corpus: Corpus
    train: list[Utterance]
    held: list[Utterance]
    skip_bad: bool
    left_out: list[LeftOut]
    subset: dict[str, Any] | None = None

    def take(self, amount: str | float | None, seed: int) -> None:
        """Leaves a subset to train on; see `otoscope.training.subsets.subset`.

        Args:
            amount: such as "10min"; None leaves all.
            seed: of the choice.

        Raises:
            TrainingError: there is less speech than that.
        """
        if amount is None:
            return
        self.train = subset(self.train, amount, seed)
        self.subset = {
            "asked_seconds": seconds_of(amount),
            "seconds": sum(u.n_samples for u in self.train) / RATE,
            "utterances": len(self.train),
            "speakers": len({u.speaker for u in self.train}),
        }

    def keep(self, check: Check, check_held: Check | None = None) -> None:
        """Keeps the utterances that a check lets pass.

        Args:
            check: raises where an utterance cannot be used.
            check_held: the same for the utterances to watch with, where it is another.

        Raises:
            OtoscopeError: what the check raises, without `skip_bad`.
        """
        self.train = self._usable(self.train, check)
        self.held = self._usable(self.held, check_held or check)

    def leave_out_unreadable(self) -> None:
        """Reads all, and leaves out what cannot be decoded or holds samples that are not finite."""
        self.train, unread = readable(self.train)
        self.held, unheard = readable(self.held)
        self.left_out += unread + unheard

    def _usable(self, utterances: list[Utterance], check: Check) -> list[Utterance]:
        kept = []
        for utterance in utterances:
            try:
                check(utterance)
            except OtoscopeError as error:
                if not self.skip_bad:
                    raise
                self.left_out.append(LeftOut(utterance.id, str(error)))
            else:
                kept.append(utterance)
        return kept


def training_speech(
    corpus: Corpus | str | Path,
    dev: Corpus | str | Path | None,
    hold_out: float,
    seed: int,
    skip_bad: bool,
    frontend: Frontend,
    speed: float,
) -> TrainingSpeech:
    """Reads a corpus, parts it into what is trained on and what is watched, and checks lengths.

    Args:
        corpus: a corpus, a path, or "embedded:train".
        dev: speech to watch the training with; None holds out speakers of the corpus.
        hold_out: share of the speakers to hold out.
        seed: of the choice.
        skip_bad: leave out what cannot be read or used.
        frontend: of the model that is trained.
        speed: the highest that training speech is heard at.

    Raises:
        TrainingError: the speech is that of the examination, or both sets share an utterance.
        AudioError: an utterance is too short or too long.
    """
    read = read_training_corpus(corpus, skip_bad)
    if dev is None:
        train, held = split(read, hold_out, seed)
    else:
        other = read_training_corpus(dev, skip_bad)
        shared = {u.id for u in read} & {u.id for u in other}
        if shared:
            raise TrainingError(
                f"Utterance {min(shared)!r} is both to be trained on and held out", "Give different speech for --dev."
            )
        train, held = list(read), watched(list(other), seed)
    found = TrainingSpeech(read, train, held, skip_bad, list(read.left_out))
    found.keep(partial(_check_length, frontend, speed), partial(_check_length, frontend, 1.0))
    if skip_bad:
        found.leave_out_unreadable()
    return found


def run_training(
    made: Objective,
    speech: TrainingSpeech,
    settings: TrainingSettings,
    output: Path,
    resume: bool,
    report: Report | None,
) -> TrainingOutcome:
    """`train`, and what it gave.

    Raises:
        TrainingError: nothing is left to train on or to watch with, with the reason; or see `train`.
    """
    if speech.left_out and not (speech.train and speech.held):
        purpose = "watch the training with" if speech.train else "train on"
        raise TrainingError(
            f"No utterance is left to {purpose}: {len(speech.left_out)} cannot be used, the first for this: "
            f"{speech.left_out[0].reason}",
            "Give speech that can be used.",
        )
    found = train(
        made, speech.train, speech.held, settings, output, resume=resume, report=report, also={"subset": speech.subset}
    )
    return TrainingOutcome(
        output, made.name, found.held_out, len(speech.train), len(speech.held), tuple(speech.left_out), found.step
    )


def read_training_corpus(corpus: Corpus | str | Path, skip_bad: bool) -> Corpus:
    """Reads speech to train or tune on.

    Args:
        corpus: a corpus, a path, or "embedded:train".
        skip_bad: leave out what cannot be read.

    Raises:
        TrainingError: it is the speech of an examination, or holds one.
        SpeechError: it cannot be read.
    """
    place = corpus.root if isinstance(corpus, Corpus) else Path(corpus)
    named = (corpus.name if isinstance(corpus, Corpus) else str(corpus)) == EXAMINATION
    if named or (place is not None and place.resolve().is_relative_to(SPEECH[EXAMINATION].resolve())):
        raise TrainingError(
            "The embedded speech is for examination: nothing is trained or tuned on it",
            "Train on embedded:train, or on speech of your own (otoscope synthesise makes some).",
        )
    if place is not None and (place / MANIFEST).is_file() and (place / "exam").is_dir():
        raise TrainingError(
            f"{place} holds an examination beside its training speech",
            f"Name one of its splits, {place / 'train'} to train on and {place / 'dev'} to watch with.",
        )
    if place is not None and place.name == "exam" and (place.parent / MANIFEST).is_file():
        raise TrainingError(
            f"{place} is the examination of a synthesised corpus: nothing is trained or tuned on it",
            f"Train on {place.parent / 'train'}, and watch with {place.parent / 'dev'}.",
        )
    return corpus if isinstance(corpus, Corpus) else read_corpus(corpus, skip_bad=skip_bad)


def _check_length(frontend: Frontend, speed: float, utterance: Utterance) -> None:
    """Makes sure that a model can take an utterance, and that masks can be drawn for it.

    Args:
        frontend: of the model.
        speed: the highest that the speech is heard at.
        utterance: the speech.

    Raises:
        AudioError: it is too short or too long.
    """
    frontend.check(utterance.n_samples, f"Utterance {utterance.id!r}")
    if frontend.frames(int(utterance.n_samples / speed)) < _FEWEST_FRAMES:
        raise AudioError(
            f"Utterance {utterance.id!r} gives fewer than {_FEWEST_FRAMES} frames of this model",
            "Leave it out with skip_bad=True (--skip-bad).",
        )


_FEWEST_FRAMES = 4
