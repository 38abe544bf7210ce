"""Generators: private streams that leave the global ones alone, and the state of the global ones."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def private_seed(*labels: str | int) -> int:
    """A 63-bit seed that follows from torch's global generator without advancing it.

    Deterministic under ``torch.manual_seed``; different labels give independent seeds.
    """
    digest = hashlib.sha256(torch.get_rng_state().numpy().tobytes())
    digest.update(repr(labels).encode())
    return int.from_bytes(digest.digest()[:8], "little") >> 1


def private_generator(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator of its own on ``device``, seeded with ``seed``."""
    return torch.Generator(device=device).manual_seed(seed)


class GlobalGenerators:
    """The state of python's, numpy's and torch's global generators, as a part of a state tree."""

    def state_dict(self) -> dict[str, Any]:
        """A snapshot of the global generators, of every initialised CUDA device too."""
        version, internal, gauss = random.getstate()
        name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
        state: dict[str, Any] = {
            "python": {"version": version, "internal": list(internal), "gauss": gauss},
            "numpy": {
                "name": name,
                "keys": torch.from_numpy(np.asarray(keys).astype(np.int64)),
                "position": position,
                "has_gauss": has_gauss,
                "cached": cached,
            },
            "torch": torch.get_rng_state(),
        }
        if torch.cuda.is_initialized():
            state["cuda"] = torch.cuda.get_rng_state_all()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put the global generators back to a snapshot; CUDA devices that this machine lacks are left out."""
        python, numpy = state_dict["python"], state_dict["numpy"]
        random.setstate((python["version"], tuple(python["internal"]), python["gauss"]))
        keys = numpy["keys"].numpy().astype(np.uint32)
        np.random.set_state((numpy["name"], keys, numpy["position"], numpy["has_gauss"], numpy["cached"]))
        torch.set_rng_state(state_dict["torch"])
        for device, state in zip(range(torch.cuda.device_count()), state_dict.get("cuda", ()), strict=False):
            torch.cuda.set_rng_state(state, device)


@contextmanager
def kept_generators() -> Iterator[None]:
    """The global generators afterwards are what they were before."""
    generators = GlobalGenerators()
    before = generators.state_dict()
    try:
        yield
    finally:
        generators.load_state_dict(before)


def seeded_generators(seed: int) -> dict[str, Any]:
    """The state that the global generators have when they are seeded; those of now stay as they are.

    Args:
        seed: 63 bits, as from ``private_seed``.
    """
    with kept_generators():
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.default_generator.manual_seed(seed)
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(seed)
        return GlobalGenerators().state_dict()
