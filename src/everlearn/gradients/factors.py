"""How far to trust a step, given noise and signal: stateless rules, right under ``make_fx`` and ``vmap``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from everlearn.gradients.statistics import Scalar, noise_to_signal

FactorRule = Callable[[Tensor, Tensor, Tensor, Tensor, Scalar, Scalar, Scalar], Tensor]


def scale_factor(ratio: Tensor, alpha: Scalar, min_scale: Scalar) -> Tensor:
    """``f = max(1 / (1 + alpha*r), min_scale)``: exactly 1 without noise.

    Source: alpha = 1 is the best step size for a noisy gradient (McCandlish et al. 2018, section 2.2).
    """
    return (1 / (1 + alpha * ratio)).clamp(min=min_scale)


def noise_factors(
    noise: Tensor,
    signal: Tensor,
    unresolved: Tensor,
    sizes: Tensor,
    alpha: Scalar,
    min_scale: Scalar,
    tiny: Scalar,
) -> Tensor:
    """Steps shrink where gradients are noise: ``scale_factor`` of each noise-to-signal ratio, (n,)."""
    return scale_factor(noise_to_signal(noise, signal, tiny), alpha, min_scale)


def relative_factors(
    noise: Tensor,
    signal: Tensor,
    unresolved: Tensor,
    sizes: Tensor,
    alpha: Scalar,
    min_scale: Scalar,
    tiny: Scalar,
) -> Tensor:
    """``f = clip((phi / phi_ref)^alpha, min_scale, 1/min_scale)``: the noisy give step size to the quiet.

    ``phi = S' / (S' + N)`` is the share of signal, ``phi_ref`` its mean over the elements of all measured tensors.
    ``S' = max(S, unresolved)``: below that a signal cannot be told from none, so that a tensor without a visible one
    counts as if it were just visible. A tensor of which nothing is known takes no part and has factor 1; where no
    tensor has any signal there is nothing to redistribute, and all factors are 1.

    Args:
        noise: ``N``, (n,).
        signal: ``S``, (n,).
        unresolved: The signal that noise alone would feign, (n,).
        sizes: Number of elements of each tensor, (n,).
        alpha: The exponent; 0 turns the redistribution off.
        min_scale: Smallest factor; its reciprocal is the largest.
        tiny: Not needed here; all factor rules share one signature.
    """
    resolved = torch.maximum(signal, unresolved)
    total = resolved + noise
    known = total > 0
    share = torch.where(known, resolved / total, 0.0)
    reference = (share * sizes).sum() / torch.where(known, sizes, 0.0).sum()
    relative = torch.where(known & (reference > 0), share / reference, 1.0)
    return (relative**alpha).clamp(min=min_scale).clamp(max=1 / min_scale)


FACTOR_RULES: Mapping[str, FactorRule] = {"noise": noise_factors, "relative": relative_factors}
"""The modes of variance gradient scaling."""


def scaling_factors(
    noise: Tensor,
    signal: Tensor,
    unresolved: Tensor,
    trusted: Tensor,
    sizes: Tensor,
    *,
    rule: FactorRule,
    same_scope: Tensor | None,
    alpha: Scalar,
    min_scale: Scalar,
    tiny: Scalar,
) -> Tensor:
    """The rule applied to noise and signal summed over each tensor's scope; 1 where not yet trusted.

    Args:
        noise: ``N`` of each tensor, (n,).
        signal: ``S`` of each tensor, (n,).
        unresolved: ``(q/c^2) * N`` of each tensor, (n,), as from ``unresolved_signal``.
        trusted: Whether warm-up is over and the tensor is measured, booleans (n,).
        sizes: Number of elements of each tensor, (n,).
        rule: An entry of ``FACTOR_RULES``.
        same_scope: As from ``scope_matrix``.
        alpha: Strength of the scaling.
        min_scale: Smallest factor.
        tiny: Relative floor of the signal.

    Returns:
        Factors, (n,).
    """
    if same_scope is not None:
        noise, signal, unresolved = same_scope @ noise, same_scope @ signal, same_scope @ unresolved
    return torch.where(trusted, rule(noise, signal, unresolved, sizes, alpha, min_scale, tiny), 1.0)


SCOPES: Mapping[str, Callable[[Tensor], Tensor | None]] = {
    "tensor": lambda groups: None,
    "group": lambda groups: groups[:, None] == groups[None, :],
    "global": lambda groups: groups.new_ones(len(groups), len(groups)),
}
"""What is measured together, from the group of each tensor."""


def scope_matrix(scope: str, groups: Sequence[int], like: Tensor) -> Tensor | None:
    """(n, n), 1 where two tensors are in one scope and 0 elsewhere; None where every tensor is its own scope.

    Args:
        scope: A key of ``SCOPES``.
        groups: The group of each tensor, (n,).
        like: Gives dtype and device.
    """
    together = SCOPES[scope](torch.tensor(groups, device=like.device))
    return None if together is None else together.to(like.dtype)


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """``sum(w*x) / sum(w)``, never past the extremes of ``x``, where rounding could carry it, 0-d."""
    mean = (values * weights).sum() / weights.sum()
    return mean.clamp(values.min(), values.max())
