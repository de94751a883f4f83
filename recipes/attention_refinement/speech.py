"""The speech: rendered, or three corpora that are named; and what a plain list of the runs says about it."""

from dataclasses import dataclass
from pathlib import Path

from otoscope.errors import CorpusError, EvaluationError
from otoscope.evaluation.tuning import check_apart
from otoscope.speech.corpus import Corpus
from otoscope.training.subsets import seconds_of, subset
from otoscope.workflow.corpora import read_corpus
from otoscope.workflow.training_speech import read_training_corpus
from recipes.treated.speech import exam_voices, render, split

SPLITS = ("train", "dev", "exam")


@dataclass(frozen=True)
class Speech:
    """Speech to fine-tune on, to rank heads and watch training on, and to examine on.

    Attributes:
        train: with transcripts.
        dev: of voices that are not in the exam.
        exam: nothing is chosen by it.
        rendered: whether it was synthesised.
    """

    train: Corpus
    dev: Corpus
    exam: Corpus
    rendered: bool

    def ranked(self, seconds: float, seed: int = 0) -> Corpus:
        """Development speech for the ranking of heads, evenly over speakers; all of it where there is no more."""
        if self.dev.seconds <= seconds:
            return self.dev
        return self.dev.subset([one.id for one in subset(list(self.dev), seconds, seed)])


@dataclass(frozen=True)
class Source:
    """Where speech comes from.

    Attributes:
        paths: of train, dev and exam, each a path or the name of embedded speech; empty renders all.
        hours: of train to be rendered; dev is a twentieth of it.
        exam_seconds: of each voice to be rendered for examination.

    Raises:
        CorpusError: only some of the paths are given, or one of them twice.
        EvaluationError: there is nothing to be rendered.
    """

    paths: tuple[str, ...] = ()
    hours: float = 0.5
    exam_seconds: float = 24.0

    def __post_init__(self) -> None:
        if len(self.paths) not in (0, len(SPLITS)):
            raise CorpusError(
                f"{len(self.paths)} of {', '.join(SPLITS)} are given",
                "Name all three (--train, --dev, --exam), or none, so that speech is rendered.",
            )
        if len(set(self.paths)) < len(self.paths):
            raise CorpusError("The same speech is given twice", "Examine on speech that nothing else is done with.")
        for name in ("hours", "exam_seconds"):
            if not getattr(self, name) > 0:
                raise EvaluationError(f"{name} is {getattr(self, name)}", "Give a number above zero.")

    def read(self, work: Path) -> Speech:
        """Renders the speech where none is named, and reads it.

        Raises:
            SpeechError: a corpus cannot be read, an utterance has no transcript, or a voice of the exam is heard
                before.
            TrainingError: an examination is to be trained on.
            EvaluationError: an utterance of the exam is heard before.
        """
        if not self.paths:
            render(work, self.hours, self.exam_seconds)
            train, dev, exam = (split(work, name) for name in SPLITS)
            return Speech(train, dev, exam, rendered=True)
        # An examination is refused as speech to train on or to rank heads on.
        train, dev = (read_training_corpus(path, skip_bad=False) for path in self.paths[:2])
        exam = read_corpus(self.paths[2])
        check_apart(train, exam, "is trained on")
        check_apart(dev, exam, "heads are ranked on")
        found = Speech(train, dev, exam, rendered=False)
        for name in SPLITS:
            corpus = getattr(found, name)
            without = next((one.id for one in corpus if not (one.transcript or "").strip()), None)
            if without is not None:
                raise CorpusError(f"Utterance {without!r} of {name} has no transcript", "Give transcripts to all.")
        for name in ("train", "dev"):
            shared = set(found.exam.speakers) & set(getattr(found, name).speakers)
            if shared:
                raise CorpusError(
                    f"{min(shared)} speaks in {name} and in exam", "Examine on voices that nothing was chosen by."
                )
        return found

    def told(self, work: Path) -> tuple[dict[str, float], str]:
        """Hours of each split, and a line about them; nothing is rendered."""
        if self.paths:
            speech = self.read(work)
            hours = {name: getattr(speech, name).seconds / 3600 for name in SPLITS}
            return hours, "; ".join(
                f"{name}: {path}, {hours[name]:.2f} h" for name, path in zip(SPLITS, self.paths, strict=True)
            )
        voices = len(exam_voices())
        hours = dict(zip(SPLITS, (self.hours, self.hours / 20, voices * self.exam_seconds / 3600), strict=True))
        return hours, (
            f"rendered: train {hours['train']:g} h, dev {hours['dev']:.2f} h, exam {hours['exam']:.2f} h of {voices} "
            "voices that nothing is trained on"
        )


def hours_trained(hours: float, wanted: str | None) -> float:
    """Hours that are fine-tuned on.

    Raises:
        TrainingError: the amount is none.
        EvaluationError: there is less speech.
    """
    if wanted is None:
        return hours
    found = seconds_of(wanted) / 3600
    if found > hours:
        raise EvaluationError(
            f"A subset of {wanted} is to be taken of {hours:.2f} h of speech", "Take a shorter one, or more speech."
        )
    return found
