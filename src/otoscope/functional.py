"""The pure functions, on torch or numpy arrays; each says which are batched over leading dimensions."""

from otoscope.measures.blocks.profile import relative_profile
from otoscope.measures.heads.category import categories
from otoscope.measures.heads.diagonality import diagonality
from otoscope.measures.heads.globalness import globalness
from otoscope.measures.heads.information import head_information
from otoscope.measures.heads.verticality import verticality
from otoscope.measures.layers.abx import abx_error
from otoscope.measures.layers.boundaries import boundary_scores
from otoscope.measures.layers.codelength import online_codelength
from otoscope.measures.layers.correlation import canonical_correlations, mean_cca, pwcca, svcca
from otoscope.measures.layers.discrimination import average_precision
from otoscope.measures.layers.dtw import dtw
from otoscope.measures.layers.geometry import angular_shape_distance, linear_cka, procrustes
from otoscope.measures.layers.information import adjusted_mutual_information, cluster_purity, mutual_information
from otoscope.measures.layers.probes import linear_probe, mlp_probe
from otoscope.measures.layers.weighted import weighted_layers
from otoscope.speech.mel import log_mel

__all__ = [
    "abx_error",
    "adjusted_mutual_information",
    "angular_shape_distance",
    "average_precision",
    "boundary_scores",
    "canonical_correlations",
    "categories",
    "cluster_purity",
    "diagonality",
    "dtw",
    "globalness",
    "head_information",
    "linear_cka",
    "linear_probe",
    "log_mel",
    "mean_cca",
    "mlp_probe",
    "mutual_information",
    "online_codelength",
    "procrustes",
    "pwcca",
    "relative_profile",
    "svcca",
    "verticality",
    "weighted_layers",
]
