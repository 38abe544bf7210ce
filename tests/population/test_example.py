"""The example of a loop of one's own, shortened."""

import runpy
from pathlib import Path

import pytest

from everlearn import PBTConfig, PBTScheduler

EXAMPLE = Path(__file__).parents[2] / "examples" / "pbt_own_loop.py"


@pytest.mark.slow
def test_the_example_trains_exploits_and_tells_the_lineage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example = runpy.run_path(str(EXAMPLE))
    example["train"].__globals__.update(ROUNDS=2, INTERVAL=1)
    config = PBTConfig(
        population_size=4, perturbation_interval=1, hyperparams=example["SPACE"], checkpoint_dir=tmp_path / "files"
    )
    scheduler = PBTScheduler(config, seed=0)
    example["train"](scheduler)
    example["report"](scheduler)
    printed = capsys.readouterr().out
    assert "takes over member" in printed
    assert printed.count("Its state was trained by") == 4
    assert all(sum(stretch.updates for stretch in scheduler.schedule(member)) == 2 for member in scheduler.members)
