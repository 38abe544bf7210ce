"""B39: an optimizer of the family with variance scaling, under autocast and a gradient scaler, in a plain loop."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from everlearn.gradients import VarianceGradientScaler
from everlearn.optim import UPGD, UPGDW, AdaptiveUPGD
from everlearn.testing.optimizers import all_finite, same, values

Parts = tuple[nn.Module, Optimizer, VarianceGradientScaler]


def parts(kind: type[Optimizer]) -> Parts:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = kind(network.parameters(), lr=0.01, sigma=0.01, adaptive_noise=True, seed=0)
    scaler = VarianceGradientScaler(network.named_parameters(), warmup_steps=2)
    scaler.attach(optimizer)
    return network, optimizer, scaler


def learn(these: Parts, spoilt: set[int], steps: int, dtype: torch.dtype) -> Iterator[float]:
    """The loop that is documented: unscale, variance scaling, clip, step, commit. The loss overflows where spoilt."""
    network, optimizer, scaler = these
    loss_scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    batches = iter(torch.randn(steps, 16, 4, generator=torch.Generator().manual_seed(0)))
    for step in range(steps):
        inputs = torch.randn(16, 4) if step in spoilt else next(batches)
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=dtype):
            loss = (network(inputs) - 1).square().mean()
        loss_scaler.scale(loss * torch.inf if step in spoilt else loss).backward()
        loss_scaler.unscale_(optimizer)
        factor = scaler.scale_gradients()
        nn.utils.clip_grad_norm_(network.parameters(), 0.5)
        loss_scaler.step(optimizer)
        scaler.step()
        loss_scaler.update()
        yield factor


def snapshot(these: Parts) -> list[Any]:
    """Everything that a step changes, apart from the count of skipped steps."""
    _, optimizer, scaler = these
    statistics = {name: value for name, value in scaler.state_dict().items() if name != "skipped_steps"}
    return [values(optimizer), optimizer.state_dict(), statistics]


@pytest.mark.parametrize("kind", [UPGD, AdaptiveUPGD, UPGDW])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_skipped_step_leaves_parameters_averages_noise_and_statistics_untouched(kind, dtype):
    these = parts(kind)
    snapshots = [snapshot(these), *(snapshot(these) for _ in learn(these, {4, 5}, 8, dtype))]
    changed = [[not same(*pair) for pair in zip(before, after, strict=True)] for before, after in pairwise(snapshots)]
    assert changed == [[step not in (4, 5)] * 3 for step in range(8)]
    assert (these[2].step_count, these[2].skipped_steps) == (6, 2)
    assert these[2].get_scaling_factor() < 1.0
    assert all_finite(these[1])


@pytest.mark.parametrize("kind", [UPGD, AdaptiveUPGD, UPGDW])
def test_with_skipped_steps_it_ends_where_it_ends_without_them(kind):
    """Neither the scale of the loss, which a skipped step lowers, nor what was pending in it reaches anything."""
    ends, factors = [], []
    for spoilt, steps in (({3, 5, 6}, 11), (set(), 8)):
        these = parts(kind)
        taken = list(learn(these, spoilt, steps, torch.bfloat16))
        factors.append([factor for step, factor in enumerate(taken) if step not in spoilt])
        ends.append(snapshot(these))
    assert factors[0] == factors[1]
    assert factors[0][-1] < 1.0
    assert same(*ends)
