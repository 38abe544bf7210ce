"""``everlearn export``: a model as ONNX, which does the same or is not written."""

import hashlib
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from typer.testing import CliRunner, Result

from everlearn.cli import app
from everlearn.ppo.algorithm import PPO
from everlearn.signals import onnx_export
from everlearn.signals.predictor import LEVELS, SignalPredictor
from tests.signals.exported import SMALL, already_traced, trained


def everlearn(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["export", *(str(argument) for argument in arguments)])


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "model.zip"
    trained("cartpole").save(path)
    return path


def test_a_model_is_written_and_said_in_one_line(saved: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.onnx"
    result = everlearn(saved, "--onnx", out)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    (line,) = result.stdout.splitlines()
    ends = "observations float32 (rows, 4) -> action int64 (rows), value float32 (rows)"
    assert line.startswith(f"{out}: {ends}; opset ")
    assert line.endswith(" from torch.")
    observations = np.random.default_rng(0).uniform(-1, 1, (20, 4)).astype(np.float32)
    action = onnxruntime.InferenceSession(out).run(["action"], {"observations": observations})[0]
    assert action.tolist() == PPO.load(saved).predict(observations, deterministic=True)[0].tolist()


def test_a_run_is_exported_in_json(tmp_path: Path, saved: Path) -> None:
    """The directory of a run that has ended is enough."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.zip").write_bytes(saved.read_bytes())
    out = tmp_path / "model.onnx"
    result = everlearn(tmp_path / "run", "--onnx", out, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report.pop("largest_difference") <= 1e-5
    assert report.pop("opset") >= 18
    assert report == {
        "file": str(out),
        "kind": "policy",
        "inputs": {"observations": "float32 (rows, 4)"},
        "outputs": {"action": "int64 (rows)", "value": "float32 (rows)"},
        "bytes": out.stat().st_size,
    }


@pytest.mark.slow
@pytest.mark.parametrize(("options", "levels"), [((), LEVELS), (("--quantiles",), LEVELS), (("--no-quantiles",), ())])
def test_a_market_has_quantiles_unless_they_are_left_out(
    tmp_path: Path, options: tuple[str, ...], levels: tuple[float, ...]
) -> None:
    trained("continuous").save(tmp_path / "model.zip")
    result = everlearn(tmp_path / "model.zip", "--onnx", tmp_path / "model.onnx", *options)
    assert result.exit_code == 0, result.output
    assert SignalPredictor.load(tmp_path / "model.onnx").levels == levels


def test_what_is_there_stays_unless_it_is_to_be_replaced(saved: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.onnx"
    out.write_text("before")
    result = everlearn(saved, "--onnx", out)
    assert result.exit_code == 2
    assert "model.onnx: it is there already. Name another file, or add --overwrite" in result.stderr
    assert out.read_text() == "before"
    right = hashlib.sha256(saved.read_bytes()).hexdigest()
    assert everlearn(saved, "--onnx", out, "--overwrite", "--sha256", right).exit_code == 0
    assert len(out.read_bytes()) > 1000


@pytest.mark.parametrize(
    ("options", "code", "complaint"),
    [
        (("--sha256", "0" * 64), 3, "another file than was asked for"),
        (("--quantiles",), 2, "only models of a MarketEnv are exported with quantiles"),
        (("--import", "no_such_module"), 2, "no_such_module"),
    ],
)
def test_what_does_not_fit_is_a_message_and_an_exit_code(
    saved: Path, tmp_path: Path, options: tuple[str, ...], code: int, complaint: str
) -> None:
    result = everlearn(saved, "--onnx", tmp_path / "model.onnx", *options)
    assert result.exit_code == code, result.output
    assert complaint in result.stderr
    assert [*tmp_path.iterdir()] == []


def test_names_that_do_not_fit_are_a_message_and_an_exit_code(saved: Path, tmp_path: Path) -> None:
    for source, out, complaint in (
        (saved, tmp_path / "model", "Let it end with .onnx"),
        (saved, tmp_path, "this is a directory"),
        (saved, saved, "this is the file that is to be converted, which stays"),
        (tmp_path / "none.zip", tmp_path / "model.onnx", "there is no such model"),
        (tmp_path, tmp_path / "model.onnx", "there is no such model"),
    ):
        result = everlearn(source, "--onnx", out, "--overwrite")
        assert result.exit_code == 2, result.output
        assert complaint in result.stderr
    assert [*tmp_path.iterdir()] == []


def test_a_graph_that_differs_fails(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the graph is that of another model."""
    monkeypatch.setattr(onnx_export, "trace", already_traced("cartpole"))
    another = PPO("MlpPolicy", "CartPole-v1", **SMALL)
    another.save(tmp_path / "another.zip")
    result = everlearn(tmp_path / "another.zip", "--onnx", tmp_path / "model.onnx")
    assert result.exit_code == 1
    assert "differs from the policy's by" in result.stderr
    assert not (tmp_path / "model.onnx").exists()
    assert everlearn(saved, "--onnx", tmp_path / "model.onnx").exit_code == 0
