"""The laws of every optimizer: subclass ``OptimizerConformance`` and give it a ``make_optimizer`` fixture."""

from __future__ import annotations

import copy
import io
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from everlearn.core.rng import private_generator

MakeOptimizer = Callable[[ParamsT], Optimizer]


def random_parameters(*shapes: Sequence[int], seed: int = 0, dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    """Parameters with standard normal weights, the same for the same seed."""
    generator = private_generator(seed)
    return [nn.Parameter(torch.randn(tuple(shape), generator=generator).to(dtype)) for shape in shapes]


def random_gradients(params: Iterable[Tensor], seed: int) -> list[Tensor]:
    """A standard normal gradient for every parameter, the same for the same seed."""
    generator = private_generator(seed)
    return [torch.randn(param.shape, generator=generator).to(param) for param in params]


def held(optimizer: Optimizer) -> list[Tensor]:
    """Every parameter of an optimizer."""
    return [param for group in optimizer.param_groups for param in group["params"]]


def values(optimizer: Optimizer) -> list[Tensor]:
    """A copy of the value of every parameter."""
    return [param.detach().clone() for param in held(optimizer)]


def take_step(optimizer: Optimizer, gradients: Sequence[Tensor | None]) -> None:
    """One step with the given gradients, in the order of ``held``."""
    for param, gradient in zip(held(optimizer), gradients, strict=True):
        param.grad = gradient
    optimizer.step()


def take_steps(optimizer: Optimizer, seeds: Iterable[int]) -> None:
    """One step with random gradients for each seed."""
    for seed in seeds:
        take_step(optimizer, random_gradients(held(optimizer), seed))


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    """What comes back of a state that was saved, read without running any code."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


def same(left: Any, right: Any) -> bool:
    """Whether two states are equal bit for bit."""
    if isinstance(left, Tensor):
        return isinstance(right, Tensor) and left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, Mapping):
        return left.keys() == right.keys() and all(same(value, right[key]) for key, value in left.items())
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def tensors_in(state: Any) -> list[Tensor]:
    """Every tensor of a state."""
    if isinstance(state, Tensor):
        return [state]
    if isinstance(state, Mapping):
        state = list(state.values())
    return [tensor for part in state for tensor in tensors_in(part)] if isinstance(state, (list, tuple)) else []


def all_finite(optimizer: Optimizer) -> bool:
    """Whether no parameter and no state holds a NaN or an infinity."""
    tensors = [*held(optimizer), *tensors_in(optimizer.state_dict()["state"])]
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)


def global_generators() -> list[Any]:
    """The state of python's, numpy's and torch's global generators."""
    return [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()]  # type: ignore[index]


class OptimizerConformance:
    """Laws of an optimizer of this library; a subclass may choose other ``shapes``, the first not empty.

    A subclass has a fixture ``make_optimizer`` that returns a function from parameters, or groups of them, to a new
    optimizer whose steps are visible: its learning rate is not tiny.
    """

    shapes: ClassVar[Sequence[tuple[int, ...]]] = ((3, 4), (4,), (), (1, 5))

    @pytest.fixture
    def optimizer(self, make_optimizer: MakeOptimizer) -> Optimizer:
        """A new optimizer over random parameters."""
        return make_optimizer(random_parameters(*self.shapes))

    # --- gradients that say nothing -------------------------------------------------------------------------------

    def test_b10_zero_gradients_keep_everything_finite(self, optimizer: Optimizer) -> None:
        """B10: on the first step, and after steps with gradients."""
        for seeds in ((), range(3)):
            take_steps(optimizer, seeds)
            take_step(optimizer, [torch.zeros_like(param) for param in held(optimizer)])
            assert all_finite(optimizer)

    def test_b10_zero_weights_keep_everything_finite(self, make_optimizer: MakeOptimizer) -> None:
        """B10."""
        optimizer = make_optimizer([nn.Parameter(torch.zeros(shape)) for shape in self.shapes])
        take_steps(optimizer, range(3))
        assert all_finite(optimizer)

    @pytest.mark.parametrize("steps_before", [0, 2])
    def test_b10_a_parameter_without_gradient_keeps_value_and_state(
        self, optimizer: Optimizer, steps_before: int
    ) -> None:
        """B10: on the first step, and where it had gradients before."""
        take_steps(optimizer, range(steps_before))
        before, state = values(optimizer), copy.deepcopy(optimizer.state_dict()["state"])
        take_step(optimizer, [None, *random_gradients(held(optimizer), seed=7)[1:]])
        assert torch.equal(held(optimizer)[0], before[0])
        assert same(optimizer.state_dict()["state"][0], state[0])
        assert not any(map(torch.equal, held(optimizer)[1:], before[1:]))

    def test_b10_a_step_without_any_gradient_changes_no_parameter(self, optimizer: Optimizer) -> None:
        """B10."""
        take_steps(optimizer, range(2))
        before, state = values(optimizer), copy.deepcopy(optimizer.state_dict()["state"])
        take_step(optimizer, [None] * len(before))
        assert same(values(optimizer), before)
        assert same(optimizer.state_dict()["state"], state)

    @pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
    def test_b10_a_single_weight_is_enough(self, make_optimizer: MakeOptimizer, shape: tuple[int, ...]) -> None:
        """B10: it moves, and stays finite."""
        optimizer = make_optimizer(random_parameters(shape))
        before = values(optimizer)
        take_steps(optimizer, range(3))
        assert all_finite(optimizer)
        assert not same(values(optimizer), before)

    def test_b12_huge_gradients_stay_finite_after_clipping(self, optimizer: Optimizer) -> None:
        """B12."""
        for seed in range(3):
            for param, gradient in zip(held(optimizer), random_gradients(held(optimizer), seed), strict=True):
                param.grad = 1e18 * gradient
            torch.nn.utils.clip_grad_norm_(held(optimizer), 0.5)
            optimizer.step()
        assert all_finite(optimizer)

    # --- state ----------------------------------------------------------------------------------------------------

    def test_the_state_has_the_same_keys_before_and_after_the_first_step(self, optimizer: Optimizer) -> None:
        """A checkpoint has one layout, whenever it is written; a group that is added has its state at once too."""
        optimizer.add_param_group({"params": random_parameters((2, 2), seed=1)})
        before = {index: state.keys() for index, state in optimizer.state_dict()["state"].items()}
        assert len(before) == len(held(optimizer))
        take_steps(optimizer, range(2))
        after = {index: state.keys() for index, state in optimizer.state_dict()["state"].items()}
        assert after == before

    def test_the_state_dict_is_a_snapshot(self, optimizer: Optimizer) -> None:
        """Later steps do not change it."""
        take_steps(optimizer, range(2))
        snapshot = optimizer.state_dict()
        kept = copy.deepcopy(snapshot)
        take_steps(optimizer, range(2, 4))
        assert same(snapshot, kept)
        assert not same(snapshot, optimizer.state_dict())

    @pytest.mark.parametrize("steps_before", [0, 5])
    def test_a_loaded_state_continues_bit_for_bit(self, make_optimizer: MakeOptimizer, steps_before: int) -> None:
        """Through a file, into a new optimizer over equal weights, whatever else it would have begun with."""
        first = make_optimizer(random_parameters(*self.shapes))
        take_steps(first, range(steps_before))
        torch.manual_seed(99)
        second = make_optimizer([nn.Parameter(value) for value in values(first)])
        second.load_state_dict(through_a_file(first.state_dict()))
        assert same(second.state_dict(), first.state_dict())
        for optimizer in (first, second):
            take_steps(optimizer, range(5, 10))
        assert same(values(second), values(first))
        assert same(second.state_dict(), first.state_dict())

    def test_loading_brings_the_hyper_parameters_back(self, optimizer: Optimizer) -> None:
        """As torch does it."""
        state = optimizer.state_dict()
        lr = optimizer.param_groups[0]["lr"]
        optimizer.param_groups[0]["lr"] = lr / 2
        optimizer.load_state_dict(state)
        assert optimizer.param_groups[0]["lr"] == lr

    def test_a_deep_copy_continues_bit_for_bit_and_apart(self, optimizer: Optimizer) -> None:
        """The copy takes its own parameters along."""
        take_steps(optimizer, range(3))
        copied = copy.deepcopy(optimizer)
        take_steps(optimizer, range(3, 6))
        assert not same(values(copied), values(optimizer))
        take_steps(copied, range(3, 6))
        assert same(values(copied), values(optimizer))
        assert same(copied.state_dict(), optimizer.state_dict())

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_b12_low_precision_parameters_keep_their_state_in_float32(
        self, make_optimizer: MakeOptimizer, dtype: torch.dtype
    ) -> None:
        """B12: after a step, after loading and in a deep copy."""
        optimizer = make_optimizer(random_parameters(*self.shapes, dtype=dtype))
        take_steps(optimizer, range(3))
        loaded = make_optimizer(random_parameters(*self.shapes, dtype=dtype))
        loaded.load_state_dict(through_a_file(optimizer.state_dict()))
        for each in (optimizer, loaded, copy.deepcopy(optimizer)):
            assert {param.dtype for param in held(each)} == {dtype}
            kept = tensors_in(each.state_dict()["state"])
            assert all(torch.promote_types(tensor.dtype, torch.float32) == tensor.dtype for tensor in kept)
            assert same(each.state_dict(), optimizer.state_dict())

    # --- groups, closures, generators, factors --------------------------------------------------------------------

    def test_b13_every_group_follows_its_own_learning_rate(self, make_optimizer: MakeOptimizer) -> None:
        """B13: with the same weights and gradients, a group moves as far as its learning rate lets it."""
        rates = (0.0, 1e-4, 1e-2)
        optimizer = make_optimizer([{"params": random_parameters(*self.shapes), "lr": rate} for rate in rates])
        before, gradients = values(optimizer), random_gradients(random_parameters(*self.shapes), seed=1)
        take_step(optimizer, [gradient.clone() for _ in rates for gradient in gradients])
        moved = [(old - new).norm().item() for old, new in zip(before, held(optimizer), strict=True)]
        resting, slow, fast = (moved[start : start + len(gradients)] for start in range(0, len(moved), len(gradients)))
        assert max(resting) == 0.0
        assert all(0 < less < more for less, more in zip(slow, fast, strict=True))

    def test_a_closure_is_evaluated_with_gradients_and_its_loss_returned(self, optimizer: Optimizer) -> None:
        """As in torch."""
        before = values(optimizer)

        def closure() -> float:
            optimizer.zero_grad()
            loss = torch.stack([param.square().sum() for param in held(optimizer)]).sum()
            loss.backward()
            return loss.item()

        expected = sum(value.square().sum().item() for value in before)
        assert optimizer.step(closure) == pytest.approx(expected)
        assert not same(values(optimizer), before)

    def test_no_global_generator_is_advanced(self, make_optimizer: MakeOptimizer) -> None:
        """Neither at construction nor by a step: another optimizer changes no other random number."""
        params = random_parameters(*self.shapes)
        before = global_generators()
        take_steps(make_optimizer(params), range(3))
        assert same(global_generators(), before)

    def test_the_same_global_seed_gives_the_same_steps(self, make_optimizer: MakeOptimizer) -> None:
        """Random parts of a step follow ``torch.manual_seed``."""
        results = []
        for _ in range(2):
            torch.manual_seed(3)
            optimizer = make_optimizer(random_parameters(*self.shapes))
            take_steps(optimizer, range(3))
            results.append(values(optimizer))
        assert same(*results)

    def test_factors_act_on_the_next_step_only(self, optimizer: Optimizer) -> None:
        """An optimizer that takes factors of a gradient scaler uses them up; a factor of one is none."""
        if not hasattr(optimizer, "factor_acts_on"):
            pytest.skip(f"{type(optimizer).__name__} takes no factors.")
        plain, ones = copy.deepcopy(optimizer), copy.deepcopy(optimizer)
        self._scaled_step(optimizer, 0.5)
        self._scaled_step(ones, 1.0)
        take_steps(plain, [0])
        assert same(values(ones), values(plain))
        assert not any(map(torch.equal, values(optimizer), values(plain)))

        told_ones = copy.deepcopy(optimizer)
        take_steps(optimizer, [1])
        self._scaled_step(told_ones, 1.0, seed=1)
        assert same(values(optimizer), values(told_ones))

    def _scaled_step(self, optimizer: Any, factor: float, seed: int = 0) -> None:
        """A step as a gradient scaler lets an optimizer take it."""
        gradients = random_gradients(held(optimizer), seed)
        if optimizer.factor_acts_on == "gradient":
            gradients = [factor * gradient for gradient in gradients]
        optimizer.scale_next_step(held(optimizer), torch.full((len(gradients),), factor))
        take_step(optimizer, gradients)
