"""Several tensors seen as one vector: one kernel call instead of one per tensor."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor


class FlatLayout:
    """Where each of several tensors lies in one vector of ``numel`` elements.

    Args:
        tensors: Their shapes and order make the layout; their values are not kept.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.shapes = [tensor.shape for tensor in tensors]
        self.sizes = [tensor.numel() for tensor in tensors]
        self.offsets = [0, *accumulate(self.sizes)]
        self.numel = self.offsets[-1]
        device = tensors[0].device if tensors else torch.device("cpu")
        self._repeats = torch.tensor(self.sizes, dtype=torch.long, device=device)
        self.root_sizes = self._repeats.double().sqrt()

    def __len__(self) -> int:
        return len(self.shapes)

    def views(self, flat: Tensor) -> list[Tensor]:
        """One view of ``flat`` per tensor, in its shape."""
        return [part.view(shape) for part, shape in zip(flat.split(self.sizes), self.shapes, strict=True)]

    def gather_(self, flat: Tensor, tensors: Sequence[Tensor]) -> Tensor:
        """Copy the tensors into ``flat``, which may have another dtype; returns ``flat``.

        To be called where no gradient is recorded.
        """
        return torch.cat([tensor.reshape(-1) for tensor in tensors], out=flat) if tensors else flat

    def sums(self, flat: Tensor) -> Tensor:
        """The sum over the elements of each tensor in float64, (n,)."""
        return torch.segment_reduce(flat.double(), "sum", lengths=self._repeats, unsafe=True)

    def norms(self, flat: Tensor) -> Tensor:
        """The norm of the elements of each tensor, (n,)."""
        return torch.stack(torch._foreach_norm(self.views(flat)))

    def expand(self, per_tensor: Tensor) -> Tensor:
        """One value per tensor, (n,), repeated for each of its elements, (numel,)."""
        return torch.repeat_interleave(per_tensor, self._repeats, output_size=self.numel)


class TracedLayout(FlatLayout):
    """The same in operations that a compiler turns into plain loops."""

    def gather(self, tensors: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
        """The tensors side by side, (numel,)."""
        return torch.cat([tensor.reshape(-1) for tensor in tensors]).to(dtype)

    def norms(self, flat: Tensor) -> Tensor:
        """The norm of the elements of each tensor, (n,)."""
        return torch.stack([torch.linalg.vector_norm(view) for view in self.views(flat)])

    def expand(self, per_tensor: Tensor) -> Tensor:
        """One value per tensor, (n,), repeated for each of its elements, (numel,)."""
        return torch.cat([value.expand(size) for value, size in zip(per_tensor.unbind(), self.sizes, strict=True)])
