"""What constructors take, from their signatures: the pydantic models by which configurations are checked."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from everlearn.core.errors import ConfigError, suggestion

M = TypeVar("M", bound=BaseModel)

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def named_model(name: str, entry: type[Any], supplied: Iterable[str]) -> type[BaseModel]:
    """The model of a constructor's arguments beside ``kind``, which is the name."""
    kind: Any = (Literal[name], name)
    return create_model(f"{name}_spec", __base__=signature_model(entry, supplied), kind=kind)


def signature_model(entry: type[Any], supplied: Iterable[str] = ()) -> type[BaseModel]:
    """The model of a constructor's arguments, without those that the program supplies."""
    hashable: Any = entry  # which mypy does not know of classes
    return _signature_model(hashable, frozenset(supplied))


@cache
def _signature_model(entry: type[Any], supplied: frozenset[str]) -> type[BaseModel]:
    hints = typing.get_type_hints(entry.__init__)
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(entry).parameters.values():
        if parameter.name in supplied or parameter.kind in _VARIADIC:
            continue
        required = parameter.default is inspect.Parameter.empty
        default = Field(...) if required else Field(parameter.default)
        fields[parameter.name] = (hints.get(parameter.name, Any), default)
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    return create_model(f"{entry.__name__}Arguments", __config__=config, **fields)


def checked_arguments(
    entry: type[Any], given: Mapping[str, Any], where: str, supplied: Iterable[str] = ()
) -> dict[str, Any]:
    """The given arguments of a constructor, checked and converted by its signature.

    Raises:
        ConfigError: For an unknown key, with a suggestion, or a value of a wrong type, with its path.
    """
    model = validated(signature_model(entry, supplied), given, where)
    return {key: getattr(model, key) for key in given}


def validated(model: type[M], values: Mapping[str, Any], where: str) -> M:
    """``model`` built from ``values``; pydantic's complaints become one ConfigError with dotted paths."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(_complaint(model, item, where) for item in error.errors())) from None


def _complaint(model: type[BaseModel], item: Any, where: str) -> str:
    path = ".".join(str(part) for part in (where, *item["loc"]) if part != "")
    if item["type"] == "extra_forbidden":
        known = _fields_at(model, item["loc"][:-1])
        hint = suggestion(str(item["loc"][-1]), known) if known else " Nothing can be set here."
        return f"{path}: unknown key.{hint}"
    about = f"{path}: " if path else ""
    if item["type"] == "model_type":
        return f"{about}Input should be a mapping of keys to values (found {item['input']!r})."
    found = "" if isinstance(item["input"], Mapping) else f" (found {item['input']!r})"
    return f"{about}{item['msg']}{found}."


def _fields_at(model: type[BaseModel], path: tuple[Any, ...]) -> list[str]:
    """The field names of the sub-model at ``path``."""
    current: Any = model
    for part in path:
        field = current.model_fields.get(part) if isinstance(part, str) else None
        candidates = () if field is None else (field.annotation, *typing.get_args(field.annotation))
        current = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), current)
    return list(current.model_fields)
