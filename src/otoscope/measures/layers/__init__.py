"""What one pass observes about layers."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from otoscope.measures.layers.cca import CCA as CCA
    from otoscope.measures.layers.correlation import canonical_correlations as canonical_correlations
    from otoscope.measures.layers.correlation import pwcca as pwcca
    from otoscope.measures.layers.pooling import mel_transform as mel_transform
    from otoscope.measures.layers.pooling import pool_to_mel as pool_to_mel
    from otoscope.measures.layers.ridge import pwcca_from_moments as pwcca_from_moments

# Where each name lives; imported when it is used, since how rows are dealt into folds can be told without torch.
_PLACES = {
    "CCA": "otoscope.measures.layers.cca",
    "canonical_correlations": "otoscope.measures.layers.correlation",
    "mel_transform": "otoscope.measures.layers.pooling",
    "pool_to_mel": "otoscope.measures.layers.pooling",
    "pwcca": "otoscope.measures.layers.correlation",
    "pwcca_from_moments": "otoscope.measures.layers.ridge",
}

__all__ = [*sorted(_PLACES)]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'otoscope.measures.layers' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
