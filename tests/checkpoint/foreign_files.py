"""Files of other systems, good ones and attacks, made byte by byte so that no test unpickles anything."""

from __future__ import annotations

import base64
import io
import json
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

DATA = Path(__file__).parents[1] / "data"
SB3_ZIP = DATA / "sb3" / "ppo.zip"
_TRACE = b"import sys; sys.payload_ran = True"
PAYLOAD = b"\x80\x02cbuiltins\nexec\nX" + len(_TRACE).to_bytes(4, "little") + _TRACE + b"\x85R."
"""A pickle that leaves a trace when it is unpickled."""


def payload_ran() -> bool:
    return vars(sys).pop("payload_ran", False)


def zipped(members: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def members_of(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def sb3_zip(changes: Mapping[str, bytes | None] | None = None, compression: int = zipfile.ZIP_STORED) -> bytes:
    """The frozen file with other members, or without those that are None."""
    members = {**members_of(SB3_ZIP.read_bytes()), **(changes or {})}
    return zipped({name: content for name, content in members.items() if content is not None}, compression)


def sb3_data(**changes: Any) -> dict[str, bytes]:
    """The member ``data`` of the frozen file with other values."""
    return {"data": json.dumps({**json.loads(members_of(SB3_ZIP.read_bytes())["data"]), **changes}).encode()}


def pickled_value() -> dict[str, str]:
    """What stands in ``data`` for a value that runs the payload when it is unpickled."""
    return {":type:": "<class 'dict'>", ":serialized:": base64.b64encode(PAYLOAD).decode()}


def saved(value: Any, **options: Any) -> bytes:
    """What torch.save makes of a value."""
    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


def torch_zip(pickle: bytes, storages: tuple[bytes, ...] = ()) -> bytes:
    """A file of torch.save with this pickle."""
    return zipped(
        {
            "archive/data.pkl": pickle,
            "archive/byteorder": b"little",
            **{f"archive/data/{index}": storage for index, storage in enumerate(storages)},
            "archive/version": b"3\n",
        }
    )
