"""A configuration as it was written: its values, and the line on which each of them stands."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from everlearn.core.errors import ConfigError

_LARGEST = 1_000_000  # bytes; a configuration has some thousands at most
_MOST_ENTRIES = 10_000  # with every alias replaced by what it stands for
_DEEPEST = 50  # mappings and lists inside one another
_PLAIN = ("str", "int", "float", "bool", "null", "seq", "map", "merge")
_OTHER_VERSION = re.compile(r"^%YAML +(?!1\.2\b)", re.MULTILINE)

KeyPath = tuple[str, ...]


@dataclass(frozen=True)
class Document:
    """What a file says.

    Attributes:
        values: Its keys and values.
        name: The file, for messages; empty if there is none.
        lines: Path of keys to the line on which the last of them stands, counted from 1; 0 for what was replaced.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    lines: Mapping[KeyPath, int] = field(default_factory=dict)

    def without(self, path: KeyPath) -> Document:
        """This document with no word on what stands at ``path`` and below: something else has replaced it."""
        kept = {other: line for other, line in self.lines.items() if other[: len(path)] != path}
        return Document(self.values, self.name, {**kept, path: 0})

    def inside(self, section: str) -> Document:
        """This document as the part of another one that stands below ``section``."""
        lines = {(section, *path): line for path, line in self.lines.items()}
        return Document({section: self.values}, self.name, lines)

    def located(self, message: str) -> str:
        """Complaints, one per line, each with its file and line, in the order of the file.

        A complaint about a setting begins with the dotted path of that setting and a colon; one about a setting
        that the file does not mention stays as it is.
        """
        complaints = [(self._line(complaint), complaint) for complaint in message.split("\n")]
        if all(line is None for line, _ in complaints):
            return message
        complaints.sort(key=lambda pair: pair[0] or 0)
        return "\n".join(
            complaint if line is None else f"{self.name}, line {line}: {complaint}" for line, complaint in complaints
        )

    def _line(self, complaint: str) -> int | None:
        """The line of the longest path that the file has of the setting complained about."""
        path = tuple(complaint.partition(":")[0].split("."))
        known = (self.lines[path[:length]] for length in range(len(path), 0, -1) if path[:length] in self.lines)
        return next(known, 0) or None

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Inside, errors about a setting of the file name the file and the line."""
        try:
            yield
        except ConfigError as error:
            message = self.located(str(error))
            if message == str(error):
                raise
            raise ConfigError(message) from error


def read(path: Path) -> Document:
    """The configuration in a file.

    Raises:
        ConfigError: If the file cannot be read or is no mapping in plain YAML 1.2; it names the line.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
        text = data.decode("utf-8")
    except OSError as error:
        raise ConfigError(
            f"{path}: it cannot be read ({error.strerror or error}). Give the path of a YAML file."
        ) from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problem = f"byte {data[error.start]:#04x} is not UTF-8. Save the file in the encoding UTF-8."
        raise _refusal(str(path), line, problem) from None
    if len(data) > _LARGEST:
        raise ConfigError(f"{path}: it has more than {_LARGEST:,} bytes. Give the path of a YAML file.")
    values, lines = parse(text, str(path))
    if not isinstance(values, Mapping | None):
        raise ConfigError(f"{path}: a configuration is a mapping of keys to values; this is a {type(values).__name__}.")
    return Document(values or {}, str(path), lines)


def parse(text: str, where: str) -> tuple[Any, dict[KeyPath, int]]:
    """A YAML text's value, and the line of every key and entry in it.

    Args:
        text: YAML 1.2, in which ``3e-4`` is a number and ``on`` a word.
        where: What is read, for messages.

    Raises:
        ConfigError: If it is not valid, not plain data, or grows too large when its aliases are replaced.
    """
    version = _OTHER_VERSION.search(text)
    if version:
        raise _refusal(where, text.count("\n", 0, version.start()) + 1, "only YAML 1.2 is read. Remove this line.")
    try:
        node = plain_yaml().compose(text)
        lines = {} if node is None else _lines_of(node, where)
        return plain_yaml().load(text), lines
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise _refusal(where, line, f"not valid YAML: {error.problem}. {_remedy(str(error.problem))}") from None
    except YAMLError as error:
        raise _refusal(where, None, f"not valid YAML: {error}. Correct the text.") from None
    except RecursionError:
        raise _refusal(where, None, f"it has more than {_DEEPEST} levels. A configuration has a few.") from None


def plain_yaml() -> YAML:
    """Pure YAML 1.2 that makes plain data only."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    return yaml


def _lines_of(root: Node, where: str) -> dict[KeyPath, int]:
    """Line of each path, with aliases followed; what is merged in by ``<<`` never hides what stands there itself."""
    lines: dict[KeyPath, int] = {}
    waiting: list[tuple[KeyPath, Node, int]] = [((), root, root.start_mark.line + 1)]
    entries = 0
    while waiting:
        path, node, line = waiting.pop()
        entries += 1
        if entries > _MOST_ENTRIES or len(path) > _DEEPEST:
            problem = f"with its aliases replaced it has more than {_MOST_ENTRIES:,} entries or {_DEEPEST} levels."
            raise _refusal(where, line, f"{problem} A configuration has some dozens: write it without aliases.")
        _require_plain(node, where)
        lines.setdefault(path, line)
        waiting += reversed(list(_entries(path, node)))
    lines.pop(())
    return lines


def _entries(path: KeyPath, node: Node) -> Iterator[tuple[KeyPath, Node, int]]:
    """What stands directly in a mapping or list: its path, its node, its line; merged mappings come last."""
    if isinstance(node, SequenceNode):
        for index, entry in enumerate(node.value):
            yield (*path, str(index)), entry, entry.start_mark.line + 1
    elif isinstance(node, MappingNode):
        merged = [value for key, value in node.value if key.tag.endswith(":merge")]
        for key, value in node.value:
            if not key.tag.endswith(":merge"):
                yield (*path, str(key.value)), value, key.start_mark.line + 1
        for value in merged:
            for source in value.value if isinstance(value, SequenceNode) else [value]:
                yield path, source, source.start_mark.line + 1


def _require_plain(node: Node, where: str) -> None:
    tag = str(node.tag)
    if not tag.startswith("tag:yaml.org,2002:") or tag.rpartition(":")[2] not in _PLAIN:
        kind = "a date" if tag.endswith(":timestamp") else f"something tagged {tag}"
        problem = f"{kind} stands here, and only numbers, words, lists and mappings may. Put a word in quotes."
        raise _refusal(where, node.start_mark.line + 1, problem)


def _remedy(problem: str) -> str:
    return "Indent with spaces." if "'\\t'" in problem else "Correct the text."


def _refusal(where: str, line: int | None, problem: str) -> ConfigError:
    return ConfigError(f"{where}{'' if line is None else f', line {line}'}: {problem}")
