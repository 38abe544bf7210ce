"""Files of every version load in this one, and what they hold does what it did."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest

import everlearn
from everlearn import PPO, DistributionalPPO
from tools.golden import EXPECTATIONS, FOLDER, contents_of

FILES = sorted(FOLDER.glob("*/*.zip"))


def test_this_version_has_left_files() -> None:
    assert {path.stem for path in FILES if path.parent.name == everlearn.__version__} == {
        *("ppo", "distributional", "gsde", "checkpoint")
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_file_of_any_version_loads_and_acts_as_then(path: Path) -> None:
    expected = json.loads((path.parent / EXPECTATIONS).read_text())[path.name]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "saved with")  # other versions of libraries
        model = (PPO if path.stem == "ppo" else DistributionalPPO).load(path, device="cpu")
    found = json.loads(json.dumps(contents_of(model)))
    for name in ("actions", "values"):
        assert np.allclose(found.pop(name), expected.pop(name), rtol=1e-5, atol=1e-6)
    assert found == expected
