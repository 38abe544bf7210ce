"""Slow and obvious twins of UPGD and AdaptiveUPGD: one parameter after the other, every average by itself."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


class Average:
    """A running average that starts at zero and knows how much of it is still that zero."""

    def __init__(self) -> None:
        self.raw: Any = 0.0
        self.weight = 0.0

    def add(self, value: Any, beta: float) -> None:
        self.raw = beta * self.raw + (1 - beta) * value
        self.weight = beta * self.weight + (1 - beta)

    @property
    def corrected(self) -> Any:
        return self.raw / self.weight


class SlowWeight:
    """One parameter, the options of its group, and its averages."""

    def __init__(self, value: Tensor, options: Mapping[str, Any]) -> None:
        self.value = value.detach().clone()
        self.options = options
        self.utility, self.moment, self.second_moment, self.update_rms = Average(), Average(), Average(), Average()

    def observe(self, gradient: Tensor) -> Tensor:
        """Take a gradient into the averages; the update is the gradient itself."""
        self.utility.add(-gradient * self.value, self.options["beta_utility"])
        return gradient

    def noise_std(self, update: Tensor, factor: float) -> float:
        if not self.options["adaptive_noise"]:
            return self.options["sigma"]
        self.update_rms.add(math.sqrt(float((update**2).mean())), self.options["noise_beta"])
        return max(factor * self.options["sigma"] * self.update_rms.corrected, self.options["min_noise_std"])

    def move(self, update: Tensor, noise: Tensor, factor: float, multiplier: Tensor | float) -> None:
        lr, gated = self.options["lr"], multiplier if self.options["protect"] else 1.0
        perturbation = self.noise_std(update, factor) * noise
        self.value = (1 - lr * self.options["weight_decay"]) * self.value
        self.value = self.value - lr * (gated * factor * update + multiplier * perturbation)


class SlowAdaptiveWeight(SlowWeight):
    """The same for Adam's update."""

    def observe(self, gradient: Tensor) -> Tensor:
        super().observe(gradient)
        self.moment.add(gradient, self.options["beta1"])
        self.second_moment.add(gradient**2, self.options["beta2"])
        return self.moment.corrected / (self.second_moment.corrected.sqrt() + self.options["eps"])


def eta(weight: SlowWeight, present: Sequence[SlowWeight]) -> Tensor | float:
    scope = weight.options["scope"]
    if scope == "row":
        return weight.utility.corrected.norm(dim=-1, keepdim=True)
    sharing = {
        "tensor": [weight],
        "group": [other for other in present if other.options["label"] == weight.options["label"]],
        "global": [other for other in present if other.options["scope"] == "global"],
    }[scope]
    official = weight.options["preset"] == "official"
    largest = max(float((w.utility.raw if official else w.utility.corrected).max()) for w in sharing)
    return largest if largest > 0 else math.inf


def multiplier(weight: SlowWeight, present: Sequence[SlowWeight]) -> Tensor | float:
    if weight.options["scope"] == "none":
        return 1.0
    scaled = torch.sigmoid(weight.utility.corrected / eta(weight, present))
    return weight.options["step_multiplier"] * (1 - scaled)


def step(
    weights: Sequence[SlowWeight],
    gradients: Sequence[Tensor | None],
    noise: Sequence[Tensor],
    factors: Sequence[float],
) -> None:
    """One step of UPGD, or of AdaptiveUPGD with adaptive weights; gradients are those before any factor."""
    given = [each for each in zip(weights, gradients, noise, factors, strict=True) if each[1] is not None]
    updates = [weight.observe(gradient) for weight, gradient, _, _ in given]
    present = [weight for weight, _, _, _ in given]
    multipliers = [multiplier(weight, present) for weight in present]
    for (weight, _, numbers, factor), update, each in zip(given, updates, multipliers, strict=True):
        weight.move(update, numbers, factor, each)
