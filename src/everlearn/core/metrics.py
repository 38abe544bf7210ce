"""Running means of 0-d tensors that are read from the device once, at the end."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class RunningMeans:
    """Mean of every named quantity over the calls of ``add``; names may come and go between calls."""

    def __init__(self) -> None:
        self._values: dict[str, list[Tensor]] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Remember one 0-d tensor per name, without reading it."""
        for name, value in values.items():
            self._values.setdefault(name, []).append(value.detach())

    def series(self) -> dict[str, list[float]]:
        """Every remembered value by name: one transfer from the device per name."""
        return {name: torch.stack(values).tolist() for name, values in self._values.items()}

    def means(self) -> dict[str, float]:
        """The mean by name."""
        return {name: sum(values) / len(values) for name, values in self.series().items()}
