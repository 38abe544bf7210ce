from pathlib import Path

import pytest

from everlearn.config import RunConfig, load
from everlearn.core.errors import ConfigError
from everlearn.runs import decided_settings
from tests.runs.tiny import TINY


def keys(values: dict, prefix: str = "") -> set[str]:
    """Dotted path of every key of nested sections."""
    found = set()
    for name, value in values.items():
        inside = keys(value, f"{prefix}{name}.") if isinstance(value, dict) and value else set()
        found |= inside or {f"{prefix}{name}"}
    return found


def test_every_key_is_shown_with_the_value_that_training_would_use(tmp_path: Path) -> None:
    (tmp_path / "shown.yaml").write_text(decided_settings(None, {"env.id": "Pendulum-v1"}))
    shown = load(tmp_path / "shown.yaml")
    from ruamel.yaml import YAML

    written = YAML(typ="safe", pure=True).load(tmp_path / "shown.yaml")
    assert keys(written) >= keys(RunConfig(env={"id": "Pendulum-v1"}).model_dump()) - {"algorithm.vgs_kwargs"}
    assert shown.env.normalize.enabled is True
    assert (shown.algorithm.policy, shown.algorithm.n_steps, shown.algorithm.n_critics) == ("MlpPolicy", 256, 2)
    assert (shown.seed, shown.evaluation.seed) == (None, None)


def test_what_is_shown_is_decided_as_itself(tmp_path: Path) -> None:
    text = decided_settings(None, {**TINY, "env.id": "CartPole-v1"})
    (tmp_path / "shown.yaml").write_text(text)
    assert decided_settings(tmp_path / "shown.yaml") == text


def test_names_and_what_comes_to_light_in_building_have_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("env: {id: CartPoll-v1}\nalgorithm:\n  gamma: 0.9\n  value_head: kwantile\n")
    with pytest.raises(ConfigError) as refusal:
        decided_settings(file)
    first, second = str(refusal.value).split("\n")
    assert first.startswith(f"{file}, line 1: env.id: there is no environment 'CartPoll-v1'. Did you mean CartPole-v1")
    assert second.startswith(f"{file}, line 4: algorithm.value_head: There is no value head 'kwantile'")
    file.write_text("env: {id: CartPole-v1}\nalgorithm:\n  gamma: 0.9\n  use_sde: true\n")
    with pytest.raises(ConfigError, match=rf"^{file}, line 4: algorithm\.use_sde: .*needs continuous actions"):
        decided_settings(file)
