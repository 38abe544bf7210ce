"""Clipping of gradients as plain tensor operations: a traced step has the arithmetic of an eager one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def clip_by_global_norm_(gradients: Sequence[Tensor], max_norm: float | Tensor) -> Tensor:
    """``g <- g * min(1, max_norm / (norm + 1e-6))`` with the norm of all gradients together, in place.

    The bits are those of ``torch.nn.utils.clip_grad_norm_``.

    Args:
        gradients: Tensors of any shapes.
        max_norm: Largest norm allowed; a float and a 0-d tensor give the same bits.

    Returns:
        The norm before clipping, a 0-d tensor.

    Source: Pascanu, Mikolov & Bengio 2013, algorithm 1.
    """
    if not gradients:
        return torch.tensor(0.0)
    device = gradients[0].device
    norms = [torch.linalg.vector_norm(gradient).to(device) for gradient in gradients]
    total_norm: Tensor = torch.linalg.vector_norm(torch.stack(norms))
    # torch divides a float by a tensor as reciprocal times float; a true division differs in the last bit.
    coefficient = ((total_norm + 1e-6).reciprocal() * max_norm).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(coefficient.to(gradient.device))
    return total_norm
