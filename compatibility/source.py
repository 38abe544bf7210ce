"""Stable-Baselines3's tests, from its source distribution."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path, PurePosixPath

REQUIREMENT = Path(__file__).parent / "sb3_source.txt"
CACHE = Path(".cache/sb3")
_WANTED = re.compile(r"\w[^/]*/(tests/[\w.]+\.py|pyproject\.toml)")


def required_version() -> str:
    """The version whose tests are run."""
    return REQUIREMENT.read_text(encoding="utf-8").split("==")[1].split()[0]


def tests_of_sb3(cache: Path = CACHE) -> Path:
    """A directory with SB3's tests and pytest options; the archive is downloaded once, and its digest checked.

    Args:
        cache: Where the archive and what is taken from it are kept.

    Raises:
        SystemExit: If pip cannot get the archive, or it is not the one that is wanted.
    """
    archive, suite = cache / f"stable_baselines3-{required_version()}.tar.gz", cache / "suite"
    if not archive.exists():
        _download(cache)
    check_digest(archive, REQUIREMENT.read_text(encoding="utf-8"))
    shutil.rmtree(suite, ignore_errors=True)
    unpack(archive, suite)
    return suite


def _download(cache: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    kind = ["--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--require-hashes"]
    done = subprocess.run([*command, *kind, "-r", str(REQUIREMENT), "-d", str(cache)], check=False)
    if done.returncode:
        sys.exit(f"pip could not download Stable-Baselines3's source. Put the archive into {cache} by hand.")


def check_digest(archive: Path, requirement: str) -> None:
    """Refuse an archive that is not the one whose SHA-256 digest the requirement names.

    Args:
        archive: The file.
        requirement: A line of pip's requirements with ``--hash=sha256:``.

    Raises:
        SystemExit: If the digest differs.
    """
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if f"sha256:{found}" not in requirement.split("--hash=")[-1].split():
        sys.exit(
            f"{archive} has the digest {found}, not the one in {REQUIREMENT.name}. Delete it, to download it again."
        )


def unpack(archive: Path, target: Path) -> None:
    """Write the test modules and ``pyproject.toml`` of a source distribution; nothing else, and nothing elsewhere.

    The package itself stays in the archive, so that the tests import the installed one.

    Args:
        archive: A ``.tar.gz`` with one top directory.
        target: The directory that stands for the top directory.
    """
    with tarfile.open(archive) as members:
        for member in members:
            wanted = _WANTED.fullmatch(member.name)
            content = members.extractfile(member) if wanted and member.isfile() else None
            if wanted and content:
                path = target / PurePosixPath(wanted[1])
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content.read())
