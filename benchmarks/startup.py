"""Seconds until a command or an import is done, beside importing Stable-Baselines3: whole processes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial

from benchmarks.measure import Announce, Comparison, Target, interleave
from benchmarks.plots import draw_comparison, panels
from benchmarks.results import Report
from benchmarks.tables import comparison_table, target_table

PEER, PEER_CLASS = "import stable_baselines3", "from stable_baselines3 import PPO"
OWN, OWN_CLASS = "import everlearn", "from everlearn import PPO"
HELP = "everlearn --help"
COMMANDS: dict[str, Sequence[str]] = {
    "python, nothing imported": ("-c", ""),
    "import torch": ("-c", "import torch"),
    PEER: ("-c", PEER),
    PEER_CLASS: ("-c", PEER_CLASS),
    OWN: ("-c", OWN),
    OWN_CLASS: ("-c", OWN_CLASS),
    HELP: ("-m", "everlearn", "--help"),
}
METHOD = (
    "Seconds of whole processes of one interpreter, from the start to the end of each, in turns; the first turn, which "
    "fills the disk's cache and compiles python files, does not count. `import everlearn` loads torch and "
    "Stable-Baselines3 only when a name that needs them is asked for, so `from everlearn import PPO` is beside it. "
    "`everlearn --help` is run as `python -m everlearn --help`."
)


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
        repetitions: Processes of each kind, after one to warm up.
    """

    repetitions: int = 11


SHORT = Settings(repetitions=1)


def run(settings: Settings, announce: Announce) -> Report:
    """Start every kind of process."""
    contestants = {name: partial(seconds, arguments) for name, arguments in COMMANDS.items()}
    comparison = Comparison(
        title="Start-up",
        unit="s",
        samples=interleave(contestants, settings.repetitions, lambda what: announce(f"Start-up: {what}")),
        peer=PEER,
        more_is_better=False,
        targets=[
            Target("P9", OWN, PEER, must=1.1),
            Target("P9", OWN_CLASS, PEER_CLASS, must=1.1),
            Target("P9", HELP, None, must=0.5),
        ],
        references=set(COMMANDS) - {OWN, OWN_CLASS, HELP},
    )
    figure, axes = panels("Start-up", 1, 1, size=(9.5, 3.6))
    draw_comparison(axes[0][0], comparison)
    return Report(
        name="startup",
        title="Start-up",
        method=METHOD,
        settings=asdict(settings),
        data=[comparison.as_dict()],
        tables=[comparison_table(comparison), target_table([comparison])],
        figure=figure,
    )


def seconds(arguments: Sequence[str]) -> float:
    """How long a process of this interpreter takes.

    Raises:
        subprocess.CalledProcessError: If it fails.
    """
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start
