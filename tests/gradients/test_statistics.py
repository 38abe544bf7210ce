import pytest
import torch
from torch import Tensor
from torch.func import vmap
from torch.fx.experimental.proxy_tensor import make_fx

from everlearn.gradients.statistics import (
    advance_weights_,
    half_batch_noise_and_signal,
    is_measured,
    largest_norm,
    magnitudes,
    move_averages_,
    noise_and_signal,
    noise_to_signal,
    observe_,
    sums,
    sums_of_squares,
    unresolved_signal,
)
from tests.reference import variance_scaling as reference


class Statistics:
    """The statistics of one tensor, as an eager user of the rules would keep them."""

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> None:
        self.mean, self.ss = torch.zeros(shape, dtype=dtype), torch.zeros(shape, dtype=dtype)
        self.c, self.q = torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)

    def observe(self, gradient: Tensor, beta: float = 0.99) -> None:
        advance_weights_(self.c, self.q, beta)
        observe_(self.mean, self.ss, gradient, (1 - beta) / self.c, 1 - beta, beta)

    def noise_and_signal(self) -> tuple[float, float]:
        noise, signal = noise_and_signal(sums([self.ss]), sums_of_squares([self.mean]), self.c, self.q)
        return noise.item(), signal.item()

    def ratio(self) -> float:
        noise, signal = (torch.tensor(value) for value in self.noise_and_signal())
        return noise_to_signal(noise, signal, 1e-8).item()


def test_two_gradients_give_the_variance_of_two_numbers():
    statistics = Statistics((1,))
    statistics.observe(torch.tensor([1.0]), beta=0.5)
    assert not is_measured(statistics.c, statistics.q)
    assert statistics.noise_and_signal() == (0.0, 0.0)
    statistics.observe(torch.tensor([3.0]), beta=0.5)
    assert is_measured(statistics.c, statistics.q)
    # weights 1/4 and 1/2: mean 7/3, unbiased variance 2, squared mean 49/9 less 5/9 of the variance
    assert statistics.noise_and_signal() == pytest.approx((2.0, 13 / 3), rel=1e-6)


def test_the_incremental_statistic_equals_explicit_weights_over_100_steps_while_beta_changes():
    statistics = Statistics((2, 3), dtype=torch.float64)
    gradients, betas = [], []
    for step in range(100):
        gradient = 0.3 + torch.randn(2, 3, dtype=torch.float64)
        gradients.append(gradient.flatten().tolist())
        betas.append(0.9 if step < 30 else 0.99 if step < 70 else 0.5)
        statistics.observe(gradient, betas[-1])
        if step > 0:
            assert statistics.noise_and_signal() == pytest.approx(
                reference.noise_and_signal(gradients, betas), rel=1e-9, abs=1e-12
            )


@pytest.mark.parametrize("steps", [2, 5, 200])
def test_noise_and_signal_are_unbiased_on_gaussian_gradients(steps):
    elements = 40_000
    statistics = Statistics((elements,))
    for _ in range(steps):
        statistics.observe(0.5 + torch.randn(elements), beta=0.95)
    noise, signal = statistics.noise_and_signal()
    assert noise / elements == pytest.approx(1.0, rel=0.03)
    assert signal / elements == pytest.approx(0.25, rel=0.06)


def test_b19_a_constant_gradient_has_noise_exactly_zero_whatever_its_pattern_in_space():
    gradient = torch.randn(64, 64) * torch.logspace(-6, 6, 64)
    statistics = Statistics((64, 64))
    for step in range(300):
        statistics.observe(gradient, beta=0.99 if step % 2 else 0.7)
    noise, signal = statistics.noise_and_signal()
    assert noise == 0.0
    assert signal == pytest.approx(gradient.double().square().sum().item(), rel=1e-12)


@pytest.mark.parametrize("scale", [2.0**-20, 2.0**-3, 2.0**17])
def test_b19_the_ratio_is_bit_for_bit_invariant_to_the_scale_of_gradients(scale):
    plain, scaled = Statistics((5, 7)), Statistics((5, 7))
    for _ in range(50):
        gradient = 0.1 + torch.randn(5, 7)
        plain.observe(gradient)
        scaled.observe(scale * gradient)
    assert plain.ratio() == scaled.ratio() > 0


def test_b19_the_ratio_does_not_depend_on_the_size_of_the_tensor():
    small, large = Statistics((8,), torch.float64), Statistics((512, 8), torch.float64)
    for _ in range(50):
        gradient = 0.5 + torch.randn(8, dtype=torch.float64)
        small.observe(gradient)
        large.observe(gradient.expand(512, 8))
    assert large.ratio() == pytest.approx(small.ratio(), rel=1e-9)


def test_a_decay_of_one_changes_nothing_bit_for_bit():
    statistics = Statistics((4,))
    for _ in range(5):
        statistics.observe(torch.randn(4))
    before = [tensor.clone() for tensor in vars(statistics).values()]
    advance_weights_(statistics.c, statistics.q, 1.0)
    observe_(statistics.mean, statistics.ss, torch.randn(4), 0.0, 0.0, 1.0)
    assert all(map(torch.equal, before, vars(statistics).values()))


def test_the_largest_norm_keeps_the_statistics_finite():
    statistics = Statistics((1,))
    for sign in (1, -1, 1, -1):
        statistics.observe(torch.tensor([sign * largest_norm(torch.float32)]))
    noise, _ = statistics.noise_and_signal()
    assert 0 < noise < float("inf")
    assert torch.tensor(1.99 * largest_norm(torch.float32)).square().isfinite()
    assert torch.tensor(2.01 * largest_norm(torch.float32)).square().isinf(), "it is the largest"


@pytest.mark.parametrize(
    ("noise", "signal", "ratio"),
    [
        (2.0, 4.0, 0.5),
        (0.0, 4.0, 0.0),
        (0.0, 0.0, 0.0),
        (3.0, 0.0, 1e6),
        (3.0, -5.0, 1e6),
        (1e-30, 2e-30, 0.5),
    ],
)
def test_noise_to_signal_is_defined_for_every_noise_and_signal(noise, signal, ratio):
    found = noise_to_signal(torch.tensor([noise]), torch.tensor([signal]), 1e-6)
    assert found.item() == pytest.approx(ratio, rel=1e-6)


def test_half_batches_give_noise_and_signal_of_their_mean():
    noise, signal = half_batch_noise_and_signal(torch.tensor([3.0, 1.0]), torch.tensor([1.0, 1.0]))
    assert (noise.item(), signal.item()) == (1.0, 4.0)


def test_half_batches_are_unbiased():
    halves = 0.5 + torch.randn(2, 100_000)  # each half has variance 1, their mean 1/2
    noise, signal = half_batch_noise_and_signal(*halves)
    assert noise.item() / 100_000 == pytest.approx(0.5, rel=0.03)
    assert signal.item() / 100_000 == pytest.approx(0.25, rel=0.06)


def test_sums_are_taken_per_tensor_in_double_precision():
    large = torch.full((100_001,), 0.1)
    expected = [large[0].double().item() * 100_001, 6.0]
    assert sums([large, torch.tensor([[1.0, 5.0]])]).tolist() == pytest.approx(expected, rel=1e-12)
    expected = [large[0].double().item() ** 2 * 100_001, 26.0]
    assert sums_of_squares([large, torch.tensor([[1.0, 5.0]])]).tolist() == pytest.approx(expected, rel=1e-12)


def test_magnitudes_are_those_of_all_gradients_together():
    mean_absolute, norm = magnitudes([torch.tensor([[3.0, -4.0]]), torch.tensor(12.0)], 4)
    assert (mean_absolute.item(), norm.item()) == (4.75, 13.0)


def test_a_running_average_of_a_constant_is_that_constant_from_the_first_step():
    average, weight = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for beta in (0.99, 0.9, 0.99):
        move_averages_([average], weight, [torch.tensor(3.5)], beta)
        assert average.item() == 3.5
    move_averages_([average], weight, [torch.tensor(0.0)], 0.5)
    assert 0 < average.item() < 3.5 / 2 + weight.item()


def test_a_running_average_follows_the_weights_of_its_observations():
    averages, weight = [torch.zeros(()), torch.zeros(2)], torch.zeros(())
    move_averages_(averages, weight, [torch.tensor(1.0), torch.tensor([1.0, 4.0])], 0.5)
    move_averages_(averages, weight, [torch.tensor(4.0), torch.tensor([1.0, 1.0])], 0.5)
    assert weight.item() == 0.75
    assert averages[0].item() == pytest.approx(3.0), "two thirds of the newer, a third of the older"
    assert averages[1].tolist() == pytest.approx([1.0, 2.0])
    with pytest.raises(ValueError, match="shorter"):
        move_averages_(averages, weight, [torch.tensor(1.0)], 0.5)


def one_step(mean: Tensor, ss: Tensor, c: Tensor, q: Tensor, gradient: Tensor, beta: Tensor) -> Tensor:
    advance_weights_(c, q, beta)
    observe_(mean, ss, gradient, (1 - beta) / c[0], 1 - beta, beta)
    noise, signal = noise_and_signal(sums([ss]), sums_of_squares([mean]), c, q)
    return noise_to_signal(noise, signal, 1e-8)


def state_of(*lead: int) -> list[Tensor]:
    weights = [torch.zeros(*lead, 1, dtype=torch.float64) for _ in range(2)]
    return [torch.zeros(*lead, 3, 2), torch.zeros(*lead, 3, 2), *weights]


def test_a_traced_observation_equals_an_eager_one_on_other_data():
    beta = torch.tensor(0.9, dtype=torch.float64)
    traced = make_fx(one_step)(*state_of(), torch.ones(3, 2), beta)
    graph_state, eager_state = state_of(), state_of()
    for _ in range(10):
        gradient = torch.randn(3, 2)
        assert torch.equal(traced(*graph_state, gradient, beta), one_step(*eager_state, gradient, beta))
    assert all(map(torch.equal, graph_state, eager_state))


def test_members_of_a_population_are_observed_as_if_alone():
    betas = torch.tensor([0.5, 0.9, 0.99], dtype=torch.float64)
    together, alone = state_of(3), [state_of() for _ in range(3)]
    for _ in range(10):
        gradients = torch.randn(3, 3, 2)
        stacked = vmap(one_step)(*together, gradients, betas)
        single = [one_step(*state, g, b) for state, g, b in zip(alone, gradients, betas, strict=True)]
        torch.testing.assert_close(stacked, torch.stack(single), rtol=1e-5, atol=0.0)


def test_pure_noise_feigns_the_unresolved_signal_on_average():
    generator = torch.Generator().manual_seed(0)
    mean, ss = torch.zeros(20_000, dtype=torch.float64), torch.zeros(20_000, dtype=torch.float64)
    c, q = torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    for _ in range(60):
        advance_weights_(c, q, 0.9)
        gradient = torch.randn(20_000, generator=generator, dtype=torch.float64)
        observe_(mean, ss, gradient, 0.1 / c, 0.1, 0.9)
    feigned = unresolved_signal(torch.tensor([20_000.0], dtype=torch.float64), c, q)
    assert mean.square().sum().item() == pytest.approx(feigned.item(), rel=0.05)


def test_nothing_is_unresolved_before_the_first_gradient():
    assert unresolved_signal(torch.tensor([0.0, 8.0]), torch.zeros(2), torch.zeros(2)).tolist() == [0.0, 0.0]


def test_the_unresolved_signal_is_the_noise_times_the_share_that_a_mean_keeps_of_it():
    found = unresolved_signal(torch.tensor([8.0, 8.0]), torch.tensor([0.5, 2.0]), torch.tensor([0.25, 1.0]))
    assert found.tolist() == [8.0, 2.0]
