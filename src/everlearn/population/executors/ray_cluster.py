"""The Ray cluster that a population is trained on: one of its own on this machine, or one that there is.

Whoever reaches the ports of a cluster can run code in it. A cluster of its own is bound to the loopback interface, asks
for a token that no file holds, and has no dashboard.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stdout
from functools import cache
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, final

from everlearn.core.errors import ConfigError, EverlearnError, MissingExtraError

if TYPE_CHECKING:
    from types import ModuleType

_log = logging.getLogger(__name__)
_STORE = 256 * 2**20
"""Bytes of the object store of a cluster of one's own."""
_PATIENCE = 10.0
"""Seconds in which a cluster has to answer."""
_OF_OWN = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # what Ray does on those: everything listens on the loopback interface
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
}
_FROM_OUTSIDE, _NEW = "ray://", "local"


def require_ray() -> None:
    """Refuse to go on without Ray.

    Raises:
        MissingExtraError: If it is not installed.
    """
    _ray()


@final
class RayCluster:
    """A connection to a cluster; a cluster that this process is connected to already is taken, and left as it is.

    Args:
        address: ``HOST:PORT`` of a cluster; ``auto`` for one that runs on this machine; ``local`` for a new one on this
            machine, which ends with it; None for that of the environment variable ``RAY_ADDRESS``, or else a new one.
        runtime_env: What Ray provides workers with: files, packages, environment variables.
        num_cpus: Of a new cluster; None for those that there are.

    Attributes:
        ray: The module.
        address: Of the cluster.

    Raises:
        ConfigError: If there is no cluster at the address, or it refuses.
        EverlearnError: If a new one cannot be kept to this machine.
        MissingExtraError: If Ray is not installed.
    """

    def __init__(
        self, address: str | None = None, runtime_env: Mapping[str, Any] | None = None, num_cpus: int | None = None
    ) -> None:
        wanted = address or os.environ.get("RAY_ADDRESS") or _NEW
        if wanted.startswith(_FROM_OUTSIDE):
            raise ConfigError(
                f"The Ray cluster {wanted}: a population's controller is a part of the cluster. Start it on one of its "
                "machines, or as a job (ray job submit), and name the cluster as HOST:PORT or auto."
            )
        with ExitStack() as stack:
            is_connected = "ray" in sys.modules and _ray().is_initialized()
            if wanted == _NEW and not is_connected:
                stack.enter_context(settings_of_own())
            self.ray = _ray()
            if not is_connected:
                stack.enter_context(redirect_stdout(sys.stderr))  # where Ray tells of workers that have died
                stack.callback(self.ray.shutdown)
                options = {"runtime_env": runtime_env, "log_to_driver": False, "logging_level": logging.ERROR}
                with _kept_signals():
                    self._own(options, num_cpus) if wanted == _NEW else self._found(wanted, options)
            self.address = str(self.ray.get_runtime_context().gcs_address)
            if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
                _log.warning(
                    "The Ray cluster %s is used without a token: whoever reaches its ports can run code in it. Start "
                    "it and everlearn with RAY_AUTH_MODE=token.",
                    self.address,
                )
            if is_connected and (address not in (None, "auto", self.address) or runtime_env):
                raise ConfigError(
                    f"This process is connected to the Ray cluster {self.address} already. Leave out address and "
                    "runtime_env to use it as it is, or call ray.shutdown() before."
                )
            self._exit = stack.pop_all()

    def close(self) -> None:
        """Leave the cluster; one of its own ends."""
        self._exit.close()

    def resources(self) -> dict[str, float]:
        """What all its machines have together."""
        return dict(self.ray.cluster_resources())

    def _own(self, options: Mapping[str, Any], num_cpus: int | None) -> None:
        self.ray.init(
            address="local", num_cpus=num_cpus, include_dashboard=False, object_store_memory=_STORE, **options
        )
        host = self.ray.get_runtime_context().gcs_address.rsplit(":", 1)[0].strip("[]")
        if not ip_address(host).is_loopback:
            raise EverlearnError(
                f"Ray {self.ray.__version__} listens on {host}, where others can reach it, and not on the loopback "
                "interface alone as it was told to. Unset RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER, or connect to a cluster "
                "of yours by its address."
            )

    def _found(self, address: str, options: Mapping[str, Any]) -> None:
        try:
            if address != "auto":
                _require_listener(address)
            self.ray.init(address=address, **options)
        except (OSError, ValueError, RuntimeError, self.ray.exceptions.RayError) as error:
            raise ConfigError(
                f"The Ray cluster {address} cannot be used: {error}\nGive HOST:PORT of a cluster that has everlearn, "
                "this version of Ray and of Python, and its token (RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or "
                "RAY_AUTH_TOKEN_PATH)."
            ) from error


def _require_listener(address: str) -> None:
    """Refuse an address at which nobody listens: Ray would try for ten minutes.

    Raises:
        OSError: If nobody does.
        ValueError: If it is no address.
    """
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()


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
    """Inside, Ray is told by the environment how it starts, where the user has not told it."""
    wanted = {**_OF_OWN, "RAY_AUTH_TOKEN": _token()}
    if os.environ.get("RAY_AUTH_TOKEN_PATH"):
        del wanted["RAY_AUTH_TOKEN"]
    is_imported = "ray" in sys.modules
    if is_imported:  # then it has read the mode, and asks for a token by itself unless a mode is in the environment
        del wanted["RAY_AUTH_MODE"]
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(added)
    constants = _ray()._private.ray_constants
    reaches_out, constants.ENABLE_RAY_CLUSTER = constants.ENABLE_RAY_CLUSTER, False  # read when Ray was imported
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = reaches_out if is_imported else sys.platform not in ("win32", "darwin")
        for name in added:
            os.environ.pop(name, None)


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
