"""What a file of another system gives to a model: checked parameters, numbers and counters, and what was left of it."""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from everlearn.checkpoint import layout
from everlearn.checkpoint.archive import require_pinned
from everlearn.checkpoint.errors import Corrupt, TooLarge, Unsupported
from everlearn.checkpoint.files import open_file
from everlearn.checkpoint.foreign import Kind, recognise, refusal
from everlearn.checkpoint.limits import Limits
from everlearn.checkpoint.migrations import PARTS, read_old
from everlearn.checkpoint.places import Place, source_at
from everlearn.checkpoint.sb3_files import read_sb3
from everlearn.core.errors import ArgumentError
from everlearn.ppo.hyperparameters import HYPERPARAMETERS, Hyperparameter, Range, Switch

COUNTERS = ("num_timesteps", "_n_updates")
"""What a Stable-Baselines3 file says of how long it was trained."""

_MOST = 2**53
RULES: dict[str, tuple[str, Hyperparameter]] = {
    **{name: (name, rule) for name, rule in HYPERPARAMETERS.items() if not name.startswith("vgs_")},
    "use_sde": ("use_sde", Switch()),
    "sde_sample_freq": ("sde_sample_freq", Hyperparameter(Range(-1, _MOST, whole=True))),
    "stats_window_size": ("_stats_window_size", Hyperparameter(Range(1, _MOST, whole=True))),
}
"""By argument: the key that it has in a file, and what it may be."""


@dataclass(frozen=True)
class Imported:
    """What a file gives to a model.

    Args:
        parameters: The state of each part by its name.
        arguments: Of the constructor.
        counters: Attributes to be set, by name.
        left: What was not taken, a sentence each.
        hint: What to add when the policy does not fit; None for nothing.
    """

    parameters: Mapping[str, Mapping[str, Any]]
    arguments: dict[str, Any]
    counters: dict[str, int]
    left: tuple[str, ...]
    hint: str | None = None


def content_of(path: Place, limits: Limits, sha256: str | None) -> tuple[bytes, object]:
    """The whole file, read once, so that what is checked is what is used; and its name for messages.

    Args:
        path: The file; its suffix ``.zip`` may be left out.
        limits: How much it may ask for.
        sha256: What it has to hash to, in hexadecimal; None for no such demand.

    Raises:
        CheckpointError: If it is a directory, a pipe, too large, or another file than the one that was meant.
    """
    source = source_at(path)
    if isinstance(source, Path):
        with open_file(source) as stream:
            content = stream.read(limits.file_bytes + 1)
    else:
        if source.seekable():
            source.seek(0)
        content = source.read(limits.file_bytes + 1)
    file = source if isinstance(source, Path) else getattr(source, "name", "the open file")
    if len(content) > limits.file_bytes:
        remedy = "If that is right, allow it with limits=Limits(file_bytes=...)."
        raise TooLarge(file, f"it has more than the {limits.file_bytes} bytes that are allowed.", remedy)
    if sha256 is not None:
        require_pinned(content, sha256, file)
    return content, file


def imported_from(content: bytes, file: object, limits: Limits, given: Collection[str]) -> Imported:
    """What a file gives, whichever of the known formats it has.

    Args:
        content: The file.
        file: Its name, for messages.
        limits: How much it may ask for.
        given: Arguments that are not to be taken from it.

    Raises:
        CheckpointError: If it is refused.
    """
    kind = recognise(io.BytesIO(content))
    if kind is Kind.SB3:
        return _of_sb3(content, file, limits, given)
    if kind is Kind.TORCH:
        return _of_old(content, file, limits)
    if kind is Kind.EVERLEARN and layout.is_ours(memoryview(content)):
        remedy = "Use PPO.load(file, env) for the whole model, or model.set_parameters(file) for what it has learned."
        raise Unsupported(file, f"this is {kind}, and nothing to be imported.", remedy)
    raise refusal(io.BytesIO(content), file)


def _of_old(content: bytes, file: object, limits: Limits) -> Imported:
    parts = read_old(content, file, limits)
    left = [
        f"{PARTS[name]}: the file, of format {parts.version}, has none."
        for name in parts.missing
        if name != "normaliser"
    ]
    if parts.step:
        left.append(f"step {parts.step}: its unit is not known, so counters begin at zero.")
    return Imported(parts.parameters, {}, {}, tuple(left))


def _of_sb3(content: bytes, file: object, limits: Limits, given: Collection[str]) -> Imported:
    found = read_sb3(io.BytesIO(content), file, limits)
    if "policy" not in found.parameters:
        raise Corrupt(file, "it has no policy.pth.", "Get it from where it was made.")
    arguments = {
        name: _checked(name, found.plain[key], rule, file)
        for name, (key, rule) in RULES.items()
        if name not in given and found.plain.get(key) is not None
    }
    counters = {name: _counter(name, found.plain.get(name, 0), file) for name in COUNTERS}
    left = [f"{', '.join(found.left)}: pickled."] if found.left else []
    architecture = found.plain.get("policy_kwargs")
    hint = f"The file's own are policy_kwargs={architecture!r:.300}." if architecture else None
    return Imported(found.parameters, arguments, counters, tuple(left), hint)


def _checked(name: str, value: Any, rule: Hyperparameter, file: object) -> Any:
    """A number of a file, through the rule that the constructor's argument has."""
    try:
        if not isinstance(value, int | float) or isinstance(value, bool) != isinstance(rule, Switch):
            raise ArgumentError(f"{name} is {value!r:.100}.")
        return rule.checked(name, value)
    except (ArgumentError, AssertionError, OverflowError) as error:
        raise Corrupt(file, str(error)[:300], f"Give {name}=... to import_weights.", f"data, {name}") from error


def _counter(name: str, value: Any, file: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST:
        return value
    raise Corrupt(file, f"{name} is {value!r:.100}, no count.", "Get the file from where it was made.", "data")
