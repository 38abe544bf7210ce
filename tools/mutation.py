"""The mutation check: a small fault in a formula has to fail a test. ``python -m tools.mutation [MODULE ...]``.

Faults that no test can notice because they change nothing are listed with their reason in
``mutation_equivalents.json``. Results go to ``mutation_results.json`` and, as a page, to docs/mutation.md.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import sys
import time
from pathlib import Path

import torch

from tools.mutants import mutants_of
from tools.trials import Trial

ROOT = Path(__file__).parents[1]
TARGETS: dict[str, list[str]] = json.loads((ROOT / "tools/mutation_targets.json").read_text())
EQUIVALENTS = ROOT / "tools/mutation_equivalents.json"
RESULTS = ROOT / "tools/mutation_results.json"
PAGE = ROOT / "docs/mutation.md"
SHARED = (
    "numpy",
    "hypothesis",
    "pydantic",
    "gymnasium",
    "stable_baselines3",
    "torch.func",
    "torch._inductor.standalone_compile",
)


def source_of(module: str) -> Path:
    """The file of a module below ``everlearn``, such as ``optim.rules``."""
    return ROOT / "src/everlearn" / (module.replace(".", "/") + ".py")


def known_equivalents(module: str) -> dict[str, str]:
    """The mutants of a module that change nothing, with the reason.

    Raises:
        RuntimeError: If one of them does not exist (any more).
    """
    reasons: dict[str, str] = json.loads(EQUIVALENTS.read_text()).get(module, {})
    existing = {mutant.key for mutant in mutants_of(ast.parse(source_of(module).read_text()))}
    if unknown := sorted(reasons.keys() - existing):
        raise RuntimeError(f"mutation_equivalents.json lists what is no mutant of {module}: {unknown}")
    return reasons


def check(module: str) -> dict[str, object]:
    """The result of one module: counts, seconds, survivors."""
    start = time.monotonic()
    equivalents = known_equivalents(module)
    trial = Trial(f"everlearn.{module}", source_of(module), TARGETS[module], list(equivalents))
    survivors = trial.survivors()
    for mutant in survivors:
        print(f"survived  {trial.path.relative_to(ROOT)}:{mutant.line}  {mutant.key}", flush=True)
    return {
        "mutants": len(trial.mutants),
        "killed": len(trial.tried) - len(survivors),
        "equivalent": len(equivalents),
        "survivors": [mutant.key for mutant in survivors],
        "seconds": round(time.monotonic() - start),
    }


def page(results: dict[str, dict[str, object]], equivalents: dict[str, dict[str, str]]) -> str:
    """The results as a Markdown page."""
    lines = [
        "# Mutation check",
        "",
        "A small fault is put into a formula (an operator, a constant, a bound, a condition, a deleted line) and the",
        "tests of the module run; at least one has to fail. `make mutation` repeats the check; this page is generated.",
        "",
        "| module | mutants | killed | equivalent | surviving |",
        "|---|---:|---:|---:|---:|",
    ]
    rows = [
        (f"`{name}`", row["mutants"], row["killed"], row["equivalent"], len(row["survivors"]))  # type: ignore[arg-type]
        for name, row in results.items()
    ]
    totals = tuple(sum(int(row[column]) for row in rows) for column in range(1, 5))  # type: ignore[call-overload]
    lines += [f"| {' | '.join(map(str, row))} |" for row in [*rows, ("all", *totals)]]
    lines += ["", "## Equivalent mutants", "", "These change nothing, or only what is left open.", ""]
    for name, reasons in equivalents.items():
        lines += [f"* `{name}`: `{key}`. {reason}" for key, reason in reasons.items()]
    lines += ["", "## Survivors", ""]
    alive = [f"* `{name}`: `{key}`" for name, row in results.items() for key in row["survivors"]]  # type: ignore[attr-defined]
    return "\n".join([*lines, *(alive or ["None."]), ""])


def record(module: str, result: dict[str, object]) -> None:
    """Put the result of a module beside those of the others, and write the page."""
    results = {**(json.loads(RESULTS.read_text()) if RESULTS.exists() else {}), module: result}
    ordered = {name: results[name] for name in TARGETS if name in results}
    RESULTS.write_text(json.dumps(ordered, indent=2) + "\n")
    PAGE.write_text(page(ordered, json.loads(EQUIVALENTS.read_text())))


def main() -> int:
    """Check the modules named on the command line, or all; 1 where a mutant survives."""
    parser = argparse.ArgumentParser(prog="python -m tools.mutation", description=__doc__)
    parser.add_argument("module", nargs="*", choices=[*TARGETS, []], help="such as optim.rules; all without")
    modules = parser.parse_args().module or list(TARGETS)
    torch.set_num_threads(1)
    for name in SHARED:  # imported once; every child has them
        importlib.import_module(name)
    survived = False
    for module in modules:
        result = check(module)
        print(module, {name: value for name, value in result.items() if name != "survivors"}, flush=True)
        record(module, result)
        survived |= bool(result["survivors"])
    return int(survived)


if __name__ == "__main__":
    sys.exit(main())
