"""What the functions of two views refuse before they count."""

import numpy as np
import pytest
import torch

from otoscope.errors import MeasureError
from otoscope.functional import angular_shape_distance, linear_cka, mean_cca, procrustes, pwcca, svcca

FUNCTIONS = (mean_cca, svcca, pwcca, linear_cka, procrustes, angular_shape_distance)


def views() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 4))
    return x, x[:, :3] + rng.standard_normal((40, 3))


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("size", [1e200, 1e-200])
def test_values_whose_squares_leave_the_range_are_refused(function, size):
    x, y = views()
    with pytest.raises(MeasureError, match=r"Values of up to \de[+-]200 in views of shape"):
        function(size * x, y)
    with pytest.raises(MeasureError, match="leave the range of numbers"):
        function(torch.from_numpy(x), torch.from_numpy(size * y))


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("size", [1e70, 1e-70])
def test_a_common_scale_does_not_matter_within_the_range(function, size):
    x, y = views()
    assert function(size * x, y) == pytest.approx(function(x, y), rel=1e-10)
    assert function(x, size * y) == pytest.approx(function(x, y), rel=1e-10)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_complex_values_are_refused(function):
    x, y = views()
    with pytest.raises(MeasureError, match="complex128 and float64 are not all real"):
        function(x + 1j, y)
