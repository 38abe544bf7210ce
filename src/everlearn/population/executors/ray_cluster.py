"""The Ray cluster that a population is trained on: one of its own on this machine, or one that there is.

Whoever reaches the ports of a cluster can run code in it. A cluster of its own is bound to the loopback interface, asks
for a token that no file holds, and has no dashboard.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from everlearn.core.errors import ConfigError, EverlearnError, MissingExtraError
from everlearn.core.scratch import scratch_directory

if TYPE_CHECKING:
    from types import ModuleType

_log = logging.getLogger(__name__)
_STORE = 256 * 2**20
"""Bytes of the object store of a cluster of one's own."""
_OF_OWN = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # what Ray does on those: everything listens on the loopback interface
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
}
_SHORT = Path("/tmp")
"""Where its files are, for the paths of sockets must not be long."""
_PATIENCE = 20.0
"""Seconds in which a cluster has to answer."""
_FROM_OUTSIDE, _NEW, _ANY = "ray://", "local", "auto"
_TOKEN = "RAY_AUTH_TOKEN"
_REMEDY = (
    "Give HOST:PORT of a cluster that has everlearn, this version of Ray and of Python, by the host's name or address "
    "that its other machines know, and its token (RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH)."
)


def require_cluster(address: str | None) -> None:
    """Refuse to go on without Ray, or with a cluster that does not answer; nothing is started or joined.

    Args:
        address: As for ``RayCluster``.

    Raises:
        ConfigError: If there is no cluster at the address, or it refuses.
        MissingExtraError: If Ray is not installed.
    """
    wanted, ray = _wanted(address), _ray()
    if wanted != _NEW and not ray.is_initialized():
        _require_answer(ray, wanted)


@final
class RayCluster:
    """A connection to a cluster; a cluster that this process is connected to already is taken, and left as it is.

    Args:
        address: ``HOST:PORT`` of a cluster; ``auto`` for one that runs on this machine; ``local`` for a new one on this
            machine, which ends with it; None for that of the environment variable ``RAY_ADDRESS``, or else a new one.
        runtime_env: What Ray provides workers with: files, packages, environment variables.
        num_cpus: Of a new cluster; None for those that there are.
        log: Where the output of a new cluster's workers goes at its end; None for nowhere.

    Attributes:
        ray: The module.
        address: Of the cluster.

    Raises:
        ConfigError: If there is no cluster at the address, or it refuses.
        EverlearnError: If a new one cannot be kept to this machine.
        MissingExtraError: If Ray is not installed.
    """

    _lock = threading.Lock()
    _users = 0
    """Connections that share the one of this process which the first of them has made."""
    _shared = ExitStack()

    def __init__(
        self,
        address: str | None = None,
        runtime_env: Mapping[str, Any] | None = None,
        num_cpus: int | None = None,
        log: Path | None = None,
    ) -> None:
        self._is_open, self.ray = False, _ray()
        wanted = _wanted(address)
        with RayCluster._lock:
            if not self.ray.is_initialized():
                RayCluster._shared = self._connected(wanted, runtime_env, num_cpus, log)
            elif address not in (None, _ANY, self._address()) or runtime_env:
                raise ConfigError(
                    f"This process is connected to the Ray cluster {self._address()} already. Leave out address and "
                    "runtime_env to use it as it is, or call ray.shutdown() before."
                )
            self.address, self._is_open = self._address(), True
            RayCluster._users += 1

    def close(self) -> None:
        """Leave the cluster; one of its own ends, unless others in this process use it."""
        with RayCluster._lock:
            if self._is_open:
                self._is_open = False
                RayCluster._users -= 1
                if RayCluster._users == 0:
                    RayCluster._shared.close()

    def resources(self) -> dict[str, float]:
        """What all its machines have together."""
        return dict(self.ray.cluster_resources())

    def _address(self) -> str:
        return str(self.ray.get_runtime_context().gcs_address)

    def _connected(
        self, wanted: str, runtime_env: Mapping[str, Any] | None, num_cpus: int | None, log: Path | None
    ) -> ExitStack:
        """What undoes it."""
        options: dict[str, Any] = {"runtime_env": runtime_env, "log_to_driver": False, "logging_level": logging.ERROR}
        with ExitStack() as stack:
            if wanted == _NEW:
                stack.enter_context(settings_of_own())
                private = stack.enter_context(scratch_directory("ray", _SHORT if _SHORT.is_dir() else None))
                directory = Path(private, "r")  # which Ray opens to everybody
                options |= {"num_cpus": num_cpus, "include_dashboard": False, "object_store_memory": _STORE}
                options |= {"_temp_dir": str(directory)}
                stack.callback(_keep_output, directory, log)
            else:
                _require_answer(self.ray, wanted)
            stack.callback(self.ray.shutdown)
            try:
                with _kept_signals():
                    self.ray.init(address=wanted, **options)
            except (OSError, ValueError, RuntimeError, self.ray.exceptions.RayError) as error:
                what = "None can be started on this machine" if wanted == _NEW else f"{wanted} cannot be used"
                raise ConfigError(f"Ray cluster: {what}: {error}") from error
            if wanted == _NEW:
                _require_loopback(self._address(), self.ray.__version__)
                _warn_where_open(os.environ.get("RAY_AUTH_MODE", "").lower() != "token", self._address())
            else:
                stranger = {**os.environ, "RAY_AUTH_MODE": "token", _TOKEN: secrets.token_hex(32)}
                _warn_where_open(_complaint(self._address(), stranger) is None, self._address())
            return stack.pop_all()


def _wanted(address: str | None) -> str:
    """The address by Ray's own rule: the environment says what is meant by none, and by any."""
    said = os.environ.get("RAY_ADDRESS")
    wanted = said or address or _NEW if address in (None, _ANY) else address
    assert wanted is not None
    if wanted.startswith(_FROM_OUTSIDE):
        raise ConfigError(
            f"The Ray cluster {wanted}: a population's controller is a part of the cluster. Start it on one of its "
            "machines, or as a job (ray job submit), and name the cluster as HOST:PORT or auto."
        )
    return wanted


def _require_answer(ray: ModuleType, address: str) -> None:
    """Refuse an address at which no cluster answers: Ray itself would try for ten minutes.

    Raises:
        ConfigError: With what Ray says.
    """
    host, _, port = address.rpartition(":")
    if host in ("localhost", "127.0.0.1", "[::1]"):  # Ray takes the machine's own address instead
        address = f"{ray.util.get_node_ip_address()}:{port}"
    complaint = _complaint(address, os.environ)
    if complaint is not None:
        raise ConfigError(f"The Ray cluster {address} cannot be used: {complaint}\n{_REMEDY}")


def _complaint(address: str, variables: Mapping[str, str]) -> str | None:
    """What is in the way of using a cluster, asked in a process that can be ended; None if nothing is."""
    command = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "health-check"]
    command += [] if address == _ANY else ["--address", address]
    try:
        asked = subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        return f"nothing that is a cluster of this version of Ray has answered within {_PATIENCE:g} seconds."
    said = [line for line in (asked.stdout + asked.stderr).splitlines() if line.strip()]
    return None if asked.returncode == 0 else (said or ["it does not answer."])[-1]


def _require_loopback(address: str, version: str) -> None:
    host = address.rsplit(":", 1)[0].strip("[]")
    if not ip_address(host).is_loopback:
        raise EverlearnError(
            f"Ray {version} listens on {host}, where others can reach it, and not on the loopback interface alone as "
            "it was told to. Connect to a cluster of yours by its address, and report this."
        )


def _keep_output(directory: Path, log: Path | None) -> None:
    """Add what workers have printed to a log; lines that begin with a colon are Ray's own."""
    for path in sorted(directory.glob("session_latest/logs/worker-*")) if log is not None else ():
        lines = [line for line in path.read_bytes().splitlines(keepends=True) if not line.startswith(b":")]
        if lines and log is not None:
            with log.open("ab") as stream:
                stream.writelines([f"{path.name}:\n".encode(), *lines])


def _warn_where_open(is_open: bool, address: str) -> None:
    if is_open:
        _log.warning(
            "The Ray cluster %s is used without a token: whoever reaches its ports can run code in it. Start it and "
            "everlearn with RAY_AUTH_MODE=token.",
            address,
        )


def _ray() -> ModuleType:
    try:
        import ray
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise MissingExtraError("The executor ray", "ray", "ray") from error
    return ray


@contextmanager
def settings_of_own() -> Iterator[None]:
    """Inside, Ray is told how a new cluster starts, where the environment does not say it; it asks for a token itself.

    Raises:
        MissingExtraError: If it is not installed.
    """
    constants, before = _ray()._private.ray_constants, _of_ray()
    reaches_out = constants.ENABLE_RAY_CLUSTER
    try:
        constants.ENABLE_RAY_CLUSTER = False  # has been read from the environment when Ray was imported
        for name, value in {**_OF_OWN, **({} if "RAY_AUTH_TOKEN_PATH" in before else {_TOKEN: _token()})}.items():
            os.environ.setdefault(name, value)
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = reaches_out
        for name in _of_ray().keys() - before.keys():
            del os.environ[name]


def _of_ray() -> dict[str, str]:
    """The environment variables that are Ray's."""
    return {name: value for name, value in os.environ.items() if name.startswith("RAY_")}


@cache
def _token() -> str:
    """Of all clusters that this process starts: Ray reads it once."""
    return secrets.token_hex(32)


@contextmanager
def _kept_signals() -> Iterator[None]:
    """Inside, Ray sets handlers of signals; those of before are there afterwards."""
    is_main = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM) if is_main}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if handler is not None:  # one that is not Python's, which cannot be set from here
                signal.signal(number, handler)
