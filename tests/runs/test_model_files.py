"""Model files that are damaged, missing, or of a run that was killed."""

import io
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from everlearn.core.errors import ConfigError, StateError
from everlearn.runs import Run, evaluate_saved, train
from everlearn.runs.model_files import loaded_agent
from tests.runs.tiny import tiny

Change = Callable[[dict[str, bytes]], None]


def rewritten(model: Path, change: Change) -> None:
    """The archive with other parts, and with checksums that are right."""
    with zipfile.ZipFile(model) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    change(parts)
    with zipfile.ZipFile(model, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def cut(name: str) -> Change:
    return lambda parts: parts.update({name: parts[name][: len(parts[name]) // 2]})


def other(name: str, content: bytes) -> Change:
    return lambda parts: parts.update({name: content})


def other_weights(parts: dict[str, bytes]) -> None:
    state = torch.load(io.BytesIO(parts["policy.pth"]), weights_only=True)
    next(iter(state.values())).add_(1)
    file = io.BytesIO()
    torch.save(state, file)
    parts["policy.pth"] = file.getvalue()


DAMAGE: dict[str, Change] = {
    "policy cut": cut("policy.pth"),
    "optimizer cut": cut("policy.optimizer.pth"),
    "variables empty": other("pytorch_variables.pth", b""),
    "policy not a state": other("policy.pth", b"something else"),
    "policy missing": lambda parts: parts.pop("policy.pth") and None,
    "data without a class": other("data", b'{"algorithm_name": "PPO"}'),
    "data not what it was": lambda parts: parts.update(data=parts["data"].replace(b"gAW", b"!!!")),
    "other weights": other_weights,
}


@pytest.fixture
def copy(run: Run, tmp_path: Path) -> Run:
    return Run(shutil.copytree(run.path, tmp_path / "run"))


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.filterwarnings("ignore:Could not deserialize object")
def test_a_damaged_part_is_a_state_error_that_names_the_file(copy: Run, damage: str) -> None:
    model = copy.directory.model
    rewritten(model, DAMAGE[damage])
    for opened in (lambda: evaluate_saved(copy.path), lambda: copy.load("latest")):
        with pytest.raises(StateError) as error:
            opened()
        told = "\n".join([str(error.value), *getattr(error.value, "__notes__", [])])
        assert str(model) in told
        assert "damaged" in told


def test_a_flipped_byte_anywhere_is_a_state_error_or_changes_nothing(copy: Run) -> None:
    model = copy.directory.model
    whole, agent = model.read_bytes(), copy.load("latest")
    refused = []
    for position in range(3, len(whole), len(whole) // 40):
        damaged = bytearray(whole)
        damaged[position] ^= 0x10
        model.write_bytes(damaged)
        try:
            loaded = loaded_agent(model, "cpu")
        except StateError:
            refused.append(position)
        else:
            for name, value in agent.policy.state_dict().items():
                assert torch.equal(loaded.policy.state_dict()[name], value)
    assert len(refused) > 30


@pytest.mark.parametrize("part", ["system_info.txt", "pytorch_variables.pth", "policy.pth", "policy.optimizer.pth"])
def test_a_part_that_differs_from_its_checksum_is_named(copy: Run, part: str) -> None:
    """Also where nothing that is read differs, because torch fills its files up."""
    model = copy.directory.model
    with zipfile.ZipFile(model) as archive:
        content = archive.read(part)
    file = model.read_bytes()
    start = file.index(content)
    model.write_bytes(file[:start] + content[:-1] + bytes([content[-1] ^ 1]) + file[start + len(content) :])
    with pytest.raises(StateError, match=rf"damaged or was changed \(BadZipFile: bad CRC-32 for file '{part}'\)"):
        copy.load("latest")


def test_the_other_model_of_the_run_is_the_remedy(copy: Run) -> None:
    shutil.copy(copy.directory.model, copy.directory.best_model)
    rewritten(copy.directory.model, cut("policy.pth"))
    with pytest.raises(StateError, match=r"Restore it from a copy, or use .*best_model\.zip\."):
        copy.load("latest")
    with pytest.raises(StateError, match=r"Restore it from a copy\."):
        rewritten(copy.directory.best_model, cut("policy.pth"))
        copy.directory.model.unlink()
        copy.load("best")


def test_a_killed_run_says_so_and_names_its_best_agent(copy: Run) -> None:
    copy.directory.model.unlink()
    killed = r"model\.zip: there is none\. The run goes on still, or it was killed before its agent was saved\."
    for opened in (lambda: evaluate_saved(copy.path), lambda: copy.load("latest"), lambda: copy.environment()):
        with pytest.raises(ConfigError, match=rf"{killed} Train again: everlearn train .*config\.yaml --out DIR\."):
            opened()
    copy.directory.best_model.write_bytes(b"")
    for opened in (lambda: evaluate_saved(copy.path), lambda: copy.load("latest")):
        with pytest.raises(ConfigError, match=rf"{killed} The best agent .* is in .*best_model\.zip\."):
            opened()


def test_environments_have_the_statistics_of_the_model_that_was_asked_for(tmp_path: Path) -> None:
    normalised = {"env.normalize": True, "evaluation.every": 16, "evaluation.episodes": 1}
    run = train(tiny(**normalised), tmp_path / "run")
    best, latest = run.load("best"), run.load("latest")
    assert best.num_timesteps < latest.num_timesteps
    for which, agent in (("best", best), ("latest", latest)):
        venv = run.environment(seed=5, which=which)
        observations = venv.reset()
        assert (observations == agent.normalize_obs(venv.get_original_obs())).all()
    run.directory.model.unlink()
    run.environment(which="best").reset()
