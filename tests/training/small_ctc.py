"""CTC trainings of a second or two: a tiny HuBERT, bare or treated, and tones that spell."""

from collections.abc import Sequence
from dataclasses import replace

from transformers import HubertModel

from otoscope.models.loading import load
from otoscope.models.model import SpeechModel
from otoscope.models.recogniser import Recogniser
from otoscope.models.vocabulary import Vocabulary
from otoscope.training.architectures import make_config, seeded
from otoscope.training.ctc import Ctc, CtcSettings
from otoscope.training.ctc_head import with_ctc_head
from otoscope.treatments import Treatment, treated
from tests.training.small_training import TINY, settings, spelt_speech

SPEECH = spelt_speech()
TRAIN, HELD = SPEECH.utterances[:9], SPEECH.utterances[9:]
VOCABULARY = Vocabulary(("<pad>", "|", "a", "b", "c", "d"), 0)
QUICK = settings(steps=6, save_every=2, evaluate_every=2)


def tiny_encoder(layers: int = 2) -> SpeechModel:
    """A HuBERT with random weights, the same ones every time."""
    return load(seeded(0, lambda: HubertModel(make_config("hubert", replace(TINY, layers=layers)))), name="tiny")


def tiny_ctc(given: CtcSettings | None = None, treatments: Sequence[Treatment] = (), layers: int = 2) -> Ctc:
    """An objective over a fresh head on the tiny encoder."""
    ready = treated(tiny_encoder(layers), treatments)
    made = with_ctc_head(ready, VOCABULARY, 0)
    return Ctc(Recogniser(SpeechModel(made, ready.family, ready.frontend, "tiny"), VOCABULARY), given)
