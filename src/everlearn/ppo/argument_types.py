"""What kinds of values a constructor's arguments are, as its annotations say: for values that nobody has checked."""

from __future__ import annotations

import typing
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from stable_baselines3.common.vec_env import VecEnv

from everlearn.core.errors import ArgumentError

if TYPE_CHECKING:
    from pydantic import TypeAdapter


def fitting(constructor: type[object], name: str, value: Any) -> Any:
    """A value as the kind that the argument is of; one without an annotation may be anything.

    Args:
        constructor: The class whose own ``__init__`` has the argument.
        name: Of the argument.
        value: For it.

    Raises:
        ArgumentError: Naming argument and value.
    """
    from pydantic import ValidationError  # only what reads files needs it

    adapter = _adapters(vars(constructor)["__init__"]).get(name)
    try:
        return value if adapter is None else adapter.validate_python(value)
    except ValidationError as error:
        what = error.errors()[0]["msg"]
        raise ArgumentError(f"{name}={value!r} is of another kind ({what}). Give one that fits.") from None


@cache
def _adapters(initialise: Callable[..., None]) -> dict[str, TypeAdapter[Any]]:
    from pydantic import ConfigDict, TypeAdapter

    hints = typing.get_type_hints(initialise, localns={"VecEnv": VecEnv})  # which SB3 imports for checkers only
    left_out = ("return", "env", "policy", "device")
    anything = ConfigDict(arbitrary_types_allowed=True)
    return {name: TypeAdapter(hint, config=anything) for name, hint in hints.items() if name not in left_out}
