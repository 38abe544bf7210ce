"""Plug-ins: modules that register environments, optimizers, value heads or wrappers by name.

They come in by three ways, with one mechanism: ``plugins`` in a configuration, ``--import`` on the command line, and
the entry points of installed packages in the group ``everlearn.plugins``. Importing a module runs its code. A
configuration that somebody trains with is theirs and may name modules; what a run or a model file holds never imports
anything by itself.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

from everlearn.core.errors import ConfigError, Noted

GROUP = "everlearn.plugins"


def _naming(plugin: str) -> Noted:
    return Noted(lambda: f"This happened while everlearn imported the plug-in {plugin}.")


def import_plugins(names: Iterable[str], where: str = "plugins") -> None:
    """Import modules in their order, after those of installed packages.

    They are looked for in the current directory too, as ``python -m`` does.

    Args:
        names: Dotted names of modules.
        where: What names them, for messages.

    Raises:
        ConfigError: If there is no such module. Errors of the module itself arise unchanged, with a note.
    """
    _import_installed()
    names = list(names)
    here = str(Path.cwd())
    if names and here not in sys.path:
        sys.path.insert(0, here)
    for name in names:
        _import(name, where)


def require_imported(names: Iterable[str], what: str) -> None:
    """Refuse to go on without plug-ins that a saved run was made with: its files do not import them by themselves.

    Raises:
        ConfigError: Naming those that nobody has imported.
    """
    _import_installed()
    missing = [name for name in names if name not in sys.modules]
    if missing:
        options = " ".join(f"--import {name}" for name in missing)
        raise ConfigError(
            f"{what} was trained with the plug-ins {', '.join(missing)}, and a saved run imports nothing by itself. "
            f"If you trust them, add {options}, or import them before in Python."
        )


def _import(name: str, where: str) -> None:
    try:
        with _naming(f"'{name}' ({where})"):
            importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise ConfigError(f"{where}: there is no module '{name}'. {_remedy(name)}") from error


def _remedy(name: str) -> str:
    """What to do about a name that no module has."""
    if name.endswith(".py"):
        return f"Name the module and not its file: {Path(name).stem}."
    return "Run in its directory, or add that to PYTHONPATH."


@cache
def _import_installed() -> None:
    """Import what installed packages announce, once per process."""
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        package = point.dist.name if point.dist else "an installed package"
        with _naming(f"'{point.name}' = {point.value} (entry point of {package})"):
            point.load()
