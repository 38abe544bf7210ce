"""The conformance suite is a test itself: here it is given optimizers that break one law each."""

import inspect
from typing import Any

import pytest
import torch
from torch.optim import SGD, AdamW, Optimizer

from everlearn.testing.optimizers import MakeOptimizer, OptimizerConformance, held, random_parameters


class Loud(SGD):
    """Draws from torch's global generator."""

    def step(self, closure: Any = None) -> Any:
        torch.randn(1)
        return super().step(closure)


class Deaf(SGD):
    """Takes the first group's learning rate for all."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            group["lr"] = self.param_groups[0]["lr"]
        return super().step(closure)


class Impatient(SGD):
    """Does not wait for a gradient."""

    def step(self, closure: Any = None) -> Any:
        for param in held(self):
            param.grad = torch.ones_like(param) if param.grad is None else param.grad
        return super().step(closure)


class Careless(SGD):
    """Divides by what may be zero."""

    def step(self, closure: Any = None) -> Any:
        for param in held(self):
            param.grad = param.grad / param.grad.norm()
        return super().step(closure)


class Forgetful(SGD):
    """Has a state that is in no checkpoint."""

    age = 0

    def step(self, closure: Any = None) -> Any:
        self.age += 1
        for param in held(self):
            param.grad = param.grad / self.age
        return super().step(closure)


class Clinging(SGD):
    """Uses the same factors again and again."""

    factor_acts_on = "step"
    factors: Any = ()

    def scale_next_step(self, parameters: Any, factors: Any) -> None:
        self.factors = factors

    def step(self, closure: Any = None) -> Any:
        for param, factor in zip(held(self), self.factors, strict=False):
            param.grad = param.grad * factor
        return super().step(closure)


def judge(law: str, make: MakeOptimizer) -> None:
    """Run one law of the suite as pytest would."""
    suite = OptimizerConformance()
    offered = {"make_optimizer": make, "optimizer": make(random_parameters(*suite.shapes)), "steps_before": 2}
    offered |= {"dtype": torch.bfloat16}
    method = getattr(suite, f"test_{law}")
    method(**{name: offered[name] for name in inspect.signature(method).parameters})


@pytest.mark.parametrize(
    ("kind", "law"),
    [
        (AdamW, "the_state_has_the_same_keys_before_and_after_the_first_step"),
        (AdamW, "the_state_dict_is_a_snapshot"),
        (AdamW, "b12_low_precision_parameters_keep_their_state_in_float32"),
        (Loud, "no_global_generator_is_advanced"),
        (Deaf, "b13_every_group_follows_its_own_learning_rate"),
        (Impatient, "b10_a_parameter_without_gradient_keeps_value_and_state"),
        (Careless, "b10_zero_gradients_keep_everything_finite"),
        (Forgetful, "a_loaded_state_continues_bit_for_bit"),
        (Forgetful, "a_deep_copy_continues_bit_for_bit_and_apart"),
        (Clinging, "factors_act_on_the_next_step_only"),
    ],
)
def test_the_suite_notices_a_broken_law(kind: type[Optimizer], law: str):
    with pytest.raises(AssertionError):
        judge(law, lambda params: kind(params, lr=0.01))


@pytest.mark.parametrize(
    "law",
    [
        "b10_zero_gradients_keep_everything_finite",
        "b10_a_step_without_any_gradient_changes_no_parameter",
        "a_deep_copy_continues_bit_for_bit_and_apart",
        "b13_every_group_follows_its_own_learning_rate",
        "no_global_generator_is_advanced",
    ],
)
def test_the_suite_accepts_an_optimizer_that_keeps_a_law(law):
    judge(law, lambda params: AdamW(params, lr=0.01))
