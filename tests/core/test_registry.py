from typing import Any

import pytest
import torch
from pydantic import BaseModel

from everlearn.core.errors import ConfigError
from everlearn.core.registry import Registry
from everlearn.core.signatures import checked_arguments, validated


class Fixed:
    pass


class Scaled:
    def __init__(self, size: int, scale: float = 0.5, names: list[str] | None = None, **rest: Any) -> None:
        self.size, self.scale, self.names, self.rest = size, scale, names, rest


@pytest.fixture
def registry() -> Registry[Any]:
    registry: Registry[Any] = Registry("widget", runtime=["size"])
    registry.register("fixed")(Fixed)
    registry.register("soft_scaled")(Scaled)
    return registry


def test_the_decorator_returns_the_class_itself() -> None:
    assert Registry[Any]("widget").register("fixed")(Fixed) is Fixed


@pytest.mark.parametrize("spelling", ["soft_scaled", "SoftScaled", "soft-scaled", "SOFT SCALED", "softscaled"])
def test_every_spelling_finds_the_entry(registry: Registry[Any], spelling: str) -> None:
    assert registry[spelling] is Scaled
    assert registry.canonical(spelling) == "soft_scaled"


def test_an_unknown_name_gets_a_suggestion(registry: Registry[Any]) -> None:
    with pytest.raises(ConfigError, match=r"There is no widget 'soft_scald'\. Did you mean 'soft_scaled'\?"):
        registry["soft_scald"]


def test_a_taken_name_is_refused_in_any_spelling(registry: Registry[Any]) -> None:
    with pytest.raises(ConfigError, match="The widget 'soft_scaled' is another class"):
        registry.add("SoftScaled", Fixed)
    assert registry["soft_scaled"] is Scaled


def test_entering_a_class_again_changes_nothing(registry: Registry[Any]) -> None:
    registry.add("SoftScaled", Scaled)
    assert list(registry) == ["fixed", "soft_scaled"]


def test_a_class_knows_its_name_by_the_registry(registry: Registry[Any]) -> None:
    assert registry.name_of(Scaled) == "soft_scaled"
    assert registry.name_of(int) is None


def test_the_model_has_the_constructors_arguments_without_the_programs(registry: Registry[Any]) -> None:
    model = registry.spec_model("SoftScaled")
    assert set(model.model_fields) == {"kind", "scale", "names"}
    assert model().model_dump() == {"kind": "soft_scaled", "scale": 0.5, "names": None}


def test_an_argument_without_default_is_required() -> None:
    registry: Registry[Any] = Registry("widget")
    registry.add("scaled", Scaled)
    with pytest.raises(ConfigError, match=r"widget\.size: Field required"):
        registry.arguments("scaled", {})


def test_a_class_without_constructor_has_no_arguments(registry: Registry[Any]) -> None:
    assert set(registry.spec_model("fixed").model_fields) == {"kind"}


def test_only_given_arguments_are_returned_converted(registry: Registry[Any]) -> None:
    arguments = registry.arguments("SoftScaled", {"scale": "3e-4"})
    assert arguments == {"scale": 3e-4}


def test_an_unknown_argument_is_an_error_with_its_path_and_a_suggestion(registry: Registry[Any]) -> None:
    with pytest.raises(ConfigError) as refusal:
        registry.arguments("soft_scaled", {"scal": 1.0}, where="policy.widget")
    assert str(refusal.value) == "policy.widget.scal: unknown key. Did you mean 'scale'?"


@pytest.mark.parametrize("kind", ["fixed", "soft_scaled"])
def test_a_kind_is_no_argument(registry: Registry[Any], kind: str) -> None:
    with pytest.raises(ConfigError, match=r"^widget\.kind: unknown key\. Known: names, scale\.$"):
        registry.arguments("soft_scaled", {"kind": kind})


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ("soft_scald", "top.widget: There is no widget 'soft_scald'. Did you mean 'soft_scaled'?"),
        ({"kind": "soft_scald"}, "top.widget: There is no widget 'soft_scald'. Did you mean 'soft_scaled'?"),
        ({"kind": "soft_scaled", "scal": 1}, "top.widget.scal: unknown key. Did you mean 'scale'?"),
        ({"kind": "fixed", "scale": 1}, "top.widget.scale: unknown key. Nothing can be set here."),
        ({"kind": 3}, "top.widget: A widget as a mapping needs the key 'kind', one of ['fixed', 'soft_scaled']."),
    ],
)
def test_a_check_names_the_place(registry: Registry[Any], spec: Any, complaint: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        registry.check(spec, "top.widget")
    assert str(refusal.value) == complaint


@pytest.mark.parametrize("spec", ["SoftScaled", {"kind": "SoftScaled", "scale": 2}, Scaled(1)])
def test_a_check_lets_pass_what_can_be_built(registry: Registry[Any], spec: Any) -> None:
    registry.check(spec, "top.widget")
    assert type(registry.build(spec, size=1)) is Scaled


def test_a_missing_argument_is_named_without_all_the_others() -> None:
    with pytest.raises(ConfigError) as refusal:
        checked_arguments(Scaled, {"scale": 1.0}, "widget")
    assert str(refusal.value) == "widget.size: Field required."


def test_arguments_that_the_program_supplies_are_unknown_to_the_user() -> None:
    assert checked_arguments(Scaled, {"scale": "2"}, "widget", supplied=["size"]) == {"scale": 2.0}
    with pytest.raises(ConfigError, match=r"widget\.size: unknown key"):
        checked_arguments(Scaled, {"size": 1}, "widget", supplied=["size"])


def test_every_wrong_value_is_named_with_its_path(registry: Registry[Any]) -> None:
    with pytest.raises(ConfigError) as refusal:
        registry.arguments("soft_scaled", {"scale": "much", "names": ["a", 2]})
    first, second = str(refusal.value).splitlines()
    assert first.startswith("widget.scale: ")
    assert first.endswith("(found 'much').")
    assert second.startswith("widget.names.1: ")
    assert second.endswith("(found 2).")


def test_a_name_builds_with_what_the_program_supplies(registry: Registry[Any]) -> None:
    built = registry.build("softscaled", size=3)
    assert (type(built), built.size, built.scale) == (Scaled, 3, 0.5)


def test_a_mapping_builds_with_its_arguments_under_any_spelling_of_the_kind(registry: Registry[Any]) -> None:
    built = registry.build({"kind": "SoftScaled", "scale": 2, "names": ["a"]}, size=3)
    assert (built.size, built.scale, built.names, built.rest) == (3, 2.0, ["a"], {})


def test_an_instance_is_returned_as_it_is(registry: Registry[Any]) -> None:
    ready = Scaled(1)
    assert registry.build(ready, size=3) is ready


def test_a_mapping_without_kind_is_told_the_kinds(registry: Registry[Any]) -> None:
    with pytest.raises(ConfigError, match=r"needs the key 'kind', one of \['fixed', 'soft_scaled'\]"):
        registry.build({"scale": 2.0})


def test_a_librarys_class_gets_its_model_from_its_signature() -> None:
    registry: Registry[torch.optim.Optimizer] = Registry("optimizer", runtime=["params"])
    registry.add("adam", torch.optim.Adam)
    weights = [torch.zeros(2, requires_grad=True)]
    adam = registry.build({"kind": "Adam", "lr": "1e-2", "betas": [0.8, 0.9]}, params=weights)
    assert adam.defaults["lr"] == 0.01
    assert adam.defaults["betas"] == (0.8, 0.9)
    assert adam.param_groups[0]["params"][0] is weights[0]


class Inner(BaseModel, extra="forbid"):
    learning_rate: float = 1.0


class Outer(BaseModel, extra="forbid"):
    inner: Inner | None = None


def test_a_nested_unknown_key_is_compared_with_the_keys_of_its_level() -> None:
    with pytest.raises(ConfigError) as refusal:
        validated(Outer, {"inner": {"learning_rat": 2.0}}, where="")
    assert str(refusal.value) == "inner.learning_rat: unknown key. Did you mean 'learning_rate'?"


def test_values_that_fit_become_the_model() -> None:
    assert validated(Outer, {"inner": {"learning_rate": "2"}}, where="") == Outer(inner=Inner(learning_rate=2.0))
