"""Virtual environments of the peers, each made once and anew when its requirements change."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contestants import OWN, SB3, SBX
from benchmarks.measure import Announce

ROOT = Path(__file__).parents[1]
DIRECTORY = ROOT / ".cache" / "peers"
CONSTRAINTS = ROOT / "constraints.txt"
RAY = "Ray Tune"
_STAMP = "requirements.txt"


@dataclass(frozen=True)
class Peer:
    """An environment that is not this project's.

    Attributes:
        name: Of its directory.
        requirements: What is installed one after the other, in the versions of ``constraints.txt`` where it has one.
            torch goes first and alone, so that nothing pulls another build of it.
    """

    name: str
    requirements: tuple[tuple[str, ...], ...]

    @property
    def stamp(self) -> str:
        """What the environment was made from: requirements, versions, interpreter."""
        constraints = hashlib.sha256(CONSTRAINTS.read_bytes()).hexdigest()
        lines = [" ".join(packages) for packages in self.requirements]
        return "\n".join([f"python {platform.python_version()}", f"constraints.txt {constraints}", *lines, ""])


_JAX = ("sbx-rl==0.28.0", "jax==0.10.2", "jaxlib==0.10.2", "flax==0.12.8", "optax==0.2.8")
PEERS = {
    SB3: Peer("stable-baselines3", (("torch",), ("stable-baselines3", "gymnasium[mujoco]"))),
    SBX: Peer("sbx", (("torch",), (*_JAX, "gymnasium[mujoco]"))),
    RAY: Peer("ray-tune", (("torch",), ("ray[tune]==2.60.0", "stable-baselines3", "gymnasium[mujoco]"))),
}


def interpreter(library: str, announce: Announce) -> Path:
    """The python of a library's environment, which is made if there is none; ours runs this program.

    Raises:
        subprocess.CalledProcessError: If a package cannot be installed.
    """
    return Path(sys.executable) if library == OWN else made(PEERS[library], DIRECTORY, announce)


def made(peer: Peer, directory: Path, announce: Announce) -> Path:
    """The python of a peer's environment in a directory, made unless its stamp says that it is there."""
    place = directory / peer.name
    python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = place / _STAMP
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == peer.stamp:
        return python
    announce(f"making an environment for {peer.name} in {place}; this takes a minute or two, once")
    shutil.rmtree(place, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    for packages in peer.requirements:
        command = [python, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "-c", CONSTRAINTS]
        subprocess.run([*command, *packages], check=True, stdout=sys.stderr)
    stamp.write_text(peer.stamp, encoding="utf-8")  # last: an interrupted installation has none
    return python
