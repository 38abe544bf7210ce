"""Whether a graph does what the policy does: compared on inputs of its own before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, final

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common import distributions as sb3
from stable_baselines3.common.policies import ActorCriticPolicy as SB3ActorCriticPolicy
from torch import Tensor

from everlearn.core.errors import EverlearnError
from everlearn.environments.statistics import normalised
from everlearn.markets.feature_spec import FeatureSpec
from everlearn.markets.instants import SECOND
from everlearn.markets.windows import FeatureWindows
from everlearn.signals.decision import POSITION, QUANTILES, SCORE, Decision, in_blocks, reward_unit
from everlearn.signals.onnx_decision import ACCOUNT, BARS
from everlearn.signals.onnx_graphs import observation_parts

TOLERANCE = 1e-5
_BATCHES = (256, 61, 2, 1)
_SEED = 20_250
_FAR = 30.0
"""Standard deviations of some of the inputs: beyond what is clipped by default."""

Arrays = Mapping[str, np.ndarray]


class ParityError(EverlearnError):
    """An exported graph does something else than the policy.

    Args:
        output: Which of its outputs.
        difference: How much, relative to one more than the size of the value.
    """

    def __init__(self, output: str, difference: float) -> None:
        self.output, self.difference = output, difference
        super().__init__(
            f"The ONNX graph's '{output}' differs from the policy's by {difference:.2g} relative to 1 + |value|, and "
            f"{TOLERANCE:g} is allowed; nothing was written. Export with other versions of torch, onnxscript and "
            "onnxruntime; if the policy has modules of its own, see that they do the same in any batch."
        )


class Parity(Protocol):
    """Inputs of a graph, and how its outputs compare with what the policy does by the ways that exist without ONNX."""

    def inputs(self, generator: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
        """So many rows."""
        ...

    def differences(self, given: Arrays, found: Arrays) -> Iterator[tuple[str, float]]:
        """The largest difference of each output that was found."""
        ...


def largest_difference(run: Callable[[Arrays], Arrays], parity: Parity) -> float:
    """The largest difference of a graph's outputs, relative to ``1 + |value|``, over some hundred rows.

    Args:
        run: From inputs to outputs by name.
        parity: What they are compared with.

    Raises:
        ParityError: If one is above ``TOLERANCE``, or no number.
    """
    generator, largest = np.random.default_rng(_SEED), 0.0
    for rows in _BATCHES:
        given = parity.inputs(generator, rows)
        for name, difference in parity.differences(given, run(given)):
            if not difference <= TOLERANCE:
                raise ParityError(name, difference)
            largest = max(largest, difference)
    return largest


@final
class MarketParity:
    """Bars around the specification's statistics, decided on as ``SignalPredictor`` decides on a table's windows.

    Args:
        spec: What an observation is.
        decision: What is decided on it.
    """

    def __init__(self, spec: FeatureSpec, decision: Decision) -> None:
        policy, levels = decision.policy, decision.levels
        beside = [level + distance for distance in (-TOLERANCE, TOLERANCE) for level in levels]
        self._spec, self._decision = spec, Decision(policy, beside, decision.statistics)
        self._unit = value_unit(policy, decision.statistics)

    def inputs(self, generator: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
        """Bars, some of them beyond what is clipped, and features of the account."""
        spec = self._spec
        shape = (rows, spec.window, len(spec.features))
        bars = np.array(spec.mean) + np.array(spec.std) * _around_zero(generator, shape)
        account = generator.standard_normal((rows, len(spec.account))).astype(np.float32)
        return {BARS: bars} | ({ACCOUNT: account} if spec.account else {})

    def differences(self, given: Arrays, found: Arrays) -> Iterator[tuple[str, float]]:
        """Scores and positions; quantiles by their distance from those at levels a little lower and higher."""
        seen = self._seen(given)
        expected = in_blocks(self._decision, seen)
        yield "score", relative(found["score"], expected[:, SCORE])
        with torch.inference_mode():
            distribution = self._decision.policy.get_distribution(_tensor(seen, self._decision.policy))
        if isinstance(distribution, sb3.CategoricalDistribution):
            yield "position", shortfall(found["position"] + 1.0, distribution)
        else:
            yield "position", relative(found["position"], expected[:, POSITION])
        if "quantiles" in found:
            low, high = np.split(expected[:, QUANTILES:], 2, axis=1)
            yield "quantiles", relative(found["quantiles"], found["quantiles"].clip(low, high), self._unit)

    def _seen(self, given: Arrays) -> np.ndarray:
        """As a ``FeatureWindows`` gives it, of a table in which each row's bars follow those of the row before."""
        bars, window = given[BARS], self._spec.window
        values = bars.reshape(-1, bars.shape[-1])
        windows = FeatureWindows(self._spec, values, np.arange(len(values)) * SECOND)
        return self._decision.look(windows, slice(window - 1, None, window), given.get(ACCOUNT))


@final
class PolicyParity:
    """Observations within their space, acted on by the policy's own ``predict``.

    Args:
        policy: An actor-critic policy.
        statistics: State of the normaliser that was around the environment in training; None if there was none.
    """

    def __init__(self, policy: SB3ActorCriticPolicy, statistics: Mapping[str, Any] | None = None) -> None:
        self._policy, self._statistics = policy, statistics
        self._keys, self._parts = observation_parts(policy.observation_space)
        self._value_unit = value_unit(policy, statistics)
        self._action_unit = action_unit(policy)

    def inputs(self, generator: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
        """Observations, around what was seen in training where that is known."""
        known = {} if self._statistics is None else self._statistics["obs_rms"]
        keys = [""] if self._keys is None else self._keys
        drawn = {}
        for key, (name, space) in zip(keys, self._parts.items(), strict=True):
            drawn[name] = _drawn(generator, rows, space, known.get(key))
        return drawn

    @torch.inference_mode()
    def differences(self, given: Arrays, found: Arrays) -> Iterator[tuple[str, float]]:
        """Actions and values."""
        policy: Any = self._policy
        parts = list(given.values())
        seen: Any = parts[0] if self._keys is None else dict(zip(self._keys, parts, strict=True))
        if self._statistics is not None:
            seen = normalised(seen, self._statistics)
        observations = policy.obs_to_tensor(seen)[0]
        actions = policy.predict(seen, deterministic=True)[0]
        distribution = policy.get_distribution(observations)
        if found["action"].shape != actions.shape or found["action"].dtype != actions.dtype:
            yield "action", np.inf
        elif isinstance(policy.action_space, spaces.Box):
            yield "action", relative(found["action"], actions, self._action_unit)
        else:
            yield "action", shortfall(found["action"], distribution)
        values = policy.predict_values(observations).flatten().cpu().numpy() * reward_unit(self._statistics)
        yield "value", relative(found["value"], values, self._value_unit)


# --- differences ------------------------------------------------------------------------------------------------------


def relative(found: np.ndarray, expected: np.ndarray, unit: Any = 1.0) -> float:
    """The largest ``|found - expected| / (unit + |expected|)``; infinite where shapes differ or one is no number.

    Args:
        found: An array.
        expected: Another.
        unit: In which both are computed, at least 1: what is 0 in a unit of 100 is rounded as 100 is.
    """
    if found.shape != expected.shape:
        return np.inf
    with np.errstate(invalid="ignore"):
        differences = np.abs(found.astype(np.float64) - expected) / (unit + np.abs(expected))
    differences[found == expected] = 0.0  # infinities among them
    return float(np.nan_to_num(differences, nan=np.inf, posinf=np.inf).max(initial=0.0))


def shortfall(actions: np.ndarray, distribution: sb3.Distribution) -> float:
    """By how much the likeliest action is likelier than the one that was found, at most; infinite for no action.

    Args:
        actions: (rows, ...), each a number of choices, as the distribution counts them.
        distribution: Over discrete actions.
    """
    chosen = torch.from_numpy(actions.reshape(len(actions), -1).astype(np.float64))
    largest = 0.0
    for column, probabilities in zip(chosen.T, _probabilities(distribution), strict=True):
        index = column.long()
        if bool(((index != column) | (index < 0) | (index >= probabilities.shape[1])).any()):
            return np.inf
        found = probabilities.gather(1, index.unsqueeze(1)).squeeze(1)
        largest = max(largest, float((probabilities.amax(1) - found).max()))
    return largest


def value_unit(policy: SB3ActorCriticPolicy, statistics: Mapping[str, Any] | None) -> float:
    """The length of the unit in which critics predict, in rewards of the environment; at least 1."""
    scale: Any = getattr(policy, "return_scale", None)
    return max(1.0, (1.0 if scale is None else float(scale.std)) * reward_unit(statistics))


def action_unit(policy: SB3ActorCriticPolicy) -> Any:
    """Half the range of actions that are scaled to it; at least 1."""
    space = policy.action_space
    if isinstance(space, spaces.Box) and policy.squash_output:
        return np.maximum(1.0, (space.high.astype(np.float64) - space.low) / 2)
    return 1.0


def _probabilities(distribution: sb3.Distribution) -> list[Tensor]:
    """Of the choices of each component of an action, (rows, choices)."""
    found: Any = distribution.distribution
    if isinstance(distribution, sb3.BernoulliDistribution):
        return [torch.stack([1.0 - column, column], dim=1).cpu() for column in found.probs.T]
    return [each.probs.cpu() for each in (found if isinstance(found, list) else [found])]


# --- inputs -----------------------------------------------------------------------------------------------------------


def _around_zero(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal numbers, (rows, ...); in one row of four some of them are ``_FAR`` times as large."""
    drawn = generator.standard_normal(shape)
    far = generator.random(shape) < 0.25
    far[np.arange(len(far)) % 4 != 0] = False
    return np.where(far, _FAR * drawn, drawn)


def _drawn(
    generator: np.random.Generator, rows: int, space: spaces.Space[Any], statistics: Mapping[str, Any] | None
) -> np.ndarray:
    """Values of a Box: about as in training where that is known; else anywhere in it, if its bounds are near."""
    box: Any = space
    low, high = box.low.astype(np.float64), box.high.astype(np.float64)
    around = _around_zero(generator, (rows, *box.shape))
    if statistics is not None:
        around = statistics["mean"].numpy() + np.sqrt(statistics["var"].numpy()) * around
    near = np.isfinite(high - low) & (high - low < 1e6) & (statistics is None)
    share = generator.random((rows, *box.shape))
    with np.errstate(invalid="ignore"):
        within = low + share * (high - low)
    values = np.where(near, within, around.clip(low, high))
    return np.asarray(values.round() if np.issubdtype(box.dtype, np.integer) else values, box.dtype)


def _tensor(seen: np.ndarray, policy: SB3ActorCriticPolicy) -> Tensor:
    return torch.from_numpy(seen).to(policy.device)
