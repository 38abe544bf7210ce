"""A directory of the user's own for what is kept between runs and executed later.

Compiled code is executed when it is found again. Torch keeps it under ``/tmp``, by a name that everybody knows, so that
another user of the machine could have put something there first.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import stat
import sys
import tempfile
from pathlib import Path

from everlearn.core.errors import ConfigError

_log = logging.getLogger(__name__)
_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def keep_compiled_code_private() -> None:
    """Have torch keep compiled code in a private directory, in this process and those it starts.

    Where the user has set ``TORCHINDUCTOR_CACHE_DIR``, that stands.

    Raises:
        ConfigError: If the directory is there and others could have written into it.
    """
    if not os.environ.get(_VARIABLE):
        os.environ[_VARIABLE] = str(private_directory("compiled"))


def private_directory(name: str) -> Path:
    """The directory ``everlearn/NAME`` under the user's home of caches, which nobody else can write into.

    Where it cannot be made, as with a home that is read-only, it is a new one until this process ends.

    Args:
        name: Its last part.

    Raises:
        ConfigError: If it, or ``everlearn``, is a link, belongs to somebody else, or is writable by others.
    """
    own = _home_of_caches() / "everlearn"
    try:
        own.parent.mkdir(parents=True, exist_ok=True)
        for directory in (own, own / name):
            directory.mkdir(mode=0o700, exist_ok=True)
            _require_private(directory)
    except OSError as error:
        return _until_the_end(own / name, error)
    return own / name


def _home_of_caches() -> Path:
    """Where this system's programs keep what they can make anew."""
    wanted = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(wanted):
        return Path(wanted)
    if sys.platform == "win32" and os.environ.get("LOCALAPPDATA"):
        return Path(os.environ["LOCALAPPDATA"])
    home = Path(os.path.expanduser("~"))
    return home / "Library" / "Caches" if sys.platform == "darwin" else home / ".cache"


def _require_private(directory: Path) -> None:
    status = directory.lstat()
    if stat.S_ISLNK(status.st_mode):
        raise _refusal(directory, "is a link")
    if os.name != "posix":  # access is by lists there, and a profile's directories are the user's
        return
    if status.st_uid != os.geteuid():
        raise _refusal(directory, f"belongs to the user with the number {status.st_uid}")
    if status.st_mode & _BY_OTHERS:
        raise _refusal(directory, f"is writable by others (its mode is {stat.S_IMODE(status.st_mode):o})")


def _refusal(directory: Path, problem: str) -> ConfigError:
    return ConfigError(
        f"{directory} {problem}; compiled code is kept there and executed, so nobody else may write into it. "
        f"Remove it, or set {_VARIABLE} to a directory that only you can write into."
    )


def _until_the_end(wanted: Path, error: OSError) -> Path:
    """A new directory that only this user can enter, removed when the process ends."""
    directory = Path(tempfile.mkdtemp(prefix="everlearn-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    _log.info("%s cannot be made (%s); compiled code is kept until this process ends.", wanted, error.strerror or error)
    return directory
