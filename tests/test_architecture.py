import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

import everlearn

SOURCE = Path(everlearn.__file__).parent
PUBLIC_NAMES = [
    "PPO",
    "UPGD",
    "UPGDW",
    "AdaptiveUPGD",
    "DistributionalPPO",
    "Run",
    "VarianceGradientScaler",
    "__version__",
    "train",
]


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def test_the_public_names_are_these() -> None:
    assert everlearn.__all__ == PUBLIC_NAMES
    assert set(PUBLIC_NAMES) <= set(dir(everlearn))


@pytest.mark.parametrize("name", [name for name in PUBLIC_NAMES if name != "__version__"])
def test_each_public_name_is_a_class_or_function_of_that_name(name: str) -> None:
    assert getattr(everlearn, name).__name__ == name


def test_the_version_is_the_installed_one() -> None:
    assert everlearn.__version__ == version("everlearn")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'everlearn' has no attribute 'PP0'"):
        _ = everlearn.PP0


@pytest.mark.parametrize("module", ["torch", "numpy", "stable_baselines3", "gymnasium", "importlib.metadata"])
def test_importing_everlearn_does_not_import(module: str) -> None:
    program = f"import everlearn, sys; sys.exit({module!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


UNPICKLERS = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}


def imported(node: ast.AST) -> set[str]:
    """The top-level modules that an import statement names."""
    if isinstance(node, ast.Import):
        return {alias.name.split(".")[0] for alias in node.names}
    return {(node.module or "").split(".")[0]} if isinstance(node, ast.ImportFrom) else set()


def opens_a_door(node: ast.AST) -> bool:
    """Whether a statement or call could make a file's bytes run as code."""
    if not isinstance(node, ast.Call):
        return bool(imported(node) & UNPICKLERS)
    options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    unchecked = ast.unparse(node.func) == "torch.load" and options.get("weights_only") != "True"
    return unchecked or options.get("allow_pickle", "False") != "False"


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        ("import pickle", True),
        ("from joblib import load", True),
        ("torch.load(path)", True),
        ("torch.load(path, weights_only=safe)", True),
        ("np.load(path, allow_pickle=True)", True),
        ("import json", False),
        ("torch.load(path, weights_only=True)", False),
        ("np.load(path, allow_pickle=False)", False),
    ],
)
def test_b34_the_check_knows_unsafe_code(code: str, verdict: bool) -> None:
    assert any(opens_a_door(node) for node in ast.walk(ast.parse(code))) is verdict


def test_b34_nothing_in_the_source_can_run_what_a_file_holds() -> None:
    doors = [
        f"{module.relative_to(SOURCE)}:{node.lineno}"
        for module in modules()
        for node in ast.walk(ast.parse(module.read_text()))
        if opens_a_door(node)
    ]
    assert doors == []


def functions(module: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = function.body[ast.get_docstring(function) is not None :][:1]
    return function.end_lineno - first[0].lineno + 1 if first else 0


def test_no_module_is_longer_than_300_lines() -> None:
    lengths = {str(module.relative_to(SOURCE)): len(module.read_text().splitlines()) for module in modules()}
    assert {name: length for name, length in lengths.items() if length > 300} == {}


def test_no_function_has_more_than_60_lines() -> None:
    lengths = {
        f"{module.relative_to(SOURCE)}:{function.name}": body_lines(function)
        for module in modules()
        for function in functions(module)
    }
    assert {name: length for name, length in lengths.items() if length > 60} == {}
