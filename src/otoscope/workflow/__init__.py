"""The verbs: load, read, synthesise, pretrain, finetune, evaluate, diagnose, compare, report, view, demo."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from otoscope.models.loading import load as load
    from otoscope.reporting import write_report as report  # noqa: F401
    from otoscope.workflow.comparing import compare as compare
    from otoscope.workflow.corpora import read_corpus as read_corpus
    from otoscope.workflow.diagnosing import diagnose as diagnose
    from otoscope.workflow.evaluating import evaluate as evaluate
    from otoscope.workflow.finetuning import finetune as finetune
    from otoscope.workflow.pretraining import pretrain as pretrain
    from otoscope.workflow.synthesising import synthesise as synthesise
    from otoscope.workflow.viewing import view as view

# Module and name of each verb; imported when it is used, since training brings in much that diagnosing does not need.
_PLACES = {
    "compare": ("otoscope.workflow.comparing", "compare"),
    "diagnose": ("otoscope.workflow.diagnosing", "diagnose"),
    "evaluate": ("otoscope.workflow.evaluating", "evaluate"),
    "finetune": ("otoscope.workflow.finetuning", "finetune"),
    "load": ("otoscope.models.loading", "load"),
    "pretrain": ("otoscope.workflow.pretraining", "pretrain"),
    "read_corpus": ("otoscope.workflow.corpora", "read_corpus"),
    "report": ("otoscope.reporting", "write_report"),
    "synthesise": ("otoscope.workflow.synthesising", "synthesise"),
    "view": ("otoscope.workflow.viewing", "view"),
}

__all__ = [*sorted(_PLACES)]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'otoscope.workflow' has no attribute {name!r}")
    module, attribute = _PLACES[name]
    return getattr(import_module(module), attribute)
