"""Whether the tests of a module notice its mutants.

One process collects the tests once and forks a child for each mutant, which exchanges the code of the functions
concerned and runs the tests up to the first failure. Mutants of what is executed on import (defaults, constants, class
bodies) cannot be exchanged afterwards: their child imports the mutated module in place of the file and collects anew.
The source on disk is never touched.
"""

from __future__ import annotations

import ast
import functools
import importlib.abc
import importlib.machinery
import inspect
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import pytest

from tools.mutants import Mutant, mutants_of

OPTIONS = ("-x", "-s", "--assert=plain", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:terminal")
PATIENCE = 10.0
"""Seconds that a mutant's tests may take beyond five times those of the original."""


class Trial:
    """The mutants of one module against its tests.

    Args:
        name: Of the module.
        path: Of its source.
        tests: What pytest is given.
        skipped: Keys of mutants that are not tried.
    """

    def __init__(self, name: str, path: Path, tests: Sequence[str], skipped: Sequence[str] = ()) -> None:
        self.name, self.path, self.tests = name, path, list(tests)
        self.tree = ast.parse(path.read_text())
        self.mutants = mutants_of(self.tree)
        self.original = function_codes(self.compiled())
        self.tried = [mutant for mutant in self.mutants if mutant.key not in skipped]

    def compiled(self, mutant: Mutant | None = None) -> CodeType:
        """The module's code, with a fault."""
        if mutant is None:
            return compile(self.tree, str(self.path), "exec", dont_inherit=True)
        with mutant.applied():
            return compile(self.tree, str(self.path), "exec", dont_inherit=True)

    def changed(self, mutant: Mutant) -> dict[str, CodeType]:
        """The code of the functions in which the mutant lies; empty where it lies outside of all."""
        codes = function_codes(self.compiled(mutant))
        return {name: code for name, code in codes.items() if code != self.original[name]}

    def survivors(self) -> list[Mutant]:
        """The mutants that no test notices.

        Raises:
            RuntimeError: If the tests fail without any mutant, or pytest itself fails.
        """
        inside = [index for index, mutant in enumerate(self.tried) if self.changed(mutant)]
        begin = time.monotonic()
        alive, unfit = self._in_one_session(inside)
        limit = PATIENCE + time.monotonic() - begin
        outside = {*range(len(self.tried))} - {*inside}
        for index in sorted({*outside, *unfit}):
            code = self.compiled(self.tried[index])
            if passes(lambda code=code: self._run_anew(code), limit):  # type: ignore[misc]
                alive.append(index)
        return [self.tried[index] for index in sorted(alive)]

    def _in_one_session(self, indices: Sequence[int]) -> tuple[list[int], list[int]]:
        """Which of these survive, and which could not be exchanged."""
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            exchange = Exchange(self, indices)
            pytest.main([*OPTIONS, *self.tests], plugins=[exchange])
            os.write(writing, json.dumps(exchange.outcome).encode())
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            outcome = json.loads(pipe.read() or "null")
        os.waitpid(child, 0)
        if outcome is None:
            raise RuntimeError(f"The tests of {self.name} fail as it is, or cannot be collected: {self.tests}")
        return outcome["alive"], outcome["unfit"]

    def _run_anew(self, code: CodeType) -> int:
        """Import the module with other code and run the tests."""
        sys.meta_path.insert(0, Installed(self.name, self.path, code))
        return int(pytest.main([*OPTIONS, *self.tests]))


class Exchange:
    """A pytest plugin that runs the collected tests once for each mutant.

    Args:
        trial: The module.
        indices: Which of its mutants.
    """

    def __init__(self, trial: Trial, indices: Sequence[int]) -> None:
        self.trial, self.indices = trial, indices
        self.outcome: dict[str, list[int]] | None = None

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """The tests as they are, then with every mutant."""
        begin = time.monotonic()
        if session.testsfailed or not passes(lambda: run_items(session), 600.0):
            return True
        limit = PATIENCE + 5 * (time.monotonic() - begin)
        module = sys.modules[self.trial.name]
        functions = functions_of(module)
        alive, unfit = [], []
        for index in self.indices:
            changed = self.trial.changed(self.trial.tried[index])
            if not exchangeable(functions, changed):
                unfit.append(index)
            elif passes(lambda changed=changed: run_changed(session, functions, changed), limit):  # type: ignore[misc]
                alive.append(index)
        self.outcome = {"alive": alive, "unfit": unfit}
        return True


class Installed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives a module other code than that of its file.

    Args:
        name: Of the module.
        path: Of its source.
        code: What it executes.
    """

    def __init__(self, name: str, path: Path, code: CodeType) -> None:
        self.name, self.path, self.code = name, path, code

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The module's specification; None for all others."""
        if fullname != self.name:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, origin=str(self.path))

    def exec_module(self, module: ModuleType) -> None:
        """Execute the other code."""
        module.__file__ = str(self.path)
        exec(self.code, module.__dict__)  # compiled from the module's own tree


def passes(run: Callable[[], int], seconds: float) -> bool:
    """Whether ``run`` returns pytest's exit code of success in a child; False where it takes too long.

    Raises:
        RuntimeError: If pytest itself did not run.
    """
    child = os.fork()
    if child == 0:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        os._exit(run())
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        finished, status = os.waitpid(child, os.WNOHANG)
        if finished:
            return _is_success(os.waitstatus_to_exitcode(status))
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def _is_success(exit_code: int) -> bool:
    if exit_code in (pytest.ExitCode.INTERNAL_ERROR, pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise RuntimeError(f"pytest ended with exit code {exit_code}: look at the paths in mutation_targets.json.")
    return exit_code == pytest.ExitCode.OK  # a signal, which is negative, has killed the mutant


def run_items(session: pytest.Session) -> int:
    """Run what the session has collected up to the first failure; pytest's exit code."""
    items = sorted(session.items, key=is_hypothesis)
    for item, following in zip(items, [*items[1:], None], strict=True):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.testsfailed:
            return int(pytest.ExitCode.TESTS_FAILED)
    return int(pytest.ExitCode.OK)


def is_hypothesis(item: pytest.Item) -> bool:
    """Whether the test searches for examples: these come last, because it goes on searching for a simpler failure."""
    return bool(getattr(getattr(item, "obj", None), "is_hypothesis_test", False))


def run_changed(session: pytest.Session, functions: dict[str, FunctionType], changed: dict[str, CodeType]) -> int:
    """Exchange the code of these functions and run the tests."""
    for name, code in changed.items():
        functions[name].__code__ = code
    return run_items(session)


def exchangeable(functions: dict[str, FunctionType], changed: dict[str, CodeType]) -> bool:
    """Whether every function is known, and has the closure that its new code needs."""
    return all(
        name in functions and functions[name].__code__.co_freevars == code.co_freevars for name, code in changed.items()
    )


def function_codes(code: CodeType) -> dict[str, CodeType]:
    """The code of a module's functions and methods by qualified name, without functions inside of functions."""
    found: dict[str, CodeType] = {}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            is_function = constant.co_flags & inspect.CO_OPTIMIZED
            found |= {constant.co_qualname: constant} if is_function else function_codes(constant)
    return found


def functions_of(module: ModuleType) -> dict[str, FunctionType]:
    """The functions and methods of a module by qualified name, freed from decorators."""
    return {function.__code__.co_qualname: function for function in _functions_in(vars(module), module.__name__)}


def _functions_in(namespace: Any, module: str) -> Iterator[FunctionType]:
    for value in list(namespace.values()):
        if isinstance(value, type) and value.__module__ == module:
            yield from _functions_in(vars(value), module)
        if function := _bare(value):
            yield function


def _bare(value: Any) -> FunctionType | None:
    """The function inside of a property, class method or decorator; None for anything else."""
    match value:
        case property():
            value = value.fget
        case staticmethod() | classmethod():
            value = value.__func__
        case functools.cached_property():
            value = value.func
    value = inspect.unwrap(value) if callable(value) and not isinstance(value, type) else value
    return value if isinstance(value, FunctionType) else None
