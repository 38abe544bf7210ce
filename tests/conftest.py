"""What every test stands on: one thread, the same random numbers each time, a guard of the global ones."""

import os
import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import settings

pytest.register_assert_rewrite("everlearn.testing")  # its failures then show values, as those of tests do

torch.set_num_threads(1)  # the workers of pytest-xdist share the cores

settings.register_profile("everlearn", deadline=None, derandomize=True)
settings.load_profile("everlearn")


@pytest.fixture(autouse=True, scope="session")
def cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Compiled code of tests does not go into the home of whoever runs them."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("compiled")))


@pytest.fixture(autouse=True)
def seeded_generators() -> None:
    """A test sees the same random numbers alone, in another order and beside others."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    torch.distributions.Distribution.set_default_validate_args(True)  # which torch.compile switches off for good


@pytest.fixture
def untouched_generators() -> Iterator[None]:
    """Fail the test if it advanced a global generator of python, numpy or torch."""
    before = random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state().tolist()
    yield
    after = random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state().tolist()
    assert after == before, "a global generator was advanced"
