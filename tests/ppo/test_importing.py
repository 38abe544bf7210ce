"""Weights of other systems' files: rows 4, 5, 7 and 36 of the failure-mode table, and B27."""

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stable_baselines3
import torch
from stable_baselines3.common.policies import ActorCriticPolicy as SB3ActorCriticPolicy

from everlearn import PPO, DistributionalPPO
from everlearn.checkpoint.errors import (
    CheckpointError,
    Corrupt,
    Mismatch,
    NonFinite,
    TooLarge,
    Unsupported,
    Untrusted,
)
from everlearn.checkpoint.limits import Limits
from everlearn.checkpoint.sb3_files import read_sb3
from everlearn.core.errors import ArgumentError
from everlearn.environments.normaliser import Normaliser
from everlearn.ppo.importing import import_weights, load_trusted
from tests.checkpoint.foreign_files import (
    DATA,
    PAYLOAD,
    SB3_ZIP,
    payload_ran,
    pickled_value,
    saved,
    sb3_data,
    sb3_zip,
    torch_zip,
)
from tests.ppo.updates import assert_identical, model_of
from tests.ppo.worlds import world

NET: dict[str, Any] = {"policy_kwargs": {"net_arch": [8]}, "device": "cpu"}
ALL_ON: dict[str, Any] = {**NET, "kl_penalty": True, "variance_gradient_scaling": True}
EXPECTED = json.loads((SB3_ZIP.parent / "ppo.json").read_text())
OBSERVATIONS = torch.linspace(-0.2, 0.2, 32).reshape(8, 4)


def imported(path: Any = SB3_ZIP, kind: type[PPO] = PPO, env: Any = None, **arguments: Any) -> tuple[PPO, str]:
    """A model, and what was warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = import_weights(kind, path, env or world("cartpole"), **{**NET, **arguments})
    return model, "\n".join(str(warning.message) for warning in caught)


def in_memory(**changes: Any) -> io.BytesIO:
    """The frozen file with other values in its ``data``."""
    return io.BytesIO(sb3_zip(sb3_data(**changes)))


def with_state(name: str, change: Any) -> io.BytesIO:
    """The frozen file with one state changed."""
    state = read_sb3(io.BytesIO(SB3_ZIP.read_bytes()), "ppo.zip").parameters[name]
    change(state)
    return io.BytesIO(sb3_zip({f"{name}.pth": saved(state)}))


def assert_acts_alike(ours: PPO, theirs: stable_baselines3.PPO, observations: Any) -> None:
    actions = [model.predict(observations, deterministic=True)[0] for model in (ours, theirs)]
    np.testing.assert_array_equal(*actions)


def v2(**parameters: Any) -> io.BytesIO:
    return io.BytesIO(saved({"format_version": "v2_full_parameters", "data": parameters}))


# --- Stable-Baselines3's zips -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [SB3_ZIP, str(SB3_ZIP), SB3_ZIP.with_suffix(""), io.BytesIO(SB3_ZIP.read_bytes())])
def test_an_imported_policy_acts_and_values_as_it_did(path: Any) -> None:
    model, _ = imported(path)
    assert type(model) is PPO
    assert model.predict(OBSERVATIONS.numpy(), deterministic=True)[0].tolist() == EXPECTED["actions"]
    assert torch.allclose(model.policy.predict_values(OBSERVATIONS).flatten(), torch.tensor(EXPECTED["values"]))


def test_training_goes_on_as_it_would_have_in_stable_baselines3() -> None:
    theirs = stable_baselines3.PPO.load(SB3_ZIP, world("cartpole"), device="cpu")
    ours, _ = imported()
    for model in (theirs, ours):
        model.set_random_seed(5)
        model.learn(128, reset_num_timesteps=False)
    assert ours.num_timesteps == theirs.num_timesteps == 256
    assert ours._n_updates == theirs._n_updates == 8
    for name, tensor in theirs.policy.state_dict().items():
        assert torch.equal(ours.policy.state_dict()[name], tensor), name


def test_plain_numbers_of_the_file_stand_for_arguments_that_are_not_given() -> None:
    model, _ = imported(in_memory(max_grad_norm=0.7, target_kl=0.02, learning_rate=1e-3, _stats_window_size=7))
    found = model.get_hyperparameters()
    expected = {"n_steps": 64, "batch_size": 32, "n_epochs": 2, "gamma": 0.97, "ent_coef": 0.01}
    expected |= {"max_grad_norm": 0.7, "target_kl": 0.02, "learning_rate": 1e-3}
    assert {name: found[name] for name in expected} == expected
    assert (model._stats_window_size, model.num_timesteps, model._n_updates) == (7, 128, 4)
    assert model.rollout_buffer.gamma == 0.97


def test_given_arguments_hold() -> None:
    model, _ = imported(gamma=0.5, n_steps=32, batch_size=16, optimizer_kwargs={"eps": 1e-3, "lr": 1e-2})
    assert (model.gamma, model.rollout_buffer.gamma, model.n_steps, model.batch_size) == (0.5, 0.5, 32, 16)
    (group,) = model.policy.optimizer.param_groups
    assert (group["eps"], group["lr"]) == (1e-3, 1e-2)
    assert len(model.policy.optimizer.state) == 8


def test_a_target_of_the_file_gives_way_to_a_kl_control_of_the_caller() -> None:
    model, _ = imported(in_memory(target_kl=0.02), kl_penalty=True)
    assert model.target_kl is None


def test_a_file_that_cannot_be_rewound_is_read_from_where_it_is() -> None:
    class Stream(io.BytesIO):
        def seekable(self) -> bool:
            return False

    model, _ = imported(Stream(SB3_ZIP.read_bytes()))
    assert_identical(model.policy.state_dict(), imported()[0].policy.state_dict())


def test_one_warning_tells_what_was_left() -> None:
    with pytest.warns(UserWarning) as caught:
        import_weights(PPO, SB3_ZIP, world("cartpole"), **NET)
    (warning,) = caught
    assert "policy_class, _last_obs" in str(warning.message)
    assert "clip_range, lr_schedule: pickled" in str(warning.message)


def test_row_36_a_missing_normaliser_is_told_unless_the_environment_has_one() -> None:
    assert "normaliser: such files have none" in imported()[1]
    assert "normaliser" not in imported(env=Normaliser(world("cartpole")))[1]


def test_a_policy_that_does_not_fit_is_told_with_the_architecture_that_the_file_names() -> None:
    with pytest.raises(Mismatch) as caught:
        import_weights(PPO, SB3_ZIP, world("cartpole"), device="cpu")
    assert caught.value.__notes__ == ["The file's own are policy_kwargs={'net_arch': [8]}."]


def test_the_callers_generators_stay_as_they_are(untouched_generators: None) -> None:
    imported(seed=4)


def test_a_pinned_file_is_the_one_that_was_meant() -> None:
    content = SB3_ZIP.read_bytes()
    imported(sha256=hashlib.sha256(content).hexdigest().upper())
    with pytest.raises(Untrusted, match="another file than was asked for"):
        imported(sha256=hashlib.sha256(content + b"x").hexdigest())


def test_row_36_the_optimizer_is_taken_where_class_and_layout_fit() -> None:
    state = read_sb3(io.BytesIO(SB3_ZIP.read_bytes()), "ppo.zip").parameters["policy.optimizer"]["state"]
    model, warned = imported()
    assert "policy.optimizer" not in warned
    for index, parameter in enumerate(model.policy.parameters()):
        assert_identical(model.policy.optimizer.state[parameter], state[index])


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "upgd", "adaptive_upgd"])
def test_an_optimizer_of_another_class_begins_anew_and_is_told(optimizer: str) -> None:
    model, warned = imported(optimizer_class=optimizer)
    assert "policy.optimizer: " in warned
    assert "begins anew" in warned
    fresh = PPO("MlpPolicy", world("cartpole"), optimizer_class=optimizer, **NET)
    found, expected = (each.policy.optimizer.state_dict()["state"] for each in (model, fresh))
    assert_identical(found, expected)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state["param_groups"][0]["params"].pop(),
        lambda state: state["param_groups"].append(state["param_groups"][0]),
        lambda state: state["state"][0].pop("exp_avg"),
        lambda state: state["state"][0].update(exp_avg=torch.zeros(3)),
        lambda state: state["state"][0].update(step="many"),
        lambda state: state["state"].update({0: 1}),
        lambda state: state.update(state=[]),
        lambda state: state.pop("param_groups"),
        lambda state: state["param_groups"][0].update(decoupled_weight_decay=True),
        lambda state: state["param_groups"][0].update(params=None),
        lambda state: state["param_groups"][0].update(params=[0] * 8),
        lambda state: state["param_groups"][0].update(params=[[0]] * 8),
    ],
)
def test_an_optimizers_state_of_another_layout_is_left(change: Any) -> None:
    model, warned = imported(with_state("policy.optimizer", change))
    assert "policy.optimizer: " in warned
    assert len(model.policy.optimizer.state) == 0
    model.learn(64)


def test_moments_that_share_memory_in_the_file_do_not_in_the_model() -> None:
    model, _ = imported(
        with_state("policy.optimizer", lambda s: s["state"][0].update(exp_avg=s["state"][0]["exp_avg_sq"]))
    )
    state = next(iter(model.policy.optimizer.state.values()))
    assert state["exp_avg"].data_ptr() != state["exp_avg_sq"].data_ptr()


def test_an_optimizer_of_torch_that_is_not_known_here_begins_anew_and_is_told() -> None:
    model, warned = imported(optimizer_class=torch.optim.RMSprop)
    assert "policy.optimizer: it is no state of RMSprop" in warned
    assert len(model.policy.optimizer.state) == 0


@pytest.mark.parametrize(("saved_by", "taken"), [("adaptive_upgd", True), ("upgd", False)])
def test_utility_optimizers_say_themselves_what_fits(saved_by: str, taken: bool) -> None:
    theirs = model_of("cartpole", PPO, optimizer_class=saved_by).learn(32)
    model, warned = imported(v2(**theirs.get_parameters()), optimizer_class="adaptive_upgd")
    assert ("policy.optimizer: the optimizer begins anew: " in warned) is not taken
    if taken:
        state = theirs.policy.optimizer.state_dict()
        assert_identical(model.policy.optimizer.state_dict()["state"], state["state"])
        assert model.policy.optimizer.state_dict()["noise"].keys() == state["noise"].keys()
    model.learn(64)


def test_amsgrad_wants_its_largest_moments_too() -> None:
    model, warned = imported(optimizer_kwargs={"amsgrad": True})
    assert "policy.optimizer: " in warned
    model.learn(64)


# --- what does not fit ------------------------------------------------------------------------------------------------


def test_row_36_another_policy_is_a_mismatch_with_the_differences() -> None:
    with pytest.raises(Mismatch) as caught:
        imported(env=world("pendulum"))
    message = str(caught.value)
    assert "The file lacks: log_std." in message
    assert "action_net.weight (2, 8) float32 instead of (1, 8) float32" in message
    with pytest.raises(Mismatch, match=r"The file lacks: mlp_extractor\.policy_net\.2\.weight"):
        imported(policy_kwargs={"net_arch": [8, 8]})
    with pytest.raises(Mismatch, match=r"The model lacks: foreign\."):
        imported(with_state("policy", lambda state: state.update(foreign=torch.ones(1))))
    with pytest.raises(Mismatch, match=r"action_net\.bias \(2,\) float64 instead of \(2,\) float32"):
        imported(with_state("policy", lambda state: state.update({"action_net.bias": torch.ones(2).double()})))
    with pytest.raises(Mismatch, match=r"action_net\.bias str instead"):
        imported(with_state("policy", lambda state: state.update({"action_net.bias": "x"})))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_row_11_numbers_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(NonFinite, match=r"policy\.action_net\.bias: it is not finite"):
        imported(with_state("policy", lambda state: state["action_net.bias"].fill_(bad)))
    with pytest.raises(NonFinite, match=r"policy\.optimizer\.state\.2\.exp_avg"):
        imported(with_state("policy.optimizer", lambda state: state["state"][2]["exp_avg"].fill_(bad)))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gamma", "0.9"),
        ("gamma", 5),
        ("gamma", float("nan")),
        ("n_steps", True),
        ("n_steps", 0),
        ("n_epochs", 1.5),
        ("n_epochs", 10**400),
        ("learning_rate", -1.0),
        ("learning_rate", {"kind": "cosine"}),
        ("clip_range_vf", -1),
        ("normalize_advantage", 1),
        ("use_sde", "yes"),
        ("_stats_window_size", 0),
        ("num_timesteps", -1),
        ("num_timesteps", "many"),
        ("_n_updates", 10**30),
        ("_n_updates", True),
    ],
)
def test_numbers_of_a_file_pass_the_constructors_checks_or_are_refused(name: str, value: Any) -> None:
    with pytest.raises(Corrupt, match=r"the open file, data"):
        imported(in_memory(**{name: value}))


def test_row_7_a_rollout_that_asks_for_too_much_memory_is_refused_before_it_is_made() -> None:
    with pytest.raises(TooLarge, match="rollout buffer would have 44000000000 bytes"):
        imported(in_memory(n_steps=10**9))
    with pytest.raises(TooLarge, match="buffer_bytes"):
        imported(limits=Limits(buffer_bytes=1000))
    imported(in_memory(n_steps=10**9), n_steps=64)


def test_row_7_every_part_of_an_observation_counts_for_the_rollout() -> None:
    theirs = stable_baselines3.PPO("MultiInputPolicy", world("dictionaries"), n_steps=8, batch_size=4, **NET)
    file = io.BytesIO()
    theirs.save(file)
    parts = theirs.observation_space.spaces.values()
    size = 8 * 4 * (sum(int(np.prod(part.shape or (1,))) for part in parts) + 1 + 6)
    options = {"env": world("dictionaries"), "policy": "MultiInputPolicy"}
    imported(file, limits=Limits(buffer_bytes=size), **options)
    with pytest.raises(TooLarge, match=f"{size} bytes"):
        imported(file, limits=Limits(buffer_bytes=size - 1), **options)


def test_limits_of_the_caller_hold_for_the_file() -> None:
    with pytest.raises(TooLarge, match="file_bytes"):
        imported(limits=Limits(file_bytes=1000))


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", Unsupported),
        (b"no model", Unsupported),
        (PAYLOAD, Untrusted),
        (SB3_ZIP.read_bytes()[:9000], CheckpointError),
        (sb3_zip({"policy.pth": None}), Corrupt),
        (saved([1, 2]), Unsupported),
    ],
)
def test_row_3_other_files_are_refused_within_the_family(content: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        imported(io.BytesIO(content))


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="directory"):
        imported(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
@pytest.mark.parametrize("door", [lambda path: imported(path), lambda path: trusted(path)], ids=["import", "trust"])
def test_a_pipe_is_refused_before_it_is_opened(door: Callable[[Path], object], tmp_path: Path) -> None:
    """Opening it would wait for somebody to write; here somebody does, so that it would only be read."""
    os.mkfifo(tmp_path / "pipe.zip")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe.zip").write_bytes(b""), daemon=True)
    writer.start()
    with pytest.raises(Unsupported, match=r"pipe\.zip: this is a pipe or a device\. Name a regular file\."):
        door(tmp_path / "pipe.zip")
    assert writer.is_alive()
    (tmp_path / "pipe.zip").read_bytes()
    writer.join()


def test_a_file_of_ours_is_none_to_import_and_says_what_reads_it() -> None:
    file = io.BytesIO()
    model_of("cartpole").save(file)
    remedy = r"Use PPO\.load\(file, env\) for the whole model, or model\.set_parameters\(file\)"
    with pytest.raises(Unsupported, match=f"this is a model file of everlearn, and nothing to be imported. {remedy}"):
        imported(file)


def test_an_environment_is_needed() -> None:
    with pytest.raises(ArgumentError, match="needs the environment"):
        import_weights(PPO, SB3_ZIP, None, **NET)


# --- nothing runs -----------------------------------------------------------------------------------------------------

ATTACKS = {
    "policy.pth": sb3_zip({"policy.pth": torch_zip(PAYLOAD)}),
    "optimizer": sb3_zip({"policy.optimizer.pth": torch_zip(PAYLOAD)}),
    "variables": sb3_zip({"pytorch_variables.pth": torch_zip(PAYLOAD)}),
    "data": sb3_zip(sb3_data(clip_range=pickled_value(), predict=pickled_value(), policy_kwargs=pickled_value())),
    "v1": torch_zip(PAYLOAD),
    "top level": PAYLOAD,
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_row_4_nothing_of_a_file_runs(attack: bytes) -> None:
    if attack is ATTACKS["data"]:
        assert "clip_range" in imported(io.BytesIO(attack))[1]
    else:
        with pytest.raises(Untrusted):
            imported(io.BytesIO(attack))
    assert not payload_ran()


def test_row_4_the_interpreter_sees_no_code_run(tmp_path: Path) -> None:
    for index, attack in enumerate(ATTACKS.values()):
        (tmp_path / f"{index}.zip").write_bytes(attack)
    program = f"""
import sys, warnings
from pathlib import Path
from everlearn import PPO
from everlearn.checkpoint.errors import CheckpointError
from everlearn.ppo.importing import import_weights
warnings.simplefilter("ignore")
def load(path):
    return import_weights(PPO, path, "CartPole-v1", policy_kwargs={{"net_arch": [8]}}, device="cpu")
load(Path({str(SB3_ZIP)!r}))
load(Path({str(DATA / "v2" / "earlier.pth")!r}))
seen = []
watched = ("exec", "compile", "import", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen",
           "pickle.find_class", "socket.connect", "marshal.loads")
def hook(event, arguments):
    if event in watched or (event == "open" and set(str(arguments[1])) & set("wax+")):
        seen.append((event, repr(arguments)[:80]))
sys.addaudithook(hook)
for path in sorted(Path({str(tmp_path)!r}).iterdir()):
    try:
        load(path)
    except CheckpointError:
        pass
print(seen)
eval("1")  # the hook sees
sys.exit(not seen or len(seen) > 2)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.stdout.strip() == "[]", result.stdout + result.stderr
    assert result.returncode == 0


# --- the system's own critics, and the earlier formats ----------------------------------------------------------------


@pytest.mark.parametrize("path", ["sb3/ppo.zip", "v1/bare.pth", "v1/named.pth", "v2/earlier.pth"])
def test_of_a_policy_with_other_critics_the_actor_is_taken(path: str) -> None:
    model, warned = imported(DATA / path, DistributionalPPO, seed=11)
    fresh = DistributionalPPO("MlpPolicy", world("cartpole"), seed=11, **NET).policy.state_dict()
    original = read_sb3(io.BytesIO(SB3_ZIP.read_bytes()), "ppo.zip").parameters["policy"]
    for name, tensor in model.policy.state_dict().items():
        actor = name.startswith(("action_net.", "mlp_extractor.policy_net."))
        assert torch.equal(tensor, (original if actor else fresh)[name]), name
    assert "critics: the file's are of another kind than this model's, which stay new" in warned
    assert ("policy.optimizer: it belongs to the file's critics too" in warned) is not path.startswith("v1")
    model.learn(64)


def test_the_actors_own_differences_are_a_mismatch_all_the_same() -> None:
    with pytest.raises(Mismatch) as caught:
        imported(kind=DistributionalPPO, policy_kwargs={"net_arch": {"pi": [16], "vf": [8]}})
    assert "policy_net" in str(caught.value)
    assert "value_net" not in str(caught.value)


def test_critics_of_the_kind_that_sb3_has_must_fit() -> None:
    with pytest.raises(Mismatch, match="value_net"):
        imported(policy_kwargs={"net_arch": {"pi": [8], "vf": [16]}})


@pytest.mark.parametrize("shared", [True, False])
def test_of_a_policy_of_images_the_actors_extractor_is_taken(shared: bool) -> None:
    options = {"share_features_extractor": shared, "features_extractor_kwargs": {"features_dim": 8}}
    theirs = stable_baselines3.PPO("CnnPolicy", world("images"), n_steps=8, batch_size=4, policy_kwargs=options)
    file = io.BytesIO()
    theirs.save(file)
    model, _ = imported(file, DistributionalPPO, world("images"), policy="CnnPolicy", policy_kwargs=options)
    assert_identical(model.policy.pi_features_extractor.state_dict(), theirs.policy.pi_features_extractor.state_dict())
    observation = theirs.env.reset()
    assert (
        model.predict(observation, deterministic=True)[0] == theirs.predict(observation, deterministic=True)[0]
    ).all()


def test_a_file_from_before_extractors_had_two_more_names_is_read() -> None:
    """As Stable-Baselines3 wrote them before 1.7."""
    options = {"features_extractor_kwargs": {"features_dim": 8}}
    theirs = stable_baselines3.PPO("CnnPolicy", world("images"), n_steps=8, batch_size=4, policy_kwargs=options)
    state = {n: t for n, t in theirs.policy.state_dict().items() if not n.startswith(("pi_features", "vf_features"))}
    assert len(state) < len(theirs.policy.state_dict())
    model, _ = imported(v2(policy=state), env=world("images"), policy="CnnPolicy", policy_kwargs=options)
    assert_identical(dict(model.policy.state_dict()), dict(theirs.policy.state_dict()))
    with pytest.raises(Mismatch, match="The file lacks: pi_features_extractor"):
        apart = {**options, "share_features_extractor": False}
        imported(v2(policy=state), env=world("images"), policy="CnnPolicy", policy_kwargs=apart)


def test_a_scalar_policy_of_the_user_gets_its_weights() -> None:
    class Own(SB3ActorCriticPolicy):
        pass

    model, _ = imported(policy=Own)
    assert model.predict(OBSERVATIONS.numpy(), deterministic=True)[0].tolist() == EXPECTED["actions"]


@pytest.mark.parametrize("path", ["v1/bare.pth", "v1/named.pth"])
def test_row_5_a_v1_file_gives_the_policy_and_tells_what_is_missing(path: str) -> None:
    model, warned = imported(DATA / path)
    assert model.predict(OBSERVATIONS.numpy(), deterministic=True)[0].tolist() == EXPECTED["actions"]
    for missing in ("the optimizer's state", "variance gradient scaling", "the KL control", "normaliser: such files"):
        assert missing in warned
    assert len(model.policy.optimizer.state) == 0
    assert model.num_timesteps == 0


def test_b27_statistics_of_another_definition_begin_anew_with_their_counter() -> None:
    model, warned = imported(DATA / "v2" / "earlier.pth", **ALL_ON)
    assert "vgs_state: statistics of another definition; they and their counter (steps: 8) begin anew" in warned
    assert "kl_penalty_state: it is no state of PIDPenalty" in warned
    assert model.variance_gradient_scaler.step_count == 0
    assert len(model.policy.optimizer.state) == 8
    fresh = PPO("MlpPolicy", world("cartpole"), **ALL_ON)
    assert_identical(model.kl_controller.state_dict(), fresh.kl_controller.state_dict())
    assert model.variance_gradient_scaler.get_scaling_factors() == fresh.variance_gradient_scaler.get_scaling_factors()


def test_b27_statistics_of_our_definition_come_with_the_weights_they_belong_to() -> None:
    document = torch.load(DATA / "v2" / "complete.pth", weights_only=True)["data"]
    model, warned = imported(DATA / "v2" / "complete.pth", DistributionalPPO, **ALL_ON)
    parameters = model.get_parameters()
    for name in ("policy", "vgs_state", "kl_penalty_state"):
        assert_identical(parameters[name], document[name])
    assert_identical(parameters["policy.optimizer"]["state"], document["policy.optimizer"]["state"])
    assert model.variance_gradient_scaler.step_count == 8
    assert "anew" not in warned
    model.learn(64)


def test_where_nothing_was_left_nothing_is_said() -> None:
    document = torch.load(DATA / "v2" / "complete.pth", weights_only=True)
    file = io.BytesIO(saved({**document, "step": None}))
    _, warned = imported(file, DistributionalPPO, Normaliser(world("cartpole")), **ALL_ON)
    assert warned == ""


def test_parts_that_are_off_here_are_left_and_told() -> None:
    model, warned = imported(DATA / "v2" / "earlier.pth")
    assert model.variance_gradient_scaler is model.kl_controller is None
    assert "vgs_state: variance gradient scaling is off here" in warned
    assert "kl_penalty_state: there is no KL control here" in warned


@pytest.mark.parametrize(
    ("part", "state"),
    [
        ("vgs_state", {"step_count": 3}),
        ("vgs_state", {"step_count": "many"}),
        ("vgs_state", {"c": torch.ones(1)}),
        ("kl_penalty_state", {"error": "much"}),
        ("kl_penalty_state", {"error": torch.ones(2)}),
        ("curiosity", {"weight": torch.ones(1)}),
    ],
)
def test_a_part_of_another_kind_is_left_and_told(part: str, state: Any) -> None:
    policy = read_sb3(io.BytesIO(SB3_ZIP.read_bytes()), "ppo.zip").parameters["policy"]
    model, warned = imported(v2(policy=policy, **{part: state}), **ALL_ON)
    assert f"\n  {part}: " in warned
    assert model.variance_gradient_scaler.step_count == 0


def test_policies_of_the_earlier_system_are_a_mismatch_that_names_theirs() -> None:
    with pytest.raises(Mismatch, match=r"The model lacks: lstm_actor\.weight_ih_l0, quantile_head\.linear\.weight"):
        imported(v2(policy={"lstm_actor.weight_ih_l0": torch.ones(2), "quantile_head.linear.weight": torch.ones(2)}))


# --- trust ------------------------------------------------------------------------------------------------------------


ONLY_NO_NORMALISER = r"ignore:.*was loaded; this was left.\s+normaliser. such files have none"


def trusted(path: Any = SB3_ZIP, kind: type[PPO] = PPO, env: Any = None, **arguments: Any) -> PPO:
    if isinstance(path, Path):
        return load_trusted(kind, path, env, device="cpu", **arguments)
    return load_trusted(kind, io.BytesIO(path), env, device="cpu", **arguments)


@pytest.mark.filterwarnings(ONLY_NO_NORMALISER)
def test_trust_gives_the_whole_model() -> None:
    theirs = stable_baselines3.PPO.load(SB3_ZIP, world("cartpole"), device="cpu")
    ours = trusted(env=world("cartpole"))
    assert_identical(ours.policy.state_dict(), dict(theirs.policy.state_dict()))
    assert ours.policy_kwargs == {"net_arch": [8]}
    names = ("num_timesteps", "_n_updates", "_total_timesteps", "gamma", "n_steps", "ent_coef", "seed", "batch_size")
    assert [getattr(ours, name) for name in names] == [getattr(theirs, name) for name in names]
    for model in (theirs, ours):
        model.set_random_seed(5)
        model.learn(128, reset_num_timesteps=False)
    assert_identical(ours.policy.state_dict(), dict(theirs.policy.state_dict()))


@pytest.mark.filterwarnings(ONLY_NO_NORMALISER)
def test_trust_brings_schedules_and_needs_no_environment(tmp_path: Path) -> None:
    theirs = stable_baselines3.PPO(
        "MlpPolicy",
        world("pendulum"),
        lambda rest: 1e-3 * rest,
        16,
        16,
        clip_range=lambda rest: 0.3 * rest,
        use_sde=True,
    )
    theirs.save(tmp_path / "model")
    ours = trusted(tmp_path / "model")
    assert (ours.lr_schedule(0.5), ours.clip_range(0.5)) == (5e-4, 0.15)
    assert ours.env is None
    observations = np.ones((4, 3), np.float32)
    assert (
        ours.predict(observations, deterministic=True)[0] == theirs.predict(observations, deterministic=True)[0]
    ).all()
    ours.set_env(world("pendulum"))
    ours.learn(16)


@pytest.mark.filterwarnings(ONLY_NO_NORMALISER)
def test_trust_leaves_the_callers_generators_alone(untouched_generators: None) -> None:
    trusted()


@pytest.mark.filterwarnings(ONLY_NO_NORMALISER)
def test_arguments_hold_over_those_of_a_trusted_file() -> None:
    model = trusted(env=world("cartpole"), gamma=0.5, variance_gradient_scaling=True)
    assert (model.gamma, model.n_epochs) == (0.5, 2)
    assert model.variance_gradient_scaler is not None


@pytest.mark.filterwarnings(ONLY_NO_NORMALISER)
def test_a_kl_control_of_the_caller_holds_over_a_trusted_files_target() -> None:
    model = trusted(sb3_zip(sb3_data(target_kl=0.02)), env=world("cartpole"), kl_penalty=True)
    assert model.target_kl is None
    assert model.kl_controller is not None
    assert trusted(sb3_zip(sb3_data(target_kl=0.02)), env=world("cartpole")).target_kl == 0.02


def test_trust_gives_the_actor_to_another_kind_of_critics() -> None:
    with pytest.warns(UserWarning, match="critics: the file's are of another kind"):
        model = trusted(kind=DistributionalPPO, env=world("cartpole"))
    assert model.predict(OBSERVATIONS.numpy(), deterministic=True)[0].tolist() == EXPECTED["actions"]


def test_row_36_a_missing_normaliser_of_a_trusted_file_is_told_unless_the_environment_has_one() -> None:
    for env in (None, world("cartpole")):
        with pytest.warns(UserWarning, match=r"was loaded; this was left:\n  normaliser: such files have none"):
            trusted(env=env)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trusted(env=Normaliser(world("cartpole")))


def test_trust_is_never_taken_without_being_given() -> None:
    with pytest.raises(Untrusted, match="trust=True"):
        PPO.load(io.BytesIO(sb3_zip(sb3_data(unknown=pickled_value()))), world("cartpole"), "cpu")
    assert not payload_ran()


def test_only_trust_runs_what_a_file_brings_along() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trusted(sb3_zip(sb3_data(unknown=pickled_value())), env=world("cartpole"))
    assert payload_ran()


@pytest.mark.filterwarnings(ONLY_NO_NORMALISER)
def test_a_trusted_file_may_be_pinned_and_limited() -> None:
    content = sb3_zip(sb3_data(unknown=pickled_value()))
    with pytest.raises(Untrusted, match="another file than was asked for"):
        trusted(content, sha256="0" * 64)
    with pytest.raises(TooLarge, match="file_bytes"):
        trusted(content, limits=Limits(file_bytes=100))
    assert not payload_ran()
    trusted(SB3_ZIP, sha256=hashlib.sha256(SB3_ZIP.read_bytes()).hexdigest())


def test_a_file_of_ours_needs_no_trust_and_loads_with_it() -> None:
    model = model_of("cartpole").learn(32)
    file = io.BytesIO()
    model.save(file)
    again = trusted(file.getvalue(), DistributionalPPO, vgs_alpha=0.3)
    assert_identical(again.get_parameters()["policy"], model.get_parameters()["policy"])
    assert again.vgs_alpha == 0.3


@pytest.mark.parametrize("content", [PAYLOAD, torch_zip(PAYLOAD), b""])
def test_trust_is_for_files_of_stable_baselines3_alone(content: bytes) -> None:
    with pytest.raises(CheckpointError):
        trusted(content)
    assert not payload_ran()


def test_trust_in_the_file_of_another_algorithm_is_refused_by_its_name(tmp_path: Path) -> None:
    algorithm = stable_baselines3.SAC("MlpPolicy", world("pendulum"), buffer_size=10, policy_kwargs={"net_arch": [4]})
    algorithm.save(tmp_path / "sac.zip")
    with pytest.raises(Mismatch, match=r"sac\.zip, data: it does not fit"):
        load_trusted(PPO, tmp_path / "sac.zip")


@pytest.mark.parametrize("changes", [{"target_kl": 0.0}, {"gamma": 1.5}, {"n_epochs": "many"}])
def test_trust_in_a_number_outside_its_range_is_a_mismatch(changes: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "model.zip").write_bytes(sb3_zip(sb3_data(**changes)))
    with pytest.raises(Mismatch, match=rf"model\.zip, data: it does not fit .*{next(iter(changes))}"):
        load_trusted(PPO, tmp_path / "model.zip", device="cpu")


@pytest.mark.parametrize(("given", "said"), [({"gamma": 1.5}, r"gamma=1\.5"), ({"gama": 0.5}, "Did you mean 'gamma'")])
def test_an_argument_given_to_a_trusted_file_is_the_callers(given: dict[str, float], said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        trusted(**given)


@pytest.mark.parametrize("content", [(1, 2), torch.zeros(3), {3: torch.zeros(1)}, [], "text"], ids=str)
def test_a_policy_that_is_no_state_is_corrupt(content: Any, tmp_path: Path) -> None:
    stream = io.BytesIO()
    torch.save(content, stream)
    with zipfile.ZipFile(SB3_ZIP) as source, zipfile.ZipFile(tmp_path / "a.zip", "w") as target:
        for name in source.namelist():
            target.writestr(name, stream.getvalue() if name == "policy.pth" else source.read(name))
    with pytest.raises(CheckpointError, match="policy"):
        PPO.import_weights(tmp_path / "a.zip", "CartPole-v1", policy_kwargs={"net_arch": [8]})
