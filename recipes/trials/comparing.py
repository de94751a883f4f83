"""Models of several seeds held against each other, by greedy decoding and with a 4-gram of the training transcripts."""

import json
from collections.abc import Sequence
from pathlib import Path

from otoscope.evaluation import DecoderSettings, tune
from otoscope.evaluation.language import read_language_model
from otoscope.evaluation.outcome import Change, Outcome
from otoscope.models.recogniser import load_recogniser
from otoscope.speech.corpus import Corpus
from otoscope.training.folders import replace_text
from otoscope.workflow.language import estimate_language_model
from otoscope.workflow.verifying import verify
from recipes.trials.speech import Speech, part_of

GREEDY, BEAM = "greedy", "4-gram"
DECODERS = (GREEDY, BEAM)
LETTERS = "characters"  # error rate of characters, greedy: it still tells models apart that get hardly a word right
RATES = {GREEDY: "WER, greedy", BEAM: "WER, 4-gram", LETTERS: "CER, greedy"}


def language_model(train: Corpus, work: Path, given: Path | None) -> Path:
    """The language model that is given, else one of the training transcripts, made once."""
    if given is not None:
        return given
    place = work / "lm.arpa"
    if not place.exists():
        print(estimate_language_model(train, place, 4), flush=True)
    return place


def decoders(model: Path, speech: Speech, lm: Path, place: Path, seconds: float) -> dict[str, DecoderSettings]:
    """Both decoders; the weights of the language model are chosen for one model on part of dev, once.

    Args:
        model: the model that they are chosen for; the others get the same.
        speech: dev to choose on, exam to be kept apart from.
        lm: the language model.
        place: a file that keeps the choice.
        seconds: how much of dev is decoded with every pair of weights.
    """
    if not place.exists():
        dev = part_of(speech.dev, seconds)
        found = tune(load_recogniser(model), dev, read_language_model(lm), exam=speech.exam)
        print(found, flush=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        replace_text(place, json.dumps(found.to_dict(), indent=1) + "\n")
    told = json.loads(place.read_text())
    return {GREEDY: DecoderSettings(), BEAM: DecoderSettings("beam", lm, told["alpha"], told["beta"], told["width"])}


def compared(
    before: Sequence[Path], after: Sequence[Path], exam: Corpus, decoder: DecoderSettings, place: Path
) -> Outcome | None:
    """Models of some seeds against those of the same seeds after a change; kept in a file.

    Args:
        before: folders, one a seed.
        after: the same seeds in the same order; a seed of which a folder is not there is left out on both sides.
        exam: the speech.
        decoder: of both.
        place: of the outcome; the seeds are added to its name.

    Returns:
        None where no seed has both models.
    """
    pairs = [(k, *pair) for k, pair in enumerate(zip(before, after, strict=True)) if all(map(finished, pair))]
    if not pairs:
        return None
    numbers = "-".join(str(k) for k, _, _ in pairs)
    kept = place.with_name(f"{place.name}--{numbers}.json")
    if not kept.exists() or _speech_of(kept) != exam.fingerprint():
        print(f"{kept.stem} ...", flush=True)
        olds, news = [one for _, one, _ in pairs], [one for _, _, one in pairs]
        verify(olds, news, exam, "wer,cer", decoder=decoder, time=False, cost=decoder.kind == GREEDY).save(kept)
    return Outcome.load(kept)


def rates_of(outcome: Outcome, decoder: str) -> dict[str, Change]:
    """The changes of an outcome by keys of `RATES`.

    Args:
        outcome: of `compared`.
        decoder: the name of its decoder.
    """
    found = {decoder: outcome.first}
    if decoder == GREEDY and "cer" in outcome.changes:
        found[LETTERS] = outcome.changes["cer"]
    return found


def _speech_of(place: Path) -> str:
    """The fingerprint of the speech that an outcome is of."""
    return str(Outcome.load(place).provenance["corpus"]["fingerprint"])


def finished(folder: Path) -> bool:
    """Whether a training has put its model in place."""
    return (folder / "config.json").is_file()
