"""The update rules of the UPGD family: stateless, in place, tensors only.

Every rule works on a ``Block``: one parameter, or several gathered into one vector. Hyper-parameters are python
floats (the eager optimizers) or 0-d tensors (a traced step): the same formulae serve both.

Notation: ``w`` weight, ``g`` gradient, ``U`` utility trace, ``eta`` the largest corrected utility in a scope, ``k``
the step multiplier, ``s = sigmoid(U / eta)``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from everlearn.optim.averages import ema_, ema_of_product_
from everlearn.optim.block import Block, Hyper, Scalar
from everlearn.optim.directions import Direction, subtract_, subtract_product_

# --- utility and gate ------------------------------------------------------------------------------------------------


def observe_utility_(block: Block, beta: Scalar) -> None:
    """``U <- beta * U + (1 - beta) * (-g * w)``, first-order utility (Elsayed & Mahmood 2024, Eq. 2)."""
    grad = block.grad if block.grad_scale is None else block.grad / block.spread(block.grad_scale)
    ema_of_product_(block.state["avg_utility"], grad, block.param, beta, sign=-1.0)


def largest_utility(block: Block, *, corrected: bool = True) -> Tensor:
    """The largest utility in the block, bias-corrected unless the released code's uncorrected one is asked for."""
    utility = block.state["avg_utility"]
    weight = block.spread(block.weights["avg_utility"])
    if not corrected:
        return utility.amax()
    return utility.amax() / weight if not isinstance(weight, Tensor) else (utility / weight).amax()


def largest_utilities_per_parameter(block: Block, *, corrected: bool = True) -> Tensor:
    """The largest utility of each parameter of the block, brought to the shape of its elements."""
    utility = block.state["avg_utility"]
    if corrected:
        utility = utility / block.spread(block.weights["avg_utility"])
    largest = block.spread(block.per_parameter(torch.amax, utility))
    assert isinstance(largest, Tensor)
    return largest


def row_norms(block: Block) -> Tensor:
    """The norm of the corrected utilities along the last dimension, one per element (the released "local" rule)."""
    utility = block.state["avg_utility"] / block.spread(block.weights["avg_utility"])
    norms = [torch.linalg.vector_norm(view, dim=-1, keepdim=True).expand_as(view) for view in block.views(utility)]
    return norms[0] if block.layout is None else torch.cat([norm.reshape(-1) for norm in norms])


def neutral_where_useless(eta: Tensor) -> Tensor:
    """``eta``, or infinity where it is not a positive finite number, so that the gate there is exactly neutral."""
    return torch.where(eta > torch.finfo(eta.dtype).tiny, eta, torch.inf)


def utility_gate(block: Block, eta: Tensor) -> Tensor:
    """``1 - sigmoid(U^ / eta)``: smaller for useful weights, 1/2 at utility 0 or without a usable eta."""
    largest = neutral_where_useless(eta * block.spread(block.weights["avg_utility"]))
    return (block.state["avg_utility"] * largest.reciprocal().neg()).sigmoid_()


# --- noise -----------------------------------------------------------------------------------------------------------


def observe_update_rms_(block: Block, direction: Direction, hyper: Hyper) -> None:
    """``R <- EMA(rms(update))`` for each parameter of the block, before any scale factor; the update is kept."""
    block.update = None
    if block.update_rms is not None:
        block.update = direction.update(block, hyper)
        ema_(block.update_rms, block.root_mean_squares(block.update), hyper["noise_beta"])


def noise_std(block: Block, hyper: Hyper) -> Scalar:
    """The noise's standard deviation: ``sigma``, or ``max(f * sigma * R^, min_noise_std)`` relative to the update.

    ``f`` is the factor that scales the update, so that the ratio of noise to update does not depend on it.
    """
    if block.update_rms is None:
        return hyper["sigma"]  # type: ignore[no-any-return]
    relative = block.update_rms / block.weights["update_rms"] * hyper["sigma"]
    factor = block.step_scale if block.grad_scale is None else block.grad_scale
    if factor is not None:
        relative = relative * factor
    floor = hyper["min_noise_std"]
    return torch.maximum(relative, floor) if isinstance(floor, Tensor) else relative.clamp_min(floor)


# --- the family's step -----------------------------------------------------------------------------------------------


def observe_(block: Block, direction: Direction, hyper: Hyper) -> None:
    """First pass over a block: everything that must be known before the gate is."""
    if hyper["scope"] != "none":
        observe_utility_(block, hyper["beta_utility"])
    direction.observe_(block, hyper)


def move_(block: Block, direction: Direction, hyper: Hyper, eta: Tensor | None, std: Scalar) -> None:
    """Second pass: ``w <- (1 - lr*wd) * w - k * lr * (update + noise) * (1 - s)``; decay is not gated.

    With ``protect=False`` only the noise is gated. ``eta=None`` is the family's base optimizer: no gate at all.
    """
    lr, gate = hyper["lr"], None if eta is None else utility_gate(block, eta)
    gated_lr = lr if gate is None else lr * hyper["step_multiplier"]
    if isinstance(hyper["weight_decay"], Tensor) or hyper["weight_decay"] != 0:
        block.param.mul_(1 - lr * hyper["weight_decay"])
    if hyper["protect"]:
        direction.descend_(block, hyper, gated_lr, gate)
    else:
        direction.descend_(block, hyper, lr, None)
    if block.noise is not None and gate is not None:
        subtract_product_(block.param, block.noise, gate, gated_lr * block.spread(std))
    elif block.noise is not None:
        subtract_(block.param, block.noise, lr * block.spread(std))
