"""The keys of a configuration and the defaults of the algorithms, as Markdown tables."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Iterator
from typing import Any

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

BOUNDS = ((Ge, "ge", "≥"), (Gt, "gt", ">"), (Le, "le", "≤"), (Lt, "lt", "<"))
NAMES = {int: "integer", float: "number", str: "text", bool: "true or false", Any: "anything", type(None): "none"}


def configuration() -> str:
    """Every section of a run's configuration."""
    from everlearn.config.sections import RunConfig

    return "\n\n".join(_section(path, model) for path, model in sections(RunConfig))


def sections(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """A model and all models inside it, each with the dotted path of its section."""
    yield path, model
    for name, field in model.model_fields.items():
        inside = _model_in(field.annotation)
        if inside is not None:
            yield from sections(inside, f"{path}.{name}".lstrip("."))


def defaults() -> str:
    """What the arguments that everlearn adds to SB3's stand for, per algorithm."""
    from everlearn import PPO, DistributionalPPO

    ours, system = vars(PPO.defaults), vars(DistributionalPPO.defaults)
    rows = [f"| `{name}` | `{_plain(ours[name])}` | `{_plain(system[name])}` |" for name in ours]
    return "\n".join(["| argument | `PPO` | `DistributionalPPO` |", "|---|---|---|", *rows])


def described(docstring: str, heading: str) -> dict[str, str]:
    """The entries of a Google-style section, such as ``Args``, by name."""
    block = re.search(rf"^{heading}:\n((?:[ \t]+.*\n|\n)*)", inspect.cleandoc(docstring) + "\n", re.MULTILINE)
    entries = re.split(r"^ {4}(?=\S)", block[1], flags=re.MULTILINE)[1:] if block else []
    pairs = (re.match(r"(\w+)(?: \(.*?\))?: (.*)", entry, re.DOTALL) for entry in entries)
    return {pair[1]: " ".join(pair[2].split()) for pair in pairs if pair}


def _section(path: str, model: type[BaseModel]) -> str:
    about = inspect.getdoc(model) or ""
    title = f"## Section `{path}`" if path else "## Top level"
    text = re.split(r"^(?:Attributes|Args):$", about, flags=re.MULTILINE)[0].strip().replace("``", "`")
    meanings = _meanings(model)
    rows = [
        f"| `{name}` | {_type(field)} | {_default(field)} | {meanings.get(name, '')} |"
        for name, field in model.model_fields.items()
    ]
    return "\n".join([title, "", text, "", "| key | type | default | meaning |", "|---|---|---|---|", *rows])


def _meanings(model: type[BaseModel]) -> dict[str, str]:
    from everlearn import PPO
    from everlearn.config.sections import AlgorithmConfig

    texts = described(model.__doc__ or "", "Attributes")
    if model is AlgorithmConfig:  # its keys are the constructor's arguments
        texts = {**described(PPO.__doc__ or "", "Args"), **texts}
    return {name: text.replace("``", "`").replace("|", "\\|") for name, text in texts.items()}


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined and field.default_factory is None:
        return "required"
    default = field.get_default(call_default_factory=True)
    return "see below" if isinstance(default, BaseModel) else f"`{_plain(default)}`"


def _plain(value: Any) -> str:
    """A value as YAML writes it, in one line."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_plain(item)}" for key, item in value.items()) + "}"
    return str(value)


def _type(field: FieldInfo) -> str:
    return described_type(field.annotation, tuple(field.metadata)).replace("|", "\\|")


def described_type(annotation: Any, metadata: tuple[Any, ...] = ()) -> str:
    """A type and its bounds in words."""
    from everlearn.config.sections import Schedule

    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return described_type(arguments[0], (*arguments[1:], *metadata))
    if any(item in typing.get_args(Schedule)[1:] for item in metadata):
        return "number or schedule"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(described_type(each) for each in arguments if each is not type(None))
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (list, dict):
        return "list" if origin is list else "mapping"
    if _model_in(annotation) is not None:
        return "section"
    return NAMES.get(annotation, getattr(annotation, "__name__", str(annotation))) + _bounds(metadata)


def _bounds(metadata: tuple[Any, ...]) -> str:
    flat = [part for item in metadata for part in (item.metadata if isinstance(item, FieldInfo) else [item])]
    named = [(sign, getattr(item, name)) for item in flat for kind, name, sign in BOUNDS if isinstance(item, kind)]
    return " " + ", ".join(f"{sign} {_bound(number)}" for sign, number in named) if named else ""


def _bound(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model of a section, found under annotations and unions with None."""
    candidates = [annotation, *typing.get_args(annotation)]
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
