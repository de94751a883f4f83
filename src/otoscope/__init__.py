"""otoscope: look inside models that listen, and make them better.

>>> import otoscope as oto
>>> model = oto.load("embedded")
>>> corpus = oto.read_corpus("embedded")
>>> diagnosis = oto.diagnose(model, corpus, measures=["globalness"])
>>> diagnosis.table.height
32
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from otoscope._version import __version__

if TYPE_CHECKING:
    from otoscope.diagnosis.result import Diagnosis as Diagnosis
    from otoscope.errors import OtoscopeError as OtoscopeError
    from otoscope.models.loading import load as load
    from otoscope.models.model import SpeechModel as SpeechModel
    from otoscope.plans.plan import Plan as Plan
    from otoscope.speech.corpus import Corpus as Corpus
    from otoscope.speech.utterance import Interval as Interval
    from otoscope.speech.utterance import Utterance as Utterance
    from otoscope.workflow import compare as compare
    from otoscope.workflow import diagnose as diagnose
    from otoscope.workflow import evaluate as evaluate
    from otoscope.workflow import federate as federate
    from otoscope.workflow import finetune as finetune
    from otoscope.workflow import prescribe as prescribe
    from otoscope.workflow import pretrain as pretrain
    from otoscope.workflow import read_corpus as read_corpus
    from otoscope.workflow import report as report
    from otoscope.workflow import synthesise as synthesise
    from otoscope.workflow import treat as treat
    from otoscope.workflow import verify as verify
    from otoscope.workflow import view as view

# Where each public name lives; nothing is imported before it is used, so that `import otoscope` is quick.
_PLACES = {
    "Corpus": "otoscope.speech.corpus",
    "Diagnosis": "otoscope.diagnosis.result",
    "Interval": "otoscope.speech.utterance",
    "OtoscopeError": "otoscope.errors",
    "Plan": "otoscope.plans.plan",
    "SpeechModel": "otoscope.models.model",
    "Utterance": "otoscope.speech.utterance",
    "compare": "otoscope.workflow",
    "diagnose": "otoscope.workflow",
    "evaluate": "otoscope.workflow",
    "federate": "otoscope.workflow",
    "finetune": "otoscope.workflow",
    "functional": "",
    "load": "otoscope.workflow",
    "prescribe": "otoscope.workflow",
    "pretrain": "otoscope.workflow",
    "read_corpus": "otoscope.workflow",
    "report": "otoscope.workflow",
    "synthesise": "otoscope.workflow",
    "treat": "otoscope.workflow",
    "verify": "otoscope.workflow",
    "view": "otoscope.workflow",
}

__all__ = [*sorted(_PLACES), "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'otoscope' has no attribute {name!r}")
    if not _PLACES[name]:
        return import_module(f"otoscope.{name}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return __all__
