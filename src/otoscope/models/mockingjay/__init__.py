"""Mockingjay, the encoder of Self-Attention on SATs, as a transformers model of its own."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from otoscope.models.mockingjay.configuration import MockingjayConfig as MockingjayConfig
    from otoscope.models.mockingjay.features import MockingjayFeatureExtractor as MockingjayFeatureExtractor
    from otoscope.models.mockingjay.modelling import MockingjayForPreTraining as MockingjayForPreTraining
    from otoscope.models.mockingjay.modelling import MockingjayModel as MockingjayModel

# Each is imported when it is used: transformers' model code takes seconds, which commands without a model need not wait.
_PLACES = {
    "MockingjayConfig": "configuration",
    "MockingjayFeatureExtractor": "features",
    "MockingjayForPreTraining": "modelling",
    "MockingjayModel": "modelling",
}

__all__ = [*_PLACES]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import_module(f"{__name__}.modelling")  # which makes all of them known to transformers' Auto classes
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
