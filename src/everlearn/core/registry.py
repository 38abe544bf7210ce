"""Names instead of import paths: a registry maps a name to a class.

What takes the constructors' signatures apart loads pydantic, and is loaded when it is first needed.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from everlearn.core.errors import ConfigError, suggestion

if TYPE_CHECKING:
    from pydantic import BaseModel

T = TypeVar("T")


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
        from everlearn.core.signatures import named_model

        name = self.canonical(name)
        return named_model(name, self[name], self._runtime)

    def arguments(self, name: str, given: Mapping[str, Any], where: str = "") -> dict[str, Any]:
        """The given constructor arguments, checked and converted by the entry's signature; ``kind`` is none of them.

        Raises:
            ConfigError: For an unknown key, with a suggestion, or a value of a wrong type, with its path.
        """
        from everlearn.core.signatures import checked_arguments

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
