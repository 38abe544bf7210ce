import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from everlearn.gradients import VarianceGradientScaler
from everlearn.gradients.functional import FunctionalScaler
from tests.gradients.feeding import feed, parameters_of, random_steps

NAMES, SHAPES = ("weight", "bias"), ((4, 3), (5,))
ACTIVE = torch.tensor(True)


def new_scaler(**options) -> VarianceGradientScaler:
    named = zip(NAMES, parameters_of(*SHAPES), strict=True)
    return VarianceGradientScaler(named, **{"warmup_steps": 3, "alpha": 0.5, **options})


def named(gradients: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    return dict(zip(NAMES, gradients, strict=True))


def step_of(functional: FunctionalScaler):
    def step(state, hyper, grads, active):
        gradient = functional.gather(grads)
        factors = functional.factors(state, hyper, gradient)
        functional.observe_(state, hyper, gradient, active)
        return dict(zip(functional.names, factors, strict=True))

    return step


def assert_same_state(one: VarianceGradientScaler, other: VarianceGradientScaler) -> None:
    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], tensor, rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.parametrize("options", [{}, {"scope": "global"}, {"mode": "relative"}])
def test_a_traced_scaler_equals_the_eager_one_over_30_steps(options):
    eager, shell = new_scaler(**options), new_scaler(**options)
    functional = FunctionalScaler(shell)
    example = {name: tensor.clone() for name, tensor in functional.state().items()}
    traced = make_fx(step_of(functional))(example, functional.hyper(), named(random_steps(1, *SHAPES)[0]), ACTIVE)
    for number, gradients in enumerate(random_steps(30, *SHAPES, mean=0.2)):
        eager.beta = shell.beta = 0.9 if number < 15 else 0.99
        if number == 20:
            gradients[0][0, 0] = torch.nan
        expected = eager.get_scaling_factors() if number != 20 else dict.fromkeys(NAMES, 1.0)
        found = traced(functional.state(), functional.hyper(), named(gradients), ACTIVE)
        assert {name: factor.item() for name, factor in found.items()} == pytest.approx(expected, rel=1e-5)
        feed(eager, [gradients])
        assert_same_state(eager, shell)
    assert (shell.step_count, shell.skipped_steps) == (29, 1)


def test_an_inactive_step_leaves_every_bit_as_it_was():
    scaler = new_scaler()
    feed(scaler, random_steps(10, *SHAPES))
    before, functional = scaler.state_dict(), FunctionalScaler(scaler)
    for gradients in (*random_steps(1, *SHAPES), [torch.full(shape, torch.nan) for shape in SHAPES]):
        gradient = functional.gather(named(gradients))
        functional.observe_(functional.state(), functional.hyper(), gradient, ~ACTIVE)
    assert all(torch.equal(tensor, before[name]) for name, tensor in scaler.state_dict().items())
