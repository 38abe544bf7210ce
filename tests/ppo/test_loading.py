"""A model from a file: what may differ, what is refused, and that nothing is half done."""

from __future__ import annotations

import io
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from everlearn import PPO, DistributionalPPO
from everlearn.checkpoint.errors import CheckpointError, Corrupt, Mismatch, NonFinite, TooLarge, Unsupported
from everlearn.checkpoint.limits import Limits
from everlearn.core.digest import digest
from everlearn.core.errors import ArgumentError, NonFiniteError
from everlearn.core.stateful import Role
from tests.ppo.files import file_of, rewritten, with_config
from tests.ppo.together import everything
from tests.ppo.updates import model_of
from tests.ppo.worlds import world


@pytest.fixture(scope="module")
def model() -> PPO:
    return model_of("pendulum", PPO, optimizer_class="adam", optimizer_kwargs={"weight_decay": 0.01}).learn(32)


@pytest.fixture(scope="module")
def content(model: PPO) -> bytes:
    return file_of(model)


def load(content: Any, kind: type[PPO] = PPO, **arguments: Any) -> PPO:
    stream = io.BytesIO(content) if isinstance(content, bytes) else content
    return kind.load(stream, device="cpu", **arguments)


# --- what may differ --------------------------------------------------------------------------------------------------


def test_arguments_given_rule_over_those_of_the_file(content: bytes) -> None:
    loaded = load(content, gamma=0.5, learning_rate=7e-4, verbose=0, optimizer_kwargs={"lr": 2e-3, "weight_decay": 0.5})
    assert (loaded.gamma, loaded.rollout_buffer.gamma) == (0.5, 0.5)
    assert loaded.policy.optimizer.param_groups[0]["weight_decay"] == 0.5
    assert loaded.lr_schedule(1.0) == 7e-4


def test_custom_objects_replace_what_the_file_has_and_nothing_else(content: bytes) -> None:
    loaded = load(content, custom_objects={"gamma": 0.3, "unheard_of": 1})
    assert loaded.gamma == 0.3
    assert not hasattr(loaded, "unheard_of")


def test_custom_spaces_replace_the_saved_ones(content: bytes) -> None:
    space = spaces.Box(-9, 9, (3,), np.float32)
    assert load(content, custom_objects={"observation_space": space}).observation_space == space


def test_an_unknown_argument_is_an_error_with_a_suggestion(content: bytes) -> None:
    with pytest.raises(ArgumentError, match=r"PPO has no argument 'gama'. Did you mean 'gamma'"):
        load(content, gama=0.5)


def test_an_argument_out_of_its_range_is_an_error(content: bytes) -> None:
    with pytest.raises(ValueError, match="gamma"):
        load(content, gamma=5)


def test_another_policy_than_the_saved_one_is_refused(content: bytes) -> None:
    with pytest.raises(Mismatch, match="do not equal the stored policy_kwargs"):
        load(content, policy_kwargs={"net_arch": [3]})


def test_another_number_of_environments_is_welcome(content: bytes) -> None:
    loaded = load(content, env=world("pendulum", 3))
    assert (loaded.n_envs, loaded.rollout_buffer.n_envs, loaded._last_obs) == (3, 3, None)
    loaded.learn(3 * loaded.n_steps, reset_num_timesteps=False)


def test_last_observations_stay_where_no_reset_is_forced(model: PPO, content: bytes) -> None:
    loaded = load(content, env=world("pendulum"), force_reset=False)
    assert np.array_equal(loaded._last_obs, model._last_obs)


def test_an_excluded_argument_has_its_default_after_loading() -> None:
    model = model_of("pendulum", PPO, ent_coef=0.25, verbose=0)
    stream = io.BytesIO()
    model.save(stream, exclude=["ent_coef", "stats_window_size"], include=["stats_window_size"])
    model._stats_window_size = 7
    model.save(kept := io.BytesIO(), exclude=["stats_window_size"], include=["stats_window_size"])
    assert load(kept)._stats_window_size == 7
    assert load(stream).ent_coef == 0.0


def test_excluding_what_is_not_there_is_an_error(model: PPO) -> None:
    with pytest.raises(ArgumentError, match=r"save: a PPO has no 'learning_rat'. Did you mean 'learning_rate'"):
        model.save(io.BytesIO(), exclude=["learning_rat"])


def test_an_unknown_format_is_an_error(model: PPO) -> None:
    with pytest.raises(ArgumentError, match="format='onnx': there are 'everlearn' and 'sb3'"):
        model.save(io.BytesIO(), format="onnx")  # type: ignore[arg-type]


def test_a_file_is_pinned_by_its_hash(content: bytes) -> None:
    import hashlib

    good = hashlib.sha256(content).hexdigest()
    assert load(content, sha256=good.upper()).num_timesteps == 32
    with pytest.raises(CheckpointError, match="another file than was asked for"):
        load(content, sha256="0" * 64)


def test_the_file_that_a_model_came_from_is_its_parent(content: bytes) -> None:
    from everlearn.checkpoint.archive import read_archive

    loaded = load(content)
    manifest = read_archive(io.BytesIO(file_of(loaded))).manifest
    assert manifest["parent"] == read_archive(io.BytesIO(content)).manifest["content_id"] == loaded.parent_content


def test_a_checkpoint_holds_every_part_and_loads_as_a_model(model: PPO) -> None:
    from everlearn.checkpoint.archive import pack, read_archive

    members, about = model.file_contents(Role)
    assert about["kind"] == "checkpoint"
    assert {"generators.json", "generators.safetensors", "probe.json", "episodes.json"} <= members.keys()
    file = b"".join(pack(members, about))
    assert digest(load(file).get_parameters()) == digest(model.get_parameters())
    assert "generators.json" not in read_archive(io.BytesIO(file_of(model))).members


class Remembering(PPO):
    """A subclass with an argument of its own."""

    def __init__(self, *args: Any, motto: str = "none", **kwargs: Any) -> None:
        self.motto = motto
        super().__init__(*args, **kwargs)


def test_arguments_of_a_subclass_come_back_and_its_base_says_that_it_lacks_them() -> None:
    content = file_of(model_of("pendulum", Remembering, motto="on"))
    assert load(content, Remembering).motto == "on"
    with pytest.raises(Mismatch, match=r"an argument 'motto', which PPO has not. Load it with .* 'Remembering'"):
        load(content)


# --- what is refused --------------------------------------------------------------------------------------------------


def test_row_8_other_spaces_are_refused_with_both(content: bytes) -> None:
    """Row 8 of the failure modes."""
    with pytest.raises(Mismatch, match=r"Observation spaces do not match: .*\(3,\).*environment has .*\(4,\)"):
        load(content, env=gymnasium.make("CartPole-v1"))


def test_row_10_other_versions_load_with_one_warning(content: bytes) -> None:
    """Row 10 of the failure modes."""
    from everlearn.checkpoint.archive import pack, read_archive

    archive = read_archive(io.BytesIO(content))
    about = {key: value for key, value in archive.manifest.items() if key not in ("files", "content_id")}
    about["libraries"] = {**about["libraries"], "torch": "1.0"}
    older = b"".join(pack(archive.members, about))
    with pytest.warns(UserWarning, match=r"saved with torch 1\.0 \(here .*\): it is loaded") as warned:
        assert load(older).num_timesteps == 32
    assert len(warned) == 1


def poisoned(part: str, name: str, value: float) -> Any:
    def change(members: dict[str, Any]) -> None:
        from safetensors.torch import load as load_tensors
        from safetensors.torch import save as save_tensors

        tensors = load_tensors(members[f"{part}.safetensors"])
        tensors[name].view(-1)[0] = value
        members[f"{part}.safetensors"] = save_tensors(tensors)

    return change


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_row_13_weights_that_are_not_finite_are_refused(content: bytes, value: float) -> None:
    """Row 13 of the failure modes."""
    with pytest.raises(NonFinite, match=r"'policy\.action_net\.weight' is not finite"):
        load(rewritten(content, poisoned("policy", "action_net.weight", value)))
    assert issubclass(NonFinite, NonFiniteError)


def test_row_7_a_buffer_beyond_the_limit_is_refused_before_it_is_made(content: bytes) -> None:
    """Row 7 of the failure modes."""
    for arguments in ({"n_steps": 10**12}, {"n_envs": 10**12}):
        with pytest.raises(TooLarge, match=r"rollout buffer would have \d+ bytes.*limits=Limits\(buffer_bytes"):
            load(with_config(content, **arguments))
    later = rewritten(content, lambda members: members["hyperparameters.json"].update(n_steps=10**12))
    for file, limits in ((later, Limits()), (content, Limits(buffer_bytes=10))):
        with pytest.raises(TooLarge):
            load(file, limits=limits)


@pytest.mark.parametrize(
    "policy_kwargs",
    [{"net_arch": [10**6, 10**6]}, {"net_arch": [4] * 20_000}, {"net_arch": {"pi": [10**9], "vf": []}}],
)
def test_row_7_a_network_far_beyond_the_files_weights_is_never_made(content: bytes, policy_kwargs: Any) -> None:
    """Row 7 of the failure modes."""
    with pytest.raises(TooLarge, match=r"far beyond the .* weights that it holds"):
        load(with_config(content, policy_kwargs=policy_kwargs))


def test_row_7_heads_cannot_ask_for_more_either() -> None:
    """Row 7 of the failure modes."""
    content = file_of(everything())
    for head in ("quantile", "categorical"):
        option = {"quantile": "n_quantiles", "categorical": "n_atoms"}[head]
        with pytest.raises(CheckpointError):
            load(with_config(content, value_head={"kind": head, option: 10**9}), DistributionalPPO)


@pytest.mark.parametrize(
    ("arguments", "error", "complaint"),
    [
        ({"predict": "x"}, Mismatch, "an argument 'predict', which PPO has not"),
        ({"__class__": "x"}, Mismatch, "an argument '__class__'"),
        ({"env": "CartPole-v1"}, Mismatch, "an argument 'env'"),
        ({"gamma": 5}, Mismatch, r"gamma=5\.0 is outside"),
        ({"gamma": "much"}, Mismatch, "config.json"),
        ({"policy": {"$class": "os:system"}}, Mismatch, "names nothing"),
        ({"policy": {"$class": "policy:os.system"}}, Mismatch, "There is no policy 'os.system'"),
        ({"policy": {"$class": 5}}, Mismatch, "5 names nothing"),
        ({"policy": {"$class": "optimizer:adam"}}, Mismatch, "config.json"),
        ({"policy": {"$opaque": "MyPolicy"}}, Mismatch, r"policy was 'MyPolicy'.*custom_objects=\{'policy': ...\}"),
        ({"value_head": {"$object": "value head:quantile"}}, Mismatch, "arguments of 'quantile' are missing"),
        (
            {"value_head": {"$object": "value head:quantile", "arguments": {"n_quantiles": "many"}}},
            Mismatch,
            "config.json",
        ),
        ({"switched_off": 5}, Mismatch, "config.json"),
        *(({"n_envs": number}, Mismatch, f"n_envs is {number!r}") for number in ("two", 0, -1, True, None)),
        ({"n_steps": 2.5}, Mismatch, "n_steps"),
        ({"learning_rate": {"$opaque": "f"}}, Mismatch, "config.json"),
        ({"learning_rate": {"kind": "os.system"}}, Mismatch, "no schedule 'os.system'"),
    ],
)
def test_a_configuration_that_means_harm_is_refused(
    arguments: Any, error: type, complaint: str, content: bytes
) -> None:
    with pytest.raises(error, match=complaint):
        load(with_config(content, **arguments))


def without(name: str) -> Any:
    return lambda members: members.pop(name)


@pytest.mark.parametrize(
    ("change", "error", "complaint"),
    [
        (without("config.json"), Corrupt, "config.json: it is missing"),
        (without("spaces.json"), Corrupt, "spaces.json: it is missing"),
        (without("policy.json"), Corrupt, "policy.json: it is missing"),
        (without("policy.safetensors"), Corrupt, "policy.json: the tensor .* is missing"),
        (without("optimizer.json"), Mismatch, "Names of parameters do not match"),
        (lambda members: members.update({"config.json": [1]}), Corrupt, "the configuration is no mapping"),
        (lambda members: members.update({"policy.json": [1]}), Corrupt, "the state is no mapping"),
        (lambda members: members.update({"spaces.json": {}}), Corrupt, "the spaces are not two"),
        (lambda members: members.update({"more.json": {}}), Unsupported, "more.json: this member has no place"),
        (lambda members: members["policy.json"].pop("log_std"), Mismatch, "another network: the file lacks log_std"),
        (lambda members: members["policy.json"].update(x=1), Corrupt, "policy.json: these are no weights"),
        (lambda members: members["counters.json"].pop("num_timesteps"), Mismatch, "counters.json"),
        (lambda members: members["optimizer.json"].update(param_groups=[]), Mismatch, "optimizer"),
        (lambda members: members["optimizer.json"].update(state=5), Mismatch, "optimizer"),
        (lambda members: members["hyperparameters.json"].update(gamma=7), Mismatch, "gamma=7"),
        (lambda members: members["hyperparameters.json"].update(n_steps=2.5), Mismatch, "n_steps=2.5"),
        (lambda members: members["counters.json"].update(num_timesteps=-1), Mismatch, "num_timesteps cannot be -1"),
        (lambda members: members["counters.json"].update(num_timesteps=[1]), Mismatch, "num_timesteps cannot be"),
        (lambda members: members["observations.json"].update(_last_obs="x"), Mismatch, "_last_obs cannot be 'x'"),
        (lambda members: members["episodes.json"].update(ep_info_buffer=7), Mismatch, "ep_info_buffer cannot be 7"),
        (lambda members: members["config.json"].update(verbose="loud"), Mismatch, "verbose='loud' is of another kind"),
        (lambda members: members["config.json"].update(seed={}), Mismatch, "seed={} is of another kind"),
    ],
)
def test_parts_that_are_missing_or_foreign_are_refused(
    change: Any, error: type, complaint: str, content: bytes
) -> None:
    with pytest.raises(error, match=complaint):
        load(rewritten(content, change))


def test_a_file_of_another_kind_is_refused(model: PPO) -> None:
    model.policy.save(stream := io.BytesIO())
    with pytest.raises(Unsupported, match=r"it holds a 'policy'. Name a file that holds one of: model, checkpoint"):
        load(stream.getvalue())


def test_weights_of_another_shape_are_named_with_both(content: bytes) -> None:
    with pytest.raises(
        Mismatch, match=r"has mlp_extractor\.policy_net\.0\.weight as .* where the network has \(5, 3\)"
    ):
        load(with_config(content, policy_kwargs={"net_arch": [5, 5]}))


def test_parameters_of_a_file_go_into_a_model_that_is_there(model: PPO, content: bytes, tmp_path: Any) -> None:
    (tmp_path / "m.zip").write_bytes(content)
    other = model_of("pendulum", PPO, optimizer_class="adam", optimizer_kwargs={"weight_decay": 0.01}, seed=5)
    other.set_parameters(tmp_path / "m", device="cpu")
    assert digest(other.get_parameters()) == digest(model.get_parameters())
    before = digest(other.get_parameters())
    with pytest.raises(NonFiniteError):
        other.set_parameters(rewritten(content, poisoned("policy", "log_std", np.nan)))
    assert digest(other.get_parameters()) == before


def test_a_policy_that_torch_has_compiled_is_saved_as_what_is_in_it(model: PPO, content: bytes) -> None:
    compiled = load(content)
    compiled.policy = torch.compile(compiled.policy, backend="eager")
    assert digest(load(file_of(compiled)).get_parameters()) == digest(model.get_parameters())
