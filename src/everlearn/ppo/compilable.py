"""What a compiled update may be made of, and when it has done what the eager one does."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import torch
from torch import Tensor, nn

from everlearn.core.errors import EverlearnError
from everlearn.gradients.placement import Placement
from everlearn.ppo.evaluator import Evaluator

TOLERANCE = 1e-3
"""How far a graph's first update may be off the eager one, relative to the largest movement in each tensor."""
ROUNDING = 1e-6
"""Of the largest element of a tensor: a movement below it is none."""


class NotCompiled(EverlearnError):  # noqa: N818 - nobody has made a mistake
    """An update has no compiled form, or none that can be trusted; the eager one remains."""


def require_plain(optimizer: torch.optim.Optimizer, names: Mapping[Tensor, str]) -> None:
    """Refuse what the graph would silently do otherwise."""
    params = [param for group in optimizer.param_groups for param in group["params"]]
    if set(map(id, params)) != set(map(id, names)):
        raise NotCompiled("the optimizer's parameters are not the policy's.")
    frozen = [names[param] for param in params if not param.requires_grad]
    if frozen:
        raise NotCompiled(f"the parameters {frozen[:5]} are frozen.")
    if len({(param.dtype, param.device) for param in params}) > 1:
        raise NotCompiled("its parameters are of several dtypes or on several devices.")


def require_no_hooks(optimizer: torch.optim.Optimizer, policy: nn.Module) -> None:
    """Refuse hooks, which a graph would not call; those by which a scaler acts on a step are its own."""
    steps = (*optimizer._optimizer_step_pre_hooks.values(), *optimizer._optimizer_step_post_hooks.values())
    if any(not isinstance(getattr(hook, "__self__", None), Placement) for hook in steps):
        raise NotCompiled("the optimizer's step has hooks.")
    for name, parameter in policy.named_parameters():
        if parameter._backward_hooks or parameter._post_accumulate_grad_hooks:
            raise NotCompiled(f"the parameter {name} has hooks.")
    for name, module in policy.named_modules():
        if any(getattr(module, kind) for kind in _HOOKS) or "forward" in vars(module):
            raise NotCompiled(f"the module {name or 'policy'!r} has hooks, or a forward pass put in its own's place.")
        if isinstance(module, _DRAWING):
            raise NotCompiled(f"the module {name!r} draws numbers or keeps running statistics while it learns.")


_DRAWING = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._NormBase)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def described(evaluator: Evaluator) -> Hashable:
    """How a forward pass is built: equal for policies that a trace cannot tell apart by what they say of themselves."""
    ensemble, policy = evaluator.ensemble, evaluator.policy
    modules = tuple((name, type(each), each.training, each.extra_repr()) for name, each in policy.named_modules())
    spaces = repr(policy.observation_space), repr(policy.action_space)
    others = (ensemble.head, ensemble.reduction, ensemble.value_clipping)
    said = tuple(
        (type(each), *(repr(getattr(each, kind, "")) for kind in ("__qualname__", "__dict__"))) for each in others
    )
    return modules, spaces, said


def is_far(found: Tensor, expected: Tensor) -> bool:
    """Whether something that is logged is another thing, beyond rounding."""
    return not torch.isclose(found.double(), expected.double(), rtol=TOLERANCE, atol=1e-5, equal_nan=True)


def differs(found: Tensor, expected: Tensor, before: Tensor) -> bool:
    """Whether a movement is another one, beyond rounding."""
    found, expected, before = (tensor.double().nan_to_num() for tensor in (found, expected, before))
    largest = expected.abs().amax() if expected.numel() else torch.zeros(())
    movement = (expected - before).abs().amax() if expected.numel() else torch.zeros(())
    return bool(((found - expected).abs() > TOLERANCE * movement + ROUNDING * largest).any())
