"""The fuzzing of the loaders: ``python -m tools.fuzz [--inputs N] [--jobs 2]``; 1 where an input breaks the law.

Each input has a number, from which it is made, so that any can be had again: ``--show NUMBER``. What was tried is kept
in ``.cache/fuzz.json`` after every ten thousand, and a run that was stopped goes on from there, as long as the source
is the same. The result goes to ``tools/fuzz/results.json``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import sys
import time
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from tools.fuzz.chunks import SIZE, Chunks, Tally
from tools.fuzz.strategies import SHARES
from tools.fuzz.trial import MOST_BYTES, MOST_SECONDS, Trials

ROOT = Path(__file__).parents[2]
STATE = ROOT / ".cache" / "fuzz.json"
RESULTS = Path(__file__).parent / "results.json"
LIBRARIES = ("everlearn", "torch", "numpy", "safetensors", "stable-baselines3", "gymnasium", "pydantic")


@cache
def source() -> str:
    """A digest of the programs whose results belong together, as they were when this process began."""
    digest = hashlib.sha256()
    for folder in (ROOT / "src" / "everlearn", Path(__file__).parent):
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def remembered(inputs: int) -> dict[int, Tally]:
    """The chunks that are done already, where they are of this source."""
    if not STATE.exists():
        return {}
    state = json.loads(STATE.read_text())
    if state["source"] != source():
        print("The source has changed since the last run, which therefore begins anew.", flush=True)
        return {}
    done = {int(chunk): Tally.from_data(data) for chunk, data in state["chunks"].items()}
    return {chunk: tally for chunk, tally in done.items() if tally.inputs == min(SIZE, inputs - chunk * SIZE)}


def remember(done: dict[int, Tally]) -> None:
    """Write down which chunks are done; a kill leaves the file before or this one."""
    STATE.parent.mkdir(exist_ok=True)
    state = {"source": source(), "chunks": {chunk: tally.as_data() for chunk, tally in sorted(done.items())}}
    draft = STATE.with_suffix(".part")
    draft.write_text(json.dumps(state))
    os.replace(draft, STATE)


def result_of(done: dict[int, Tally]) -> dict[str, Any]:
    """What is committed."""
    total = Tally()
    for chunk in sorted(done):
        total.join(done[chunk])
    broken = {name: count for name, count in total.verdicts.items() if name.startswith("!")}
    return {
        "inputs": total.inputs,
        "failures": sum(broken.values()),
        "limits": {"seconds": MOST_SECONDS, "megabytes": MOST_BYTES / 1e6},
        "slowest_ms": total.slowest_ms,
        "mean_ms": round(total.cpu_s / max(total.inputs, 1) * 1e3, 2),
        "peak_growth_mb": total.grown_mb,
        "outcomes": dict(total.verdicts.most_common()),
        "strategies": {
            strategy.__name__: {
                "inputs": total.strategies[strategy.__name__],
                "share": share,
                "does": (strategy.__doc__ or "").strip(),
            }
            for strategy, share in SHARES.items()
        },
        "findings": total.findings[:100],
        "source": source(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
    }


def main() -> int:
    """Try the inputs that have not been tried yet."""
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="how many; 1,000,000 without")
    parser.add_argument("--jobs", type=int, default=2, help="processes beside each other; 2 without")
    parser.add_argument("--show", type=int, metavar="NUMBER", help="try this input alone, and say what comes of it")
    options = parser.parse_args()
    source()
    torch.set_num_threads(1)
    trials = Trials()
    if options.show is not None:
        print(trials.run(options.show))
        return 0
    done, start = remembered(options.inputs), time.monotonic()
    chunks = [chunk for chunk in range(-(-options.inputs // SIZE)) if chunk not in done]
    before = sum(tally.inputs for tally in done.values())
    for chunk, tally in Chunks(trials, options.inputs, options.jobs).run(chunks):
        done[chunk] = tally
        remember(done)
        tried = sum(each.inputs for each in done.values())
        pace = (tried - before) / (time.monotonic() - start)
        broken = sum(count for each in done.values() for name, count in each.verdicts.items() if name[0] == "!")
        print(f"{tried:>9,} of {options.inputs:,}; {pace:,.0f} per second; {broken} findings", flush=True)
    result = result_of({chunk: tally for chunk, tally in done.items() if chunk * SIZE < options.inputs})
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{result['failures']} of {result['inputs']:,} inputs broke the law; see {RESULTS.relative_to(ROOT)}")
    return int(result["failures"] > 0)


if __name__ == "__main__":
    sys.exit(main())
