import math

import numpy as np
import pytest

from everlearn.population.gaussian_process import Kernel, Posterior, likeliest, standardised


def posterior(kernel: Kernel, points, times, values) -> Posterior:
    return Posterior(kernel, np.array(points, float).reshape(len(values), -1), np.array(times, float), np.array(values))


def test_the_kernel_falls_with_distance_and_with_time() -> None:
    kernel = Kernel(length=2.0, forgetting=0.19)
    points, times = np.array([[0.0, 0.0], [2.0, 0.0]]), np.array([0.0, 2.0])
    found = kernel(points, times, points, times)
    between = math.exp(-0.5) * 0.81
    assert found.ravel().tolist() == pytest.approx([1.0, between, between, 1.0])


def test_one_observation_by_hand() -> None:
    """k = exp(-1/2) * 0.81^(1/2) = 0.9 exp(-1/2), K + noise = 1.25: mean = 2 k / 1.25, variance = 1 - k^2 / 1.25."""
    one = posterior(Kernel(length=1.0, forgetting=0.19, noise=0.25), [[0.0]], [0.0], [2.0])
    k = 0.9 * math.exp(-0.5)
    assert one.mean(np.array([[1.0]]), 1.0).tolist() == pytest.approx([2 * k / 1.25])
    assert one.deviation(np.array([[1.0]]), 1.0).tolist() == pytest.approx([math.sqrt(1 - k * k / 1.25)])
    assert one.log_likelihood() == pytest.approx(-0.5 * 4 / 1.25 - 0.5 * math.log(1.25) - 0.5 * math.log(2 * math.pi))


def test_two_observations_by_hand() -> None:
    """K = [[1.5, c], [c, 1.5]] with c = exp(-2); at the first point k = (1, c)."""
    two = posterior(Kernel(length=1.0, forgetting=0.0, noise=0.5), [[0.0], [2.0]], [0.0, 0.0], [1.0, -1.0])
    c = math.exp(-2)
    determinant = 1.5**2 - c**2
    mean = ((1.5 - c * c) - (1.5 * c - c)) / determinant
    variance = 1 - (1.5 - 2 * c * c + 1.5 * c * c) / determinant
    data = ((1.5 + c) * 2) / determinant  # (1, -1) K^-1 (1, -1)
    likelihood = -0.5 * data - 0.5 * math.log(determinant) - math.log(2 * math.pi)
    assert two.log_likelihood() == pytest.approx(likelihood, rel=1e-9)
    assert two.mean(np.array([[0.0]]), 0.0).tolist() == pytest.approx([mean], rel=1e-9)
    assert two.deviation(np.array([[0.0]]), 0.0).tolist() == pytest.approx([math.sqrt(variance)], rel=1e-9)


def test_without_observations_nothing_is_known() -> None:
    nothing = Posterior(Kernel(), np.empty((0, 2)), np.empty(0), np.empty(0))
    assert nothing.mean(np.zeros((3, 2)), 0.0).tolist() == [0.0] * 3
    assert nothing.deviation(np.zeros((3, 2)), 0.0).tolist() == [1.0] * 3


def test_old_observations_count_less() -> None:
    one = posterior(Kernel(forgetting=0.5), [[0.0]], [0.0], [1.0])
    means = [float(one.mean(np.array([[0.0]]), time)[0]) for time in (0.0, 2.0, 4.0)]
    assert means == pytest.approx([means[0], means[0] / 2, means[0] / 4])


def test_the_likeliest_kernel_knows_how_smooth_the_function_is() -> None:
    points = np.linspace(0, 1, 30)[:, None]
    kernels = (Kernel(length=0.05, noise=0.01), Kernel(length=0.5, noise=0.01))
    smooth, rough = np.sin(3 * points[:, 0]), np.sin(60 * points[:, 0])
    assert likeliest(kernels, points, np.zeros(30), standardised(smooth)).length == 0.5
    assert likeliest(kernels, points, np.zeros(30), standardised(rough)).length == 0.05


def test_the_default_kernel() -> None:
    assert Kernel() == Kernel(length=0.5, forgetting=0.1, noise=0.1)


def test_standardised() -> None:
    assert standardised(np.array([0.0, 4.0])).tolist() == [-1.0, 1.0]
    assert standardised(np.array([2.0, 2.0])).tolist() == [0.0, 0.0]
    assert standardised(np.array([])).tolist() == []
