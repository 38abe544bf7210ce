"""Trajectories of the released UPGD code, in float64 and without noise."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from everlearn.optim.utility_optimizer import UtilityOptimizer
from everlearn.testing.optimizers import take_step

FOLDER = Path(__file__).parents[1] / "data" / "upgd_vectors"


def assert_follows(name: str, kind: type[UtilityOptimizer], arguments: tuple[str, ...]) -> None:
    """Check every weight after every step, to 1e-12; ``arguments`` are those to take from the recording."""
    with np.load(FOLDER / f"{name}.npz") as recorded:
        meta: dict[str, Any] = json.loads(str(recorded["meta"]))
        count = len(meta["shapes"])
        params = [nn.Parameter(torch.from_numpy(recorded[f"init_{i}"])) for i in range(count)]
        optimizer = kind(params, preset="official", **{argument: meta[argument] for argument in arguments})
        for t in range(meta["steps"]):
            take_step(optimizer, [torch.from_numpy(recorded[f"grad_{t}_{i}"]) for i in range(count)])
            for i, param in enumerate(params):
                assert param.detach().numpy() == pytest.approx(recorded[f"param_{t}_{i}"], rel=0, abs=1e-12)
