import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.optim import SGD, Adam, AdamW, Optimizer

from everlearn.core.errors import ArgumentError
from everlearn.gradients.placement import placement_for
from everlearn.optim import UPGD, UPGDW, AdaptiveUPGD
from everlearn.optim.functional import functional
from everlearn.optim.scopes import SCOPES
from everlearn.testing.optimizers import held, random_gradients, random_parameters, same, take_steps, tensors_in

FAMILY = [UPGD, AdaptiveUPGD, UPGDW]
TORCH = [Adam, AdamW, SGD]
NAMES = ("weight", "bias", "gain", "log_std")
SHAPES = [(5, 3), (5,), (), (1, 4)]
FACTORS = torch.tensor([0.5, 0.9, 0.2, 1.0])


def groups(seed: int) -> list[dict[str, Any]]:
    """Two groups with a label and a learning rate of their own."""
    params = random_parameters(*SHAPES, seed=seed)
    return [{"params": params[:2], "label": "actor"}, {"params": params[2:], "label": "critic", "lr": 0.03}]


def names_of(optimizer: Optimizer) -> dict[Tensor, str]:
    return dict(zip(held(optimizer), NAMES, strict=True))


class Arguments:
    """What a functional step takes, of a copy of an optimizer, which it may change."""

    def __init__(self, optimizer: Optimizer, seed: int, factors: Tensor | None) -> None:
        self.optimizer = copy.deepcopy(optimizer)
        self.step = functional(self.optimizer, names_of(self.optimizer))
        self.params = {name: param.detach() for name, param in self.step.params.items()}
        self.state, self.hyper = self.step.state(), self.step.hyper()
        grads = dict(zip(NAMES, random_gradients(held(optimizer), seed), strict=True))
        self.factors = {} if factors is None else dict(zip(NAMES, factors, strict=True))
        if factors is not None and self.step.factor_acts_on == "gradient":
            grads = {name: self.factors[name] * grad for name, grad in grads.items()}
        self.gradients = self.step.joined(grads)
        with self.step.kept_noise():
            self.noise = self.step.draw_noise().clone()

    def all(self) -> tuple[Any, ...]:
        return self.params, self.gradients, self.state, self.hyper, self.noise, self.factors


def eager_step(optimizer: Optimizer, seed: int, factors: Tensor | None) -> None:
    """The step as training without a graph takes it: factors go where a gradient scaler puts them."""
    for param, gradient in zip(held(optimizer), random_gradients(held(optimizer), seed), strict=True):
        param.grad = gradient
    if factors is not None:
        placement_for(optimizer).apply(held(optimizer), factors)
    optimizer.step()


def traced(optimizer: Optimizer, factors: Tensor | None) -> Any:
    """The step as a graph, made from data that are never used again."""
    step = functional(optimizer, names_of(optimizer))
    return make_fx(lambda *arguments: step.step_(*arguments))(*Arguments(optimizer, 99, factors).all())


def assert_equal(found: Optimizer, expected: Optimizer) -> None:
    for param, other in zip(held(found), held(expected), strict=True):
        torch.testing.assert_close(param.detach(), other.detach(), rtol=1e-6, atol=1e-7)
        assert found.state[param].keys() == expected.state[other].keys()
        for key, value in found.state[param].items():
            torch.testing.assert_close(value, expected.state[other][key], rtol=1e-6, atol=1e-7)


def change_hyper_parameters(optimizer: Optimizer) -> None:
    """Every number, as population based training may do it; a graph must take it as it comes."""
    for group in optimizer.param_groups:
        for key, value in group.items():
            if type(value) is float and value > 0:
                group[key] = 0.9 * value
            elif key == "betas":
                group[key] = tuple(0.9 * beta for beta in value)


def check(kind: type[Optimizer], factors: Tensor | None, **options: Any) -> None:
    """A graph made from one optimizer's data takes two steps of another one's, with hyper-parameters that change."""
    graph = traced(kind(groups(seed=1), **options), factors)
    optimizer = kind(groups(seed=2), **options)
    take_steps(optimizer, range(2))
    for seed in range(2, 4):
        arguments = Arguments(optimizer, seed, factors)
        graph(*arguments.all())
        eager_step(optimizer, seed, factors)
        assert_equal(arguments.optimizer, optimizer)
        change_hyper_parameters(optimizer)


@pytest.mark.parametrize("kind", FAMILY)
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("factors", [None, FACTORS], ids=["plain", "factors"])
def test_a_traced_step_equals_the_eager_one_on_other_data(kind, scope, factors):
    noise = {"sigma": 0.1, "adaptive_noise": True} if factors is not None else {"sigma": 0.0}
    check(kind, factors, lr=0.01, weight_decay=0.1, scope=scope, **noise)


@pytest.mark.parametrize("kind", FAMILY)
@pytest.mark.parametrize(
    "options",
    [
        {"sigma": 0.1},
        {"sigma": 0.1, "noise": "table", "protect": False, "step_multiplier": 1.3},
        {"sigma": 0.1, "adaptive_noise": True, "min_noise_std": 0.2, "preset": "official"},
        {"sigma": 0.0, "preset": "paper", "weight_decay": 0.0},
    ],
    ids=str,
)
def test_a_traced_step_knows_every_option(kind, options):
    check(kind, None, lr=0.01, **options)


@pytest.mark.parametrize("kind", FAMILY)
def test_parameters_of_quiet_groups_take_no_noise(kind):
    quiet, noisy = groups(seed=0)
    optimizer = kind([{**quiet, "sigma": 0.0}, noisy], sigma=0.1)
    assert Arguments(optimizer, 0, None).noise.shape == (5,)  # of gain and log_std
    graph = traced(optimizer, None)
    arguments = Arguments(optimizer, 0, None)
    graph(*arguments.all())
    eager_step(optimizer, 0, None)
    assert_equal(arguments.optimizer, optimizer)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (Adam, {"eps": 1e-5}),
        (Adam, {"betas": (0.5, 0.9)}),
        (AdamW, {"weight_decay": 0.1}),
        (AdamW, {"weight_decay": 0.0, "lr": 0.1}),
        (SGD, {"lr": 0.1}),
    ],
    ids=str,
)
@pytest.mark.parametrize("factors", [None, FACTORS], ids=["plain", "factors"])
def test_the_base_optimizers_have_a_functional_step_too(kind, options, factors):
    check(kind, factors, **{"lr": 0.01, **options})


def stacked(arguments: list[Any]) -> Any:
    """Members of a population as one more leading dimension of every tensor."""
    return torch.utils._pytree.tree_map(lambda *tensors: torch.stack(tensors), *arguments)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        *((kind, {"scope": scope, "adaptive_noise": True}) for kind in FAMILY for scope in ("group", "row")),
        *((kind, {}) for kind in TORCH),
    ],
    ids=str,
)
def test_mapped_over_members_it_equals_a_loop(kind, options):
    """A population is one more leading dimension, hyper-parameters included."""
    optimizers = [kind(groups(seed), lr=0.1 / (seed + 1), **options) for seed in range(3)]
    step = functional(optimizers[0], names_of(optimizers[0]))
    members = [Arguments(optimizer, seed, FACTORS).all() for seed, optimizer in enumerate(optimizers)]
    together = stacked(members)
    torch.func.vmap(lambda *arguments: step.step_(*arguments), out_dims=None)(*together)
    for arguments in members:
        step.step_(*arguments)
    torch.testing.assert_close(together, stacked(members), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", TORCH)
def test_a_base_optimizer_before_its_first_step_gets_its_own_state(kind):
    """Tensors that the optimizer then finds and goes on with."""
    functional_first, eager = (kind(groups(seed=0), lr=0.01) for _ in range(2))
    step = functional(functional_first, names_of(functional_first))
    params = {name: param.detach() for name, param in step.params.items()}
    arguments = Arguments(functional_first, 0, None)
    step.step_(params, arguments.gradients, step.state(), step.hyper(), arguments.noise, {})
    for optimizer, seeds in ((functional_first, (1, 2)), (eager, (0, 1, 2))):
        take_steps(optimizer, seeds)
    for left, right in zip(held(functional_first), held(eager), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", [*FAMILY, *TORCH])
def test_making_a_functional_step_changes_nothing(kind):
    optimizer = kind(groups(seed=0), lr=0.01)
    take_steps(optimizer, range(2))
    before = copy.deepcopy(tensors_in(optimizer.state_dict()))
    functional(optimizer, names_of(optimizer))
    assert same(tensors_in(optimizer.state_dict()), before)


@pytest.mark.parametrize("kind", FAMILY)
def test_eager_and_functional_steps_can_take_turns(kind):
    """They share one state: a run may change between them."""
    mixed, eager = (kind(groups(seed=0), lr=0.01, sigma=0.0) for _ in range(2))
    step = functional(mixed, names_of(mixed))
    params = {name: param.detach() for name, param in step.params.items()}
    for seed in range(6):
        if seed % 2:
            take_steps(mixed, [seed])
        else:
            arguments = Arguments(mixed, seed, None)
            step.step_(params, arguments.gradients, step.state(), step.hyper(), arguments.noise, {})
        take_steps(eager, [seed])
    for left, right in zip(held(mixed), held(eager), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", [*FAMILY, Adam, AdamW, SGD])
def test_the_hyper_parameters_are_those_now_in_force(kind):
    optimizer = kind(groups(seed=0), lr=0.5)
    step = functional(optimizer, names_of(optimizer))
    optimizer.param_groups[0]["lr"] = 0.25
    assert [float(numbers["lr"]) for numbers in step.hyper()] == [0.25, 0.03]
    assert {tuple(value.shape) for numbers in step.hyper() for value in numbers.values()} == {()}


@pytest.mark.parametrize("kind", FAMILY)
def test_low_precision_parameters_keep_their_state_in_float32(kind):
    optimizer = kind(random_parameters((3, 4), dtype=torch.bfloat16), lr=0.1, sigma=0.0)
    eager = copy.deepcopy(optimizer)
    step = functional(optimizer, {held(optimizer)[0]: "weight"})
    gradient = random_gradients(held(optimizer), 0)[0]
    params = {"weight": held(optimizer)[0].detach()}
    step.step_(params, step.joined({"weight": gradient}), step.state(), step.hyper(), torch.empty(0), {})
    take_steps(eager, [0])
    assert torch.equal(held(optimizer)[0], held(eager)[0])
    for left, right in zip(*(tensors_in(each.state_dict()["state"]) for each in (optimizer, eager)), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("optimizer", "complaint"),
    [
        (lambda params: SGD(params, momentum=0.9), r"SGD with \['momentum'\]"),
        (lambda params: SGD(params, weight_decay=0.1), r"SGD with \['weight_decay'\]"),
        (lambda params: SGD(params, maximize=True), r"SGD with \['maximize'\]"),
        (lambda params: Adam(params, amsgrad=True), r"Adam with \['amsgrad'\]"),
        (lambda params: Adam(params, weight_decay=0.1), r"Adam with \['weight_decay'\]"),
        (lambda params: AdamW(params, maximize=True), r"AdamW with \['maximize'\]"),
        (torch.optim.RMSprop, "RMSprop has no functional step"),
        (torch.optim.NAdam, "NAdam has no functional step"),
    ],
)
def test_what_has_no_functional_step_says_so(optimizer, complaint):
    params = [nn.Parameter(torch.zeros(2))]
    with pytest.raises(ArgumentError, match=complaint):
        functional(optimizer(params), {params[0]: "weight"})
