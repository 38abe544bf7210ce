"""Functions of tensors as compiled graphs, without anything that a call would have to check or could recompile."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Function = Callable[..., list[Tensor]]
_ON_THE_CPU = {"cpp_wrapper": True, "size_asserts": False}
"""Of the compiler: what calls the kernels is compiled too, and does not look at shapes again."""
compilations = 0
"""How many graphs this process has compiled."""


@torch.no_grad()
def compiled(function: Function, example: Sequence[Tensor]) -> Function:
    """The function as one compiled graph, for tensors of the example's shapes, dtypes, strides and devices alone.

    It is traced by being run on copies of the example, so that neither the example nor anything else that comes in as a
    tensor changes. Whatever else the function reads becomes a constant of the graph; a branch on a value is an error.
    The graph may change its inputs in place. It knows no gradients, and looks at nothing when it is called: whoever
    calls it sees to the shapes.

    Args:
        function: Takes tensors, returns tensors.
        example: Its arguments.

    Raises:
        Exception: Whatever the function, the tracer or the compiler raises, of any kind.
    """
    global compilations
    from torch._inductor import compile as compile_graph  # the two take a second to import
    from torch.fx.experimental.proxy_tensor import make_fx

    inputs = [tensor.detach().clone() for tensor in example]
    on_cpu = all(tensor.device.type == "cpu" for tensor in inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's, of what torch itself still does
        graph = make_fx(function)(*inputs)
        for node in graph.graph.nodes:
            node.meta.clear()  # shapes as the tracer saw them, which the compiler finds for itself
        made: Any = compile_graph(graph, list(inputs), options=_ON_THE_CPU if on_cpu else None)
    compilations += 1
    return made  # type: ignore[no-any-return]
