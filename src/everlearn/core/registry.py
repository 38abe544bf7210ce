"""Names instead of import paths: a registry maps a name to a class and derives its configuration model."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from everlearn.core.errors import ConfigError, suggestion

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _spelling(name: str) -> str:
    """One key for all spellings of a name: ``AdaptiveUPGD``, ``adaptive_upgd``, ``Adaptive-UPGD``."""
    return name.lower().replace("_", "").replace("-", "").replace(" ", "")


class Registry(Generic[T]):
    """The known implementations of one kind of thing, by name.

    Args:
        kind: What the entries are, for messages: "optimizer", "value head".
        runtime: Constructor parameters that the program supplies and no configuration names.
    """

    def __init__(self, kind: str, runtime: Iterable[str] = ()) -> None:
        self.kind = kind
        self._runtime = frozenset(runtime)
        self._entries: dict[str, type[T]] = {}
        self._spellings: dict[str, str] = {}

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Class decorator that enters a class under ``name`` (any case and spelling finds it)."""

        def enter(entry: type[T]) -> type[T]:
            self.add(name, entry)
            return entry

        return enter

    def add(self, name: str, entry: type[T]) -> None:
        """Enter a class that cannot be decorated, such as a library's.

        Raises:
            ConfigError: If the name is taken by another class.
        """
        name = self._spellings.setdefault(_spelling(name), name)
        if self._entries.setdefault(name, entry) is not entry:
            raise ConfigError(f"The {self.kind} '{name}' is another class. Register this one under another name.")

    def __iter__(self) -> typing.Iterator[str]:
        return iter(self._entries)

    def __getitem__(self, name: str) -> type[T]:
        return self._entries[self.canonical(name)]

    def canonical(self, name: str, where: str = "") -> str:
        """The registered form of a name.

        Args:
            name: In any spelling.
            where: The dotted path of the name in the configuration, for the message.

        Raises:
            ConfigError: If no spelling of the name is registered.
        """
        try:
            return self._spellings[_spelling(name)]
        except KeyError:
            place = f"{where}: " if where else ""
            raise ConfigError(f"{place}There is no {self.kind} '{name}'.{suggestion(name, self._entries)}") from None

    def name_of(self, entry: type) -> str | None:
        """The name under which a class is registered, None if it is not."""
        return next((name for name, known in self._entries.items() if known is entry), None)

    def spec_model(self, name: str) -> type[BaseModel]:
        """The pydantic model of an entry, made from its constructor's signature; unknown keys are errors."""
        name = self.canonical(name)
        kind: Any = (Literal[name], name)
        return create_model(f"{name}_spec", __base__=signature_model(self[name], self._runtime), kind=kind)

    def arguments(self, name: str, given: Mapping[str, Any], where: str = "") -> dict[str, Any]:
        """The given constructor arguments, checked and converted by the entry's signature; ``kind`` is none of them.

        Raises:
            ConfigError: For an unknown key, with a suggestion, or a value of a wrong type, with its path.
        """
        return checked_arguments(self[name], given, where or self.kind, self._runtime)

    def check(self, spec: Any, where: str) -> None:
        """Refuse a name or ``{"kind": name, ...}`` mapping that ``build`` would refuse; an instance always passes.

        Raises:
            ConfigError: As ``build`` does, with ``where``, a path in the configuration, in the message.
        """
        if isinstance(spec, str):
            self.canonical(spec, where)
        elif isinstance(spec, Mapping):
            self.arguments(*self._kind_and_arguments(spec, where), where)

    def build(self, spec: str | Mapping[str, Any] | T, **runtime: Any) -> T:
        """An instance from a name or a ``{"kind": name, ...}`` mapping; an instance is returned as it is.

        Raises:
            ConfigError: If no entry has the name, the mapping names none, or an argument does not fit.
        """
        if isinstance(spec, str):
            return self[spec](**runtime)
        if isinstance(spec, Mapping):
            kind, given = self._kind_and_arguments(spec)
            return self[kind](**runtime, **self.arguments(kind, given))
        return spec

    def _kind_and_arguments(self, spec: Mapping[str, Any], where: str = "") -> tuple[str, dict[str, Any]]:
        if not isinstance(spec.get("kind"), str):
            place = f"{where}: " if where else ""
            raise ConfigError(f"{place}A {self.kind} as a mapping needs the key 'kind', one of {sorted(self)}.")
        return self.canonical(spec["kind"], where), {key: value for key, value in spec.items() if key != "kind"}


def signature_model(entry: type[Any], supplied: Iterable[str] = ()) -> type[BaseModel]:
    """The pydantic model of a constructor's arguments, without those that the program supplies."""
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
