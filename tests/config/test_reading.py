import inspect
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from stable_baselines3.common.policies import ActorCriticPolicy

from everlearn.config import AlgorithmConfig, PolicyConfig, RunConfig, assignment, dump, load, load_document
from everlearn.core.errors import ConfigError
from everlearn.ppo.algorithm import PPO, DistributionalPPO

EXAMPLES = Path(__file__).parents[2] / "examples"

SUPPLIED_BY_THE_RUN = {
    "self",
    "env",
    "tensorboard_log",
    "seed",
    "device",
    "verbose",
    "_init_setup_model",
    "rollout_buffer_class",  # a class, which no file can name
    "rollout_buffer_kwargs",
}


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def configured(**overrides: Any) -> RunConfig:
    return load(None, {"env.id": "CartPole-v1", **overrides})


@pytest.mark.parametrize("algorithm", [PPO, DistributionalPPO])
def test_the_algorithm_section_has_the_constructors_arguments_and_defaults(algorithm: type) -> None:
    parameters = inspect.signature(algorithm.__init__).parameters
    expected = {name: p.default for name, p in parameters.items() if name not in SUPPLIED_BY_THE_RUN}
    fields = {name: field.default for name, field in AlgorithmConfig.model_fields.items() if name != "name"}
    assert fields.keys() == expected.keys()
    decided_later = {"policy": None, "n_steps": None, "policy_kwargs": PolicyConfig()}
    assert fields == {**expected, **decided_later}


def test_the_policy_section_has_arguments_of_the_policy() -> None:
    assert PolicyConfig.model_fields.keys() <= inspect.signature(ActorCriticPolicy).parameters.keys()


def test_the_shortest_configuration_names_an_environment() -> None:
    config = configured()
    assert config.env.id == "CartPole-v1"
    assert config.algorithm.name == "DistributionalPPO"
    assert config.total_timesteps == 200_000


def test_no_environment_is_an_error_that_says_how_to_name_one(tmp_path: Path) -> None:
    for path in (None, written(tmp_path, "gamma: 0.9"), written(tmp_path, "env: {n_envs: 2}")):
        with pytest.raises(ConfigError, match="no environment is named"):
            load(path)


def test_a_word_where_the_environments_section_belongs_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"env: a section belongs here, and this is 'CartPole-v1'\. Give --env ID"):
        load(written(tmp_path, "env: CartPole-v1"))


def test_an_empty_section_has_its_defaults(tmp_path: Path) -> None:
    text = "env: {id: CartPole-v1}\nalgorithm:\nlogging:\nruntime:\n"
    assert load(written(tmp_path, text)) == configured()
    assert load(written(tmp_path, "env:\n"), {"env.id": "CartPole-v1"}) == configured()


@pytest.mark.parametrize("section", ["algorithm", "logging", "algorithm.policy_kwargs"])
def test_a_value_where_a_section_belongs_is_named(section: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{section}: Input should be a mapping of keys to values \(found 5\)\.$"):
        configured(**{section: 5})


def test_a_file_of_algorithm_keys_is_that_section(tmp_path: Path) -> None:
    path = written(tmp_path, "gamma: 0.9\nname: PPO\n")
    assert load(path, {"env.id": "CartPole-v1"}).algorithm == AlgorithmConfig(name="PPO", gamma=0.9)


def test_sections_and_algorithm_keys_side_by_side_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "env: {id: CartPole-v1}\ngamma: 0.9\n")
    with pytest.raises(ConfigError, match=r"config.yaml, line 2: gamma: it belongs to the section 'algorithm'.*Move"):
        load(path)


def test_yaml_is_1_2_in_free_mappings_too(tmp_path: Path) -> None:
    path = written(tmp_path, "optimizer_kwargs: {lr: 3e-4, word: on, whole: 010}")
    config = load(path, {"env.id": "CartPole-v1"})
    assert config.algorithm.optimizer_kwargs == {"lr": 0.0003, "word": "on", "whole": 10}


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("gamma=0.9", "gamma", 0.9),
        ("env.kwargs.foo=1", "env.kwargs.foo", 1),
        ("learning_rate=1e-3", "learning_rate", 0.001),
        ("algorithm.clip_range=lin_0.2", "algorithm.clip_range", "lin_0.2"),
        ("vgs_kwargs={mode: noise}", "vgs_kwargs", {"mode": "noise"}),
        ("target_kl=", "target_kl", None),
        ("env.id=a=b", "env.id", "a=b"),
    ],
)
def test_an_assignment_has_a_yaml_value(text: str, key: str, value: Any) -> None:
    assert assignment(text) == (key, value)


@pytest.mark.parametrize("text", ["gamma", "=3", "gamma=[1"])
def test_a_malformed_assignment_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        assignment(text)


def test_overrides_replace_single_values_and_need_no_prefix_for_the_algorithm(tmp_path: Path) -> None:
    path = written(tmp_path, "env: {id: CartPole-v1, kwargs: {sutton_barto_reward: true}}\nseed: 3\n")
    config = load(path, {"env.kwargs.render_mode": None, "gamma": 0.9, "algorithm.gae_lambda": 0.8, "seed": 4})
    assert config.env.kwargs == {"sutton_barto_reward": True, "render_mode": None}
    assert (config.algorithm.gamma, config.algorithm.gae_lambda, config.seed) == (0.9, 0.8, 4)


@pytest.mark.parametrize(
    ("given", "enabled", "clip_obs"),
    [("auto", "auto", 10.0), (True, True, 10.0), (False, False, 10.0), ({"clip_obs": 5.0}, True, 5.0)],
)
def test_normalize_is_a_word_or_a_mapping(given: Any, enabled: Any, clip_obs: float) -> None:
    normalize = configured(**{"env.normalize": given}).env.normalize
    assert (normalize.enabled, normalize.clip_obs) == (enabled, clip_obs)


@pytest.mark.parametrize("steps", [100_000, 1e5])
def test_a_whole_number_may_be_written_with_an_exponent(steps: float) -> None:
    assert configured(total_timesteps=steps).total_timesteps == 100_000


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"env.normalize.clip_obs": 5.0, "env.kwargs.nothing": None, "env.wrappers": ["ClipAction"], "seed": 3},
        {"policy_kwargs": {"net_arch": {"pi": [64], "vf": [32, 32]}, "activation_fn": "tanh"}},
        {"learning_rate": "lin_0.001", "optimizer_kwargs": {"lr": 1e-5}, "max_grad_norm": float("inf")},
        {"value_head": {"kind": "quantile", "n_quantiles": 8}, "runtime.threads": 2, "env.id": "on"},
    ],
)
def test_a_dumped_configuration_loads_as_an_equal_one(tmp_path: Path, settings: dict[str, Any]) -> None:
    config = configured(**settings)
    assert load(written(tmp_path, dump(config))) == config


@pytest.mark.parametrize(
    ("key", "complaint"),
    [
        ("gama", r"^gama: unknown key\. Did you mean 'gamma'\?"),
        ("algorithm.gama", r"algorithm\.gama: unknown key\. Did you mean 'gamma'\?"),
        ("env.n_env", r"env\.n_env: unknown key\. Did you mean 'n_envs'\?"),
        ("env.normalize.clip_ob", r"env\.normalize\.clip_ob: unknown key\. Did you mean 'clip_obs'\?"),
        ("policy_kwargs.net_arh", r"algorithm\.policy_kwargs\.net_arh: unknown key\. Did you mean 'net_arch'\?"),
        ("logging.intervall", r"logging\.intervall: unknown key\. Did you mean 'interval'\?"),
    ],
)
def test_an_unknown_key_is_an_error_with_a_suggestion(key: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        configured(**{key: 1})


def test_an_unknown_key_in_a_file_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.yaml, line 1: gama: unknown key\. Did you mean 'gamma'\?"):
        load(written(tmp_path, "gama: 0.9"))


NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("learning_rate", [0, -1.0, NAN, INFINITY, "lin_x", "lin_-1", "linear", True, None, [1]]),
        ("clip_range", [-1.0, 0.0, NAN]),
        ("clip_range_vf", [-1.0, 0.0]),
        ("gamma", [5, -0.1, NAN]),
        ("gae_lambda", [1.1, -0.1, NAN]),
        ("ent_coef", [NAN, INFINITY, "high"]),
        ("vf_coef", [NAN, INFINITY, -0.5]),
        ("max_grad_norm", [0, -1.0, NAN]),
        ("target_kl", [0, -1.0, NAN]),
        ("n_steps", [0, -1, 2.5]),
        ("batch_size", [0, 2.5, "64", True]),
        ("n_epochs", [0]),
        ("sde_sample_freq", [-2]),
        ("stats_window_size", [0]),
        ("n_critics", [0]),
        ("vgs_beta", [1.0, -0.1, NAN]),
        ("vgs_alpha", [-0.1, NAN, INFINITY]),
        ("vgs_warmup_steps", [-1]),
        ("value_head", [3]),
        ("policy", ["MlpPolicyy"]),
        ("policy_kwargs.net_arch", [64, [0], {"pi": 64}]),
        ("policy_kwargs.log_std_init", [NAN]),
    ],
)
def test_a_value_outside_its_range_names_its_path(key: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(ConfigError, match=rf"^algorithm\.{key}(\.|:)"):
            configured(**{key: value})


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("total_timesteps", [0, -5, 0.5, "many"]),
        ("seed", [-1, 2**32, 0.5]),
        ("env.n_envs", [0]),
        ("env.normalize", ["yes", 3]),
        ("env.normalize.clip_obs", [0, NAN]),
        ("env.wrappers", [[3], "ClipAction"]),
        ("logging.interval", [0]),
        ("logging.evaluation_episodes", [-1]),
        ("runtime.threads", [0, "many"]),
        ("runtime.device", ["gpu", "cuda:x", "cpu0"]),
    ],
)
def test_a_value_of_the_run_outside_its_range_names_its_path(key: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(ConfigError, match=rf"^{key}"):
            configured(**{key: value})


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"batch_size": 1}, "batch_size 1 leaves nothing to normalise advantages by: raise batch_size"),
        ({"n_steps": 1, "env.n_envs": 1}, r"rollout of one step .* raise algorithm\.n_steps"),
        ({"policy_kwargs.squash_output": True}, "squash_output needs use_sde"),
    ],
)
def test_options_that_contradict_each_other_are_refused(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as refusal:
        configured(**settings)
    assert "found" not in str(refusal.value), "the whole section is no help"
    assert not str(refusal.value).startswith(":")


@pytest.mark.parametrize(
    "settings",
    [
        {"batch_size": 1, "normalize_advantage": False},
        {"n_steps": 1, "env.n_envs": 2},
        {"n_steps": 1, "env.n_envs": 1, "normalize_advantage": False},
        {"policy_kwargs.squash_output": True, "use_sde": True},
        {"ent_coef": -0.01, "gamma": 1, "gae_lambda": 0, "vgs_beta": 0.0},
        {"runtime.device": "cuda:1", "runtime.threads": 4},
    ],
)
def test_unusual_options_that_make_sense_are_accepted(settings: dict[str, Any]) -> None:
    assert configured(**settings).env.id == "CartPole-v1"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("gamma: [0.9", r"config\.yaml, line 1: not valid YAML: expected ',' or '\]'"),
        ("gamma: 0.9\ngamma: 0.8", r"config\.yaml, line 2: not valid YAML: found duplicate key \"gamma\""),
        ("- gamma", "a configuration is a mapping of keys to values; this is a list"),
        (
            "!!python/object/apply:os.system ['true']",
            r"config\.yaml, line 1: something tagged tag:yaml\.org,2002:python",
        ),
        ("gamma: \x07", r"config\.yaml: not valid YAML"),
    ],
)
def test_a_file_that_is_no_configuration_says_where(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        load(written(tmp_path, text))


def test_every_complaint_has_its_line_and_all_come_together_in_the_order_of_the_file(tmp_path: Path) -> None:
    """Row 19 of the failure modes: path, line and "did you mean"."""
    path = written(tmp_path, MISTAKES)
    with pytest.raises(ConfigError) as refusal:
        load(path)
    assert str(refusal.value).split("\n") == [
        f"{path}, line 2: env.id: no environment is named. Give --env ID, or env: {{id: ID}} in the file.",
        f"{path}, line 3: env.n_env: unknown key. Did you mean 'n_envs'?",
        f"{path}, line 6: algorithm.gamma: Input should be less than or equal to 1 (found 5).",
        f"{path}, line 8: algorithm.policy_kwargs.net_arh: unknown key. Did you mean 'net_arch'?",
        f"{path}, line 9: totl_timesteps: unknown key. Did you mean 'total_timesteps'?",
        f"{path}, line 10: logging: Input should be a mapping of keys to values (found 5).",
        f"{path}, line 11: batch_size: it belongs to the section 'algorithm', and there are sections at the top level "
        "too. Move it under 'algorithm:', or keep nothing but such keys in the file.",
    ]


MISTAKES = """\
# a comment
env:
  n_env: 3
  wrappers: []
algorithm:
  gamma: 5
  policy_kwargs: # a comment
    net_arh: [64, 64]
totl_timesteps: 100
logging: 5
batch_size: 3
"""


def test_a_mistake_in_a_file_of_algorithm_keys_has_its_line(tmp_path: Path) -> None:
    path = written(tmp_path, "name: PPO\n\ngamma: 5\n")
    with pytest.raises(ConfigError, match=rf"^{path}, line 3: algorithm\.gamma: Input should be less"):
        load(path, {"env.id": "CartPole-v1"})


def test_a_mistake_in_an_override_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "env: {id: CartPole-v1}\nalgorithm: {gamma: 0.9, policy_kwargs: {ortho_init: true}}\n")
    for key in ("gamma", "policy_kwargs", "policy_kwargs.net_arch"):
        with pytest.raises(ConfigError, match=rf"^algorithm\.{key}: "):
            load(path, {key: 5})
    assert load(path, {"gamma": 0.5}).algorithm.gamma == 0.5


def test_a_mapping_is_a_configuration_too() -> None:
    assert load({"gamma": 0.5}, {"env.id": "CartPole-v1"}) == configured(gamma=0.5)
    assert load({"env": {"id": "CartPole-v1"}, "seed": 3}) == configured(seed=3)


@pytest.mark.parametrize("text", ["1e-4", "1.0e-4", "1E-4", ".1e-3", "0.0001", "1_00e-6"])
def test_a_small_number_may_be_written_in_any_way(tmp_path: Path, text: str) -> None:
    """Row 21 of the failure modes: 1e-4 is a number."""
    path = written(tmp_path, f"learning_rate: {text}")
    assert load(path, {"env.id": "CartPole-v1"}).algorithm.learning_rate == 1e-4


def test_a_number_in_quotes_is_refused_where_a_number_belongs(tmp_path: Path) -> None:
    path = written(tmp_path, "learning_rate: '1e-4'\nent_coef: '0.1'")
    with pytest.raises(ConfigError) as refusal:
        load(path, {"env.id": "CartPole-v1"})
    assert "line 1: algorithm.learning_rate: Input should be a number above 0" in str(refusal.value)
    assert "line 2: algorithm.ent_coef: Input should be a valid number (found '0.1')" in str(refusal.value)


SCHEDULES = [0.1, "lin_0.1", {"kind": "cosine", "start": 0.1}, {"kind": "piecewise", "points": [[0, 1.0], [1, 0.5]]}]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("key", ["learning_rate", "clip_range", "clip_range_vf"])
def test_schedules_are_data(tmp_path: Path, key: str, schedule: Any) -> None:
    config = configured(**{key: schedule})
    assert getattr(config.algorithm, key) == schedule
    assert load(written(tmp_path, dump(config))) == config


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("evaluation.every", [-1, 0.5, "often"]),
        ("evaluation.episodes", [0]),
        ("evaluation.n_envs", [0]),
        ("evaluation.seed", [-1]),
        ("evaluation.deterministic", ["yes"]),
        ("plugins", ["module", [3], ["../module"], ["my module"], ["1st"], [""], ["a..b"]]),
        ("algorithm.kl_penalty", [3, 0.1]),
        ("algorithm.divergence", [True, 3]),
    ],
)
def test_a_setting_of_the_new_parts_outside_its_range_names_its_path(key: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(ConfigError, match=rf"^{key}"):
            configured(**{key: value})


def test_evaluation_is_off_unless_asked_for() -> None:
    assert configured().evaluation.every == 0
    assert configured(**{"evaluation.every": 1e4}).evaluation.every == 10_000


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.yaml", tmp_path):
        with pytest.raises(ConfigError, match=rf"^{path}: it cannot be read .*Give the path of a YAML file"):
            load(path)


def test_a_file_in_another_encoding_names_the_line_and_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"env:\n  id: \xff\n")
    with pytest.raises(ConfigError, match=r"latin\.yaml, line 2: byte 0xff is not UTF-8\. Save the file in .* UTF-8\."):
        load(tmp_path / "latin.yaml")


def test_plugins_from_outside_come_before_those_of_the_file_and_once(tmp_path: Path) -> None:
    path = written(tmp_path, "env: {id: CartPole-v1}\nplugins: [a, b]\n")
    assert load_document(path, None, ["c", "b"])[0].plugins == ["c", "b", "a"]


def test_an_empty_file_is_an_empty_configuration(tmp_path: Path) -> None:
    assert load(written(tmp_path, "# nothing\n"), {"env.id": "CartPole-v1"}) == configured()


RECOMMENDED = """\
variance_gradient_scaling: true
vgs_beta: 0.99
vgs_alpha: 0.1
vgs_warmup_steps: 100
optimizer_class: "adaptive_upgd"
optimizer_kwargs: {lr: 3e-4, sigma: 0.001, adaptive_noise: true, noise_beta: 0.999, min_noise_std: 1e-6}
"""


def test_the_recommended_configuration_ships_verbatim() -> None:
    assert (EXAMPLES / "recommended.yaml").read_text() == RECOMMENDED


def test_the_conservative_configuration_scales_less_and_later() -> None:
    yaml = YAML(typ="safe", pure=True)
    recommended, conservative = (
        yaml.load((EXAMPLES / f"{name}.yaml").read_text()) for name in ("recommended", "conservative")
    )
    assert conservative == {**recommended, "vgs_alpha": 0.05, "vgs_warmup_steps": 200}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_is_a_valid_configuration(path: Path) -> None:
    config = load(path) if "env:" in path.read_text() else load(path, {"env.id": "CartPole-v1"})
    assert config.algorithm.name == ("PPO" if path.stem == "pbt_halfcheetah" else "DistributionalPPO")
    assert (config.population is not None) == (path.stem in ("population", "pbt_halfcheetah", "market_pbt"))


def test_checkpoints_have_these_defaults() -> None:
    kept = load(None, {"env.id": "CartPole-v1"}).checkpoint.model_dump()
    assert kept == {"every": 20_000, "keep_last": 3, "keep_best": 1, "keep_every": None, "max_failures": 20}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("every", -1), ("every", 1.5), ("keep_last", 0), ("keep_best", -1), ("keep_every", 0)),
        *(("max_failures", 0), ("keep_last", None)),
    ],
)
def test_checkpoints_that_make_no_sense_are_refused(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^checkpoint\.{key}: "):
        load(None, {"env.id": "CartPole-v1", f"checkpoint.{key}": value})


def test_steps_of_checkpoints_may_be_written_as_people_write_them() -> None:
    values = {"env.id": "CartPole-v1", "checkpoint.every": 1e5, "checkpoint.keep_every": 1e6}
    kept = load(None, values).checkpoint
    assert (kept.every, kept.keep_every) == (100_000, 1_000_000)
