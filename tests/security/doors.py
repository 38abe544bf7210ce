"""Doors: statements of a program by which the bytes of a file can become code. The static side of B34.

Names are followed through imports (``from torch import load as l`` is ``torch.load``), not through assignments; so any
mention of an unsafe function is a door, called or not.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.document_pages import PAGES, ROOT, blocks

PROGRAMS = ("src", "tests", "tools", "compatibility", "benchmarks", "examples", "docs")
UNPICKLERS = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
WRITING = {"dump", "dumps"}
"""What may be had of an unpickler: it makes bytes, and reads none."""
RUNNING = {"eval", "exec", "execfile", "__import__"}
UNSAFE = {"load_replay_buffer", "load_from_pkl", "load_from_zip_file", "json_to_data", "read_pickle"}
"""Functions and methods that unpickle, under whatever path."""
LOADERS = ("stable_baselines3", "sb3_contrib", "rl_zoo3", "torch.jit", "torch.hub", "torch.package", "yaml", "dill")
"""Packages whose ``load`` is none of ours: a model's, a script's, a document's."""

Door = tuple[int, str]
"""Line, and what opens it."""


def doors(program: str | ast.AST, *, may_write: bool = True) -> list[Door]:
    """The doors of a program.

    Args:
        program: Its text or tree.
        may_write: Whether importing an unpickler is allowed where only its writing functions are used.
    """
    tree = ast.parse(program) if isinstance(program, str) else program
    names = _imported(tree)
    checked = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call) and _is_safe_load(node, names)}
    checked |= {  # of a module the attribute counts
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    found = [
        door
        for node in ast.walk(tree)
        for door in (*_by_import(node, may_write), *_by_name(node, names, checked), *_by_option(node))
    ]
    return sorted(set(found))


def _imported(tree: ast.AST) -> dict[str, str]:
    """What each imported name stands for, as a dotted path."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {each.asname or each.name.split(".")[0]: _target(each) for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {each.asname or each.name: f"{node.module}.{each.name}" for each in node.names}
    return names


def _target(alias: ast.alias) -> str:
    return alias.name if alias.asname else alias.name.split(".")[0]


def _path(node: ast.AST, names: dict[str, str]) -> str:
    """The dotted path that an expression stands for; empty for what is no name."""
    if isinstance(node, ast.Name):
        return names.get(node.id, "?")  # a variable is no module, whatever it is called
    if isinstance(node, ast.Attribute):
        base = _path(node.value, names)
        return f"{base or '?'}.{node.attr}"
    return ""


def _by_import(node: ast.AST, may_write: bool) -> Iterator[Door]:
    if isinstance(node, ast.Import):
        for each in node.names:
            if each.name.split(".")[0] in UNPICKLERS and not may_write:
                yield node.lineno, f"import {each.name}"
    elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in UNPICKLERS:
        for each in node.names:
            if each.name not in WRITING or not may_write:
                yield node.lineno, f"from {node.module} import {each.name}"


def _by_name(node: ast.AST, names: dict[str, str], checked: set[int]) -> Iterator[Door]:
    if isinstance(node, ast.Attribute):
        path = _path(node, names)
        if _is_unsafe(path) and id(node) not in checked:
            yield node.lineno, path
    elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Store):
        path = names.get(node.id, node.id if node.id in {*RUNNING, *UNSAFE} else "?")
        if (_is_unsafe(path) or path in RUNNING | UNPICKLERS) and id(node) not in checked:
            yield node.lineno, path


def _is_unsafe(path: str) -> bool:
    first, _, rest = path.partition(".")
    last = path.rpartition(".")[2]
    if first in UNPICKLERS:
        return bool(rest) and rest not in WRITING
    if first == "builtins" and last in RUNNING:
        return True
    if path == "torch.load" or (path.startswith("torch.serialization.") and last in ("load", "pickle")):
        return True
    if last == "load" and (path.endswith("VecNormalize.load") or path.startswith(tuple(f"{p}." for p in LOADERS))):
        return True
    return last in UNSAFE


def _is_safe_load(call: ast.Call, names: dict[str, str]) -> bool:
    """``torch.load`` with the words ``weights_only=True`` in the call itself."""
    options = {each.arg: each.value for each in call.keywords}
    value = options.get("weights_only")
    return _path(call.func, names) == "torch.load" and isinstance(value, ast.Constant) and value.value is True


def _by_option(node: ast.AST) -> Iterator[Door]:
    if isinstance(node, ast.Call):
        for each in node.keywords:
            if each.arg == "allow_pickle" and not (isinstance(each.value, ast.Constant) and each.value.value is False):
                yield node.lineno, "allow_pickle"


def programs() -> Iterator[tuple[str, str]]:
    """Path and text of every program of the repository: files of python, and the blocks of pages that are run."""
    for folder in PROGRAMS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if not {"_build", "__pycache__", ".cache"} & set(path.parts):
                yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")
    for page in PAGES:
        if "_build" not in page.parts:
            yield from _of_page(page)


def _of_page(page: Path) -> Iterator[tuple[str, str]]:
    for block in blocks(page):
        if block.language == "python":
            yield str(page.relative_to(ROOT)), block.text
