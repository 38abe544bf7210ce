"""Archives in the form of everlearn's files, without any of the checks that everlearn makes before it writes one."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MANIFEST = "manifest.json"
HEAD = {"format": "everlearn_v3", "version": 3, "min_reader": 3}

Named = tuple[str, bytes]


def sealed(members: Mapping[str, bytes], about: Mapping[str, Any]) -> bytes:
    """A file with a manifest that has right sizes and hashes, whatever else it says."""
    files = {name: {"bytes": len(part), "sha256": hashlib.sha256(part).hexdigest()} for name, part in members.items()}
    lines = "".join(f"{name} {files[name]['sha256']}\n" for name in sorted(files))
    identity = hashlib.sha256(lines.encode("utf-8", "surrogatepass")).hexdigest()
    manifest = json.dumps({**HEAD, **about, "content_id": identity, "files": files}).encode()
    return laid_out([(MANIFEST, manifest), *members.items()])


def laid_out(members: Iterable[Named], sizes: Mapping[str, int] | None = None) -> bytes:
    """An archive of any members, with right checksums; sizes are lied about where asked."""
    listed = list(members)
    headers, directory = layout(listed, [(sizes or {}).get(name, len(content)) for name, content in listed])
    parts = [part for header, (_, content) in zip(headers, listed, strict=True) for part in (header, content)]
    return b"".join([*parts, directory])


def layout(members: Sequence[Named], sizes: Sequence[int]) -> tuple[list[bytes], bytes]:
    """Headers and directory for any sizes; numbers beyond 32 bits are cut."""
    headers, directory, offset = [], b"", 0
    for (name, content), size in zip(members, sizes, strict=True):
        encoded = name.encode("utf-8", "surrogatepass")
        common = (20, 0, 0, 0, 0x21, zlib.crc32(content), size, size, len(encoded), 0)
        headers.append(struct.pack("<4s5H3L2H", b"PK\3\4", *common) + encoded)
        place = offset % 2**32
        directory += struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, *common, 0, 0, 0, 0, place) + encoded
        offset += len(headers[-1]) + size
    counts = (len(members), len(members), len(directory), offset % 2**32, 0)
    return headers, directory + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, *counts)


def manifest_of(content: bytes) -> bytes:
    """The manifest of a file of everlearn."""
    start = 30 + len(MANIFEST)
    return content[start : start + int.from_bytes(content[18:22], "little")]
