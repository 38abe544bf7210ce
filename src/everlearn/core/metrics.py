"""Running means of 0-d tensors that are read from the device once, at the end."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class RunningMeans:
    """Mean of every named quantity over the calls of ``add``; names may come and go between calls."""

    def __init__(self) -> None:
        self._unread: dict[str, list[Tensor]] = {}
        self._read: dict[str, list[float]] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Remember one 0-d tensor per name, without reading it."""
        for name, value in values.items():
            self._unread.setdefault(name, []).append(value.detach())

    def series(self) -> dict[str, list[float]]:
        """Every remembered value by name; each is read once, those of a name in one transfer from the device."""
        for name, values in self._unread.items():
            self._read.setdefault(name, []).extend(torch.stack(values).tolist())
        self._unread.clear()
        return {name: list(values) for name, values in self._read.items()}

    def means(self) -> dict[str, float]:
        """The mean by name."""
        return {name: sum(values) / len(values) for name, values in self.series().items()}
