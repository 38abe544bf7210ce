"""Private streams of normal numbers: reproducible, part of the optimizer's state, apart from global generators."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import lru_cache
from typing import Any, final

import torch
from torch import Tensor

from everlearn.core.errors import ArgumentError, StateError, suggestion
from everlearn.core.rng import private_generator

TABLE_SIZE = 2**20
TABLE_SEED = 20_240_507
_MASK = 2**64 - 1


class NoiseStream(ABC):
    """A stream of standard normal numbers."""

    @abstractmethod
    def draw(self, size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """The next ``size`` numbers, (size,); valid until the next call, not to be written to."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """The position in the stream."""

    @abstractmethod
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go to a position in the stream."""


@final
class GeneratorNoise(NoiseStream):
    """Numbers from a ``torch.Generator`` per device, drawn with one call into a buffer that is kept.

    Args:
        seed: Seed of the generators, 63 bits.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._generators: dict[str, torch.Generator] = {}
        self._loaded: dict[str, Tensor] = {}
        self._buffers: dict[tuple[torch.dtype, str], Tensor] = {}

    def draw(self, size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Fill the kept buffer from the device's generator."""
        buffer = self._buffers.get((dtype, str(device)))
        if buffer is None or buffer.numel() != size:
            buffer = self._buffers[dtype, str(device)] = torch.empty(size, dtype=dtype, device=device)
        return buffer.normal_(generator=self._generator(str(device)))

    def _generator(self, device: str) -> torch.Generator:
        if device not in self._generators:
            generator = self._generators[device] = private_generator(self._seed, device)
            if device in self._loaded:
                generator.set_state(self._loaded[device])
        return self._generators[device]

    def state_dict(self) -> dict[str, Any]:
        """The seed and the state of every generator in use."""
        states = {device: generator.get_state() for device, generator in self._generators.items()}
        return {"kind": "generator", "seed": self._seed, "generators": {**self._loaded, **states}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where the saved stream stood; on a device that it had not used, begin from the seed."""
        self._seed = int(state_dict["seed"])
        self._generators = {}
        self._loaded = {device: state.cpu() for device, state in state_dict["generators"].items()}


@final
class TableNoise(NoiseStream):
    """Views into a fixed table of normal numbers, at offsets and with signs from a hash of a counter.

    About a tenth of the cost of drawing; the whole state is two integers.

    Args:
        seed: Which sequence of offsets.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._counter = 0

    def draw(self, size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """A view of the table, or pieces of it where more numbers are wanted than half the table holds."""
        table = _table(dtype, device)
        pieces = []
        for start in range(0, size, TABLE_SIZE // 2):
            length = min(TABLE_SIZE // 2, size - start)
            offset = _hash(self._seed, self._counter) % (2 * TABLE_SIZE - length)
            pieces.append(table[offset : offset + length])
            self._counter += 1
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def state_dict(self) -> dict[str, Any]:
        """Seed and counter."""
        return {"kind": "table", "seed": self._seed, "counter": self._counter}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where the saved stream stood."""
        self._seed, self._counter = int(state_dict["seed"]), int(state_dict["counter"])


KINDS: dict[str, type[GeneratorNoise] | type[TableNoise]] = {"generator": GeneratorNoise, "table": TableNoise}


def make_stream(kind: str, seed: int) -> NoiseStream:
    """The stream called ``generator`` or ``table``.

    Raises:
        ArgumentError: If there is no stream of that kind.
    """
    if kind not in KINDS:
        raise ArgumentError(f"There is no noise source '{kind}'.{suggestion(kind, KINDS)}")
    return KINDS[kind](seed)


def restored_stream(state_dict: dict[str, Any]) -> NoiseStream:
    """A stream at the position that was saved.

    Raises:
        StateError: If it is not the state of a stream.
    """
    kind = state_dict.get("kind")
    if kind not in KINDS:
        raise StateError(
            f"The state holds noise of kind {kind!r}, known are {sorted(KINDS)}. Save the optimizer again."
        )
    stream = make_stream(kind, 0)
    stream.load_state_dict(state_dict)
    return stream


@lru_cache(maxsize=8)
def _table(dtype: torch.dtype, device: torch.device) -> Tensor:
    """Normal numbers with mean 0 and variance 1, followed by their negatives: a draw is as likely to be either."""
    half = torch.empty(TABLE_SIZE, dtype=torch.float64).normal_(generator=private_generator(TABLE_SEED))
    half = (half - half.mean()) / half.std(correction=0)
    return torch.cat([half, -half]).to(dtype=dtype, device=device)


def _hash(seed: int, counter: int) -> int:
    """The SplitMix64 finaliser of seed and counter (Steele, Lea & Flood 2014)."""
    z = (seed + counter * 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)
