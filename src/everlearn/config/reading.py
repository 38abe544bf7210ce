"""Configurations from files, from the command line and from Python, and back to a file."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from everlearn.config.document import Document, parse, plain_yaml, read
from everlearn.config.population_section import PopulationConfig
from everlearn.config.sections import AlgorithmConfig, RunConfig
from everlearn.core.errors import ConfigError, suggestion
from everlearn.core.signatures import validated

HEADER = "# A run of everlearn with every setting resolved; `everlearn train` with this file repeats it.\n"
SECTIONS = tuple(RunConfig.model_fields)
LOOSE = {
    **dict.fromkeys(PopulationConfig.model_fields, "population"),
    **dict.fromkeys(AlgorithmConfig.model_fields, "algorithm"),
}
"""Keys that need no heading, and the section that each belongs to."""
_SOME_ENVIRONMENT = "none"


def load(source: Path | Mapping[str, Any] | None = None, overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """A configuration from a file or mapping, with single values replaced.

    Args:
        source: A YAML file or a mapping with the sections of ``RunConfig``, or with nothing but keys of its sections
            algorithm and population. None starts from the defaults.
        overrides: Dotted key to value: ``{"env.id": "CartPole-v1", "gamma": 0.9}``; the keys of the sections
            algorithm and population need no prefix.

    Raises:
        ConfigError: If the file cannot be read, or keys or values are not allowed; it names all of them, by dotted
            path and line.
    """
    return load_document(source, overrides)[0]


def load_document(
    source: Path | Mapping[str, Any] | None,
    overrides: Mapping[str, Any] | None = None,
    plugins: Sequence[str] = (),
) -> tuple[RunConfig, Document]:
    """As ``load``, and what was read, which knows the lines for errors that come to light later.

    Args:
        source: As in ``load``.
        overrides: As in ``load``.
        plugins: Modules to put before those that the configuration names.

    Raises:
        ConfigError: As in ``load``.
    """
    document, complaints = _in_sections(read(source) if isinstance(source, Path) else Document(source or {}))
    values: Any = document.values
    for key, value in (overrides or {}).items():
        path = _full_path(key)
        values = _assigned(values, path, value)
        document = document.without(tuple(path))
    values, missing = _with_environment(values)
    with document.blamed():
        config = _validated(values, complaints + missing)
    together = list(dict.fromkeys([*plugins, *config.plugins]))
    return config.model_copy(update={"plugins": together}), document


def _validated(values: Mapping[str, Any], complaints: list[str]) -> RunConfig:
    """The typed configuration, or all complaints in one error."""
    try:
        config = validated(RunConfig, values, "")
    except ConfigError as error:
        raise ConfigError("\n".join([*complaints, str(error)])) from None
    if complaints:
        raise ConfigError("\n".join(complaints))
    return config


def dump(config: RunConfig) -> str:
    """The configuration as YAML that ``load`` reads back as an equal one."""
    return HEADER + as_yaml(config.model_dump(exclude_none=True))


def as_yaml(values: Mapping[str, Any]) -> str:
    """Plain values as a YAML text."""
    stream = io.StringIO()
    plain_yaml().dump(values, stream)
    return stream.getvalue()


def assignment(text: str) -> tuple[str, Any]:
    """``key=value`` as a dotted key and the YAML value of its right side.

    Raises:
        ConfigError: If there is no ``=`` or the value is not YAML.
    """
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {text}: write it as key=value, for example --set gamma=0.98.")
    return key.strip(), parse(value, f"--set {key}")[0]


def _in_sections(document: Document) -> tuple[Document, list[str]]:
    """The document with sections at its top, and complaints about keys that have no place.

    One without sections has their keys; unknown keys are left out, so that the rest can be checked.
    """
    known, complaints = {}, []
    for key, value in document.values.items():
        if key in SECTIONS or key in LOOSE:
            known[key] = value
        else:
            complaints.append(_unknown(str(key)))
    loose = [key for key in known if key in LOOSE and key not in SECTIONS]
    if not loose:
        return Document(known, document.name, document.lines), complaints
    if len(loose) == len(known):
        return _under_headings(Document(known, document.name, document.lines)), complaints
    complaints += [
        f"{key}: it belongs to the section '{LOOSE[key]}', and there are sections at the top level too. "
        f"Move it under '{LOOSE[key]}:', or keep nothing but such keys in the file."
        for key in loose
    ]
    return Document({key: known[key] for key in known if key in SECTIONS}, document.name, document.lines), complaints


def _under_headings(document: Document) -> Document:
    """Each key in the section that it belongs to."""
    values: dict[str, Any] = {}
    lines = dict(document.lines)
    for section in dict.fromkeys(LOOSE[key] for key in document.values):
        own = {key: value for key, value in document.values.items() if LOOSE[key] == section}
        inside = Document(own, document.name, document.lines).inside(section)
        values |= inside.values
        lines |= inside.lines
    return Document(values, document.name, lines)


def _with_environment(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The values with some environment in them, and the complaint if they name none: the rest can be checked then."""
    env = values.get("env") or {}
    if not isinstance(env, Mapping):
        complaint = f"env: a section belongs here, and this is {env!r}."
    elif "id" not in env:
        complaint = "env.id: no environment is named."
    else:
        return dict(values), []
    others = env if isinstance(env, Mapping) else {}
    complaint += " Give --env ID, or env: {id: ID} in the file."
    return {**values, "env": {**others, "id": _SOME_ENVIRONMENT}}, [complaint]


def _full_path(key: str) -> list[str]:
    """The path of a dotted key, with the section supplied where it was left out."""
    parts = key.split(".")
    if parts[0] in SECTIONS:
        return parts
    if parts[0] in LOOSE:
        return [LOOSE[parts[0]], *parts]
    raise ConfigError(_unknown(key))


def _unknown(key: str) -> str:
    return f"{key}: unknown key.{suggestion(key.partition('.')[0], (*SECTIONS, *LOOSE))}"


def _assigned(values: Any, path: list[str], value: Any) -> Any:
    """A copy of nested mappings in which the entry at ``path`` is ``value``."""
    if not path:
        return value
    inside = values if isinstance(values, Mapping) else {}
    return {**inside, path[0]: _assigned(inside.get(path[0]), path[1:], value)}
