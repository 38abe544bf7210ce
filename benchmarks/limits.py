"""How fast each part of an iteration could be: the same simulators and networks with nothing around them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from benchmarks.contestants import Contestant
from benchmarks.profiling import INFERENCE, SIMULATION, UPDATE

Shape = tuple[int, ...]
Layer = tuple[Any, Any, Any, Any]


def limits(contestant: Contestant, model: Any, times: int = 300) -> dict[str, float]:
    """Seconds of an iteration's simulation, inference and update if nothing but the bare work were done.

    Simulation is the environments by themselves, one after the other, with actions that were drawn before. Inference
    is the matrix products and activations of the networks for one row per environment. The update is those of its
    forward and backward pass for a minibatch, and fused AdamW: neither loss nor clipping, and nothing of UPGD, variance
    scaling or penalties.

    Args:
        contestant: What an iteration consists of.
        model: The agent, for the shapes of its networks.
        times: How often the work of the networks is repeated.
    """
    import torch

    shapes = layer_shapes(model)
    with torch.no_grad():
        forward = _mean_seconds(_forward(_layers(shapes, contestant.n_envs)), times)
        update = _mean_seconds(_update(_layers(shapes, contestant.batch_size)), times)
    return {
        SIMULATION: _simulation(contestant),
        INFERENCE: forward * contestant.n_steps,
        UPDATE: update * contestant.updates,
    }


def layer_shapes(model: Any) -> list[Shape]:
    """The weights of all linear layers, (outputs, inputs); the work does not depend on which follows which."""
    return [tuple(parameter.shape) for parameter in model.policy.parameters() if parameter.dim() == 2]


def _simulation(contestant: Contestant) -> float:
    """Seconds to step every environment by itself."""
    import gymnasium

    total = 0.0
    for seed in range(contestant.n_envs):
        env = gymnasium.make(contestant.env_id)
        env.action_space.seed(seed)
        actions = [env.action_space.sample() for _ in range(contestant.n_steps)]
        env.reset(seed=seed)
        start = time.perf_counter()
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()
        total += time.perf_counter() - start
        env.close()
    return total


def _forward(layers: list[Layer]) -> Callable[[], None]:
    """A pass through all layers."""
    import torch

    def run() -> None:
        for weight, bias, rows_in, rows_out in layers:
            torch.addmm(bias, rows_in, weight, out=rows_out).tanh_()

    return run


def _update(layers: list[Layer]) -> Callable[[], None]:
    """The products of a forward and a backward pass, and one fused step of AdamW."""
    import torch

    forward = _forward(layers)
    parameters = [tensor.clone().requires_grad_() for layer in layers for tensor in layer[:2]]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer = torch.optim.AdamW(parameters, fused=True)

    def run() -> None:
        forward()
        for weight, _, rows_in, rows_out in layers:
            torch.mm(rows_in.T, rows_out)
            rows_out.sum(0)
            if len(weight) != len(layers[0][0]):  # nobody asks for the gradient of an observation
                torch.mm(rows_out, weight.T)
        optimizer.step()

    return run


def _layers(shapes: list[Shape], rows: int) -> list[Layer]:
    """Weight, bias, rows that come in and rows that go out of each layer."""
    import torch

    return [
        (torch.randn(inputs, outputs), torch.zeros(outputs), torch.randn(rows, inputs), torch.empty(rows, outputs))
        for outputs, inputs in shapes
    ]


def _mean_seconds(work: Callable[[], None], times: int) -> float:
    work()
    start = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - start) / times
