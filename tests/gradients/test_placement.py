import copy
import gc
from typing import Literal

import pytest
import torch
from torch import Tensor

from everlearn.core.errors import ArgumentError
from everlearn.gradients import VarianceGradientScaler
from everlearn.gradients.placement import LINEAR_OPTIMIZERS, OnGradient, OnStep, placement_for, require_holds
from everlearn.optim import UPGDW, AdaptiveUPGD
from tests.gradients.feeding import feed, give, parameters_of, random_steps

FOREIGN_ADAPTIVE = [torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop, torch.optim.Adagrad]


class Taker(torch.optim.SGD):
    """An optimizer that applies factors itself."""

    def __init__(self, parameters: list[Tensor], factor_acts_on: Literal["step", "gradient"]) -> None:
        super().__init__(parameters, lr=0.1)
        self.factor_acts_on = factor_acts_on
        self.taken: list[tuple[list[Tensor], list[float]]] = []

    def scale_next_step(self, parameters: list[Tensor], factors: Tensor) -> None:
        self.taken.append((list(parameters), factors.tolist()))


def measured_scaler(parameters: list[Tensor]) -> VarianceGradientScaler:
    """The first parameter's gradients are noise, the second's never change."""
    scaler = VarianceGradientScaler(parameters, warmup_steps=5)
    noisy, quiet = (parameter.shape for parameter in parameters)
    feed(scaler, [[torch.randn(noisy), torch.ones(quiet)] for _ in range(10)])
    noisy_factor, quiet_factor = scaler.factors().tolist()
    assert noisy_factor < 0.9
    assert quiet_factor == 1.0
    return scaler


def one_update(
    scaler: VarianceGradientScaler | None, optimizer: torch.optim.Optimizer, gradients: list[Tensor]
) -> None:
    give(optimizer.param_groups[0]["params"], gradients)
    if scaler is not None:
        scaler.scale_gradients()
    optimizer.step()
    if scaler is not None:
        scaler.step()


def test_alone_the_scaler_multiplies_gradients():
    parameters = parameters_of((4, 3), (5,))
    scaler = measured_scaler(parameters)
    (factor, _) = scaler.factors().tolist()
    gradients = [torch.randn(4, 3), torch.ones(5)]
    give(parameters, gradients)
    scaler.scale_gradients()
    assert torch.equal(parameters[0].grad, gradients[0] * factor)
    assert torch.equal(parameters[1].grad, gradients[1])


@pytest.mark.parametrize("optimizer_class", LINEAR_OPTIMIZERS)
def test_the_gradient_is_scaled_for_optimizers_that_are_linear_in_it(optimizer_class):
    parameters = parameters_of((4, 3), (5,))
    scaler = measured_scaler(parameters)
    scaler.attach(optimizer_class(parameters, lr=0.1))
    factor = scaler.factors()[0].item()
    give(parameters, [torch.full((4, 3), 2.0), torch.ones(5)])
    scaler.scale_gradients()
    assert torch.equal(parameters[0].grad, torch.full((4, 3), 2.0) * factor)


@pytest.mark.parametrize("optimizer_class", FOREIGN_ADAPTIVE)
def test_a_foreign_adaptive_optimizer_takes_a_shorter_step_of_the_same_direction(optimizer_class):
    plain, scaled = parameters_of((4, 3), (500,)), parameters_of((4, 3), (500,))
    starts = [torch.randn(4, 3), torch.randn(500)]
    scaler = measured_scaler(scaled)
    with torch.no_grad():
        for parameter, start in zip([*plain, *scaled], 2 * starts, strict=True):
            parameter.copy_(start)
    plain_optimizer, scaled_optimizer = (optimizer_class(p, lr=0.1, weight_decay=0.01) for p in (plain, scaled))
    scaler.attach(scaled_optimizer)
    factor = scaler.factors()[0].item()
    gradients = [torch.randn(4, 3), torch.ones(500)]
    one_update(None, plain_optimizer, gradients)
    one_update(scaler, scaled_optimizer, gradients)
    expected = starts[0] + factor * (plain[0].detach() - starts[0])
    torch.testing.assert_close(scaled[0].detach(), expected)
    assert torch.equal(scaled[1], plain[1])
    assert torch.equal(scaled[0].grad, gradients[0])


def test_the_shortened_step_starts_where_the_parameter_was():
    parameters = parameters_of((1,), (1,))
    scaler = measured_scaler(parameters)
    with torch.no_grad():
        parameters[0].fill_(7.0)
    scaler.attach(torch.optim.Adam(parameters, lr=1.0))
    factor = scaler.factors()[0].item()
    one_update(scaler, scaler._placement.optimizer, [torch.ones(1), torch.ones(1)])
    assert parameters[0].item() == pytest.approx(7.0 - factor, rel=1e-6)


def test_the_factor_of_a_step_is_used_once():
    parameters = parameters_of((1,), (1,))
    scaler = measured_scaler(parameters)
    optimizer = torch.optim.Adam(parameters, lr=1.0)
    scaler.attach(optimizer)
    one_update(scaler, optimizer, [torch.ones(1), torch.ones(1)])
    before = parameters[0].item()
    optimizer.step()
    assert parameters[0].item() == pytest.approx(before - 1.0, rel=1e-6)


def test_factors_of_a_step_that_was_never_taken_are_replaced():
    parameters = parameters_of((1,), (1,))
    scaler = measured_scaler(parameters)
    optimizer = torch.optim.Adam(parameters, lr=1.0)
    scaler.attach(optimizer)
    give(parameters, [torch.ones(1), torch.ones(1)])
    scaler.scale_gradients()
    scaler.step()
    scaler.alpha = 0.0
    one_update(scaler, optimizer, [torch.ones(1), torch.ones(1)])
    assert parameters[0].item() == pytest.approx(-1.0, rel=1e-6)


def test_an_optimizer_that_scales_its_step_is_given_the_factors_and_raw_gradients():
    parameters = parameters_of((4, 3), (5,))
    scaler = measured_scaler(parameters)
    taker = Taker(parameters, "step")
    scaler.attach(taker)
    factors = scaler.factors().tolist()
    gradients = [torch.randn(4, 3), torch.ones(5)]
    one_update(scaler, taker, gradients)
    assert taker.taken == [(parameters, factors)]
    assert torch.equal(parameters[0].grad, gradients[0])


def test_an_optimizer_of_scaled_gradients_is_given_both():
    parameters = parameters_of((4, 3), (5,))
    scaler = measured_scaler(parameters)
    taker = Taker(parameters, "gradient")
    scaler.attach(taker)
    factors = scaler.factors().tolist()
    gradients = [torch.randn(4, 3), torch.ones(5)]
    one_update(scaler, taker, gradients)
    assert taker.taken == [(parameters, factors)]
    assert torch.equal(parameters[0].grad, gradients[0] * factors[0])


def test_an_optimizer_that_needs_a_closure_is_refused():
    parameters = parameters_of((2,))
    scaler = VarianceGradientScaler(parameters)
    with pytest.raises(ArgumentError, match="LBFGS evaluates gradients inside its step"):
        scaler.attach(torch.optim.LBFGS(parameters))


def test_an_optimizer_without_the_parameters_is_refused_by_name():
    first, second = parameters_of((2,), (3,))
    scaler = VarianceGradientScaler([("actor", first), ("critic", second)])
    with pytest.raises(ArgumentError, match=r"\['critic'\]"):
        scaler.attach(torch.optim.Adam([first]))


def test_a_frozen_parameter_need_not_be_in_the_optimizer():
    first, second = parameters_of((2,), (3,))
    second.requires_grad_(False)
    scaler = VarianceGradientScaler([first, second])
    scaler.attach(torch.optim.Adam([first]))
    assert isinstance(scaler._placement, OnStep)


def attach_another(scaler: VarianceGradientScaler) -> None:
    scaler.attach(torch.optim.Adam(scaler.parameters))


@pytest.mark.parametrize("let_go", [VarianceGradientScaler.detach, attach_another])
def test_an_optimizer_that_was_let_go_takes_its_whole_step(let_go):
    parameters = parameters_of((1,), (1,))
    scaler = measured_scaler(parameters)
    optimizer = torch.optim.Adam(parameters, lr=1.0)
    scaler.attach(optimizer)
    give(parameters, [torch.ones(1), torch.ones(1)])
    scaler.scale_gradients()
    let_go(scaler)
    optimizer.step()
    assert parameters[0].item() == pytest.approx(-1.0, rel=1e-6)


def test_attaching_again_keeps_the_factors_of_the_next_step():
    parameters = parameters_of((1,), (1,))
    scaler = measured_scaler(parameters)
    optimizer = torch.optim.Adam(parameters, lr=1.0)
    scaler.attach(optimizer)
    factor = scaler.factors()[0].item()
    give(parameters, [torch.ones(1), torch.ones(1)])
    scaler.scale_gradients()
    scaler.attach(optimizer)
    optimizer.step()
    assert parameters[0].item() == pytest.approx(-factor, rel=1e-6)


def test_a_copy_may_be_attached_before_it_has_parameters():
    parameters = parameters_of((1,), (1,))
    scaler = copy.deepcopy(measured_scaler(parameters))
    optimizer = torch.optim.Adam(parameters, lr=1.0)
    scaler.attach(optimizer)
    scaler.update_parameters(parameters)
    factor = scaler.factors()[0].item()
    one_update(scaler, optimizer, [torch.ones(1), torch.ones(1)])
    assert parameters[0].item() == pytest.approx(-factor, rel=1e-6)


def test_attaching_twice_scales_the_step_once():
    parameters = parameters_of((1,), (1,))
    scaler = measured_scaler(parameters)
    optimizer = torch.optim.Adam(parameters, lr=1.0)
    for _ in range(3):
        scaler.attach(optimizer)
    factor = scaler.factors()[0].item()
    one_update(scaler, optimizer, [torch.ones(1), torch.ones(1)])
    assert parameters[0].item() == pytest.approx(-factor, rel=1e-6)


def test_b4_attaching_another_optimizer_lets_go_of_the_first():
    parameters = parameters_of((1,), (1,))
    scaler = measured_scaler(parameters)
    first, second = torch.optim.Adam(parameters, lr=1.0), torch.optim.Adam(parameters, lr=1.0)
    scaler.attach(first)
    scaler.attach(second)
    one_update(scaler, first, [torch.ones(1), torch.ones(1)])
    assert parameters[0].item() == pytest.approx(-1.0, rel=1e-6)


def test_a_refused_optimizer_leaves_the_attached_one_attached():
    parameters = parameters_of((1,), (1,))
    scaler = measured_scaler(parameters)
    optimizer = torch.optim.Adam(parameters, lr=1.0)
    scaler.attach(optimizer)
    with pytest.raises(ArgumentError):
        scaler.attach(torch.optim.LBFGS(parameters))
    factor = scaler.factors()[0].item()
    one_update(scaler, optimizer, [torch.ones(1), torch.ones(1)])
    assert parameters[0].item() == pytest.approx(-factor, rel=1e-6)


def test_a_detached_scaler_multiplies_gradients_again():
    parameters = parameters_of((1,), (1,))
    scaler = measured_scaler(parameters)
    optimizer = torch.optim.Adam(parameters, lr=1.0)
    scaler.attach(optimizer)
    scaler.detach()
    factor = scaler.factors()[0].item()
    one_update(scaler, optimizer, [torch.ones(1), torch.ones(1)])
    assert parameters[0].grad.item() == pytest.approx(factor, rel=1e-6)
    assert parameters[0].item() == pytest.approx(-1.0, rel=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda params: torch.optim.Adam(params, lr=1e-2),
        lambda params: torch.optim.AdamW(params, lr=1e-2),
        lambda params: AdaptiveUPGD(params, lr=1e-2, sigma=0.0, scope="tensor"),
        lambda params: UPGDW(params, lr=1e-2, sigma=0.0, scope="tensor"),
    ],
)
def test_b20_with_an_adaptive_optimizer_a_noisy_layer_moves_less_and_a_quiet_one_exactly_as_before(make):
    steps = [[noise, 0.1 * torch.ones(16)] for (noise,) in random_steps(150, (8, 16), mean=0.2)]
    travelled = {}
    for with_scaler in (False, True):
        parameters = parameters_of((8, 16), (16,))
        optimizer = make(parameters)
        scaler = VarianceGradientScaler(parameters, warmup_steps=20) if with_scaler else None
        if scaler is not None:
            scaler.attach(optimizer)
        distance = torch.zeros(())
        for gradients in steps:
            before = parameters[0].detach().clone()
            one_update(scaler, optimizer, gradients)
            distance += (parameters[0].detach() - before).norm()
        travelled[with_scaler] = distance.item(), parameters[1].detach()
    assert torch.equal(travelled[True][1], travelled[False][1])
    assert travelled[True][0] < 0.6 * travelled[False][0]


@pytest.mark.parametrize("make", [lambda p: OnGradient(), lambda p: OnStep(torch.optim.Adam(p))])
def test_every_parameter_needs_its_factor(make):
    parameters = parameters_of((2,), (3,))
    with pytest.raises(ValueError, match="shorter"):
        make(parameters).apply(parameters, torch.ones(1))


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, AdaptiveUPGD])
def test_a_placement_knows_its_optimizer(kind):
    optimizer = kind(parameters_of((2,)), lr=0.1)
    assert placement_for(optimizer).optimizer is optimizer


def test_an_error_names_five_missing_parameters_at_most():
    missing = {f"layer{index}": parameter for index, parameter in enumerate(parameters_of(*[(1,)] * 9))}
    with pytest.raises(ArgumentError, match=r"\['layer0', 'layer1', 'layer2', 'layer3', 'layer4'\]"):
        require_holds(torch.optim.SGD(parameters_of((1,)), lr=0.1), missing)


def test_after_a_step_no_copy_of_the_parameters_is_kept():
    def alive() -> int:
        gc.collect()
        return sum(type(thing) is Tensor for thing in gc.get_objects())

    parameters = parameters_of((2,), (3,))
    optimizer = torch.optim.Adam(parameters)
    placement, counts = OnStep(optimizer), []
    for factor in (1.0, 0.5, 1.0):
        placement.apply(parameters, torch.full((2,), factor))
        one_update(None, optimizer, [torch.ones(2), torch.ones(3)])
        counts.append(alive())
    assert counts == [counts[0]] * 3
