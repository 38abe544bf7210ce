"""Models as ONNX files, which other programs run without everlearn and without torch."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch

from everlearn.checkpoint.files import write_file
from everlearn.core.errors import ArgumentError, StateError
from everlearn.core.finite import require_finite_state
from everlearn.markets.feature_spec import KIND
from everlearn.ppo.algorithm import PPO
from everlearn.ppo.policy import unwrapped
from everlearn.ppo.update import unchecked_distributions
from everlearn.signals.decision import Decision
from everlearn.signals.onnx_file import SUFFIX, About, first_line, messages, packed, ports, required, session_of
from everlearn.signals.onnx_graphs import MarketGraph, PolicyGraph
from everlearn.signals.onnx_parity import Arrays, MarketParity, Parity, PolicyParity, largest_difference
from everlearn.signals.predictor import UNSAVED, SignalPredictor

_LOGGERS = ("torch", "torch.__trace", "torch.onnx", "onnxscript", "onnx_ir")
"""Of the exporter, which tells of packages that it could use too."""
_NOTES = ("metadata_props", "doc_string")
"""Of a graph's parts: where in which program they come from, with paths of this machine."""


@dataclass(frozen=True)
class OnnxReport:
    """What an export has written.

    Attributes:
        file: Where.
        kind: ``market`` for a graph from bars to decisions, ``policy`` for one from observations to actions.
        opset: The version of ONNX's operators.
        inputs: Numbers and shape by name, as ``float32 (rows, 3)``.
        outputs: The same.
        largest_difference: Between onnxruntime and torch, relative to ``1 + |value|``.
        bytes: Size of the file.
    """

    file: Path
    kind: str
    opset: int
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    largest_difference: float
    bytes: int

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data."""
        return {**asdict(self), "file": str(self.file)}


def export_onnx(model: PPO, path: str | Path, *, quantiles: Sequence[float] | None = None) -> OnnxReport:
    """Write a model as one ONNX file, with normalisation and post-processing in the graph, once it does the same.

    A model that was trained in a ``MarketEnv`` becomes a graph from ``bars``, float64 (rows, window, features), as they
    are in a table, and ``account``, float32 (rows, account features), if it sees that, to ``score`` and ``position``,
    (rows,), and ``quantiles``, (rows, levels): what ``SignalPredictor`` decides, which can load the file. What comes
    out for a row with a NaN in its bars means nothing.

    Any other becomes a graph from ``observations``, (rows, *shape), to ``action``, as ``predict`` gives it, and
    ``value``, (rows,), in rewards of the environment. Observations are numbers of their space's own kind, as the
    environment inside a normaliser gives them, images with channels first; dictionaries are one input for each key,
    ``observations.KEY``.

    The graph is run by onnxruntime and compared with the policy on some hundred rows before anything is written:
    outputs may differ by 1e-5 relative to ``1 + |value|``, and discrete actions where two are equally likely to 1e-5.

    Args:
        model: A trained agent.
        path: The new file, whose name ends with ``.onnx``; what is there is replaced.
        quantiles: Levels of a market's value distribution, as for ``SignalPredictor.of``.

    Returns:
        What was written.

    Raises:
        ParityError: If the graph differs from the policy; nothing is written.
        StateError: If the policy has operations, observations or actions that are not exported.
        NonFiniteError: If a weight is not finite.
        ArgumentError: If the name does not end with ``.onnx``, or quantiles do not fit the model.
        SaveError: If the file cannot be written; the one before is untouched.
        MissingExtraError: Without onnx, onnxscript or onnxruntime.
    """
    out = Path(path)
    if out.suffix.lower() != SUFFIX:
        raise ArgumentError(f"{out}: ONNX files are known by their name. Let it end with {SUFFIX}.")
    for package in ("onnx", "onnxscript", "onnxruntime"):
        required(package)
    model.policy.set_training_mode(False)
    require_finite_state(model.policy.state_dict(), "policy")
    graph, parity, about = (_market if _is_market(model) else _policy)(model, quantiles)
    traced = trace(graph)
    content = packed(traced, about)
    difference = largest_difference(_runner(content, out), parity)
    write_file(out, [content])
    opset = max(each.version for each in traced.opset_import)
    ends = ports(traced.graph.input), ports(traced.graph.output)
    return OnnxReport(out, about.kind, opset, *ends, difference, len(content))


def trace(graph: MarketGraph | PolicyGraph) -> Any:
    """The module as an ``onnx.ModelProto`` for any number of rows, with nothing in it of the machine it was made on.

    Raises:
        StateError: If it has operations that ONNX does not have, or that depend on values.
    """
    rows, names = torch.export.Dim("rows"), list(graph.inputs)
    try:
        with _silence(), unchecked_distributions(), torch.no_grad():
            program: Any = torch.onnx.export(
                graph.eval(),
                tuple(graph.inputs.values()),
                dynamo=True,
                verbose=False,
                external_data=False,
                input_names=names,
                output_names=list(graph.outputs),
                dynamic_shapes=(tuple({0: rows} for _ in names),),
            )
    except torch.onnx.OnnxExporterError as error:
        reason = first_line(error.__cause__ or error).rstrip(".")
        raise StateError(
            f"The policy cannot be written as ONNX: {reason}. See that its own modules use operations of torch alone, "
            "and no branches on values."
        ) from error
    traced = program.model_proto
    for message in messages(traced):
        for name in _NOTES:
            if name in message.DESCRIPTOR.fields_by_name:
                message.ClearField(name)
    return traced


@contextmanager
def _silence() -> Iterator[None]:
    """Without the exporter's warnings, which are about itself, its logs of less than errors, and its prints."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


Subject = tuple[MarketGraph | PolicyGraph, Parity, About]


def _is_market(model: PPO) -> bool:
    return (model.policy_interface or {}).get("kind") == KIND


def _market(model: PPO, quantiles: Sequence[float] | None) -> Subject:
    predictor = SignalPredictor.of(model, quantiles=quantiles)
    spec, decision = predictor.spec, cast(Decision, predictor.decide)
    named = _named(model, "market", predictor.model_id)
    return (
        MarketGraph(spec, decision),
        MarketParity(spec, decision),
        About(features=spec.as_dict(), levels=decision.levels, **named),
    )


def _policy(model: PPO, quantiles: Sequence[float] | None) -> Subject:
    if quantiles:
        raise ArgumentError(f"quantiles={tuple(quantiles)}: only models of a MarketEnv are exported with quantiles.")
    policy, statistics = unwrapped(model.policy), model.normaliser_state
    about = About(**_named(model, "policy", str(model.parent_content or UNSAVED)))
    return PolicyGraph(policy, statistics), PolicyParity(policy, statistics), about


def _named(model: PPO, kind: str, model_id: str) -> dict[str, Any]:
    about = {"everlearn": version("everlearn"), "kind": kind, "model_id": model_id}
    return about | {"action_space": str(model.action_space)}


def _runner(content: bytes, out: Path) -> Callable[[Arrays], Arrays]:
    """The file's graph as a function."""
    session = session_of(content, out)
    names = [each.name for each in session.get_outputs()]
    return lambda given: dict(zip(names, session.run(names, dict(given)), strict=True))
