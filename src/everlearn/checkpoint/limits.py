"""How much a file may ask for; everything is compared with these before it is allocated."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Limits:
    """Bounds for what is read; raise one with ``load(..., limits=Limits(file_bytes=...))``.

    Args:
        file_bytes: Size of the whole file, in bytes.
        members: Members of the archive.
        manifest_bytes: Size of the manifest, in bytes.
        json_bytes: Size of any other JSON member, in bytes.
        config_bytes: Size of the configuration, in bytes.
        json_depth: Nesting of lists and objects.
        header_bytes: Size of the header of a tensor member, in bytes.
        tensors: Tensors in one member.
        network: Factor on what a network of the file's weights may take to be built; more for policies that hold much
            besides their weights.
        buffer_bytes: Size of the rollout buffer that the configuration asks for, in bytes.
    """

    file_bytes: int = 2 * 2**30
    members: int = 64
    manifest_bytes: int = 2**20
    json_bytes: int = 2**20
    config_bytes: int = 2**18
    json_depth: int = 32
    header_bytes: int = 8 * 2**20
    tensors: int = 20_000
    buffer_bytes: int = 16 * 2**30
    network: float = 1.0


LIMITS = Limits()
OWN = replace(LIMITS, file_bytes=2**63, buffer_bytes=2**63, network=math.inf)
"""For what this process has made itself, as large as it is."""
