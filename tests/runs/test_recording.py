import csv
import json
import math
from pathlib import Path

import numpy as np
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from everlearn.config import load
from everlearn.runs import Run, train
from everlearn.runs.recording import JsonLines
from tests.runs.tiny import tiny


def test_json_lines_are_strict_and_hold_single_values_only(tmp_path: Path) -> None:
    writer = JsonLines(tmp_path / "progress.jsonl")
    values = {
        "nan": math.nan,
        "infinity": np.float32(np.inf),
        "tensor": torch.tensor(-math.inf),
        "number": np.float64(1.5),
        "count": np.int64(3),
        "text": 'a, "b"',
        "histogram": torch.zeros(4),
        "hidden": 1.0,
    }
    writer.write(values, {name: ("json",) if name == "hidden" else ("",) for name in values}, step=12)
    writer.write({"other": 1}, {"other": ("",)}, step=13)
    writer.close()
    first, second = (json.loads(line) for line in (tmp_path / "progress.jsonl").read_text().splitlines())
    assert first == {
        "step": 12,
        "nan": None,
        "infinity": None,
        "tensor": None,
        "number": 1.5,
        "count": 3,
        "text": 'a, "b"',
    }
    assert second == {"step": 13, "other": 1}


def test_the_run_leaves_its_files(run: Run) -> None:
    names = {path.name for path in run.directory.path.iterdir()}
    assert names == {
        ".lock",
        "checkpoints",
        "config.yaml",
        "model.zip",
        "progress.jsonl",
        "progress.csv",
        "episodes.csv",
        "learning_curve.png",
        "summary.json",
    }
    assert [path.name for path in run.directory.checkpoints.iterdir()] == ["step-000000000064.zip"]


def test_the_resolved_configuration_repeats_the_run(run: Run, tmp_path: Path) -> None:
    config = load(run.directory.config)
    assert config.algorithm.policy == "MlpPolicy"
    again = train(config, tmp_path / "again")
    assert again.summary.returns == run.summary.returns
    assert again.summary.evaluation == run.summary.evaluation
    for name, value in run.model.policy.state_dict().items():
        assert torch.equal(value, again.model.policy.state_dict()[name])
    assert again.directory.config.read_text() == run.directory.config.read_text()


def test_episodes_are_recorded_with_step_environment_return_and_length(run: Run) -> None:
    with run.directory.episodes.open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["env_step", "env", "return", "length", "seconds"]
    assert [(row["env_step"], row["env"], row["length"]) for row in rows] == [
        (str(18 * number), str(env), "9") for number in (1, 2, 3) for env in (0, 1)
    ]
    assert [float(row["return"]) for row in rows] == run.summary.returns


def test_metrics_are_recorded_once_per_rollout_in_both_files(run: Run) -> None:
    lines = [json.loads(line) for line in run.directory.progress_jsonl.read_text().splitlines()]
    assert [line["step"] for line in lines] == [16, 32, 48, 64]
    with run.directory.progress_csv.open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["train/approx_kl"]) for row in rows[1:]] == [line["train/approx_kl"] for line in lines[1:]]


def test_tensorboard_has_the_metrics_too(tmp_path: Path) -> None:
    run = train(tiny(**{"logging.tensorboard": True}), tmp_path / "run")
    events = EventAccumulator(str(run.directory.tensorboard)).Reload()
    assert [event.step for event in events.Scalars("rollout/ep_rew_mean")] == [16, 32, 48, 64]


def test_metrics_follow_the_interval(tmp_path: Path) -> None:
    run = train(tiny(**{"logging.interval": 2}), tmp_path / "run")
    assert len(run.directory.progress_jsonl.read_text().splitlines()) == 2
