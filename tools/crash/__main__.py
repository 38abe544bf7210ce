"""The crash test: ``python -m tools.crash [--kills N] [--flips N] [--results FILE]``; 1 where something was lost.

Every second kill hits a process that saves in a loop, at a random time; every other one hits a process before one of
its operations on files, all of them in turn. What was done is kept in ``.cache/crash.json``, and a run that was stopped
goes on from there as long as the source is the same. Then the controllers of populations are killed; with ``--only
populations`` nothing else is, and the other figures stay.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import random
import sys
import tempfile
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

from everlearn.checkpoint import files
from tools.crash import damage
from tools.crash.kills import Victims
from tools.crash.points import all_points, kill_at
from tools.crash.populations import kill_controllers
from tools.crash.writer import overwrite_in_place_forever

ROOT = Path(__file__).parents[2]
STATE = ROOT / ".cache" / "crash.json"
RESULTS = Path(__file__).parent / "results.json"
_ROUND = 20
"""Kills in one directory; what a stopped run loses at most."""


def source() -> str:
    """A digest of the programs whose results belong together."""
    digest = hashlib.sha256()
    for folder in (Path(files.__file__).parent, Path(__file__).parent):
        for path in sorted(folder.glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def fresh() -> dict[str, Any]:
    """Nothing done yet."""
    return {"at_random": 0, "acknowledged": 0, "drafts_swept": 0, "at_points": {}, "lost": [], "seconds": 0.0}


def remembered(state: Path) -> dict[str, Any]:
    """What an earlier run of the same source has done."""
    done: dict[str, Any] = json.loads(state.read_text()) if state.exists() else {}
    return done["done"] if done.get("source") == source() else fresh()


def kills_of(done: dict[str, Any]) -> int:
    """How many there were."""
    return int(done["at_random"] + sum(done["at_points"].values()))


def kill_round(done: dict[str, Any], number: int) -> None:
    """So many kills, half of them at random times."""
    points = all_points()
    counts = Counter(done["at_points"])
    with tempfile.TemporaryDirectory() as folder:
        victims = Victims(Path(folder))
        for kill in range(kills_of(done), kills_of(done) + number):
            if kill % 2:
                point = points[kill // 2 % len(points)]
                with tempfile.TemporaryDirectory() as empty:
                    problems = kill_at(point, Path(empty))
                counts[f"{point.scenario.name}, {point.operation}"] += 1
            else:
                problems = victims.kill_one(random.Random(kill))
                done["at_random"] += 1
            done["lost"] += [f"kill {kill}: {problem}" for problem in problems]
    done["at_points"] = dict(sorted(counts.items()))
    done["acknowledged"] += victims.saves
    done["drafts_swept"] += victims.swept


def kill_all(number: int, state: Path) -> dict[str, Any]:
    """All the kills, those of an earlier run included."""
    done = remembered(state)
    while (left := number - kills_of(done)) > 0:
        start = time.monotonic()
        kill_round(done, min(left, _ROUND))
        done["seconds"] = round(done["seconds"] + time.monotonic() - start, 1)
        files.write_file(state, [json.dumps({"source": source(), "done": done}).encode()])
        print(f"{kills_of(done)} of {number} kills, {len(done['lost'])} losses", flush=True)
    return done


def control(number: int) -> dict[str, int]:
    """The same kills with files that are overwritten in place, each in a directory of its own: how many get lost."""
    lost = 0
    for kill in range(number):
        with tempfile.TemporaryDirectory() as folder:
            victims = Victims(Path(folder), overwrite_in_place_forever)
            lost += bool(victims.kill_one(random.Random(kill)))
    return {"kills": number, "lost": lost}


def result_of(kills: int, flips: int, controls: int, state: Path) -> dict[str, Any]:
    """What is committed."""
    done = kill_all(kills, state)
    whole = damage.small_file()
    cut, flipped = damage.outcomes(damage.truncations(whole)), damage.outcomes(damage.bit_flips(whole, flips))
    return {
        "kills": kills_of(done),
        **done,
        "lost": len(done["lost"]),
        "losses": done["lost"],
        "overwriting_in_place": control(controls),
        "truncations": {"files": cut.total(), "outcomes": dict(sorted(cut.items()))},
        "bit_flips": {"files": flipped.total(), "outcomes": dict(sorted(flipped.items()))},
        "versions": {"python": platform.python_version(), "everlearn": version("everlearn"), "os": platform.system()},
    }


def main() -> int:
    """Kill, damage, write the result."""
    parser = argparse.ArgumentParser(prog="python -m tools.crash")
    parser.add_argument("--kills", type=int, default=1000, help="processes to kill")
    parser.add_argument("--flips", type=int, default=10_000, help="bits to turn over")
    parser.add_argument("--control", type=int, default=60, help="kills of processes that overwrite in place")
    parser.add_argument("--controllers", type=int, help="controllers of populations to kill; default: --kills / 10")
    parser.add_argument("--only", choices=["populations"], help="kill controllers of populations alone")
    parser.add_argument("--state", type=Path, default=STATE, help="where a run that is stopped goes on")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the file to write")
    options = parser.parse_args()
    result: dict[str, Any] = {}
    if options.only is None:
        result = result_of(options.kills, options.flips, options.control, options.state)
    elif options.results.exists():
        result = json.loads(options.results.read_text())
    controllers = options.kills // 10 if options.controllers is None else options.controllers
    result["populations"] = kill_controllers(controllers)
    files.write_file(options.results, [(json.dumps(result, indent=2) + "\n").encode()])
    return verdict(result)


def verdict(result: dict[str, Any]) -> int:
    """Say what came out; 1 where something was lost."""
    kinds = [result[kind]["outcomes"] for kind in ("truncations", "bit_flips") if kind in result]
    silent = sum(outcomes.get(damage.SILENT, 0) for outcomes in kinds)
    parts = [part for part in (result, result["populations"]) if "kills" in part]
    kills, losses = sum(part["kills"] for part in parts), [loss for part in parts for loss in part["losses"]]
    print(f"{kills} kills, {len(losses)} losses; {silent} damaged files were loaded")
    print(*losses, sep="\n", end="")
    return int(bool(losses) or silent > 0)


if __name__ == "__main__":
    sys.exit(main())
