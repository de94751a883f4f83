"""The speech of a recipe: rendered in small, or read from paths."""

import json
from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from pathlib import Path

from otoscope.embedded import SPEECH
from otoscope.errors import CorpusError, TrainingError
from otoscope.evaluation.tuning import check_apart
from otoscope.speech.corpus import Corpus
from otoscope.training.folders import replace_text
from otoscope.training.subsets import subset
from otoscope.workflow.corpora import read_corpus
from otoscope.workflow.training_speech import read_training_corpus
from recipes.treated.speech import render, split

SPLITS = ("train", "dev", "exam")


@dataclass(frozen=True)
class Speech:
    """What is trained on, what weights and layers are chosen on, and what nothing is chosen on."""

    train: Corpus
    dev: Corpus
    exam: Corpus


def speech_arguments(parser: ArgumentParser, hours: float) -> None:
    """Adds the options of the speech.

    Args:
        parser: gets them.
        hours: of rendered speech to train on, where none are asked for.
    """
    group = parser.add_argument_group("speech", "paths, all three of them; or nothing, and speech is rendered")
    group.add_argument("--train", help="a corpus with transcripts, such as LibriSpeech/train-clean-100")
    group.add_argument("--dev", help="another, such as LibriSpeech/dev-clean")
    group.add_argument("--exam", help="a third, such as LibriSpeech/test-clean")
    group.add_argument("--alignments", type=Path, help="folder of TextGrids of --dev")
    group.add_argument("--hours", type=float, default=hours, help="of rendered speech to train on")
    group.add_argument("--exam-seconds", type=float, default=20.0, help="of each of 14 rendered voices for examination")
    group.add_argument("--lm", type=Path, help="a language model; by default a 4-gram of the training transcripts")
    group.add_argument(
        "--tune-seconds", type=float, default=60.0, help="of dev, to choose the weights of the 4-gram on"
    )


def check_speech(arguments: Namespace) -> None:
    """Refuses paths and amounts that no speech can come from; nothing is rendered.

    Raises:
        SpeechError: a path is absent, or some are given and others not, or two are the same.
        TrainingError: rendered speech of no length.
    """
    given = {name: getattr(arguments, name) for name in SPLITS}
    absent = [name for name, place in given.items() if place is None]
    if len(absent) == len(SPLITS):
        for name in ("hours", "exam_seconds"):
            if not 0 < getattr(arguments, name) < float("inf"):
                raise TrainingError(f"{name} is {getattr(arguments, name)}", "Give a number above zero.")
        if arguments.alignments is not None:
            raise CorpusError(
                "There are alignments of a corpus that is not given", "Name --train, --dev and --exam as well."
            )
    elif absent:
        raise CorpusError(f"There is no --{absent[0]} beside the other paths", "Give all three, or none.")
    else:
        for name, place in given.items():
            if place not in SPEECH and not Path(place).exists():
                raise CorpusError(f"--{name}: there is no {place}", "Correct the path.")
        if len({place if place in SPEECH else Path(place).resolve() for place in given.values()}) < len(SPLITS):
            raise CorpusError("Two of --train, --dev and --exam are the same", "Give three corpora.")
    if not 0 < arguments.tune_seconds < float("inf"):
        raise TrainingError(f"tune_seconds is {arguments.tune_seconds}", "Give a number above zero.")
    for name in ("lm", "alignments"):
        place = getattr(arguments, name)
        if place is not None and not place.exists():
            raise CorpusError(f"--{name}: there is no {place}", "Correct the path.")


def is_rendered(arguments: Namespace) -> bool:
    """Whether the speech is rendered rather than read from paths."""
    return arguments.train is None


def speech_of(arguments: Namespace) -> Speech:
    """The speech, rendered where no paths are given; what is there already is left as it is.

    Raises:
        SpeechError: a corpus cannot be read, or the speech cannot be rendered.
        EvaluationError: the examination shares an utterance with what is trained or chosen on.
        TrainingError: what is to be trained on is an examination.
    """
    if is_rendered(arguments):
        _rendered(arguments.work, arguments.hours, arguments.exam_seconds)
        return Speech(*(split(arguments.work, name) for name in SPLITS))
    train = read_training_corpus(arguments.train, skip_bad=False)
    dev = read_corpus(arguments.dev, alignments=arguments.alignments)
    read_training_corpus(dev, skip_bad=False)  # refuses an examination
    exam = read_corpus(arguments.exam)
    check_apart(train, exam, "is trained on")
    check_apart(dev, exam)
    return Speech(train, dev, exam)


def _rendered(work: Path, hours: float, exam_seconds: float) -> None:
    """Renders the speech once; processes that train side by side find it."""
    done, asked = work / "rendered.json", json.dumps({"hours": hours, "exam_seconds": exam_seconds}) + "\n"
    if not done.exists() or done.read_text() != asked:
        render(work, hours, exam_seconds)
        replace_text(done, asked)


def seconds_to_train(arguments: Namespace) -> float:
    """How much speech there is to train on, in seconds, without rendering any.

    Raises:
        SpeechError: see `speech_of`.
    """
    return 3600 * arguments.hours if is_rendered(arguments) else speech_of(arguments).train.seconds


def part_of(corpus: Corpus, seconds: float, seed: int = 0) -> Corpus:
    """So much of a corpus, balanced over speakers; all of it where there is less."""
    if corpus.seconds <= seconds:
        return corpus
    return corpus.subset([one.id for one in subset(corpus.utterances, seconds, seed)])
