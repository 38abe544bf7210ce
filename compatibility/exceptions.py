"""The tests of SB3 that a class of everlearn does not pass, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass

PPO = "everlearn.PPO"
DISTRIBUTIONAL_PPO = "everlearn.DistributionalPPO"
LIMITS = {PPO: 3, DISTRIBUTIONAL_PPO: 12}
"""The classes, and how many exceptions each may have."""


@dataclass(frozen=True)
class Excused:
    """Tests that fail for the same reason.

    Args:
        file: Of SB3's tests.
        tests: Their names in that file.
        reason: Why the class does something else, and what a user does about it.
    """

    file: str
    tests: tuple[str, ...]
    reason: str


GAE_CASES = tuple(
    f"test_gae_computation[{episodes}-{gamma}-{gae_lambda}-PPO]"
    for episodes in (1, 3)
    for gamma in ("1.0", "0.99")
    for gae_lambda in ("1.0", "0.9")
)

PICKLES = Excused(
    "test_save_load.py",
    ("test_cast_lr_schedule", "test_load_invalid_object"),
    "The tests save a model whose learning rate is a lambda, and find it pickled in the file. Files of everlearn hold "
    'no code: use a schedule with a kind, such as `"lin_3e-4"`, or load with `custom_objects={"learning_rate": ...}`.',
)

EXCUSED: dict[str, tuple[Excused, ...]] = {
    PPO: (PICKLES,),
    DISTRIBUTIONAL_PPO: (
        PICKLES,
        Excused(
            "test_gae.py",
            GAE_CASES,
            "The tests give a policy class with one scalar value. `DistributionalPPO` needs a policy with several "
            "value distributions and refuses it; `everlearn.PPO` takes it.",
        ),
        Excused(
            "test_run.py",
            ("test_ppo_warnings",),
            "The test looks for `run PPO on the GPU` in a warning that carries the name of the class, which here is "
            "`DistributionalPPO`.",
        ),
        Excused(
            "test_tensorboard.py",
            ("test_tensorboard[ppo]",),
            "The test looks for the folder `PPO_1`. A TensorBoard run has the name of its class, here "
            "`DistributionalPPO_1`; `learn(tb_log_name=...)` gives another.",
        ),
    ),
}


def excused_tests(algorithm: str) -> dict[str, set[str]]:
    """The names of a class's exceptions by file."""
    by_file: dict[str, set[str]] = {}
    for excused in EXCUSED[algorithm]:
        by_file.setdefault(excused.file, set()).update(excused.tests)
    return by_file
