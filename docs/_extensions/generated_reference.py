"""Reference pages from the code itself: a line ``% generated: NAME`` becomes the tables that NAME stands for."""

from __future__ import annotations

import re
from collections.abc import Callable

from command_tables import commands
from configuration_tables import configuration, defaults
from law_lists import exploit_laws, explore_laws, head_laws, optimizer_laws
from sphinx.application import Sphinx

GENERATORS: dict[str, Callable[[], str]] = {
    "commands": commands,
    "configuration": configuration,
    "defaults": defaults,
    "exploit_laws": exploit_laws,
    "explore_laws": explore_laws,
    "head_laws": head_laws,
    "optimizer_laws": optimizer_laws,
}


def filled(text: str) -> str:
    """The page with every such line replaced by what it stands for."""
    return re.sub(r"^% generated: (\w+)$", lambda match: GENERATORS[match[1]](), text, flags=re.MULTILINE)


def _on_source_read(app: Sphinx, docname: str, source: list[str]) -> None:
    source[0] = filled(source[0])


def _on_docstring(app: Sphinx, kind: str, name: str, item: object, options: object, lines: list[str]) -> None:
    """The star of a shape, ``(n, *shape)``, begins no emphasis."""
    lines[:] = [re.sub(r"(?<=[(\s])\*(?=\w+\))", r"\\*", line) for line in lines]


def setup(app: Sphinx) -> dict[str, bool]:
    """Fill pages in as they are read."""
    app.connect("source-read", _on_source_read)
    app.connect("autodoc-process-docstring", _on_docstring)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
