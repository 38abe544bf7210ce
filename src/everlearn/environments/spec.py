"""What an environment configuration may say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError


def whole(value: Any) -> Any:
    """``1e6`` is written by people who mean the integer 1,000,000."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def expected(what: str) -> PydanticCustomError:
    """The complaint that something else should stand here."""
    return PydanticCustomError("expected", "Input should be {what}", {"what": what})


def stated_as(what: str) -> WrapValidator:
    """One complaint for a value that fits no member of a union, instead of one per member."""

    def check(value: Any, fits: ValidatorFunctionWrapHandler) -> Any:
        try:
            return fits(value)
        except ValidationError:
            raise expected(what) from None

    return WrapValidator(check)


Count = Annotated[int, Field(ge=1), BeforeValidator(whole)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A part of a configuration: unknown keys are errors and nothing is converted silently."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _empty_is_default(cls, value: Any) -> Any:
        """A heading in a YAML file without anything below it is None."""
        return {} if value is None else value


class NormaliserConfig(Section):
    """How observations and rewards are normalised; the defaults are those of SB3's ``VecNormalize``.

    Attributes:
        enabled: ``auto``, true or false; ``auto`` normalises continuous control: a Box action space with
            floating-point observations.
        norm_obs: Normalise observations.
        norm_reward: Normalise rewards.
        clip_obs: Largest absolute normalised observation.
        clip_reward: Largest absolute normalised reward.
        epsilon: Added to variances.
        norm_obs_keys: For dictionary observations, the keys to normalise; none means all.
    """

    enabled: Annotated[Literal["auto"] | bool, stated_as("'auto', true or false")] = "auto"
    norm_obs: bool = True
    norm_reward: bool = True
    clip_obs: Positive = 10.0
    clip_reward: Positive = 10.0
    epsilon: Positive = 1e-8
    norm_obs_keys: list[str] | None = None


def _as_mapping(value: Any) -> Any:
    """``normalize: true`` means ``{enabled: true}``; a mapping that does not say otherwise is enabled."""
    if isinstance(value, NormaliserConfig):
        return value
    return {"enabled": True, **value} if isinstance(value, Mapping) else {"enabled": value}


class EnvConfig(Section):
    """Which environment, how many copies of it, and what is wrapped around each.

    Attributes:
        id: A registered gymnasium id.
        n_envs: Copies that step side by side.
        normalize: ``auto``, true, false, or a mapping with the fields of ``NormaliserConfig``.
        kwargs: Arguments for ``gymnasium.make``.
        engine: ``synchronous`` steps them one after the other, ``subprocess`` each in a process of its own, which pays
            where a step takes a millisecond or more.
        wrappers: Names of registered wrappers, or ``{kind: name, argument: value}``, innermost first.
    """

    id: str
    n_envs: Count = 8
    normalize: Annotated[
        NormaliserConfig, BeforeValidator(_as_mapping, json_schema_input_type=Literal["auto"] | bool | NormaliserConfig)
    ] = NormaliserConfig()
    kwargs: dict[str, Any] = {}
    engine: Literal["synchronous", "subprocess"] = "synchronous"
    wrappers: list[Annotated[str | dict[str, Any], stated_as("a name or {kind: name, ...}")]] = []
