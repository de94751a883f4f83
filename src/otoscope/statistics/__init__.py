"""States that merge, partitions and intervals; knows neither speech nor models."""

from otoscope.statistics.class_moments import ClassMoments
from otoscope.statistics.hashing import uniform
from otoscope.statistics.intervals import corrected_t, jackknife, ratio_jackknife
from otoscope.statistics.moments import Moments, Scatter, Workspace
from otoscope.statistics.partition import Folds, groups, partition, stratified

__all__ = [
    "ClassMoments",
    "Folds",
    "Moments",
    "Scatter",
    "Workspace",
    "corrected_t",
    "groups",
    "jackknife",
    "partition",
    "ratio_jackknife",
    "stratified",
    "uniform",
]
