"""Reads hostile files under guard, in a process of its own: ``python -m tests.security.reading CANARY RESULTS``.

An audit hook tells of everything that could be code of a file at work, while a reader reads and at no other time.
Before that, each reader has read a good file, so that what loading imports is there. With ``--prove`` a pickle is read.
"""

from __future__ import annotations

import io
import json
import resource
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.util import find_spec
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import torch
from stable_baselines3.common.env_util import make_vec_env
from typer.utils import get_params_from_function

from everlearn import PPO, DistributionalPPO
from everlearn.checkpoint.errors import CheckpointError
from everlearn.cli import main as main_of_command
from everlearn.core.signatures import _signature_model
from everlearn.environments.normaliser import Normaliser
from everlearn.ppo.policy import ActorCriticPolicy
from tests.checkpoint.foreign_files import SB3_ZIP
from tests.security.attacks import ATTACKS
from tests.security.corpus import command
from tests.security.own_files import rebuilt

WATCHED = (
    *("exec", "compile", "import", "marshal.", "pickle.", "subprocess.", "ctypes.", "socket.", "shutil.", "tempfile."),
    *("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "os.startfile", "os.remove"),
    *(
        "os.rename",
        "os.mkdir",
        "os.rmdir",
        "os.link",
        "os.symlink",
        "os.truncate",
        "os.chmod",
        "pty.spawn",
    ),
    *("webbrowser.open", "urllib.Request", "code.__new__", "function.__new__", "cpython.run_"),
)
_WRITING = set("wax+")

_IN_ORDER = (None, 0, 3)
"""How a command ends that has shown a file, or refused it."""

Reader = Callable[[bytes], Any]


_ANNOTATED = (_signature_model.__wrapped__.__code__, get_params_from_function.__code__)


class Guard:
    """An audit hook that notes what happens while it is armed."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self._armed = False
        sys.addaudithook(self._hook)  # for good: an audit hook cannot be taken off

    @contextmanager
    def armed(self) -> Iterator[None]:
        self._armed = True
        try:
            yield
        finally:
            self._armed = False

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._armed:
            return
        writes = event == "open" and isinstance(arguments[1], str) and bool(set(arguments[1]) & _WRITING)
        if (event.startswith(WATCHED) or writes) and not _is_an_annotation():
            self.seen.append(f"{event} {str(arguments)[:200]}")


def _is_an_annotation() -> bool:
    """Whether python evaluates annotations: of a class that is registered in this process, or of a command."""
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code in _ANNOTATED:
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


def readers(place: Path) -> dict[str, Reader]:
    """Everything that reads a file that was given by others; at ``place`` the file lies as well."""
    pendulum, cartpole = make_vec_env("Pendulum-v1"), make_vec_env("CartPole-v1")
    net: dict[str, Any] = {"policy_kwargs": {"net_arch": [8]}, "device": "cpu"}
    receiving = DistributionalPPO.load(io.BytesIO(rebuilt({})), device="cpu")
    commands: dict[str, Reader] = {"inspect": lambda _: _command("inspect", str(place))}
    return {
        **(commands if find_spec("everlearn.cli.inspecting") else {}),
        "PPO.load": lambda content: PPO.load(io.BytesIO(content), device="cpu"),
        "DistributionalPPO.load": lambda content: DistributionalPPO.load(io.BytesIO(content), device="cpu"),
        "PPO.set_parameters": lambda content: receiving.set_parameters(io.BytesIO(content), device="cpu"),
        "policy.load": lambda content: ActorCriticPolicy.load(io.BytesIO(content), device="cpu"),
        "Normaliser.load": lambda content: Normaliser.load(io.BytesIO(content), pendulum),
        "import_weights": lambda content: PPO.import_weights(io.BytesIO(content), cartpole, **net),
    }


def _command(*words: str) -> None:
    """What the user's command does, in this process."""
    sys.argv = ["everlearn", *words]
    main_of_command()


def warm_up(by_name: dict[str, Reader], place: Path) -> None:
    """Read a good file with each reader, and one that is refused, so that all is imported."""
    own, normaliser, policy = rebuilt({}), io.BytesIO(), io.BytesIO()
    Normaliser(make_vec_env("Pendulum-v1")).save(normaliser)
    DistributionalPPO.load(io.BytesIO(own), device="cpu").policy.save(policy)  # type: ignore[arg-type]
    good = {
        "import_weights": SB3_ZIP.read_bytes(),
        "Normaliser.load": normaliser.getvalue(),
        "policy.load": policy.getvalue(),
    }
    for name, reader in by_name.items():
        files = [good.get(name, own)] if name != "PPO.load" else []  # which the good file is not for
        bad = (own[:-1], SB3_ZIP.read_bytes()[:-1], rebuilt({"config.json": b'{"policy": {"$class": "a:b"}}'}))
        for content in (*files, *bad):
            place.write_bytes(content)
            try:
                reader(content)
            except (CheckpointError, SystemExit) as error:
                if content in files and getattr(error, "code", 1):
                    raise
                str(error)


def read(reader: Reader, content: bytes, guard: Guard, canary: Path) -> dict[str, Any]:
    """What comes of a file."""
    guard.seen.clear()
    before, start = _peak(), time.process_time()
    error: BaseException | None = None
    with guard.armed():
        try:
            reader(content)
        except SystemExit as ended:
            error = None if ended.code in _IN_ORDER else ended
        except Exception as raised:  # whatever it is: the test judges
            error = raised
    outcome = {
        "error": type(error).__name__ if error else "",
        "family": isinstance(error, CheckpointError),
        "message": f"{error!r:.500}" if error else "",
        "seconds": time.process_time() - start,
        "grown": _peak() - before,
        "seen": list(guard.seen),
        "canary": canary.exists(),
    }
    canary.unlink(missing_ok=True)
    return outcome


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def prove(content: bytes) -> None:
    """Read a pickle, as a process at the other end of a pipe does."""
    here, there = Pipe()
    with here, there:
        here.send_bytes(content)
        there.recv()


def main() -> None:
    canary, results = Path(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    guard = Guard()
    found: dict[str, dict[str, Any]] = {}
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        if "--prove" in sys.argv:
            found["proof"] = {"prove": read(prove, command(canary), guard, canary)}
        else:
            place = canary.with_name("hostile.zip")
            by_name = readers(place)
            warm_up(by_name, place)
            for name, attack in ATTACKS.items():
                content = attack.make(canary)
                place.write_bytes(content)
                found[name] = {which: read(reader, content, guard, canary) for which, reader in by_name.items()}
                del content
    results.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
