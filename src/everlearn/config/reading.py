"""Configurations from files and from the command line, and back to a file."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from everlearn.config.sections import AlgorithmConfig, RunConfig
from everlearn.core.errors import ConfigError, suggestion
from everlearn.core.registry import validated

HEADER = "# A run of everlearn with every setting resolved; `everlearn train` with this file repeats it.\n"
SECTIONS = tuple(RunConfig.model_fields)
ALGORITHM_KEYS = tuple(AlgorithmConfig.model_fields)


def load(path: Path | None = None, overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """A configuration from a file, with single values replaced.

    Args:
        path: A YAML file with the sections of ``RunConfig``, or with the keys of its algorithm section only.
            None starts from the defaults.
        overrides: Dotted key to value: ``{"env.id": "CartPole-v1", "gamma": 0.9}``; the keys of the algorithm
            section need no prefix.

    Raises:
        ConfigError: If the file cannot be read, or a key or value is not allowed; it names the dotted path.
    """
    values = {} if path is None else sectioned(_read(path), str(path))
    for key, value in (overrides or {}).items():
        values = _assigned(values, _full_path(key), value)
    env = values.get("env") or {}
    if not isinstance(env, Mapping):
        raise ConfigError(
            f"env: a section belongs here, and this is {env!r}. Give --env ID, or env: {{id: ID}} in the file."
        )
    if "id" not in env:
        raise ConfigError("env.id: no environment is named. Give --env ID, or env: {id: ID} in the file.")
    return validated(RunConfig, values, "")


def dump(config: RunConfig) -> str:
    """The configuration as YAML that ``load`` reads back as an equal one."""
    stream = io.StringIO()
    _yaml().dump(config.model_dump(exclude_none=True), stream)
    return HEADER + stream.getvalue()


def assignment(text: str) -> tuple[str, Any]:
    """``key=value`` as a dotted key and the YAML value of its right side.

    Raises:
        ConfigError: If there is no ``=`` or the value is not YAML.
    """
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {text}: write it as key=value, for example --set gamma=0.98.")
    return key.strip(), _parse(value, f"--set {key}")


def sectioned(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The sections of a file; one that holds only algorithm keys is that section.

    Raises:
        ConfigError: For an unknown key, or sections and algorithm keys side by side.
    """
    for key in values:
        if key not in SECTIONS and key not in ALGORITHM_KEYS:
            raise ConfigError(f"{where}: unknown key '{key}'.{suggestion(str(key), SECTIONS + ALGORITHM_KEYS)}")
    loose = [key for key in values if key in ALGORITHM_KEYS]
    if not loose:
        return dict(values)
    if len(loose) < len(values):
        raise ConfigError(
            f"{where}: '{loose[0]}' belongs to the section 'algorithm', and there are sections at the top "
            "level too. Move the algorithm's keys under 'algorithm:', or keep nothing else in the file."
        )
    return {"algorithm": dict(values)}


def _full_path(key: str) -> list[str]:
    """The path of a dotted key, with the algorithm section supplied where it was left out."""
    parts = key.split(".")
    if parts[0] in SECTIONS:
        return parts
    if parts[0] in ALGORITHM_KEYS:
        return ["algorithm", *parts]
    raise ConfigError(f"{key}: unknown key '{parts[0]}'.{suggestion(parts[0], SECTIONS + ALGORITHM_KEYS)}")


def _assigned(values: Any, path: list[str], value: Any) -> Any:
    """A copy of nested mappings in which the entry at ``path`` is ``value``."""
    if not path:
        return value
    inside = values if isinstance(values, Mapping) else {}
    return {**inside, path[0]: _assigned(inside.get(path[0]), path[1:], value)}


def _read(path: Path) -> Mapping[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: it cannot be read ({error}). Give the path of a YAML file.") from None
    values = _parse(text, str(path))
    if not isinstance(values, Mapping | None):
        raise ConfigError(f"{path}: a configuration is a mapping of keys to values; this is a {type(values).__name__}.")
    return values or {}


def _parse(text: str, where: str) -> Any:
    try:
        return _yaml().load(text)
    except MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{where}{line}: not valid YAML: {error.problem}. Correct the text.") from None
    except YAMLError as error:
        raise ConfigError(f"{where}: not valid YAML: {error}. Correct the text.") from None


def _yaml() -> YAML:
    """Pure YAML 1.2, in which ``3e-4`` is a number and ``on`` a word."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    return yaml
