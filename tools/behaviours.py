"""docs/behaviours.md: every law with the tests that pin it. ``python -m tools.behaviours`` writes it.

A test belongs to a law by its name (``test_b37_...``), or by ids at the beginning of its docstring or of that of its
class or module (``B37, B1: why``). The laws' statements are in ``laws.toml``.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/behaviours.md"
PLACES = ("tests", "src/everlearn/testing")  # the latter holds the suites that tests subclass

_IN_NAME = re.compile(r"^test_((?:b\d+_)+)")
_IN_DOCSTRING = re.compile(r"^B\d+(?:(?:, | and )B\d+)*(?=[.:])")
_ID = re.compile(r"B\d+")

HEADER = """# Behaviours

Every law of everlearn's behaviour and the tests that pin it. The page is generated from the tests by `make behaviours`.
"""


@dataclass(frozen=True)
class Laws:
    """What holds.

    Args:
        sections: Title to id to statement.
        later: Ids of parts that are not built yet.
        partly: Ids of which a part is built, with what that is.
    """

    sections: dict[str, dict[str, str]]
    later: frozenset[str]
    partly: dict[str, str]

    @property
    def all(self) -> set[str]:
        """Every id."""
        return {law for section in self.sections.values() for law in section}

    @property
    def built(self) -> set[str]:
        """The ids that must have a test."""
        return self.all - self.later


def read_laws(path: Path = ROOT / "tools/laws.toml") -> Laws:
    """The laws as ``laws.toml`` has them."""
    content: dict[str, Any] = tomllib.loads(path.read_text())
    later = content.pop("later")
    return Laws(content, frozenset(later["rows"]), later["partly"])


def ids_of(name: str, docstring: str) -> set[str]:
    """The laws that a test's name and the beginning of its docstring point to."""
    in_name = _IN_NAME.match(name)
    in_docstring = _IN_DOCSTRING.match(docstring)
    found = _ID.findall(in_name.group(1).upper()) if in_name else []
    return {*found, *(_ID.findall(in_docstring.group()) if in_docstring else [])}


def tests_in(source: str) -> Iterator[tuple[str, set[str]]]:
    """The tests of a module, ``name`` or ``Class::name``, each with the laws it belongs to."""
    yield from _tests_below(ast.parse(source), "", set())


def _tests_below(node: ast.Module | ast.ClassDef, prefix: str, inherited: set[str]) -> Iterator[tuple[str, set[str]]]:
    inherited = inherited | ids_of("", ast.get_docstring(node) or "")
    for child in node.body:
        if isinstance(child, ast.ClassDef):
            yield from _tests_below(child, f"{prefix}{child.name}::", inherited)
        elif isinstance(child, ast.FunctionDef) and child.name.startswith("test_"):
            yield prefix + child.name, inherited | ids_of(child.name, ast.get_docstring(child) or "")


def tests_by_law(root: Path = ROOT) -> dict[str, list[str]]:
    """For every law that a test names, the tests as ``path::name``, sorted by path, in the order of the file."""
    found: dict[str, list[str]] = defaultdict(list)
    for place in PLACES:
        for path in sorted((root / place).rglob("*.py")):
            for name, laws in tests_in(path.read_text()):
                for law in laws:
                    found[law].append(f"{path.relative_to(root).as_posix()}::{name}")
    return dict(found)


def page(laws: Laws, tests: dict[str, list[str]]) -> str:
    """The page in Markdown."""
    parts = [HEADER]
    for title, section in laws.sections.items():
        rows = [
            f"| {law} | {_statement(law, text, laws)} | {_tests(law, laws, tests)} |" for law, text in section.items()
        ]
        parts.append("\n".join([f"## {title}", "", "| id | law | tests |", "|---|---|---|", *rows, ""]))
    return "\n".join(parts)


def _statement(law: str, text: str, laws: Laws) -> str:
    return f"{text} ({laws.partly[law]})" if law in laws.partly else text


def _tests(law: str, laws: Laws, tests: dict[str, list[str]]) -> str:
    if law in laws.later:
        return "*not built yet*"
    return "<br>".join(_link(test) for test in tests.get(law, [])) or "**none**"


def _link(test: str) -> str:
    path, _ = test.split("::", 1)
    return f"[`{test}`](../{path})"


def problems(laws: Laws, tests: dict[str, list[str]]) -> list[str]:
    """Laws of the parts built that no test pins, and ids in tests that are no law."""
    missing = sorted(laws.built - tests.keys(), key=lambda law: int(law[1:]))
    strange = {test: law for law in sorted(tests.keys() - laws.all) for test in tests[law]}
    return [
        *(f"{law} has no test. Name one test_{law.lower()}_..." for law in missing),
        *(f"{test} names {law}, which is no law: see tools/laws.toml." for test, law in strange.items()),
    ]


def main() -> int:
    """Write the page; 1 where a law has no test."""
    laws, tests = read_laws(), tests_by_law()
    PAGE.write_text(page(laws, tests))
    found = problems(laws, tests)
    print(*found, sep="\n", end="\n" if found else "")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
