import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

import everlearn
from tests.security.doors import doors, programs

SOURCE = Path(everlearn.__file__).parent
PUBLIC_NAMES = [
    "PPO",
    "UPGD",
    "UPGDW",
    "AdaptiveUPGD",
    "DistributionalPPO",
    "FeatureSpec",
    "HyperparamConfig",
    "MarketEnv",
    "PBTConfig",
    "PBTScheduler",
    "PopulationMember",
    "PopulationRun",
    "Run",
    "SignalPredictor",
    "VarianceGradientScaler",
    "__version__",
    "resume",
    "resume_population",
    "train",
    "train_population",
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


@pytest.mark.parametrize("module", ["pydantic", "torch._inductor", "torch._dynamo.eval_frame"])
def test_importing_an_algorithm_does_not_import(module: str) -> None:
    """What only configurations, files or compiled updates need, and takes long to load."""
    program = f"from everlearn import PPO; import sys; sys.exit({module!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


SANCTIONED = {
    ("src/everlearn/ppo/importing.py", "stable_baselines3.PPO.load"): "trust=True, the one road to SB3's own loader",
    ("tests/ppo/test_importing.py", "stable_baselines3.PPO.load"): "the frozen file, with which trust=True is compared",
    ("tests/ppo/test_exporting.py", "stable_baselines3.PPO.load"): "reads what the test itself has exported",
    ("tests/document_pages.py", "exec"): "runs the blocks of the documents, which are the project's own",
    ("tests/checkpoint/test_torch_files.py", "exec"): "stands on torch's list, to show that our reader does not ask it",
    ("tests/security/corpus.py", "builtins.exec"): "is what a hostile pickle names; the pickle is written, never read",
    ("benchmarks/ray_tune.py", "stable_baselines3.PPO.load"): "the peer's member reads what it has itself just written",
    ("tools/trials.py", "exec"): "runs mutants, made from the project's own source",
}
"""The only doors, by file and by what opens them, each with its reason."""


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        ("import pickle; pickle.loads(content)", True),
        ("import pickle as p; p.Unpickler(file).load()", True),
        ("import pickle; read = pickle.load", True),
        ("import pickle; content = pickle.dumps(value)", False),
        ("import pickle; getattr(pickle, name)(content)", True),
        ("from pickle import dumps", False),
        ("from pickle import loads", True),
        ("from cloudpickle import *", True),
        ("from joblib import load", True),
        ("import marshal; marshal.loads(content)", True),
        ("import shelve; shelve.open(path)", True),
        ("import torch; torch.load(path)", True),
        ("import torch; torch.load(path, weights_only=False)", True),
        ("import torch; torch.load(path, weights_only=safe)", True),
        ("import torch; torch.load(path, weights_only=True)", False),
        ("import torch; read = torch.load", True),
        ("from torch import load as read; read(path)", True),
        ("from torch import load as read; read(path, weights_only=True)", False),
        ("import torch as t; t.load(path)", True),
        ("import torch; torch.serialization.pickle.loads(content)", True),
        ("import torch; torch.jit.load(path)", True),
        ("import numpy as np; np.load(path, allow_pickle=True)", True),
        ("import numpy as np; np.load(path, allow_pickle=flag)", True),
        ("import numpy as np; np.load(path, allow_pickle=False)", False),
        ("import numpy as np; np.load(path)", False),
        ("import pandas; pandas.read_pickle(path)", True),
        ("from stable_baselines3.common.vec_env import VecNormalize as V; V.load(path, venv)", True),
        ("model.load_replay_buffer(path)", True),
        ("from stable_baselines3.common.save_util import json_to_data; json_to_data(text)", True),
        ("from stable_baselines3.common.save_util import load_from_zip_file as read", False),
        ("from stable_baselines3.common.save_util import load_from_zip_file as read; read(path)", True),
        ("from stable_baselines3.common import save_util; save_util.load_from_pkl(path)", True),
        ("from stable_baselines3 import PPO; PPO.load(path)", True),
        ("import stable_baselines3 as sb3; sb3.A2C.load(path)", True),
        ("from everlearn import PPO; PPO.load(path)", False),
        ("import yaml; yaml.load(text)", True),
        ("from ruamel.yaml import YAML; yaml = YAML(typ='safe'); yaml.load(text)", False),
        ("eval(text)", True),
        ("policy.eval()", False),
        ("exec(text)", True),
        ("import builtins; builtins.exec(text)", True),
        ("__import__(name)", True),
        ("import json; json.loads(text)", False),
    ],
)
def test_b34_the_check_knows_unsafe_code(code: str, verdict: bool) -> None:
    assert bool(doors(code)) is verdict


def test_b34_the_library_does_not_even_import_an_unpickler() -> None:
    assert doors("import pickle", may_write=False) == [(1, "import pickle")]
    assert doors("from pickle import dumps", may_write=False) != []
    found = {
        f"{name}:{line}: {what}"
        for name, text in programs()
        if name.startswith("src/")
        for line, what in doors(text, may_write=False)
        if (name, what) not in SANCTIONED
    }
    assert found == set()


def test_b34_no_program_of_the_repository_can_run_what_a_file_holds() -> None:
    found = [(name, line, what) for name, text in programs() for line, what in doors(text)]
    assert {f"{name}:{line}: {what}" for name, line, what in found if (name, what) not in SANCTIONED} == set()
    assert SANCTIONED.keys() - {(name, what) for name, _, what in found} == set(), "sanctioned, and not there any more"


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
