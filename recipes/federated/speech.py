"""Spoken commands of many voices, or speech from paths; the short utterances apart, which clients hold."""

import json
import random
from argparse import ArgumentParser, Namespace
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from otoscope.embedded import SPEECH
from otoscope.errors import CorpusError, EvaluationError, TrainingError
from otoscope.evaluation.references import check_frames, reference_of
from otoscope.evaluation.tuning import check_apart
from otoscope.models.recogniser import Recogniser
from otoscope.speech import Corpus, Utterance, read_corpus
from otoscope.speech.synthesis.rendering import TALLY, Job, render_apart
from otoscope.speech.synthesis.speakers import Speaker
from otoscope.training.folders import replace_text
from otoscope.training.subsets import split_by_length
from otoscope.workflow.training_speech import read_training_corpus
from recipes.conformers.speech import FASTEST, command, voices
from recipes.treated.speech import exam_voices

SPLITS = ("train", "dev", "exam")
_SHORTEST = 0.8  # seconds that a command lasts on average at the least


@dataclass(frozen=True)
class Speech:
    """What is trained, chosen and examined on.

    Attributes:
        long: what the server's model is trained on.
        short: what clients hold.
        dev: to watch trainings with and to diagnose on.
        exam: short and long utterances of speakers that nothing was trained on, by "short" and "long".
        shorter_than: seconds that parts short from long.
    """

    long: Corpus
    short: Corpus
    dev: Corpus
    exam: dict[str, Corpus]
    shorter_than: float


def speech_arguments(parser: ArgumentParser) -> None:
    """Adds the options of the speech."""
    group = parser.add_argument_group("speech", "paths, all three of them; or nothing, and commands are rendered")
    for name in SPLITS:
        group.add_argument(f"--{name}", help="a corpus with speakers and transcripts")
    group.add_argument("--train-seconds", type=float, default=25.0, help="of each rendered voice to train on")
    group.add_argument("--dev-seconds", type=float, default=25.0, help="of each of 8 rendered voices to diagnose on")
    group.add_argument("--exam-seconds", type=float, default=40.0, help="of each of 14 rendered voices for examination")
    group.add_argument("--voices", type=int, default=0, help="to train on, of those that there are; 0 for all")
    group.add_argument(
        "--shorter-than", type=float, help="seconds below which utterances are withheld; by default the median of train"
    )


def check_speech(arguments: Namespace) -> None:
    """Refuses paths and amounts that no speech can come from; nothing is rendered.

    Raises:
        CorpusError: a path is absent, or some are given and others not.
        TrainingError: rendered speech of no length, or of fewer than two voices.
    """
    given = {name: getattr(arguments, name) for name in SPLITS}
    absent = [name for name, place in given.items() if place is None]
    if absent and len(absent) < len(SPLITS):
        raise CorpusError(f"There is no --{absent[0]} beside the other paths", "Give all three, or none.")
    for name, place in given.items():
        if place is not None and place not in SPEECH and not Path(place).exists():
            raise CorpusError(f"--{name}: there is no {place}", "Correct the path.")
    for name in ("train_seconds", "dev_seconds", "exam_seconds", "shorter_than"):
        value = getattr(arguments, name)
        if value is not None and not 0 < value < float("inf"):
            raise TrainingError(f"{name} is {value}", "Give a number above zero.")
    there = len(voices("train"))
    if arguments.voices and not 2 <= arguments.voices <= there:
        raise TrainingError(f"--voices is {arguments.voices}", f"Give a number from 2 to {there}, or 0 for all.")


def speech_of(arguments: Namespace) -> Speech:
    """The speech, rendered where no paths are given; what is there already is left as it is.

    Raises:
        SpeechError: a corpus cannot be read, or the speech cannot be rendered.
        EvaluationError: the examination shares an utterance with what is trained or diagnosed on.
        TrainingError: all utterances are short, or none is.
    """
    if arguments.train is None:
        _render(arguments)
        train, dev, exam = (read_corpus(arguments.work / "speech" / name) for name in SPLITS)
    else:
        train = read_training_corpus(arguments.train, skip_bad=False)
        dev = read_training_corpus(arguments.dev, skip_bad=False)
        exam = read_corpus(arguments.exam)
        check_apart(train, exam, "is trained on")
        check_apart(dev, exam)
    return parted(train, dev, exam, arguments.shorter_than)


def parted(train: Corpus, dev: Corpus, exam: Corpus, shorter_than: float | None) -> Speech:
    """Short and long utterances apart.

    Args:
        train: to train on.
        dev: to watch and diagnose on.
        exam: to examine on.
        shorter_than: seconds; None takes the median of `train`.

    Raises:
        TrainingError: all utterances of a corpus are short, or none is.
    """
    bound = float(np.median([one.seconds for one in train])) if shorter_than is None else shorter_than
    short, long = split_by_length(train, bound)
    examined = dict(zip(("short", "long"), split_by_length(exam, bound), strict=True))
    return Speech(long, short, dev, examined, bound)


def usable(speech: Speech, recogniser: Recogniser) -> Speech:
    """Without utterances to train or diagnose on that are too short for their characters, the same ones for all models.

    Args:
        speech: the speech.
        recogniser: any model of the comparison; all have the same frames and vocabulary.
    """

    def fits(utterance: Utterance) -> bool:
        try:
            check_frames(recogniser, utterance, reference_of(recogniser, utterance))
        except EvaluationError:
            return False
        return True

    return replace(speech, long=speech.long.subset(fits), short=speech.short.subset(fits), dev=speech.dev.subset(fits))


def speakers_of(split: str, most: int = 0) -> list[Speaker]:
    """Who speaks in a rendered split, none too fast for a frame a character.

    Args:
        split: "train", "dev" or "exam".
        most: to train on so many voices, evenly taken from all; 0 takes all.
    """
    if split == "exam":
        return [replace(one, rate=min(one.rate, FASTEST)) for one in exam_voices()]
    found = voices("train" if split == "train" else "dev")
    if split == "dev" or not most:
        return found
    return [found[int(k)] for k in np.linspace(0, len(found) - 1, most)]


def _render(arguments: Namespace, seed: int = 20) -> None:
    """Renders the three splits once; processes that train side by side find them."""
    asked = {name: getattr(arguments, f"{name}_seconds") for name in SPLITS}
    done = arguments.work / "rendered.json"
    text = json.dumps({**asked, "voices": arguments.voices}) + "\n"
    if done.exists() and done.read_text() == text:
        return
    draw, said = random.Random(f"federated commands {seed}"), set()
    jobs = []
    for split in SPLITS:
        for speaker in speakers_of(split, arguments.voices):
            sentences: list[str] = []
            while len(sentences) < round(asked[split] / _SHORTEST) + 20:
                sentence = command(draw)
                if sentence not in said:
                    said.add(sentence)
                    sentences.append(sentence)
            jobs.append(Job(speaker, sentences, asked[split], seed, str(arguments.work / "speech" / split)))
    with ThreadPoolExecutor(2) as pool:
        waiting = [job for job in jobs if not (Path(job.folder) / job.speaker.name / TALLY).exists()]
        for _ in pool.map(render_apart, waiting):
            pass
    replace_text(done, text)
