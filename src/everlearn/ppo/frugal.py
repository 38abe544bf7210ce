"""Building from a file: no more than it needs is allocated, and nothing that it overwrites is initialised."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from everlearn.checkpoint.errors import TooLarge
from everlearn.checkpoint.limits import Limits

_SHARE = 32  # tensors of optimizer, scaler and scratch for each parameter
_SLACK = 4_000_000  # elements that small networks may need besides: tables of noise, samples
_KNOWN = ("everlearn", "stable_baselines3", "torch")
_CALLS = (100, 500)  # ways of making a tensor for each weight, and besides

_SIZES: dict[Callable[..., Any], Callable[..., float]] = {
    torch.ops.aten.empty.memory_format: lambda size, *_: math.prod(size),
    torch.ops.aten.empty_strided.default: lambda size, *_: math.prod(size),
    torch.ops.aten.new_empty.default: lambda _, size, *__: math.prod(size),
    torch.ops.aten.new_empty_strided.default: lambda _, size, *__: math.prod(size),
    torch.ops.aten.new_full.default: lambda _, size, *__: math.prod(size),
    torch.ops.aten.new_ones.default: lambda _, size, *__: math.prod(size),
    torch.ops.aten.new_zeros.default: lambda _, size, *__: math.prod(size),
    torch.ops.aten.zeros.default: lambda size, *_: math.prod(size),
    torch.ops.aten.ones.default: lambda size, *_: math.prod(size),
    torch.ops.aten.full.default: lambda size, *_: math.prod(size),
    torch.ops.aten.rand.default: lambda size, *_: math.prod(size),
    torch.ops.aten.randn.default: lambda size, *_: math.prod(size),
    torch.ops.aten.linspace.default: lambda start, end, steps, *_: steps,
    torch.ops.aten.arange.default: lambda end, *_: end,
    torch.ops.aten.arange.start: lambda start, end, *_: end - start,
    torch.ops.aten.arange.start_step: lambda start, end, step=1, *_: (end - start) / step,
    torch.ops.aten.eye.default: lambda n, *_: n * n,
}
"""How many elements each way of making a tensor asks for."""
_FILLS = (
    torch.ops.aten.uniform_.default,
    torch.ops.aten.normal_.default,
    torch.ops.aten.fill_.Scalar,
    torch.ops.aten.zero_.default,
)
"""What ``torch.nn.init`` fills parameters with."""


@contextmanager
def frugal(
    weights: Mapping[str, Tensor], file: object, network: float, policy: type, arguments: Mapping[str, Any]
) -> Iterator[None]:
    """Inside, a network may be built that has about the weights of a file, which are to be loaded into it.

    Args:
        weights: The weights that the file holds.
        file: For messages.
        network: Factor on what may be made: ``Limits.network``.
        policy: The class of the policy that is built.
        arguments: Its arguments; classes of a user among them may have parameters that no file holds, so that then all
            are initialised.

    Raises:
        TooLarge: If the network, or anything made along with it, is larger than that.
    """
    elements = sum(tensor.numel() for tensor in weights.values())
    classes = [policy, *(each for each in arguments.values() if isinstance(each, type))]
    known = all(kind.__module__.partition(".")[0] in _KNOWN for kind in classes)
    with _Building(elements, len(weights), file, network, initialised=not known):
        yield


class _Building(TorchDispatchMode):
    """Refuses tensors beyond an allowance, before they are made, and may leave parameters as memory has them."""

    def __init__(self, elements: int, tensors: int, file: object, network: float, initialised: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._skipped = () if initialised else _FILLS
        self._elements, self._file = elements, file
        self._left: float = network * (_SHARE * elements + _SLACK)
        self._calls: float = network * (_CALLS[0] * tensors + _CALLS[1])

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in self._skipped and isinstance(args[0], nn.Parameter):
            return args[0]
        if func in _SIZES:
            self._left -= _SIZES[func](*args)
            self._calls -= 1
        if self._left < 0 or self._calls < 0:
            raise TooLarge(
                self._file,
                f"its configuration describes a network far beyond the {self._elements} weights that it holds.",
                "If you trust the file, raise limits=Limits(network=...).",
                "config.json",
            )
        return func(*args, **(kwargs or {}))


def require_small_buffer(spaces_of: Iterable[spaces.Space[Any]], samples: int, file: object, limits: Limits) -> None:
    """Refuse a rollout buffer beyond the limit, before anything allocates it.

    Args:
        spaces_of: Observation and action space.
        samples: Steps of a rollout, over all environments.
        file: For messages.
        limits: What is allowed.

    Raises:
        TooLarge: If it would be larger.
    """
    numbers = sum(math.prod(shape) for space in spaces_of for shape in _shapes(space)) + _FIGURES
    size = samples * numbers * _FLOAT_BYTES
    if size > limits.buffer_bytes:
        raise TooLarge(
            file,
            f"its rollout buffer would have {size} bytes, {limits.buffer_bytes} are allowed.",
            "Give another n_steps or, if you trust the file, raise limits=Limits(buffer_bytes=...).",
        )


_FIGURES = 6  # of each sample: reward, episode start, value, log-probability, advantage, return
_FLOAT_BYTES = 4


def _shapes(space: spaces.Space[Any]) -> list[tuple[int, ...]]:
    if isinstance(space, spaces.Dict):
        return [shape for part in space.values() for shape in _shapes(part)]
    return [space.shape or ()]
