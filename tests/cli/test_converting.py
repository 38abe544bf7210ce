"""``everlearn convert``: models of other systems into ours and back, with nothing of theirs executed unasked."""

import errno
import hashlib
import json
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from everlearn.checkpoint.archive import read_archive
from everlearn.checkpoint.foreign import Kind, recognise
from everlearn.cli import app
from everlearn.ppo.algorithm import PPO, DistributionalPPO

DATA = Path(__file__).parents[1] / "data"
SB3, V1, V2 = DATA / "sb3" / "ppo.zip", DATA / "v1" / "bare.pth", DATA / "v2" / "complete.pth"
SMALL = ("--set", "policy_kwargs={net_arch: [8]}")
CARTPOLE = ("--env", "CartPole-v1", *SMALL)
pytestmark = pytest.mark.filterwarnings("ignore:.*(imported|loaded); this was left")


def everlearn(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def converted(*arguments: object) -> str:
    result = everlearn("convert", *arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def expected() -> tuple[np.ndarray, list[int]]:
    """What the frozen file of SB3 does with some observations."""
    observations = torch.linspace(-0.2, 0.2, 32).reshape(8, 4).numpy()
    return observations, json.loads((DATA / "sb3" / "ppo.json").read_text())["actions"]


@pytest.mark.parametrize(
    "options",
    [(SB3, *CARTPOLE), (SB3, "--trust"), (V1, *CARTPOLE), (V2, *CARTPOLE, "--algorithm", "DistributionalPPO")],
)
def test_a_foreign_file_becomes_one_of_ours(options: tuple[object, ...], tmp_path: Path) -> None:
    """Row 5 of the failure modes."""
    source, *rest = options
    text = converted(source, tmp_path / "own.zip", *rest)
    kind = DistributionalPPO if "DistributionalPPO" in rest else PPO
    assert f"{tmp_path / 'own.zip'}: {kind.__name__} after" in text
    assert type(kind.load(tmp_path / "own.zip")) is kind
    assert read_archive(tmp_path / "own.zip").manifest["algorithm"] == kind.__name__


def test_a_policy_of_sb3_acts_as_it_did(tmp_path: Path, expected: tuple[np.ndarray, list[int]]) -> None:
    converted(SB3, tmp_path / "own", *CARTPOLE)
    agent = PPO.load(tmp_path / "own.zip")
    assert agent.predict(expected[0], deterministic=True)[0].tolist() == expected[1]
    assert (agent.gamma, agent.n_steps, agent.num_timesteps) == (0.97, 64, 128)


def test_what_a_configuration_says_stands_over_what_the_file_says(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(
        "env: {id: CartPole-v1}\nalgorithm: {name: PPO, gamma: 0.9, policy_kwargs: {net_arch: [8]}}\n"
    )
    converted(SB3, tmp_path / "own.zip", "--config", tmp_path / "run.yaml")
    agent = PPO.load(tmp_path / "own.zip")
    assert (agent.gamma, agent.n_steps, agent.n_envs) == (0.9, 64, 1)


def test_a_normaliser_comes_only_where_it_is_asked_for(tmp_path: Path) -> None:
    """Fresh statistics are nothing that the policy was trained with."""
    from stable_baselines3.common.env_util import make_vec_env

    agent = PPO("MlpPolicy", make_vec_env("Pendulum-v1"), n_steps=8, batch_size=8, device="cpu")
    torch.save(agent.policy.state_dict(), tmp_path / "bare.pth")
    converted(tmp_path / "bare.pth", tmp_path / "own.zip", "--env", "Pendulum-v1")
    assert PPO.load(tmp_path / "own.zip").normaliser_state is None
    converted(tmp_path / "bare.pth", tmp_path / "norm.zip", "--env", "Pendulum-v1", "--set", "env.normalize=true")
    assert PPO.load(tmp_path / "norm.zip").normaliser_state is not None


def test_our_file_becomes_one_of_sb3_and_comes_back(tmp_path: Path, expected: tuple[np.ndarray, list[int]]) -> None:
    converted(SB3, tmp_path / "own.zip", *CARTPOLE)
    shown = json.loads(converted(tmp_path / "own.zip", tmp_path / "theirs", "--to", "sb3", "--json"))
    assert shown == {"file": str(tmp_path / "theirs.zip"), "format": "sb3", "algorithm": "PPO", "step": 128}
    assert recognise(tmp_path / "theirs.zip") is Kind.SB3
    converted(tmp_path / "theirs.zip", tmp_path / "again.zip", *CARTPOLE)
    assert PPO.load(tmp_path / "again.zip").predict(expected[0], deterministic=True)[0].tolist() == expected[1]


def test_what_was_left_behind_is_printed(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        result = everlearn("convert", V1, tmp_path / "own.zip", *CARTPOLE)
    assert "warning: " in result.stderr
    assert "the optimizer's state: the file, of format v1_state_dict, has none." in result.stderr
    assert ".py:" not in result.stderr


def test_an_existing_file_is_refused_unless_overwrite(tmp_path: Path) -> None:
    (tmp_path / "own.zip").write_text("mine")
    for out in ("own.zip", "own"):
        result = everlearn("convert", SB3, tmp_path / out, *CARTPOLE)
        assert result.exit_code == 2
        assert "own.zip: it is there already. Name another file, or add --overwrite" in result.stderr
    assert (tmp_path / "own.zip").read_text() == "mine"
    converted(SB3, tmp_path / "own.zip", *CARTPOLE, "--overwrite")
    assert PPO.load(tmp_path / "own.zip").num_timesteps == 128
    (tmp_path / "directory.zip").mkdir()
    assert everlearn("convert", SB3, tmp_path / "directory.zip", *CARTPOLE, "--overwrite").exit_code == 2


@pytest.mark.parametrize("options", [CARTPOLE, ("--trust",)])
def test_another_file_than_was_meant_is_refused(tmp_path: Path, options: tuple[str, ...]) -> None:
    right = hashlib.sha256(SB3.read_bytes()).hexdigest()
    result = everlearn("convert", SB3, tmp_path / "own.zip", *options, "--sha256", "0" * 64)
    assert result.exit_code == 3
    assert right in result.stderr
    assert not (tmp_path / "own.zip").exists()
    converted(SB3, tmp_path / "own.zip", *options, "--sha256", right)
    assert everlearn("convert", tmp_path / "own.zip", tmp_path / "x", "--to", "sb3", "--sha256", right).exit_code == 3


def test_a_failed_conversion_leaves_nothing(tmp_path: Path) -> None:
    result = everlearn("convert", SB3, tmp_path / "own.zip", "--env", "CartPole-v1")
    assert result.exit_code == 3
    assert "The file's own are policy_kwargs={'net_arch': [8]}." in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        ((SB3,), 2, "env.id: no environment is named. Give --env ID"),
        ((SB3, "--env", "CartPoll-v1"), 2, "Did you mean CartPole-v1"),
        ((SB3, "--env", "CartPole-v1", "--algorithm", "PP0"), 2, "There is no algorithm 'PP0'. Did you mean 'PPO'?"),
        ((SB3, *CARTPOLE, "--set", "policy=CnnPolicy"), 2, "CnnPolicy cannot read"),
        ((SB3, "--trust", "--algorithm", "PP0"), 2, "There is no algorithm 'PP0'. Did you mean 'PPO'?"),
        ((SB3, "--env", "CartPole-v1", "--set", "gama=1"), 2, "gama: unknown key. Did you mean 'gamma'?"),
        ((SB3, "--env", "CartPole-v1", "--config", "no.yaml"), 2, "no.yaml: it cannot be read"),
        ((SB3, "--to", "sb3"), 3, "this is a model file of Stable-Baselines3"),
        ((SB3, "--to", "onnx"), 2, "'onnx'"),
        (("missing.zip", *CARTPOLE), 2, "missing.zip: there is no such model"),
        ((Path(__file__), *CARTPOLE), 3, "this looks like a text"),
        ((Path(__file__), "--trust"), 3, "this looks like a text"),
        ((V1, "--trust"), 3, "which holds a pickle"),
    ],
)
def test_bad_input_is_a_message_and_an_exit_code(
    tmp_path: Path, arguments: tuple[object, ...], code: int, complaint: str
) -> None:
    source, *rest = arguments
    result = everlearn("convert", source, tmp_path / "own.zip", *rest)
    assert result.exit_code == code, result.output
    assert complaint in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_is_ours_already_needs_no_conversion(tmp_path: Path) -> None:
    converted(SB3, tmp_path / "own.zip", "--trust")
    result = everlearn("convert", tmp_path / "own.zip", tmp_path / "again.zip", *CARTPOLE)
    assert result.exit_code == 2
    assert "this is a file of everlearn already. Load it as it is, or add --to sb3." in result.stderr


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to, None])
def test_a_file_is_never_replaced_by_what_is_made_of_it(tmp_path: Path, link: Callable[[Path, Path], None]) -> None:
    """What is converted may lose something, and so what it is made from stays."""
    own, out = tmp_path / "own.zip", tmp_path / ("own" if link is None else "link.zip")
    converted(SB3, own, "--trust")
    if link is not None:
        link(out, own)
    before = own.read_bytes()
    for options in ((), ("--overwrite",)):
        result = everlearn("convert", own, out, "--to", "sb3", *options)
        assert result.exit_code == 2
        assert "this is the file that is to be converted, which stays. Name another file." in result.stderr
    assert own.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--to", "sb3", "--env", "CartPole-v1"), "--env: no effect with --to sb3"),
        (("--to", "sb3", "--algorithm", "PPO", "--set", "gamma=0.9"), "--algorithm, --set gamma: no effect with --to"),
        (("--to", "sb3", "--config", "run.yaml", "--trust"), "--config, --trust: no effect with --to sb3"),
        (("--trust", *CARTPOLE), "--env, --set policy_kwargs: no effect with --trust"),
        (("--trust", "--config", "run.yaml", "--algorithm", "PPO"), "error: --config: no effect with --trust"),
    ],
)
def test_an_option_that_would_be_ignored_is_refused(tmp_path: Path, options: tuple[str, ...], complaint: str) -> None:
    result = everlearn("convert", SB3, tmp_path / "own.zip", *options)
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_with_trust_the_algorithm_can_be_chosen(tmp_path: Path) -> None:
    result = everlearn("convert", SB3, tmp_path / "own.zip", "--trust", "--algorithm", "PPO")
    assert result.exit_code == 0, result.output


def test_a_policy_that_does_not_fit_says_how_to_name_its_algorithm_and_network(tmp_path: Path) -> None:
    result = everlearn("convert", V2, tmp_path / "own.zip", "--env", "CartPole-v1")
    assert result.exit_code == 3
    assert "--algorithm DistributionalPPO, --set policy_kwargs.net_arch=[...]" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    result = everlearn("convert", tmp_path / "run", tmp_path / "out.zip", "--to", "sb3")
    assert result.exit_code == 2
    assert "run: this is a directory. Name a file in it." in result.stderr


def test_the_plug_ins_of_a_configuration_are_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "own_poles.py").write_text(POLES)
    (tmp_path / "run.yaml").write_text(
        "env: {id: Poles-v0}\nalgorithm: {policy_kwargs: {net_arch: [8]}}\nplugins: [own_poles]\n"
    )
    converted(SB3, tmp_path / "own.zip", "--config", tmp_path / "run.yaml")
    assert "Poles-v0" in gymnasium.registry
    del sys.modules["own_poles"], gymnasium.registry["Poles-v0"]


POLES = """\
import gymnasium
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

gymnasium.register("Poles-v0", CartPoleEnv, max_episode_steps=20)
"""


@pytest.mark.parametrize("out", ["", ".", ".."])
def test_a_directory_is_no_name_for_a_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str) -> None:
    monkeypatch.chdir(tmp_path)
    for options in ((), ("--overwrite",)):
        result = everlearn("convert", SB3, out, "--trust", *options)
        assert result.exit_code == 2, result.output
        assert f"error: {Path(out)}: this is a directory. Name a file in it." in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("source", "out", "code"), [("a" * 300, "own", 3), (SB3, "a" * 300, 1)])
def test_a_name_that_is_too_long_is_a_message(tmp_path: Path, source: str | Path, out: str, code: int) -> None:
    result = everlearn("convert", tmp_path / source, tmp_path / out, "--trust")
    assert result.exit_code == code, result.output
    assert f"({os.strerror(errno.ENAMETOOLONG)})" in result.stderr
    assert isinstance(result.exception, SystemExit)
    assert list(tmp_path.iterdir()) == []
