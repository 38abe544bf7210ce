"""Running means of 0-d tensors that are read from the device once, at the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor


class Row(NamedTuple):
    """Some named quantities in one tensor.

    Args:
        names: Of the quantities.
        values: (len(names),).
    """

    names: tuple[str, ...]
    values: Tensor

    @classmethod
    def of(cls, values: Mapping[str, Tensor]) -> Row:
        """A row of 0-d tensors."""
        return cls(tuple(values), torch.stack([value.detach() for value in values.values()]))


class RunningMeans:
    """Mean of every named quantity over the calls of ``add``; names may come and go between calls."""

    def __init__(self) -> None:
        self._unread: dict[tuple[str, ...], list[Tensor]] = {}
        self._read: dict[str, list[float]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, row: Row) -> None:
        """Remember a row, without reading it."""
        self._unread.setdefault(row.names, []).append(row.values)
        self._count += 1

    def series(self) -> dict[str, list[float]]:
        """Every remembered value by name, in order where they came under the same names; each is read once."""
        for names, rows in self._unread.items():
            for name, values in zip(names, torch.stack(rows).T.tolist(), strict=True):
                self._read.setdefault(name, []).extend(values)
        self._unread.clear()
        return {name: list(values) for name, values in self._read.items()}

    def means(self) -> dict[str, float]:
        """The mean by name."""
        return {name: sum(values) / len(values) for name, values in self.series().items()}
