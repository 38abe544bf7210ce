"""The laws that the conformance suites test, as Markdown lists."""

from __future__ import annotations

import re


def optimizer_laws() -> str:
    """The laws of an optimizer."""
    from everlearn.testing.optimizers import OptimizerConformance

    return laws(OptimizerConformance)


def head_laws() -> str:
    """The laws of a value head."""
    from everlearn.testing.heads import ValueHeadConformance

    return laws(ValueHeadConformance)


def exploit_laws() -> str:
    """The laws of a rule who copies whom."""
    from everlearn.testing.strategies import ExploitConformance

    return laws(ExploitConformance)


def explore_laws() -> str:
    """The laws of a rule how hyper-parameters change."""
    from everlearn.testing.strategies import ExploreConformance

    return laws(ExploreConformance)


def laws(suite: type) -> str:
    """One line per test: its name in words, and what its docstring adds."""
    tests = [test for name, test in vars(suite).items() if name.startswith("test_")]
    return "\n".join(_law(test.__name__, test.__doc__ or "") for test in tests)


def _law(name: str, docstring: str) -> str:
    law = re.sub(r"^test_(b\d+_)?", "", name).replace("_", " ")
    remark = re.sub(r"^B\d+[.:]?\s*", "", " ".join(docstring.split())).replace("``", "`")
    return f"* {law[0].upper()}{law[1:]}" + (f" ({remark.rstrip('.')})" if remark else "")
