"""What the UPGD family did in its last step: how much was protected, refreshed, and how loud the noise was."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from everlearn.optim import rules
from everlearn.optim.block import Block, Hyper
from everlearn.optim.directions import Direction

PROTECTED, REFRESHED = 0.9, 1.1
"""Multipliers of the base step, beyond which a weight counts as protected or refreshed."""


def step_diagnostics(
    blocks: Sequence[tuple[Block, Hyper]], etas: Sequence[Tensor | None], direction: Direction
) -> dict[str, Tensor]:
    """Per label of the groups: eta, shares of weights protected and refreshed, noise and its ratio to the update.

    Args:
        blocks: As they were updated, with the hyper-parameters of their groups.
        etas: The largest utility that normalised each block.
        direction: The family member's direction.

    Returns:
        0-d tensors by ``<label>/<name>``; groups without a label are counted together under the name alone.
    """
    labels = dict.fromkeys(hyper.get("label") for _, hyper in blocks)
    values: dict[str, Tensor] = {}
    for label in labels:
        chosen = [(b, h, e) for (b, h), e in zip(blocks, etas, strict=True) if h.get("label") == label]
        prefix = f"{label}/" if label else ""
        values |= {f"{prefix}{name}": value for name, value in _of(chosen, direction).items()}
    return values


def _of(blocks: Sequence[tuple[Block, Hyper, Tensor | None]], direction: Direction) -> dict[str, Tensor]:
    values: dict[str, Tensor] = {}
    multipliers = [_multiplier(block, eta).reshape(-1) for block, _, eta in blocks if eta is not None]
    if multipliers:
        multiplier = torch.cat(multipliers)
        values["eta"] = torch.stack([eta.amax() for _, _, eta in blocks if eta is not None]).amax()
        values["protected"] = (multiplier < PROTECTED).double().mean()
        values["refreshed"] = (multiplier > REFRESHED).double().mean()
    noisy = [(block, hyper) for block, hyper, _ in blocks if block.noise is not None]
    if noisy:
        noise = torch.cat([_noise(block, hyper) for block, hyper in noisy])
        update = torch.cat([_update(block, hyper, direction) for block, hyper in noisy])
        values["noise_std"] = _rms(noise)
        values["noise_to_update"] = _rms(noise) / _rms(update)
    return values


def _multiplier(block: Block, eta: Tensor) -> Tensor:
    """How much of the base optimizer's step a weight takes: 1 at utility zero, for any step multiplier."""
    return 2 * rules.utility_gate(block, eta)


def _noise(block: Block, hyper: Hyper) -> Tensor:
    std = torch.as_tensor(
        block.spread(rules.noise_std(block, hyper)), dtype=block.param.dtype, device=block.param.device
    )
    return std.expand_as(block.param).reshape(-1)


def _update(block: Block, hyper: Hyper, direction: Direction) -> Tensor:
    scale = block.step_scale if block.grad_scale is None else block.grad_scale
    update = direction.update(block, hyper)
    return (update if scale is None else update * block.spread(scale)).reshape(-1)


def _rms(values: Tensor) -> Tensor:
    return values.square().mean().sqrt()
