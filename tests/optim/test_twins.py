from typing import Any

import pytest
import torch
from torch import Tensor

from everlearn.core.rng import private_generator
from everlearn.optim import UPGD, AdaptiveUPGD
from everlearn.optim.noise import NoiseStream, make_stream
from everlearn.optim.utility_optimizer import CHUNK_SIZE, UtilityOptimizer
from everlearn.testing.optimizers import held, random_gradients, random_parameters, take_step
from tests.reference import upgd as reference

TWINS = {UPGD: reference.SlowWeight, AdaptiveUPGD: reference.SlowAdaptiveWeight}
STREAM = {"noise": "table", "seed": 11}
SHAPES = {
    "actor": [(6, 3), (6,), (5, 6), (1,), (), (4, 3, 2, 2), (3, 1), (2, 2), (2, 2), (2, 2)],
    "critic": [(220,), (200, 100), (150, 100), (7,), (220, 150)],
    "exploration": [(3,)],
}


def many_groups() -> list[dict[str, Any]]:
    """Many small tensors, two that fill a bundle, a large one, and groups that share a label."""
    groups = [
        {"params": random_parameters(*shapes, seed=seed, dtype=torch.float64), "label": name}
        for seed, (name, shapes) in enumerate(SHAPES.items())
    ]
    groups[1] |= {"lr": 3e-3, "weight_decay": 0.0}
    groups[2] |= {"label": "actor", "sigma": 0.0}
    return groups


def change_hyper_parameters(optimizer: UtilityOptimizer) -> None:
    """As population based training does it on the way."""
    for group in optimizer.param_groups:
        group["lr"] *= 0.7
        group["adaptive_noise"] = not group["adaptive_noise"]
        for name in ("beta_utility", "noise_beta", "beta1", "beta2"):
            if name in group:
                group[name] *= 0.9


def noise_for(optimizer: UtilityOptimizer, stream: NoiseStream, gradients: list[Tensor | None]) -> list[Tensor]:
    """The numbers the optimizer draws: at once, for all that have a gradient and take noise."""
    sigmas = [group["sigma"] for group in optimizer.param_groups for _ in group["params"]]
    wanted = [gradient is not None and sigma > 0 for gradient, sigma in zip(gradients, sigmas, strict=True)]
    sizes = [p.numel() if here else 0 for p, here in zip(held(optimizer), wanted, strict=True)]
    parts = stream.draw(sum(sizes), torch.float64, torch.device("cpu")).split(sizes)
    return [
        part.reshape(param.shape) if here else torch.zeros_like(param)
        for part, param, here in zip(parts, held(optimizer), wanted, strict=True)
    ]


def some_missing(gradients: list[Tensor], generator: torch.Generator) -> list[Tensor | None]:
    present = torch.rand(len(gradients), generator=generator) > 0.15
    return [gradient if here else None for gradient, here in zip(gradients, present.tolist(), strict=True)]


OPTIONS = pytest.mark.parametrize(
    "options",
    [
        {},
        {"preset": "paper", "scope": "group", "adaptive_noise": True},
        {"preset": "official", "protect": False},
        {"preset": "official", "scope": "tensor", "adaptive_noise": True},
        {"scope": "tensor", "step_multiplier": 1.3},
        {"scope": "row", "adaptive_noise": True, "protect": False},
        {"scope": "none", "adaptive_noise": True},
    ],
    ids=str,
)


def assert_moves_like_its_twin(kind: type[UtilityOptimizer], groups: list[dict[str, Any]], steps: int, **options):
    """Side by side with random gradients and factors; gradients go missing, hyper-parameters change half-way."""
    arguments = {"lr": 0.01, "weight_decay": 0.02, "beta_utility": 0.97, "sigma": 0.1, "noise_beta": 0.9, **options}
    optimizer = kind(groups, min_noise_std=0.01, **arguments, **STREAM)
    slow = [TWINS[kind](param, group) for group in optimizer.param_groups for param in group["params"]]
    stream, generator = make_stream(STREAM["noise"], STREAM["seed"]), private_generator(0)
    for index in range(steps):
        gradients = some_missing(random_gradients(held(optimizer), index), generator)
        factors = 0.1 + 0.9 * torch.rand(len(slow), generator=generator, dtype=torch.float64)
        reference.step(slow, gradients, noise_for(optimizer, stream, gradients), factors.tolist())
        if optimizer.factor_acts_on == "gradient":
            gradients = [None if g is None else g * f for g, f in zip(gradients, factors, strict=True)]
        optimizer.scale_next_step(held(optimizer), factors)
        take_step(optimizer, gradients)
        if index == steps // 2:
            change_hyper_parameters(optimizer)
    for param, weight in zip(held(optimizer), slow, strict=True):
        torch.testing.assert_close(param.detach(), weight.value, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kind", TWINS)
@OPTIONS
def test_a_hundred_steps_equal_those_of_the_slow_twin(kind, options):
    assert_moves_like_its_twin(kind, many_groups(), steps=100, **options)


@pytest.mark.parametrize("kind", TWINS)
@OPTIONS
def test_parameters_of_several_chunks_move_like_their_slow_twin(kind, options):
    shapes = [(3,), (2, CHUNK_SIZE // 2 + 3)]
    groups = [{"params": random_parameters(*shapes, dtype=torch.float64), "label": "critic"}]
    assert_moves_like_its_twin(kind, groups, steps=4, **options)
