"""Speech for the treatment: train and dev, and an hour for examination by fourteen voices that nothing was trained on."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from otoscope.speech import Corpus, read_corpus
from otoscope.speech.synthesis.rendering import TALLY, Job, render_apart
from otoscope.speech.synthesis.sentences import Sentences
from otoscope.speech.synthesis.speakers import Speaker, speakers
from otoscope.workflow.synthesising import synthesise

COMMON = 4  # words of each kind, as in the speech that the embedded models were trained on
EACH = 260.0  # seconds of each voice for examination
_SHORTEST = 1.0  # second that a sentence lasts on average at the least
# Voices beside those of every exam: variant, accent, rate, pitch. One more was rendered (kaukovalta) and left out before
# anything was treated, since the original mishears more than half of its words.
_FURTHER = (
    ("Nguyen", "us", 165, 45),
    ("Storm", "gb", 165, 50),
    ("iven3", "nyc", 165, 45),
    ("announcer", "us", 160, 45),
    ("klatt4", "gb", 165, 50),
)


def exam_voices() -> list[Speaker]:
    """Who speaks in the examination."""
    further = [
        Speaker(f"{variant.lower()}_{accent}", "exam", "espeak-ng", variant, accent, rate, pitch)
        for variant, accent, rate, pitch in _FURTHER
    ]
    return [*speakers("exam"), *further]


def render(work: Path, hours: float, exam_seconds: float = EACH, seed: int = 977) -> None:
    """Renders `speech/train`, `speech/dev` and `exam` in a folder; what is there already is left as it is.

    Args:
        work: the folder.
        hours: of train; dev is a twentieth of it.
        exam_seconds: of each voice for examination.
        seed: of the sentences for examination; train and dev have the next one.
    """
    synthesise(work / "speech", hours, seed + 1, common=COMMON)
    sentences = Sentences(seed, COMMON)
    count = round(exam_seconds / _SHORTEST) + 40
    jobs = [
        Job(one, [sentences.new() for _ in range(count)], exam_seconds, seed, str(work / "exam"))
        for one in exam_voices()
    ]
    with ThreadPoolExecutor(2) as pool:
        for _ in pool.map(
            render_apart, (job for job in jobs if not (work / "exam" / job.speaker.name / TALLY).exists())
        ):
            pass


def split(work: Path, name: str) -> Corpus:
    """A split of the speech: "train", "dev" or "exam"."""
    return read_corpus(work / "exam" if name == "exam" else work / "speech" / name)


def thinned(corpus: Corpus, one_in: int) -> Corpus:
    """Every n-th utterance of each speaker."""
    seen: dict[str | None, int] = {}
    kept = []
    for utterance in corpus:
        place = seen.get(utterance.speaker, 0)
        seen[utterance.speaker] = place + 1
        if place % one_in == 0:
            kept.append(utterance)
    return Corpus(f"{corpus.name}, one in {one_in}", tuple(kept))
