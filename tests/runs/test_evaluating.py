import zipfile
from pathlib import Path

import pytest
import torch

from everlearn.checkpoint.errors import CheckpointError
from everlearn.core.errors import ConfigError
from everlearn.environments.spec import EnvConfig
from everlearn.ppo.algorithm import PPO, DistributionalPPO
from everlearn.runs import Run, evaluate_saved
from everlearn.runs.evaluating import play, policy_of
from everlearn.runs.model_files import class_of


def test_a_saved_run_plays_as_it_did_when_training_ended(run: Run) -> None:
    """The normaliser's statistics come back with the agent."""
    env_id, played = evaluate_saved(run.directory.path, episodes=3, seed=10_007)
    assert env_id == "Pendulum-v1"
    assert played == run.summary.evaluation


def test_the_model_file_of_a_run_finds_its_environment(run: Run) -> None:
    assert evaluate_saved(run.directory.model, episodes=2, seed=1) == evaluate_saved(
        run.directory.path, episodes=2, seed=1
    )


def test_stochastic_episodes_repeat_with_their_seed(run: Run) -> None:
    first, again, other = (
        evaluate_saved(run.directory.path, episodes=2, seed=seed, deterministic=False) for seed in (1, 1, 2)
    )
    assert first == again != other


def test_a_bare_model_needs_the_name_of_an_environment(run: Run, tmp_path: Path) -> None:
    model = tmp_path / "agent.zip"
    model.write_bytes(run.directory.model.read_bytes())
    with pytest.raises(ConfigError, match=r"no config\.yaml beside it names the environment. Give --env ID"):
        evaluate_saved(model)
    assert evaluate_saved(model, episodes=1, env_id="Pendulum-v1")[1].lengths == [200]


def test_a_checkpoint_of_a_run_finds_its_environment(run: Run) -> None:
    (checkpoint,) = run.directory.checkpoints.iterdir()
    assert evaluate_saved(checkpoint, episodes=2, seed=1) == evaluate_saved(run.path, episodes=2, seed=1)


def test_an_agent_of_another_class_is_refused_with_its_name(tmp_path: Path) -> None:
    class OwnPPO(PPO):
        pass

    OwnPPO("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8, device="cpu").save(tmp_path / "agent.zip")
    with pytest.raises(CheckpointError, match=r"agent\.zip: it holds a 'OwnPPO'\. Load it from Python with that class"):
        evaluate_saved(tmp_path / "agent.zip", env_id="CartPole-v1")


def test_the_best_of_a_file_is_refused(run: Run) -> None:
    with pytest.raises(ConfigError, match=r"a file has one agent.*Name a run's directory for its best"):
        evaluate_saved(run.directory.model, which="best")
    with pytest.raises(ConfigError, match="there is no such model"):
        evaluate_saved(run.path / "nothing", which="best")


def test_an_environment_with_other_spaces_is_refused(run: Run) -> None:
    with pytest.raises(ConfigError, match=r"trained with observations of Box.*'CartPole-v1' has Box"):
        evaluate_saved(run.directory.path, env_id="CartPole-v1")


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such model"):
        evaluate_saved(tmp_path)
    model = tmp_path / "model.zip"
    model.write_text("not a model")
    with pytest.raises(CheckpointError, match=r"model\.zip: .*this looks like a text"):
        evaluate_saved(tmp_path)
    for member, data in (("notes.txt", ""), ("data", "{"), ("data", "[]"), ("data", '{"gamma": 0.9}')):
        with zipfile.ZipFile(model, "w") as archive:
            archive.writestr(member, data)
        with pytest.raises(CheckpointError, match=r"model\.zip: this looks like a zip archive of something else"):
            evaluate_saved(tmp_path)


@pytest.mark.parametrize("kind", [PPO, DistributionalPPO])
def test_a_bare_model_is_of_the_class_that_saved_it(tmp_path: Path, kind: type[PPO]) -> None:
    agent = kind("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8, seed=0, device="cpu")
    agent.save(tmp_path / "agent.zip")
    assert class_of(tmp_path / "agent.zip") is kind
    expected = play(EnvConfig(id="CartPole-v1"), lambda _: policy_of(agent), 2, seed=3)
    assert evaluate_saved(tmp_path / "agent.zip", episodes=2, env_id="CartPole-v1", seed=3)[1] == expected


@pytest.mark.parametrize("device", ["foo", "cuda:x"])
def test_an_unknown_device_is_refused_in_evaluation(run: Run, device: str) -> None:
    with pytest.raises(ConfigError, match=r"^device: Input should be auto, cpu, cuda or cuda:N"):
        evaluate_saved(run.directory.path, device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_missing_gpu_is_refused_in_evaluation_too(run: Run) -> None:
    with pytest.raises(ConfigError, match="device: 'cuda' was asked for and torch sees no GPU"):
        evaluate_saved(run.directory.path, device="cuda")


def test_a_directory_of_checkpoints_names_the_run_above(run: Run) -> None:
    with pytest.raises(ConfigError, match=r"this is a directory of checkpoints\. Name the run above it, ") as error:
        evaluate_saved(run.directory.checkpoints)
    assert f"{run.path.resolve()}, or one of its files with --env ID" in str(error.value)


def test_the_suffix_of_a_model_file_may_be_left_out(run: Run) -> None:
    for file in (run.directory.model, *run.directory.checkpoints.iterdir()):
        assert evaluate_saved(file.with_suffix(""), episodes=1, seed=1) == evaluate_saved(file, episodes=1, seed=1)
