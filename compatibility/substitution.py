"""A plugin for pytest: puts a class in the place of SB3's PPO, selects the tests of PPO, writes down how they end."""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import pytest
import stable_baselines3
from stable_baselines3 import ppo
from stable_baselines3.common.base_class import BaseAlgorithm

SB3 = "stable_baselines3.PPO"
NAME = "PPO"
_FINAL = {"failed": 2, "skipped": 1, "passed": 0}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Which class, and where the outcomes go."""
    parser.addoption("--substitute", default=SB3, help="Dotted name of the class that stands for SB3's PPO.")
    parser.addoption("--outcomes", required=True, help="File for the outcomes, in JSON.")


def pytest_configure(config: pytest.Config) -> None:
    """Replace the class before any test module is imported."""
    module, name = config.getoption("--substitute").rsplit(".", 1)
    chosen = getattr(importlib.import_module(module), name)
    for place in (stable_baselines3, ppo, ppo.ppo):
        setattr(place, NAME, chosen)
    config.pluginmanager.register(Recorder(chosen, Path(config.getoption("--outcomes"))))


class Recorder:
    """Selects the tests that concern PPO and keeps their outcomes.

    Args:
        chosen: The class that stands for SB3's PPO.
        path: Where the outcomes are written.
    """

    def __init__(self, chosen: type[BaseAlgorithm], path: Path) -> None:
        self.chosen, self.path = chosen, path
        self.outcomes: dict[str, dict[str, str]] = {}

    def pytest_make_parametrize_id(self, val: Any) -> str | None:
        """A test has the same name whichever class stands for PPO."""
        return NAME if val is self.chosen else None

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep the tests with PPO in their names, as ``-k "PPO or ppo"`` does, and those whose code uses the class."""
        for item in items:
            if NAME.lower() in item.name.lower():
                self.outcomes[item.name] = {"selected_by": "name"}
            elif isinstance(item, pytest.Function) and self.uses_ppo(item):
                self.outcomes[item.name] = {"selected_by": "use"}
        items[:] = [item for item in items if item.name in self.outcomes]

    def uses_ppo(self, item: pytest.Function) -> bool:
        """Whether a test's code mentions PPO, and the test is not one of another algorithm's."""
        arguments = item.callspec.params.values() if hasattr(item, "callspec") else ()
        other = any(inspect.isclass(given) and issubclass(given, BaseAlgorithm) for given in arguments)
        return not other and NAME in names_in(inspect.unwrap(item.function).__code__)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """The worst of set-up, call and tear-down counts; the first line of a failure is kept."""
        outcome = self.outcomes[report.nodeid.split("::", 1)[1]]
        if _FINAL[report.outcome] >= _FINAL[outcome.get("outcome", "passed")]:
            outcome["outcome"] = report.outcome
            if report.failed:
                outcome["message"] = str(getattr(report.longrepr, "reprcrash", report.longrepr)).splitlines()[0]

    def pytest_sessionfinish(self) -> None:
        """Write the outcomes; a selected test that was not reached has none."""
        self.path.write_text(json.dumps(self.outcomes), encoding="utf-8")


def names_in(code: CodeType) -> Iterator[str]:
    """The names that a function, or a function inside it, reads or imports."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from names_in(constant)
