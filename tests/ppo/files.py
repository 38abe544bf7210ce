"""Files of models, and what a wicked hand could make of them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from everlearn import PPO
from everlearn.checkpoint.archive import pack, read_archive


def file_of(model: PPO) -> bytes:
    stream = io.BytesIO()
    model.save(stream)
    return stream.getvalue()


def rewritten(content: bytes, change: Callable[[dict[str, Any]], Any]) -> io.BytesIO:
    """The file with other members, whose hashes are right.

    Args:
        content: Of a file of ours.
        change: Changes the members, by name; JSON members are decoded.
    """
    archive = read_archive(io.BytesIO(content))
    members: dict[str, Any] = {
        name: json.loads(bytes(member)) if name.endswith((".json", "data")) else bytes(member)
        for name, member in archive.members.items()
    }
    change(members)
    written = {
        name: value if isinstance(value, bytes) else json.dumps(value).encode() for name, value in members.items()
    }
    about = {key: value for key, value in archive.manifest.items() if key not in ("files", "content_id")}
    return io.BytesIO(b"".join(pack(written, about)))


def with_config(content: bytes, **values: Any) -> io.BytesIO:
    """The file with other arguments."""
    return rewritten(content, lambda members: members["config.json"].update(values))


def on_disk(stream: io.BytesIO, directory: Path) -> Path:
    path = directory / "file.zip"
    path.write_bytes(stream.getvalue())
    return path
