"""The mutation check: which faults it makes, that it tells the noticed from the others, and what it has found."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from tools import mutation
from tools.mutants import mutants_of


def faults(source: str) -> list[str]:
    return [mutant.key for mutant in mutants_of(ast.parse(dedent(source)))]


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("a + b", "a + b -> a - b"),
        ("a * b", "a * b -> a / b"),
        ("a < b", "a < b -> a <= b"),
        ("a >= b", "a >= b -> a > b"),
        ("x.clamp(min=y)", "x.clamp(min=y) -> x.clamp(max=y)"),
        ("torch.maximum(x, y)", "torch.maximum(x, y) -> torch.minimum(x, y)"),
        ("f(0)", "f(0) -> f(1)"),
        ("f(1.0)", "f(1.0) -> f(0.0)"),
        ("f(True)", "True -> False"),
        ("-a", "-a -> a"),
        ("x.detach()", "x.detach() -> x"),
        ("if a:\n  f()", "a -> not a"),
        ("if a:\n  f()", "if a: -> (deleted)"),
        ("x.y = a", "x.y = a -> (deleted)"),
        ("x[0] += a", "x[0] += a -> x[0] -= a"),
    ],
)
def test_these_faults_are_made(source: str, fault: str) -> None:
    assert f"module: {fault}" in faults(source)


def test_what_says_nothing_about_behaviour_is_left_alone() -> None:
    source = '''
        """A docstring: 1 + 1."""
        import torch
        def f(x: int | None) -> int:
            """Another."""
            assert isinstance(x, int)
            y = torch.zeros(x)
            return y[-1]
    '''
    assert faults(source) == ["f: -1 -> -0"]


def test_a_fault_has_its_function_in_its_name_and_equal_ones_are_numbered() -> None:
    assert faults("class A:\n  def f(self): return g(self.a + 2, self.a + 2)")[:2] == [
        "A.f: self.a + 2 -> self.a - 2",
        "A.f: self.a + 2 -> self.a + 3",
    ]
    keys = faults("def f(a): return (a + b) * (a + b)")
    assert "f: a + b -> a - b" in keys
    assert "f: a + b -> a - b (#2)" in keys


def test_a_fault_is_in_the_tree_inside_of_the_block_only() -> None:
    tree = ast.parse("c = a + b")
    (mutant,) = mutants_of(tree)
    with mutant.applied():
        assert ast.unparse(tree) == "c = a - b"
    assert ast.unparse(tree) == "c = a + b"


PROGRAM = """
import sys
from pathlib import Path
from tools.trials import Trial
sys.path.insert(0, sys.argv[1])
folder = Path(sys.argv[1])
for mutant in Trial("victim", folder / "victim.py", [str(folder / "test_victim.py")]).survivors():
    print(mutant.key)
"""
VICTIM = """
LIMIT = 3

class Box:
    def __init__(self, value, factor=4):
        self.value = value
        self.factor = factor

    @property
    def doubled(self):
        return self.value * 2

def limited(x):
    return min(x, LIMIT)

def unguarded(x):
    return x + 5
"""
TESTS = """
from victim import Box, limited, unguarded

def test_some():
    assert Box(3).doubled == 6
    assert Box(3).factor == 4
    assert limited(9) == 3
    assert limited(1) == 1
    unguarded(2)
"""


def test_only_faults_that_no_test_notices_survive(tmp_path: Path) -> None:
    """In methods, defaults and constants too."""
    (tmp_path / "victim.py").write_text(VICTIM)
    (tmp_path / "test_victim.py").write_text(TESTS)
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=mutation.ROOT)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split("\n")[:-1] == ["unguarded: x + 5 -> x - 5", "unguarded: x + 5 -> x + 6"]


def test_no_mutant_has_survived() -> None:
    results = json.loads(mutation.RESULTS.read_text())
    assert list(results) == list(mutation.TARGETS)
    assert {name: row["survivors"] for name, row in results.items() if row["survivors"]} == {}
    assert all(row["mutants"] == row["killed"] + row["equivalent"] > 0 for row in results.values())


@pytest.mark.parametrize("module", mutation.TARGETS)
def test_what_is_called_equivalent_is_still_a_mutant(module: str) -> None:
    assert all(reason.endswith(".") for reason in mutation.known_equivalents(module).values())


def test_the_page_shows_the_results() -> None:
    results = json.loads(mutation.RESULTS.read_text())
    assert mutation.PAGE.read_text() == mutation.page(results, json.loads(mutation.EQUIVALENTS.read_text()))
