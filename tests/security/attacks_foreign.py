"""Hostile files of other systems: pickles wherever one could be read, and bombs."""

from __future__ import annotations

import base64
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.checkpoint.foreign_files import SB3_ZIP, members_of, sb3_zip, torch_zip
from tests.security.corpus import ALL, ATTACKS, Attack, Content, Runs, attack, command, family, program

PICKLES: dict[str, Callable[[Path], bytes]] = {
    "a command": command,
    "a program": program,
    "a command in protocol 0": lambda canary: command(canary, 0),
    "a program in protocol 2": lambda canary: program(canary, 2),
    "a command in a file of torch": lambda canary: torch_zip(command(canary, 2)),
    "a program in a file of torch": lambda canary: torch_zip(program(canary, 2)),
}

for _case, _pickle in PICKLES.items():
    ATTACKS[f"whole file: {_case}"] = Attack(_pickle, ("Untrusted",), ALL)


@attack("Untrusted", by=ALL)
def an_old_file_of_torch(canary: Path) -> Content:
    magic = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
    return magic + command(canary, 2)


def _data(canary: Path, key: str) -> bytes:
    value = {":type:": "<class 'x'>", ":serialized:": base64.b64encode(command(canary)).decode()}
    return json.dumps({**json.loads(members_of(SB3_ZIP.read_bytes())["data"]), key: value}).encode()


_OTHERS = tuple(name for name in ALL if name != "import_weights")
family(
    "SB3, pickled in data",
    lambda canary, key: sb3_zip({"data": _data(canary, key)}),
    {key: key for key in ("policy_class", "clip_range", "observation_space", "policy_kwargs", "unknown", "predict")},
    "Untrusted",
    by=_OTHERS,
)
family(
    "SB3, a pickle for",
    lambda canary, name: sb3_zip({name: command(canary)}),
    {name: name for name in ("policy.pth", "policy.optimizer.pth", "pytorch_variables.pth")},
    *("Untrusted", "Corrupt", "Unsupported", "Truncated"),
    by=ALL,
)
family(
    "SB3, a pickle in a file of torch for",
    lambda canary, name: sb3_zip({name: torch_zip(command(canary, 2))}),
    {name: name for name in ("policy.pth", "policy.optimizer.pth", "pytorch_variables.pth")},
    "Untrusted",
    by=ALL,
)


def _torch_saved(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


@attack("Untrusted", by=ALL)
def v1_with_a_pickle(canary: Path) -> Content:
    return _torch_saved({"format_version": "v1_policy_only", "data": Runs(os.system, f"touch '{canary}'")})


@attack("Untrusted", by=ALL)
def v2_with_a_pickle(canary: Path) -> Content:
    payload = Runs(os.system, f"touch '{canary}'")
    return _torch_saved({"format_version": "v2_full_parameters", "data": {"policy": {}}, "performance": payload})


@attack("Untrusted", by=ALL)
def a_pickled_normaliser(canary: Path) -> Content:
    return pickle.dumps({"obs_rms": Runs(os.system, f"touch '{canary}'"), "clip_obs": 10.0})


@attack("Untrusted", by=ALL)
def a_pickled_policy(canary: Path) -> Content:
    return _torch_saved({"state_dict": {}, "data": Runs(os.system, f"touch '{canary}'")})


@attack("TooLarge", "Untrusted", by=ALL)  # to load, any file of SB3 is untrusted
def a_deflated_bomb_in_a_file_of_sb3(canary: Path) -> Content:
    return sb3_zip({"policy.pth": bytes(100 * 10**6)}, zipfile.ZIP_DEFLATED)
