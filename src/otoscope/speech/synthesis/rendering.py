"""Renders one speaker's sentences as a folder; run as a program, in a process of its own.

What espeak-ng says depends on what it said before in the same process. A process a speaker, always in the same order,
makes the sound depend on the job alone, not on the number of workers.
"""

import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from otoscope.errors import OtoscopeError, SpeechError
from otoscope.speech.synthesis.effects import Applied, Effects
from otoscope.speech.synthesis.espeak import Espeak
from otoscope.speech.synthesis.flite import Flite
from otoscope.speech.synthesis.speakers import ACCENTS, Speaker
from otoscope.speech.synthesis.spoken import Spoken
from otoscope.speech.utterance import RATE, Utterance
from otoscope.speech.writing import write_corpus

TALLY = "speaker.json"
PARTIAL = ".partial"
_CHAPTER = "1"


@dataclass(frozen=True)
class Job:
    """What one speaker says.

    Attributes:
        speaker: who.
        sentences: more than enough of them, in order.
        seconds: how much speech is wanted; the sentence that reaches it is the last.
        seed: of the small changes of rate and pitch from sentence to sentence.
        folder: the folder of the split.
        effects: what is done to the clean recordings.
        talkers: folders of the speakers that babble in the background.
    """

    speaker: Speaker
    sentences: list[str]
    seconds: float
    seed: int
    folder: str
    effects: Effects = field(default_factory=Effects)
    talkers: list[str] = field(default_factory=list)


@dataclass
class Tally:
    """How much was said.

    Attributes:
        samples: of speech, at 16 kHz.
        sentences: a recording each.
        words: in all sentences.
    """

    samples: int = 0
    sentences: int = 0
    words: int = 0


def read_tally(folder: Path) -> Tally:
    """How much lies in a speaker's folder."""
    told = json.loads((folder / TALLY).read_text(encoding="utf-8"))
    return Tally(told["samples"], told["sentences"], told["words"])


def render(job: Job) -> None:
    """Renders a speaker: `folder/name/1/name-1-0001.flac`, with TextGrids, transcripts and the tally.

    The folder is written under a hidden name of its own and then renamed: it is whole or not there, also where the
    process of an interrupted run is still at the same speaker.

    Args:
        job: what to render.

    Raises:
        MissingPackageError: the speaker's synthesiser is not installed.
        SpeechError: the synthesiser fails, or the sentences do not last.
    """
    name = job.speaker.name
    folder = Path(job.folder) / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{name}.", suffix=PARTIAL, dir=folder.parent))
    tally, chapter = Tally(), f"{name}-{_CHAPTER}"
    applied: dict[str, dict[str, Any]] = {}
    try:
        written = write_corpus(_with_effects(job, _utterances(job, chapter, tally), applied), partial / "speech")
        (written / chapter).rename(written / _CHAPTER)
        told = {**asdict(tally), **asdict(job.speaker), **({"effects": applied} if applied else {})}
        text = json.dumps(told, indent=1)
        (written / TALLY).write_text(f"{text}\n", encoding="utf-8")
        try:
            written.rename(folder)
        except OSError:
            if not (folder / TALLY).is_file():  # otherwise another process was quicker, with the same bytes
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def render_apart(job: Job) -> None:
    """`render` in a process of its own.

    Raises:
        SpeechError: as `render`, or the process ends otherwise.
    """
    done = subprocess.run(
        [sys.executable, "-m", __name__], input=json.dumps(asdict(job)), capture_output=True, text=True, check=False
    )
    if done.returncode == 2 and done.stdout:
        raise SpeechError(**json.loads(done.stdout))
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise SpeechError(
            f"Speaker {job.speaker.name} could not be rendered: {last}",
            "Free memory or disk space where that is what lacks, and run the same command again: it goes on from here.",
        )


def _utterances(job: Job, chapter: str, tally: Tally) -> Iterator[Utterance]:
    say = _espeak_voice(job) if job.speaker.engine == "espeak-ng" else _flite_voice(job)
    wanted = job.seconds * RATE
    for text in job.sentences:
        if tally.samples >= wanted:
            return
        spoken = say(text)
        # Without a time for every word the sentence is left out: what is labelled is labelled wholly.
        if spoken is None or [one.label for one in spoken.words] != text.split():
            continue
        tally.sentences += 1
        tally.samples += len(spoken.samples)
        tally.words += len(spoken.words)
        name = f"{chapter}-{tally.sentences:04d}"
        tiers = {"phone": spoken.phones, "word": spoken.words}
        yield Utterance(name, chapter, text, len(spoken.samples), tiers, spoken.samples)
    if tally.samples < wanted:
        raise SpeechError(
            f"{job.speaker.name} said only {tally.samples / RATE:.0f} of {job.seconds:.0f} seconds",
            "Its synthesiser gives no times for most sentences: install another version of it.",
        )


def _with_effects(job: Job, utterances: Iterator[Utterance], applied: dict[str, dict[str, Any]]) -> Iterator[Utterance]:
    """The same utterances in a room or in noise; `applied` takes what was done to each."""
    if not job.effects:
        yield from utterances
        return
    effects = Applied(job.effects, job.seed, job.talkers)
    for one in utterances:
        samples, applied[one.id] = effects.to(one.read(), one.id)
        yield replace(one, source=samples)


def _espeak_voice(job: Job) -> Callable[[str], Spoken]:
    speaker, draw, espeak = job.speaker, random.Random(f"{job.seed} {job.speaker.name}"), Espeak()
    voice = f"{ACCENTS[speaker.accent or 'us']}+{speaker.variant}"

    def say(text: str) -> Spoken:
        rate = round(speaker.rate) + draw.randint(-10, 10)
        pitch = round(speaker.pitch) + draw.randint(-4, 4)
        return espeak.say(text, voice, rate, pitch, draw.randint(40, 60))

    return say


def _flite_voice(job: Job) -> Callable[[str], Spoken | None]:
    speaker, draw, flite = job.speaker, random.Random(f"{job.seed} {job.speaker.name}"), Flite()

    def say(text: str) -> Spoken | None:
        stretch, shift = speaker.rate * draw.uniform(0.94, 1.06), speaker.pitch * draw.uniform(0.97, 1.03)
        shift = shift if speaker.variant != "rms" else 1.0
        return flite.say(text, speaker.variant, stretch, shift, speaker.formants)

    return say


def main() -> None:
    """Reads a job as JSON on standard input; a named error comes back as JSON with exit status 2."""
    told = json.load(sys.stdin)
    try:
        effects = {key: tuple(value) if isinstance(value, list) else value for key, value in told["effects"].items()}
        render(Job(**{**told, "speaker": Speaker(**told["speaker"]), "effects": Effects(**effects)}))
    except OtoscopeError as error:
        print(json.dumps({"problem": error.problem, "cure": error.cure}))
        sys.exit(2)


if __name__ == "__main__":
    main()
