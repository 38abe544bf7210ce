import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import population, population_runs
from benchmarks.population_runs import PopulationRun, configuration, processor_seconds, watched_run
from benchmarks.population_task import Population

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system has no /proc")
WRITES = "import sys, time; out = open(sys.argv[1], 'a', buffering=1)\n"


def watched(tmp_path, program, *records):
    """A run of a program that writes so many generations."""
    lines = [f"out.write({json.dumps(json.dumps(record))} + chr(10))" for record in records]
    command = [sys.executable, "-c", "\n".join([WRITES, *lines, program]), str(tmp_path / "generations.jsonl")]
    return watched_run(command, dict(os.environ), tmp_path / "generations.jsonl", cores=1)


def generation(seconds, env_steps, exploits=0):
    return {"generation": 1, "seconds": seconds, "env_steps": env_steps, "exploits": exploits}


def test_a_member_is_trained_for_all_generations_and_the_one_that_does_not_count():
    written = configuration(Population(n_envs=2, n_steps=8, interval=5, generations=3))
    assert written["total_timesteps"] == 320
    assert written["population"]["hyperparams"]["learning_rate"] == {
        "min_value": 1e-5,
        "max_value": 1e-3,
        "is_log_scale": True,
    }


def test_what_counts_is_from_the_first_generation_to_the_last(tmp_path):
    records = [generation(0.01, 1000), generation(0.02, 1200, exploits=1), generation(0.11, 1500, exploits=2)]
    found = watched(tmp_path, "", *records)
    assert found.speed == pytest.approx(5000)
    assert found.exploits == 3
    assert 0 < found.start < 30


@pytest.mark.parametrize(
    ("program", "records", "said"),
    [
        ("raise SystemExit('no more')", [generation(1, 10), generation(2, 20)], "ended with 1, after 2 .*\n.*no more"),
        ("", [generation(1, 10)], "ended with 0, after 1 generations"),
    ],
)
def test_a_run_that_fails_or_is_too_short_says_so(tmp_path, program, records, said):
    with pytest.raises(RuntimeError, match=said):
        watched(tmp_path, program, *records)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system binds no processes")
def test_a_run_has_so_many_cores(tmp_path):
    program = "import os; assert len(os.sched_getaffinity(0)) == 1"
    watched(tmp_path, program, generation(1, 10), generation(2, 20))


@needs_proc
def test_processor_time_is_that_of_all_processes_of_a_run():
    burn = "import time\nwhile time.process_time() < 0.5: pass\nprint(flush=True); time.sleep(60)"
    before = processor_seconds(os.getpid())
    with subprocess.Popen([sys.executable, "-c", burn], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        burnt = processor_seconds(os.getpid()) - before
        process.kill()
    assert 0.4 < burnt < 5


@needs_proc
def test_a_run_that_is_interrupted_ends_with_all_its_processes(tmp_path, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(population_runs, "processor_seconds", interrupt)  # called once the first generation is over
    note = tmp_path / "pid"
    begin = f"import subprocess; open({str(note)!r}, 'w').write(str(subprocess.Popen(['sleep', '60']).pid))\n"
    with pytest.raises(KeyboardInterrupt):
        watched(tmp_path, f"{begin}out.write('{{}}' + chr(10)); time.sleep(60)")
    command, deadline = Path(f"/proc/{note.read_text()}/cmdline"), time.monotonic() + 10
    while command.exists() and command.read_bytes():  # it is empty of one that has ended and is not yet waited for
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_run_that_hangs_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(population_runs, "_LIMIT", 0.0)
    with pytest.raises(RuntimeError, match="has run for 0 seconds"):
        watched(tmp_path, "time.sleep(60)")


def test_the_comparison_has_ratios_to_the_peer_and_what_a_first_run_needs():
    runs = {
        population.PEER: [PopulationRun(100.0, 9.0, 1.9, 4), PopulationRun(200.0, 8.0, 1.7, 6)],
        population.VECTORISED: [PopulationRun(400.0, 20.0, None, 8), PopulationRun(600.0, 3.0, None, 8)],
    }
    found = population.compared(runs, population.Settings())
    assert found.ratio(population.VECTORISED) == 3.5
    assert found.details["start and first generation, s"] == {population.PEER: 9.0, population.VECTORISED: 20.0}
    assert found.details["cores"] == {population.PEER: pytest.approx(1.8)}
    assert found.details["exploits"] == {population.PEER: 5, population.VECTORISED: 8}
    (target,) = found.as_dict()["targets"]
    assert (target["label"], target["must_reached"], target["aim_reached"]) == ("P5", True, False)


def test_without_the_peer_nothing_is_to_be_reached():
    runs = {population.INLINE: [PopulationRun(100.0, 9.0, 1.0, 1)]}
    found = population.compared(runs, replace(population.SHORT, repetitions=1))
    assert (found.peer, list(found.targets)) == (population.INLINE, [])
