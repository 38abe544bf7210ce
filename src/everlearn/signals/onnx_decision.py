"""Signals from an ONNX file: what torch decides, decided by onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
from pydantic import TypeAdapter

from everlearn.checkpoint import strict_json
from everlearn.checkpoint.errors import Mismatch, Unsupported, refused
from everlearn.checkpoint.limits import LIMITS, Limits
from everlearn.core.errors import ArgumentError, StateError
from everlearn.markets.feature_spec import FeatureSpec
from everlearn.markets.windows import FeatureWindows
from everlearn.runs.model_files import existing
from everlearn.signals.decision import BLOCK
from everlearn.signals.onnx_file import KEY, OnnxFile, first_line, port, read_onnx, session_errors, session_of

BARS, ACCOUNT = "bars", "account"
OUTPUTS = ("score", "position", "quantiles")
_EXPORT = "Export the model again."


@final
class OnnxDecision:
    """Decides by a graph that standardises, normalises and post-processes by itself.

    Args:
        session: Of onnxruntime, on a graph from ``bars`` and ``account`` to ``score``, ``position``, ``quantiles``.
        spec: What an observation is.
        levels: Of the quantiles.
    """

    dtype: type[np.floating[Any]] = np.float64
    raw = True

    def __init__(self, session: Any, spec: FeatureSpec, levels: Sequence[float] = ()) -> None:
        self.levels = tuple(levels)
        self._session, self._spec = session, spec
        self._outputs = list(outputs_of(levels))

    def look(self, windows: FeatureWindows, bars: slice, account: np.ndarray | None) -> np.ndarray:
        """The features as they are: the graph standardises them."""
        return windows.observations(bars, account, raw=True)

    def prepared(self, observations: np.ndarray) -> np.ndarray:
        """Refused: what an environment gives is standardised, and its bars cannot be had back.

        Raises:
            StateError: Always.
        """
        raise StateError(
            "An ONNX file decides on bars as they are in a table, and not on an environment's observations, which are "
            "standardised. Use predict(table), or act with the model that the file was exported from."
        )

    def block(self, seen: np.ndarray) -> np.ndarray:
        """The decisions, (rows, 2 + levels), on bars and account side by side, (rows, spec.size)."""
        spec = self._spec
        inputs = {BARS: seen[:, : spec.size - len(spec.account)].reshape(len(seen), spec.window, len(spec.features))}
        if spec.account:
            inputs[ACCOUNT] = seen[:, spec.size - len(spec.account) :].astype(np.float32)
        score, position, *quantiles = self._session.run(self._outputs, inputs)
        return np.concatenate([score[:, None], position[:, None], *quantiles], axis=1)


def load_decision(
    path: Path, quantiles: Sequence[float] | None, sha256: str | None, limits: Limits | None
) -> tuple[FeatureSpec, OnnxDecision, str]:
    """What an observation is, what decides on it, and the model's name, from a file of ``everlearn export``.

    Such a file holds no code of ours, and operators other than ONNX's own are refused.

    Args:
        path: The file.
        quantiles: The levels that it has, or None.
        sha256: What the file's SHA-256 has to be, in hexadecimal.
        limits: How much the file may ask for.

    Raises:
        CheckpointError: If the file is damaged, none of everlearn's or of a newer version, holds no policy of a market,
            or needs other files or operators than ONNX's own.
        ArgumentError: If other quantiles are asked for than the file has.
        ConfigError: If there is no such file.
        MissingExtraError: Without onnx or onnxruntime.
    """
    file = read_onnx(existing(path), limits or LIMITS, sha256)
    about = file.about
    if about.kind != "market" or about.features is None:
        problem = f"it holds a {about.kind} whose observations are not made of bars."
        raise Unsupported(file.file, problem, "Run it with onnxruntime; signals need one trained in a MarketEnv.", KEY)
    spec = _spec_of(file, about.features)
    if quantiles is not None and tuple(map(float, quantiles)) != about.levels:
        raise ArgumentError(
            f"quantiles={tuple(quantiles)}: {file.file} has {about.levels}, which are part of its graph. Leave the "
            "argument out, or export the model with others."
        )
    decision = OnnxDecision(_fitting_session(file, spec), spec, about.levels)
    _require_working(decision, spec, file)
    return spec, decision, about.model_id


def inputs_of(spec: FeatureSpec) -> dict[str, str]:
    """Names of the graph's inputs, each in words."""
    bars = {BARS: port("float64", "rows", spec.window, len(spec.features))}
    return bars | ({ACCOUNT: port("float32", "rows", len(spec.account))} if spec.account else {})


def outputs_of(levels: Sequence[float]) -> dict[str, str]:
    """Names of the graph's outputs, each in words."""
    plain = dict.fromkeys(OUTPUTS[:2], port("float32", "rows"))
    return plain | ({OUTPUTS[2]: port("float32", "rows", len(levels))} if levels else {})


def _spec_of(file: OnnxFile, features: dict[str, Any]) -> FeatureSpec:
    with refused(file.file, KEY):
        plain = {name: value for name, value in features.items() if name != "kind"}
        spec = TypeAdapter(FeatureSpec).validate_json(strict_json.dumps(plain), strict=True)
        if spec.as_dict() != features:
            raise StateError("the features say more than a FeatureSpec has.")
    return spec


def _fitting_session(file: OnnxFile, spec: FeatureSpec) -> Any:
    expected = {"inputs": inputs_of(spec), "outputs": outputs_of(file.about.levels)}
    for name, ports in expected.items():
        if (found := dict(getattr(file, name))) != ports:
            problem = f"the {name} are {_listed(found)}; its metadata ask for {_listed(ports)}."
            raise Mismatch(file.file, problem, _EXPORT, "graph")
    return session_of(file.content, file.file)


def _require_working(decision: OnnxDecision, spec: FeatureSpec, file: OnnxFile) -> None:
    """Refuse a graph that gives something else than it says."""
    failures: tuple[type[Exception], ...] = (*session_errors(), ValueError, IndexError)
    try:
        found = decision.block(np.zeros((BLOCK, spec.size)))
    except failures as error:
        raise Mismatch(file.file, f"it cannot be run: {first_line(error)}.", _EXPORT, "graph") from error
    if found.shape != (BLOCK, 2 + len(decision.levels)):
        raise Mismatch(file.file, f"it decides in the shape {found.shape}.", _EXPORT, "graph")


def _listed(ports: dict[str, str]) -> str:
    return ", ".join(f"{name}: {what}" for name, what in ports.items())
