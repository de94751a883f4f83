"""What one pass observes about layers."""

from otoscope.measures.layers.cca import CCA
from otoscope.measures.layers.correlation import canonical_correlations, pwcca
from otoscope.measures.layers.pooling import mel_transform, pool_to_mel
from otoscope.measures.layers.ridge import pwcca_from_moments

__all__ = [
    "CCA",
    "canonical_correlations",
    "mel_transform",
    "pool_to_mel",
    "pwcca",
    "pwcca_from_moments",
]
