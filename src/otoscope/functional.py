"""The pure functions, on torch or numpy arrays; each says which are batched over leading dimensions."""

from otoscope.interventions.mixing.rollout import rollout
from otoscope.measures.blocks.deviation import jensen_shannon, neighbour_deviation, trend_residual
from otoscope.measures.blocks.influence import angular_distance, block_influence
from otoscope.measures.blocks.position import position_profile
from otoscope.measures.blocks.profile import relative_profile
from otoscope.measures.blocks.summary import block_summary
from otoscope.measures.heads.category import head_categories, head_ranks
from otoscope.measures.heads.diagonality import centrality, cumulative_diagonality, diagonality, mean_offset
from otoscope.measures.heads.globalness import globalness
from otoscope.measures.heads.information import head_information
from otoscope.measures.heads.kernel_gram import kernel_gram_boundaries, kernel_gram_curve
from otoscope.measures.heads.peak import profile_peak
from otoscope.measures.heads.relation import concentration, relation_map, relative_relation
from otoscope.measures.heads.sharpness import confidence, max_weight
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
    "angular_distance",
    "angular_shape_distance",
    "average_precision",
    "block_influence",
    "block_summary",
    "boundary_scores",
    "canonical_correlations",
    "centrality",
    "cluster_purity",
    "concentration",
    "confidence",
    "cumulative_diagonality",
    "diagonality",
    "dtw",
    "globalness",
    "head_categories",
    "head_information",
    "head_ranks",
    "jensen_shannon",
    "kernel_gram_boundaries",
    "kernel_gram_curve",
    "linear_cka",
    "linear_probe",
    "log_mel",
    "max_weight",
    "mean_cca",
    "mean_offset",
    "mlp_probe",
    "mutual_information",
    "neighbour_deviation",
    "online_codelength",
    "position_profile",
    "procrustes",
    "profile_peak",
    "pwcca",
    "relation_map",
    "relative_profile",
    "relative_relation",
    "rollout",
    "svcca",
    "trend_residual",
    "verticality",
    "weighted_layers",
]
