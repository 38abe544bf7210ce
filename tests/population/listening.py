"""Where a process and all below it listen, as Linux lists it."""

import os
import re
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

LISTENS = "0A"


def listening(root: int) -> list[IPv4Address | IPv6Address]:
    """The addresses."""
    sockets = {}
    for family in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{family}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == LISTENS:
                sockets[inode] = address_of(local.split(":")[0])
    return [sockets[inode] for process in below(root) for inode in inodes(process) if inode in sockets]


def address_of(text: str) -> IPv4Address | IPv6Address:
    words = [bytes.fromhex(text[start : start + 8])[::-1] for start in range(0, len(text), 8)]
    address = ip_address(b"".join(words))
    return getattr(address, "ipv4_mapped", None) or address


def inodes(process: int) -> list[str]:
    found = []
    with suppress(OSError):
        for file in Path(f"/proc/{process}/fd").iterdir():
            with suppress(OSError):
                found += re.findall(r"socket:\[(\d+)\]", os.readlink(file))
    return found


def below(root: int) -> set[int]:
    """A process and those that it has started, and these."""
    parents = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(file.parent.name)] = int(file.read_text().rpartition(")")[2].split()[1])
    tree, size = {root}, 0
    while len(tree) > size:
        size = len(tree)
        tree |= {process for process, parent in parents.items() if parent in tree}
    return tree
