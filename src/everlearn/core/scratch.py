"""Private temporary directories, which go even where the process that made them was killed: the next one sweeps."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path
from tempfile import TemporaryDirectory


def scratch_directory(purpose: str) -> TemporaryDirectory[str]:
    """A new directory that only this user can enter; those of the same purpose whose processes are gone are removed.

    Args:
        purpose: A word for its name, ``everlearn-PURPOSE-PID-...``.
    """
    _sweep(purpose)
    prefix = f"everlearn-{purpose}-{os.getpid()}-"
    return TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True)


def _sweep(purpose: str) -> None:
    """Remove what processes of this user have left that were killed; what resists stays."""
    if os.name != "posix":  # where asking for a process by its signals would end it
        return
    name = re.compile(rf"everlearn-{re.escape(purpose)}-(\d+)-\w+")
    for path in Path(tempfile.gettempdir()).glob(f"everlearn-{purpose}-*"):
        found = name.fullmatch(path.name)
        if found and _is_own_directory(path) and _is_gone(int(found[1])):
            shutil.rmtree(path, ignore_errors=True)


def _is_own_directory(path: Path) -> bool:
    return not path.is_symlink() and path.is_dir() and path.stat().st_uid == os.geteuid()


def _is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # somebody else's
        return False
    return False
