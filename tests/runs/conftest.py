from collections.abc import Iterator

import gymnasium
import pytest

from everlearn.config import load
from everlearn.runs import Run, train
from tests.environments.toys import Noisy
from tests.runs.tiny import NOISY, TINY


@pytest.fixture(autouse=True)
def toy_environments() -> Iterator[None]:
    gymnasium.register(NOISY, Noisy)
    yield
    del gymnasium.registry[NOISY]


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One small run, looked at by many tests."""
    short = {"env.id": "Pendulum-v1", "env.wrappers": [{"kind": "TimeLimit", "max_episode_steps": 9}]}
    return train(load(None, {**TINY, **short}), tmp_path_factory.mktemp("runs") / "run")
