"""The verbs: load, read, synthesise, pretrain, finetune, federate, evaluate, diagnose, prescribe, treat, verify, ..."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from otoscope.models.loading import load as load
    from otoscope.workflow.comparing import compare as compare
    from otoscope.workflow.corpora import read_corpus as read_corpus
    from otoscope.workflow.diagnosing import diagnose as diagnose
    from otoscope.workflow.evaluating import evaluate as evaluate
    from otoscope.workflow.federating import federate as federate
    from otoscope.workflow.finetuning import finetune as finetune
    from otoscope.workflow.prescribing import prescribe as prescribe
    from otoscope.workflow.pretraining import pretrain as pretrain
    from otoscope.workflow.reporting import report as report
    from otoscope.workflow.searching import search as search
    from otoscope.workflow.synthesising import synthesise as synthesise
    from otoscope.workflow.treating import treat as treat
    from otoscope.workflow.verifying import verify as verify
    from otoscope.workflow.viewing import view as view

# Module and name of each verb; imported when it is used, since training brings in much that diagnosing does not need.
_PLACES = {
    "compare": ("otoscope.workflow.comparing", "compare"),
    "diagnose": ("otoscope.workflow.diagnosing", "diagnose"),
    "evaluate": ("otoscope.workflow.evaluating", "evaluate"),
    "federate": ("otoscope.workflow.federating", "federate"),
    "finetune": ("otoscope.workflow.finetuning", "finetune"),
    "load": ("otoscope.models.loading", "load"),
    "prescribe": ("otoscope.workflow.prescribing", "prescribe"),
    "pretrain": ("otoscope.workflow.pretraining", "pretrain"),
    "read_corpus": ("otoscope.workflow.corpora", "read_corpus"),
    "report": ("otoscope.workflow.reporting", "report"),
    "search": ("otoscope.workflow.searching", "search"),
    "synthesise": ("otoscope.workflow.synthesising", "synthesise"),
    "treat": ("otoscope.workflow.treating", "treat"),
    "verify": ("otoscope.workflow.verifying", "verify"),
    "view": ("otoscope.workflow.viewing", "view"),
}

__all__ = [*sorted(_PLACES)]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'otoscope.workflow' has no attribute {name!r}")
    module, attribute = _PLACES[name]
    return getattr(import_module(module), attribute)
