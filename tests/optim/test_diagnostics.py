import pytest
import torch

from everlearn.optim import UPGD, UPGDW, AdaptiveUPGD
from everlearn.optim.utility_optimizer import UtilityOptimizer
from everlearn.testing.optimizers import held, random_gradients, random_parameters, take_step
from tests.optim.gating import UNIT_STEP, at_zero, taken

FAMILY = [UPGD, AdaptiveUPGD, UPGDW]


def test_nothing_is_told_before_the_first_step():
    assert UPGD(random_parameters((2,))).diagnostics() == {}


@pytest.mark.parametrize("preset", [None, "paper"])
def test_protected_and_refreshed_are_shares_of_weights_whatever_the_step_multiplier(preset):
    """Multipliers of the base step of 0.54, 0.89, 0.91, 1, 1.095 and 1.105."""
    optimizer = UPGD(at_zero((6,)), preset=preset, beta_utility=0.5, **UNIT_STEP)
    taken(optimizer, [20.0, 4.5, 3.6, 0.0, -3.8, -4.2])
    told = optimizer.diagnostics()
    assert told["eta"].item() == pytest.approx(10.0)
    assert told["protected"].item() == pytest.approx(2 / 6)
    assert told["refreshed"].item() == pytest.approx(1 / 6)


def test_every_label_has_numbers_of_its_own():
    groups = [{"params": at_zero((2,)), "label": label} for label in ("actor", "critic", "actor")]
    optimizer = UPGD(groups, scope="group", beta_utility=0.5, **UNIT_STEP)
    taken(optimizer, [4.0, 0.0], [0.0, 0.0], [8.0, 0.0])
    told = {name: value.item() for name, value in optimizer.diagnostics().items()}
    assert told == pytest.approx(
        {
            "actor/eta": 4.0,
            "actor/protected": 0.5,
            "actor/refreshed": 0.0,
            "critic/eta": 0.0,
            "critic/protected": 0.0,
            "critic/refreshed": 0.0,
        }
    )


def test_what_is_off_is_not_told():
    optimizer = UPGD(random_parameters((2,)), scope="none", sigma=0.0)
    take_step(optimizer, random_gradients(held(optimizer), 0))
    assert optimizer.diagnostics() == {}


def noise_after(
    kind: type[UtilityOptimizer], scale: float = 1.0, factors: tuple[float, ...] = (), **options
) -> tuple[float, float]:
    """Noise and its ratio to the update after five steps with scaled gradients; factors act on the last."""
    optimizer = kind(random_parameters((30, 20), (7,), (200, 200)), sigma=0.1, **options)
    for seed in range(5):
        gradients = [scale * gradient for gradient in random_gradients(held(optimizer), seed)]
        if factors and seed == 4:
            if optimizer.factor_acts_on == "gradient":
                gradients = [factor * gradient for factor, gradient in zip(factors, gradients, strict=True)]
            optimizer.scale_next_step(held(optimizer), torch.tensor(factors))
        take_step(optimizer, gradients)
    told = optimizer.diagnostics()
    return told["noise_std"].item(), told["noise_to_update"].item()


@pytest.mark.parametrize("kind", FAMILY)
@pytest.mark.parametrize("scale", [1e-2, 1e3])
def test_b14_scaled_gradients_leave_the_ratio_of_adaptive_noise_to_update(kind, scale):
    """B14."""
    _, expected = noise_after(kind, adaptive_noise=True)
    assert 0.09 < expected < 0.15
    assert noise_after(kind, scale=scale, adaptive_noise=True)[1] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", FAMILY)
def test_b14_factors_of_a_gradient_scaler_leave_the_ratio_of_adaptive_noise_to_update(kind):
    """B14: also where every parameter has another one."""
    std, ratio = noise_after(kind, adaptive_noise=True)
    halved = noise_after(kind, factors=(0.5, 0.5, 0.5), adaptive_noise=True)
    assert halved == pytest.approx((std / 2, ratio), rel=1e-5)
    assert noise_after(kind, factors=(0.1, 1.0, 0.6), adaptive_noise=True)[1] == pytest.approx(ratio, rel=0.02)


def test_b14_the_floor_ends_the_proportion():
    """B14: down to ``min_noise_std``."""
    std, ratio = noise_after(UPGD, scale=1e-6, adaptive_noise=True, min_noise_std=1e-3)
    assert std == pytest.approx(1e-3, rel=1e-5)
    assert ratio > 100


@pytest.mark.parametrize("kind", FAMILY)
def test_b14_without_adaptive_noise_the_noise_is_fixed(kind):
    """B14."""
    for scale, factors in ((1.0, ()), (1e-2, ()), (1.0, (0.5, 0.2, 1.0))):
        assert noise_after(kind, scale=scale, factors=factors)[0] == pytest.approx(0.1, rel=1e-5)
    assert noise_after(UPGD, scale=0.1)[1] == pytest.approx(10 * noise_after(UPGD)[1], rel=1e-4)
