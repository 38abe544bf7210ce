"""Hostile archives in our own form: pickles for members, names that lead elsewhere, sizes that lie, bombs."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

from tests.checkpoint.foreign_files import torch_zip, zipped
from tests.security.corpus import Content, attack, command, family
from tests.security.own_files import good, rebuilt
from tools.fuzz.archives import MANIFEST, laid_out, manifest_of

MEMBERS = (
    *("config.json", "spaces.json", "spaces.safetensors", "policy.json", "policy.safetensors", "optimizer.json"),
    *("optimizer.safetensors", "vgs.json", "vgs.safetensors", "kl_control.json", "hyperparameters.json"),
    *("progress.json", "divergence.json", "counters.json", "observations.json", "episodes.json"),
)


_NAMED = ("Corrupt", "TooLarge", "Mismatch", "Untrusted", "Unsupported")
family("a pickle for", lambda canary, name: rebuilt({name: command(canary)}), {name: name for name in MEMBERS}, *_NAMED)
family(
    "a file of torch for",
    lambda canary, name: rebuilt({name: torch_zip(command(canary))}),
    {"policy": MEMBERS[4]},
    *_NAMED,
)
family("a pickle that nobody reads", lambda canary, name: rebuilt({name: command(canary)}), {"data": "data"})
family(
    "a member that has no place",
    lambda canary, name: rebuilt({name: command(canary)}),
    {"policy.pth": "policy.pth"},
    "Unsupported",
    "Corrupt",
)


@attack("Corrupt", "TooLarge", by=("DistributionalPPO.load",))
def a_pickle_for_the_manifest(canary: Path) -> Content:
    return laid_out({MANIFEST: command(canary), **good()[0]}.items())


NAMES = {
    "up": "../../x.json",
    "absolute": "/etc/x.json",
    "drive": "C:\\x.json",
    "folder": "a/config.json",
    "empty": "",
    "dot": ".config.json",
    "zero": "config.json\0",
    "capitals": "Config.json",
    "long": "x" * 60_000,
}
family("a name", lambda canary, name: laid_out(_with_manifest({**good()[0], name: b"{}"}).items()), NAMES, "Corrupt")


def _with_manifest(members: Mapping[str, bytes]) -> dict[str, bytes]:
    return {MANIFEST: manifest_of(rebuilt({})), **members}


@attack("Corrupt")
def a_member_twice(canary: Path) -> Content:
    members = list(_with_manifest(good()[0]).items())
    return laid_out([*members, ("config.json", command(canary))])


@attack("Corrupt")
def a_link(canary: Path) -> Content:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(MANIFEST, manifest_of(rebuilt({})))
        link = zipfile.ZipInfo("config.json")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    return file.getvalue()


@attack("Corrupt", "Truncated")
def sizes_that_lie(canary: Path) -> Content:
    members = _with_manifest(good()[0])
    return laid_out(members.items(), {"policy.safetensors": 2**32 - 1})


@attack("Corrupt", "Truncated", "TooLarge")
def sizes_that_lie_together(canary: Path) -> Content:
    members = _with_manifest(good()[0])
    return laid_out(members.items(), dict.fromkeys(members, 2**32 - 1))


@attack("Corrupt", "TooLarge", "Unsupported")
def a_deflated_bomb(canary: Path) -> Content:
    zeros = bytes(20 * 10**6)
    return zipped({MANIFEST: manifest_of(rebuilt({})), "policy.safetensors": zeros}, zipfile.ZIP_DEFLATED)


@attack("TooLarge")
def ten_thousand_members(canary: Path) -> Content:
    return laid_out([(MANIFEST, manifest_of(rebuilt({}))), *((f"m{index}", b"") for index in range(10_000))])


@attack("TooLarge")
def a_manifest_of_two_megabytes(canary: Path) -> Content:
    return rebuilt({}, comment="x" * 2_000_000)
