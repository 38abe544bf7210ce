from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from everlearn.core.errors import ArgumentError
from everlearn.optim import UPGD, UPGDW, AdaptiveUPGD
from everlearn.testing.optimizers import (
    held,
    random_gradients,
    random_parameters,
    same,
    take_step,
    take_steps,
    values,
)

FAMILY = [UPGD, AdaptiveUPGD, UPGDW]
SHAPES = [(3, 4), (5,)]


# --- arguments -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FAMILY)
@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("lr", -1e-3),
        ("lr", float("nan")),
        ("weight_decay", -0.1),
        ("sigma", -1.0),
        ("sigma", float("inf")),
        ("noise_beta", 1.0),
        ("min_noise_std", -1e-9),
        ("step_multiplier", -1.0),
    ],
)
def test_a_number_outside_its_range_is_refused_by_name(kind, argument, value):
    with pytest.raises(ArgumentError, match=argument):
        kind(random_parameters((2,)), **{argument: value})


@pytest.mark.parametrize(
    ("kind", "options", "name"),
    [
        (UPGD, {"beta_utility": 1.0}, "beta_utility"),
        (AdaptiveUPGD, {"beta_utility": -0.1}, "beta_utility"),
        (AdaptiveUPGD, {"beta1": 1.0}, "beta1"),
        (AdaptiveUPGD, {"betas": (0.9, 1.0)}, "beta2"),
        (AdaptiveUPGD, {"eps": -1e-8}, "eps"),
        (UPGDW, {"betas": (-0.1, 0.9)}, "beta1"),
        (UPGDW, {"betas": (0.9, 1.0)}, "beta2"),
        (UPGDW, {"eps": -1e-8}, "eps"),
    ],
)
def test_an_average_or_epsilon_outside_its_range_is_refused_by_name(kind, options, name):
    with pytest.raises(ArgumentError, match=name):
        kind(random_parameters((2,)), **options)


@pytest.mark.parametrize("kind", FAMILY)
@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"scope": "tensors"}, "Did you mean 'tensor'"),
        ({"preset": "papers"}, "Did you mean 'paper'"),
        ({"noise": "tables"}, "Did you mean 'table'"),
    ],
)
def test_a_misspelt_choice_is_refused_with_a_suggestion(kind, options, hint):
    with pytest.raises(ArgumentError, match=hint):
        kind(random_parameters((2,)), **options)


@pytest.mark.parametrize("kind", FAMILY)
@pytest.mark.parametrize(
    "param",
    [torch.zeros(2, dtype=torch.complex64), torch.zeros(2, dtype=torch.long), torch.eye(2).to_sparse()],
    ids=["complex", "integer", "sparse"],
)
def test_parameters_that_are_not_dense_and_real_are_refused_and_leave_nothing_behind(kind, param):
    optimizer = kind(random_parameters(*SHAPES))
    with pytest.raises(ArgumentError, match="dense real parameters"):
        optimizer.add_param_group({"params": [nn.Parameter(param, requires_grad=False)]})
    assert len(optimizer.param_groups) == 1
    take_steps(optimizer, range(2))


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"lr": -1.0}, "lr"),
        ({"scope": "rows"}, "row"),
        ({"betas": (0.9, 2.0)}, "beta2"),
        ({"preset": "papers"}, "paper"),
    ],
)
def test_the_options_of_a_group_are_checked_too(options, name):
    optimizer = AdaptiveUPGD(random_parameters(*SHAPES))
    with pytest.raises(ArgumentError, match=name):
        optimizer.add_param_group({"params": random_parameters((2,)), **options})
    assert len(optimizer.param_groups) == 1
    take_steps(optimizer, range(2))


@pytest.mark.parametrize("kind", FAMILY)
@pytest.mark.parametrize("as_parameters", [iter, lambda params: [("w", params[0]), ("b", params[1])]])
def test_parameters_may_be_an_iterator_or_named(kind, as_parameters):
    params = random_parameters(*SHAPES)
    optimizer = kind(as_parameters(params), lr=0.01)
    assert list(map(id, held(optimizer))) == list(map(id, params))
    before = values(optimizer)
    take_steps(optimizer, range(2))
    assert not any(map(torch.equal, values(optimizer), before))


def test_a_group_may_give_betas_as_a_pair():
    optimizer = UPGDW([{"params": random_parameters((2,)), "betas": (0.5, 0.6)}])
    assert (optimizer.param_groups[0]["beta1"], optimizer.param_groups[0]["beta2"]) == (0.5, 0.6)


def test_betas_in_a_group_of_an_optimizer_that_has_none_are_refused():
    with pytest.raises(ArgumentError, match="UPGD has no betas"):
        UPGD([{"params": random_parameters((2,)), "betas": (0.5, 0.6)}])


@pytest.mark.parametrize(
    ("options", "expected"),
    [({"preset": "paper"}, 1.0), ({"preset": "paper", "step_multiplier": 1.5}, 1.5), ({"step_multiplier": None}, 2.0)],
)
def test_a_group_may_have_a_preset_of_its_own(options, expected):
    optimizer = UPGD([{"params": random_parameters((2,))}, {"params": random_parameters((3,)), **options}])
    assert [group["step_multiplier"] for group in optimizer.param_groups] == [2.0, expected]


@pytest.mark.parametrize("kind", FAMILY)
def test_the_callers_group_is_left_as_it_was(kind):
    group = {"params": random_parameters((2,)), "lr": 0.5}
    kind([group])
    assert group.keys() == {"params", "lr"}


@pytest.mark.parametrize("kind", FAMILY)
def test_the_learning_rate_may_be_a_tensor(kind):
    as_float, as_tensor = (kind(random_parameters(*SHAPES), lr=lr, seed=0) for lr in (0.25, torch.tensor(0.25)))
    for optimizer in (as_float, as_tensor):
        take_steps(optimizer, range(2))
    assert same(values(as_float), values(as_tensor))


@pytest.mark.parametrize("kind", FAMILY)
def test_a_scheduler_of_torch_changes_the_step(kind):
    optimizer = kind(random_parameters((4,)), lr=0.1, sigma=0.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: float(epoch == 0))
    before = values(optimizer)
    take_steps(optimizer, [0])
    scheduler.step()
    after_one = values(optimizer)
    take_steps(optimizer, [1])
    assert not same(after_one, before)
    assert same(values(optimizer), after_one)


# --- step ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FAMILY)
def test_factors_belong_to_the_parameters_they_came_with(kind):
    """In any order; a parameter without one takes its whole step, and noise that is not adaptive knows no factor."""
    options = {"lr": 0.1, "weight_decay": 0.0, "sigma": 0.0, "scope": "none"}
    plain, scaled = (kind(random_parameters((2,), (3,), (4,)), **options) for _ in range(2))
    before, factors = values(plain), {2: 0.5, 0: 0.25}
    gradients = random_gradients(held(plain), 0)
    take_step(plain, gradients)
    if scaled.factor_acts_on == "gradient":
        gradients = [factors.get(index, 1.0) * gradient for index, gradient in enumerate(gradients)]
    scaled.scale_next_step([held(scaled)[index] for index in factors], torch.tensor(list(factors.values())))
    take_step(scaled, gradients)
    for index, (old, whole, part) in enumerate(zip(before, held(plain), held(scaled), strict=True)):
        torch.testing.assert_close(part - old, factors.get(index, 1.0) * (whole - old), rtol=1e-4, atol=1e-7)


class Reads(TorchDispatchMode):
    """Counts how often a tensor's value is read by python, which makes a GPU wait."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", FAMILY)
@pytest.mark.parametrize("scope", ["global", "group", "tensor", "row", "none"])
def test_a_step_reads_no_tensor(kind, scope):
    optimizer = kind(random_parameters(*[(2, 3)] * 9, (200, 200)), scope=scope, adaptive_noise=True)
    take_steps(optimizer, range(2))
    with Reads() as reads:
        for gradients in (random_gradients(held(optimizer), 1), random_gradients(held(optimizer), 2)):
            gradients[3] = None
            optimizer.scale_next_step(held(optimizer), torch.ones(len(gradients)))
            take_step(optimizer, gradients)
            optimizer.diagnostics()
    assert reads.count == 0


def test_frozen_parameters_rest():
    trained, frozen = random_parameters((2,), (2,))
    frozen.requires_grad_(False)
    optimizer = UPGD([trained, frozen], lr=0.1)
    before = values(optimizer)
    trained.sum().backward()
    optimizer.step()
    assert torch.equal(frozen, before[1])
    assert not torch.equal(trained, before[0])


def test_the_step_records_no_gradient():
    param = nn.Parameter(torch.ones(3))
    optimizer = UPGD([param], lr=0.1)
    (2 * param).sum().backward()
    optimizer.step()
    assert param.is_leaf
    assert isinstance(param.grad, Tensor)
    assert not any(tensor.requires_grad for tensor in optimizer.state[param].values())
