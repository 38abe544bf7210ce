"""The page docs/sb3_suite.md, from the same data that the run uses."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from compatibility.exceptions import EXCUSED, LIMITS, Excused, excused_tests
from compatibility.suite import Baseline

PATH = Path(__file__).parents[1] / "docs" / "sb3_suite.md"

_HEAD = """\
# Stable-Baselines3's tests on everlearn's classes

Written by `python -m compatibility contents` from the data that `make test-sb3` uses.

`make test-sb3` takes the tests of Stable-Baselines3 {version} from its source distribution, puts `everlearn.PPO`, then
`everlearn.DistributionalPPO`, in the place of `stable_baselines3.PPO` before a test module is imported, and runs each
file in a process of its own. Of the tests that SB3's own PPO passes, it selects the {by_name} that `-k "PPO or ppo"`
selects, and {by_use} more whose code uses the class and whose names do not say so. The run fails if a test fails that
is not listed below, and if a test passes that is listed. `python -m compatibility sb3 --baseline` measures anew what
SB3's own PPO passes.
"""

_CONTRIB = """\
## sb3-contrib's tests

In sb3-contrib 2.9.2's tests there is no use of `stable_baselines3.PPO`, so that there is nothing to put everlearn's
classes into. What concerns PPO there:

| file | what it tests | here |
|---|---|---|
| `test_utils.py`, `test_quantile_huber_loss` | the values and the refusals of the quantile Huber loss | \
the same cases, and random ones, on our loss: `tests/values/test_contrib_quantile_loss.py` |
| `test_deterministic.py`, `test_cnn.py`, `test_lstm.py` | `RecurrentPPO` | \
not applicable: there is no recurrent policy here yet |
| `test_invalid_actions.py`, `test_run.py`, `test_train_eval_mode.py`, `test_cnn.py` | `MaskablePPO` | \
not applicable: there is no masked policy here yet |
| `test_save_load.py`, `test_dict_env.py`, `test_identity.py`, `test_distributions.py` | QR-DQN, TQC, TRPO, ARS, \
CrossQ | not applicable: no PPO in them |

What these files ask of plain PPO (deterministic training, images, batch normalisation) SB3's own tests ask too, above.

## rl_zoo3

`make test-zoo` trains, enjoys and continues everlearn's classes with the commands of rl_zoo3 2.9.2, following
[the recipe](how-to/rl_zoo3.md).
"""


def written(known: Baseline) -> str:
    """The page.

    Args:
        known: What SB3's own PPO passes.
    """
    by_name, by_use = known.count()
    head = _HEAD.format(version=known.version, by_name=by_name, by_use=by_use)
    return "\n".join([head, _counts(known), *map(_section, LIMITS), _CONTRIB])


def _counts(known: Baseline) -> str:
    lines = ["| file | SB3's PPO | " + " | ".join(f"`{name}`" for name in LIMITS) + " |", "|---|--:" * 2 + "|--:|--:|"]
    lines[1] = "|---" + "|--:" * (1 + len(LIMITS)) + "|"
    excused = {algorithm: excused_tests(algorithm) for algorithm in LIMITS}
    totals = [0] * (1 + len(LIMITS))
    for file in known.files:
        all_of_it = len(known.expected(file))
        row = [all_of_it, *(all_of_it - len(excused[algorithm].get(file, ())) for algorithm in LIMITS)]
        totals = [total + count for total, count in zip(totals, row, strict=True)]
        lines.append(_row(f"`{file}`", row))
    return "\n".join([*lines, _row("all", totals), ""])


def _row(name: str, counts: Iterable[int]) -> str:
    return f"| {name} | " + " | ".join(map(str, counts)) + " |"


def _section(algorithm: str) -> str:
    listed = EXCUSED[algorithm]
    count = sum(map(len, excused_tests(algorithm).values()))
    title = f"## Exceptions of `{algorithm}`: {count or 'none'}\n"
    if not listed:
        return title
    lines = ["| file | tests | why |", "|---|---|---|", *map(_excused_row, listed), ""]
    return "\n".join([title, *lines])


def _excused_row(excused: Excused) -> str:
    names = excused.tests
    shown = f"`{names[0]}`" if len(names) == 1 else f"`{names[0].split('[')[0]}`, {len(names)} cases"
    return f"| `{excused.file}` | {shown} | {excused.reason} |"
