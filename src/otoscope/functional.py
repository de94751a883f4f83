"""The pure functions, on torch or numpy arrays, batched over leading dimensions."""

from otoscope.measures.blocks.profile import relative_profile
from otoscope.measures.heads.category import categories
from otoscope.measures.heads.diagonality import diagonality
from otoscope.measures.heads.globalness import globalness
from otoscope.measures.heads.information import head_information
from otoscope.measures.heads.verticality import verticality
from otoscope.measures.layers.correlation import canonical_correlations, pwcca
from otoscope.speech.mel import log_mel

__all__ = [
    "canonical_correlations",
    "categories",
    "diagonality",
    "globalness",
    "head_information",
    "log_mel",
    "pwcca",
    "relative_profile",
    "verticality",
]
