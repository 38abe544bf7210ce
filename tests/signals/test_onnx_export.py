"""Models as ONNX: the graph does what the policy does, or it is not written."""

import copy
import json
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import onnx
import onnxruntime
import polars as pl
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common import distributions as sb3
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack

from everlearn import __version__
from everlearn.checkpoint.errors import SaveError
from everlearn.checkpoint.files import observed
from everlearn.core.errors import ArgumentError, MissingExtraError, NonFiniteError, StateError
from everlearn.environments.normaliser import Normaliser
from everlearn.environments.statistics import normalised
from everlearn.markets.feature_spec import FeatureSpec
from everlearn.ppo.algorithm import PPO, DistributionalPPO
from everlearn.signals import onnx_export
from everlearn.signals.onnx_export import export_onnx
from everlearn.signals.onnx_graphs import MarketGraph, PolicyGraph
from everlearn.signals.onnx_parity import (
    TOLERANCE,
    MarketParity,
    ParityError,
    PolicyParity,
    action_unit,
    largest_difference,
    relative,
    shortfall,
    value_unit,
)
from everlearn.signals.predictor import LEVELS, SignalPredictor
from tests.signals.exported import NET, SMALL, already_traced, bars, export, trained

MARKETS = ["continuous", "discrete"]
POLICIES = ["cartpole", "pendulum", "squashed pendulum"]
SLOW_MARKETS = [pytest.param(name, marks=pytest.mark.slow) for name in ("categorical", "squashed market")]


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])


def document(path: Path) -> dict[str, Any]:
    (entry,) = onnx.load(path).metadata_props
    assert entry.key == "everlearn"
    return json.loads(entry.value)


def drawn(model: PPO, rows: int) -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, (rows, *model.observation_space.shape)).astype(np.float32)


# --- markets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*MARKETS, *SLOW_MARKETS])
def test_signals_of_the_file_are_those_of_the_model(name: str) -> None:
    plain = {"dead_zone": 0.0}
    table, model = bars(), trained(name)
    expected = SignalPredictor.of(model).with_thresholds(plain).predict(table)
    found = SignalPredictor.load(export(name)[0]).with_thresholds(plain).predict(table)
    assert found.schema == expected.schema
    assert set(expected["reason"].unique()) == {"ok", "warmup", "nan_feature", "out_of_range", "stale"}
    numbers = expected.select(pl.col(pl.Float32)).columns
    others = pl.exclude("decided_at", *numbers)
    assert found.select(others).equals(expected.select(others))
    for column in numbers:
        known = expected[column]
        assert known.null_count() == (~expected["valid"]).sum() > 0
        assert found[column].is_null().equals(known.is_null())
        assert known.drop_nulls().n_unique() > 2 or name in ("discrete", "categorical")
        assert relative(found[column].drop_nulls().to_numpy(), known.drop_nulls().to_numpy()) <= TOLERANCE


def test_the_graph_takes_bars_as_they_are_in_a_table_any_number_at_once() -> None:
    path, _ = export("discrete")
    model, run = trained("discrete"), session(path)
    env = model.get_env().envs[0].unwrapped
    series = env.series[0]
    table = env.series[0].windows
    ready = slice(series.first, series.first + 50)
    observations = table.observations(ready)
    spec = FeatureSpec.of(model)
    raw = observations.reshape(50, spec.window, -1).astype(np.float64) * spec.std + spec.mean
    score, position = run.run(["score", "position"], {"bars": raw})
    assert np.abs(position - SignalPredictor.of(model).act(observations)).max() <= TOLERANCE
    one = np.concatenate([run.run(["score"], {"bars": raw[row : row + 1]})[0] for row in range(50)])
    assert relative(one, score) <= TOLERANCE
    assert score.shape == position.shape == (50,)


def test_a_file_says_what_it_is() -> None:
    path, report = export("continuous")
    model = trained("continuous")
    about = document(path)
    assert about.pop("sha256")
    assert about == {
        "format": "everlearn_onnx",
        "version": 1,
        "everlearn": __version__,
        "kind": "market",
        "model_id": "unsaved",
        "features": json.loads(json.dumps(FeatureSpec.of(model).as_dict())),
        "levels": list(LEVELS),
        "action_space": "Box(-1.0, 1.0, (1,), float32)",
    }
    assert report.as_dict() == {
        "file": str(path),
        "kind": "market",
        "opset": onnx.load(path).opset_import[0].version,
        "inputs": {"bars": "float64 (rows, 4, 3)", "account": "float32 (rows, 2)"},
        "outputs": {"score": "float32 (rows)", "position": "float32 (rows)", "quantiles": "float32 (rows, 3)"},
        "largest_difference": report.largest_difference,
        "bytes": path.stat().st_size,
    }
    assert 0 < report.largest_difference <= TOLERANCE
    onnx.checker.check_model(onnx.load(path), full_check=True)


def test_a_file_names_the_content_that_its_model_was_loaded_from(tmp_path: Path, monkeypatch: Any) -> None:
    trained("discrete").save(tmp_path / "model.zip")
    model = PPO.load(tmp_path / "model.zip", device="cpu")
    monkeypatch.setattr(onnx_export, "trace", already_traced("discrete"))
    export_onnx(model, tmp_path / "model.onnx")
    assert model.parent_content
    assert document(tmp_path / "model.onnx")["model_id"] == model.parent_content


@pytest.mark.slow
def test_quantiles_are_those_that_are_asked_for(tmp_path: Path) -> None:
    model = trained("continuous")
    report = export_onnx(model, tmp_path / "none.onnx", quantiles=())
    assert list(report.outputs) == ["score", "position"]
    assert document(tmp_path / "none.onnx")["levels"] == []
    export_onnx(model, tmp_path / "one.onnx", quantiles=[0.25])
    assert SignalPredictor.load(tmp_path / "one.onnx").predict(bars()).columns[5] == "value_q25"


# --- other policies ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", POLICIES)
def test_actions_and_values_are_those_of_the_model(name: str) -> None:
    """With the normaliser's statistics, the bounds of actions, and values in rewards of the environment."""
    path, _ = export(name)
    model = trained(name)
    observations = 2 * drawn(model, 200)
    action, value = session(path).run(["action", "value"], {"observations": observations})
    seen = model.normalize_obs(observations)
    expected = model.predict(seen, deterministic=True)[0]
    state = model.normaliser_state
    unit = 1.0 if state is None else float(torch.sqrt(state["ret_rms"]["var"] + 1e-8))
    with torch.no_grad():
        values = model.policy.predict_values(model.policy.obs_to_tensor(seen)[0]).flatten().numpy() * unit
    assert action.dtype == expected.dtype
    assert relative(action, expected) <= TOLERANCE
    assert relative(value, values, max(1.0, unit)) <= TOLERANCE
    assert len(np.unique(action)) > 1
    assert document(path)["kind"] == "policy"


def test_actions_beyond_the_bounds_are_clipped() -> None:
    model = trained("pendulum")
    action, _ = session(export("pendulum")[0]).run(None, {"observations": drawn(model, 200)})
    assert (np.abs(action) <= 2).all()
    assert 0 < (np.abs(action) == 2).sum() < 200


def test_squashed_actions_fill_their_range() -> None:
    model = copy.deepcopy(trained("squashed pendulum").policy)
    with torch.no_grad():
        model.action_net.weight *= 1000
        graph = PolicyGraph(model)
        action, _ = graph(torch.from_numpy(drawn(trained("squashed pendulum"), 200)))
    assert 1.9 < float(action.max()) <= 2
    assert -2 <= float(action.min()) < -1.9


class Anything(gymnasium.Env):
    """Draws observations from a space, and takes any action."""

    def __init__(self, observations: spaces.Space, actions: spaces.Space) -> None:
        self.observation_space, self.action_space = observations, actions

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.observation_space.sample(), 1.0, False, False, {}


def box(*shape: int, low: float = -np.inf, high: float = np.inf, dtype: type = np.float32) -> spaces.Box:
    return spaces.Box(low, high, shape, dtype)


IMAGE = box(36, 36, 3, low=0, high=255, dtype=np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("policy", "observations", "actions", "inputs"),
    [
        ("MlpPolicy", box(3), spaces.MultiDiscrete([3, 5, 2]), {"observations": "float32 (rows, 3)"}),
        ("MlpPolicy", box(3, 2), spaces.MultiBinary(4), {"observations": "float32 (rows, 3, 2)"}),
        ("MlpPolicy", box(3, dtype=np.float64), box(2, low=-500, high=300), {"observations": "float64 (rows, 3)"}),
        ("CnnPolicy", IMAGE, spaces.Discrete(4), {"observations": "uint8 (rows, 3, 36, 36)"}),
        (
            "MultiInputPolicy",
            spaces.Dict({"seen": box(2, 2), "action": box(3)}),
            box(2, 2, low=-1, high=1),
            {"observations.action": "float32 (rows, 3)", "observations.seen": "float32 (rows, 2, 2)"},
        ),
    ],
)
def test_other_spaces(
    tmp_path: Path, policy: str, observations: spaces.Space, actions: spaces.Space, inputs: dict[str, str]
) -> None:
    venv = DummyVecEnv([lambda: Anything(observations, actions)])
    venv = venv if policy == "CnnPolicy" else Normaliser(venv)
    network = {} if policy == "CnnPolicy" else {"policy_kwargs": NET}
    model = DistributionalPPO(policy, venv, **network, **SMALL)
    assert export_onnx(model, tmp_path / "model.onnx").inputs == inputs


# --- what is not written ----------------------------------------------------------------------------------------------


@contextmanager
def another(tensor: torch.Tensor, change: float = 1e-3) -> Iterator[None]:
    """The tensor's first number is a little larger for a while."""
    before = tensor.detach().clone()
    with torch.no_grad():
        tensor.view(-1)[0] += change
        yield
        tensor.copy_(before)


@pytest.mark.parametrize(
    ("name", "part", "output"),
    [
        ("continuous", "action_net.bias", "score"),
        ("continuous", "critics.0.value_net.weight", "quantiles"),
        ("discrete", "action_net.weight", "score"),
        ("pendulum", "mlp_extractor.policy_net.0.weight", "action"),
        ("pendulum", "return_scale.mean", "value"),
        ("cartpole", "value_net.bias", "value"),
    ],
)
def test_a_graph_that_differs_from_the_policy_is_not_written(
    tmp_path: Path, monkeypatch: Any, name: str, part: str, output: str
) -> None:
    out = tmp_path / "model.onnx"
    out.write_text("before")
    monkeypatch.setattr(onnx_export, "trace", already_traced(name))
    model = trained(name)
    parts = {**dict(model.policy.named_parameters()), **dict(model.policy.named_buffers())}
    with another(parts[part]), pytest.raises(ParityError, match=f"'{output}' differs .* by .*e-.* nothing was") as told:
        export_onnx(model, out)
    assert told.value.output == output
    assert TOLERANCE < told.value.difference < 1
    assert [*tmp_path.iterdir()] == [out]
    assert out.read_text() == "before"


@pytest.mark.parametrize("name", ["continuous", "pendulum"])
def test_a_graph_with_other_statistics_is_not_written(tmp_path: Path, monkeypatch: Any, name: str) -> None:
    model = trained(name)
    mean = model.get_vec_normalize_env().obs_rms.mean
    monkeypatch.setattr(onnx_export, "trace", already_traced(name))
    monkeypatch.setattr(model.get_vec_normalize_env().obs_rms, "mean", mean + 1e-2)
    with pytest.raises(ParityError):
        export_onnx(model, tmp_path / "model.onnx")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("clip", [9.9, 10.1])
def test_a_graph_that_clips_otherwise_is_caught(clip: float) -> None:
    predictor = SignalPredictor.of(trained("discrete"))
    run, names = session(export("discrete")[0]), ("score", "position")
    spec = FeatureSpec.from_dict({**predictor.spec.as_dict(), "clip": clip})
    with pytest.raises(ParityError):
        largest_difference(lambda given: dict(zip(names, run.run(names, given), strict=True)), of(predictor, spec))
    found = largest_difference(lambda given: dict(zip(names, run.run(names, given), strict=True)), of(predictor))
    assert found == export("discrete")[1].largest_difference


def of(predictor: SignalPredictor, spec: FeatureSpec | None = None) -> MarketParity:
    return MarketParity(spec or predictor.spec, predictor.decide)


@pytest.mark.parametrize("operation", ["save:write", "save:replace"])
def test_a_failed_write_leaves_the_file_before(tmp_path: Path, monkeypatch: Any, operation: str) -> None:
    def full(name: str, path: Path) -> None:
        if name == operation:
            raise OSError(28, "No space left on device")

    out = tmp_path / "model.onnx"
    out.write_text("before")
    monkeypatch.setattr(onnx_export, "trace", already_traced("cartpole"))
    with observed(full), pytest.raises(SaveError, match=r"model\.onnx: it cannot be written .No space left"):
        export_onnx(trained("cartpole"), out)
    assert [*tmp_path.iterdir()] == [out]
    assert out.read_text() == "before"


class Branching(BaseFeaturesExtractor):
    def __init__(self, space: spaces.Box) -> None:
        super().__init__(space, 4)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return observations if observations.sum() > 0 else -observations


def test_a_policy_that_branches_on_values_is_refused(tmp_path: Path, capfd: Any) -> None:
    policy = {**NET, "features_extractor_class": Branching}
    model = PPO("MlpPolicy", "CartPole-v1", policy_kwargs=policy, **SMALL)
    with pytest.raises(StateError, match=r"cannot be written as ONNX: .*data-dependent.*no branches on values"):
        export_onnx(model, tmp_path / "model.onnx")
    assert [*tmp_path.iterdir()] == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "out", "options", "error", "message"),
    [
        ("cartpole", "model.zip", {}, ArgumentError, r"model.zip: .*Let it end with .onnx"),
        ("cartpole", "model.onnx", {"quantiles": [0.5]}, ArgumentError, "only models of a MarketEnv"),
        ("discrete", "model.onnx", {"quantiles": [0.5]}, ArgumentError, "predict no distribution"),
        ("continuous", "model.onnx", {"quantiles": [1.5]}, ArgumentError, "quantiles=1.5 is outside"),
    ],
)
def test_arguments_that_do_not_fit(
    tmp_path: Path, name: str, out: str, options: Mapping[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        export_onnx(trained(name), tmp_path / out, **options)
    assert [*tmp_path.iterdir()] == []


def test_weights_that_are_not_finite_are_not_exported(tmp_path: Path) -> None:
    model = trained("cartpole")
    with another(model.policy.value_net.bias, np.nan), pytest.raises(NonFiniteError, match=r"policy.value_net.bias"):
        export_onnx(model, tmp_path / "model.onnx")


def test_observations_of_kinds_that_were_never_tried_are_refused(tmp_path: Path) -> None:
    venv = DummyVecEnv([lambda: Anything(spaces.Discrete(5), spaces.Discrete(2))])
    with pytest.raises(StateError, match=r"observations are Discrete\(5\): ONNX files take Box"):
        export_onnx(PPO("MlpPolicy", venv, policy_kwargs=NET, **SMALL), tmp_path / "model.onnx")


def test_a_normaliser_within_another_wrapper_is_refused(tmp_path: Path) -> None:
    venv = VecFrameStack(Normaliser(DummyVecEnv([lambda: gymnasium.make("CartPole-v1")])), 2)
    with pytest.raises(StateError, match="A normaliser within other wrappers cannot be exported"):
        export_onnx(PPO("MlpPolicy", venv, policy_kwargs=NET, **SMALL), tmp_path / "model.onnx")


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_names_the_pip_command(tmp_path: Path, monkeypatch: Any, package: str) -> None:
    model = trained("cartpole")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"'{package}'.*pip install 'everlearn\[onnx\]'"):
        export_onnx(model, tmp_path / "model.onnx")


# --- what an export leaves behind -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("untouched_generators")
def test_an_export_leaves_no_trace_in_the_process_and_none_of_it_in_the_file(tmp_path: Path, capfd: Any) -> None:
    model = trained("cartpole")
    names = ("", "torch", "torch.onnx", "onnxscript", "onnx_ir")
    for validate in (True, False):
        torch.distributions.Distribution.set_default_validate_args(validate)
        before = [logging.getLogger(name).level for name in names], list(warnings.filters), torch.is_grad_enabled()
        export_onnx(model, tmp_path / f"{validate}.onnx")
        after = [logging.getLogger(name).level for name in names], list(warnings.filters), torch.is_grad_enabled()
        assert after == before
        assert torch.distributions.Distribution._validate_args is validate
    assert capfd.readouterr() == ("", "")
    one, other = (path.read_bytes() for path in tmp_path.iterdir())
    assert one == other
    for word in (b"stack_trace", b"site-packages", b".py"):
        assert word not in one


# --- how two are compared ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "expected", "unit", "difference"),
    [
        ([1.0, 3.0], [1.0, 1.0], 1.0, 1.0),
        ([0.0, 99.0], [0.0, 100.0], 1.0, 1 / 101),
        ([1.0], [0.0], 99.0, 1 / 99),
        ([np.inf, 1.0], [np.inf, 1.0], 1.0, 0.0),
        ([np.nan], [np.nan], 1.0, np.inf),
        ([np.nan], [0.0], 1.0, np.inf),
        ([np.inf], [1.0], 1.0, np.inf),
        ([1.0], [np.inf], 1.0, np.inf),
        ([1.0], [1.0, 1.0], 1.0, np.inf),
        ([], [], 1.0, 0.0),
    ],
)
def test_differences_are_relative_to_a_unit_and_the_size(
    found: list[float], expected: list[float], unit: float, difference: float
) -> None:
    assert relative(np.array(found), np.array(expected), unit) == pytest.approx(difference)


def categorical(*probabilities: float) -> sb3.Distribution:
    distribution = sb3.CategoricalDistribution(len(probabilities))
    return distribution.proba_distribution(torch.tensor([probabilities], dtype=torch.float64).log())


@pytest.mark.parametrize(
    ("action", "difference"), [(0, 0.0), (1, 4e-6), (2, 0.2000008), (3, np.inf), (-1, np.inf), (0.5, np.inf)]
)
def test_discrete_actions_may_differ_where_two_are_equally_likely(action: float, difference: float) -> None:
    distribution = categorical(0.4, 0.4 - 4e-6, 0.2)
    assert shortfall(np.array([action]), distribution) == pytest.approx(difference, abs=1e-9)


@pytest.mark.parametrize(("action", "difference"), [((1, 0), 0.0), ((0, 0), 0.6), ((1, 1), 0.2), ((1, 2), np.inf)])
def test_each_of_several_binary_actions_is_compared(action: tuple[int, int], difference: float) -> None:
    distribution = sb3.BernoulliDistribution(2).proba_distribution(torch.tensor([[0.8, 0.4]]).logit())
    assert shortfall(np.array([action]), distribution) == pytest.approx(difference, abs=1e-6)


@pytest.mark.parametrize(("action", "difference"), [((1, 2), 0.0), ((0, 2), 0.4), ((1, 0), 0.3)])
def test_each_of_several_choices_is_compared(action: tuple[int, int], difference: float) -> None:
    probabilities = torch.tensor([[0.3, 0.7, 0.2, 0.3, 0.5]])
    distribution = sb3.MultiCategoricalDistribution([2, 3]).proba_distribution(probabilities.log())
    assert shortfall(np.array([action]), distribution) == pytest.approx(difference, abs=1e-6)


def test_a_quantile_may_be_that_of_a_level_a_hair_beside_and_no_further() -> None:
    """Half of the mass lies on the lower 32 of 64 equal atoms, so that rounding decides which is the median."""
    predictor = SignalPredictor.of(trained("continuous"), quantiles=[0.5])
    parity = of(predictor)
    given = parity.inputs(np.random.default_rng(0), 20)
    for level, allowed in ((0.5, True), (0.500005, True), (0.52, False)):
        graph = MarketGraph(predictor.spec, SignalPredictor.of(trained("continuous"), quantiles=[level]).decide)
        with torch.no_grad():
            found = graph(*(torch.from_numpy(each) for each in given.values()))
        outputs = dict(zip(graph.outputs, (each.numpy() for each in found), strict=True))
        differences = dict(parity.differences(given, outputs))
        assert (differences["quantiles"] <= TOLERANCE) is allowed
        assert differences["score"] <= TOLERANCE


def test_values_and_scaled_actions_are_compared_in_their_own_units() -> None:
    model = trained("pendulum")
    state = model.normaliser_state
    reward = float(torch.sqrt(state["ret_rms"]["var"] + 1e-8))
    assert value_unit(model.policy, state) == pytest.approx(reward * float(model.policy.return_scale.std))
    assert value_unit(trained("cartpole").policy, None) == 1.0
    assert action_unit(trained("squashed pendulum").policy) == 2.0
    assert action_unit(model.policy) == action_unit(trained("cartpole").policy) == 1.0


def test_inputs_are_in_their_space_and_reach_what_is_clipped() -> None:
    generator = np.random.default_rng(0)
    spec = FeatureSpec.of(trained("discrete"))
    drawn_bars = of(SignalPredictor.of(trained("discrete"))).inputs(generator, 64)["bars"]
    sizes = np.abs((drawn_bars - spec.mean) / spec.std)
    assert 0.02 < (sizes > spec.clip).mean() < 0.25
    cartpole = PolicyParity(trained("cartpole").policy).inputs(generator, 64)["observations"]
    space = trained("cartpole").observation_space
    assert all(space.contains(row) for row in cartpole)
    assert cartpole[:, 0].std() > 2  # all over the range that is finite
    model = trained("pendulum")
    state = model.normaliser_state
    given = PolicyParity(model.policy, state).inputs(generator, 64)["observations"]
    assert (given >= model.observation_space.low).all()
    assert (np.abs(normalised(given, state)) <= 10).all()


def test_a_state_normalises_tensors_as_it_does_arrays() -> None:
    state = trained("pendulum").normaliser_state
    observations = (20 * np.random.default_rng(0).standard_normal((50, 3))).astype(np.float32)
    found = normalised(torch.from_numpy(observations), state)
    assert found.dtype == torch.float32
    assert (found.numpy() == normalised(observations, state)).all()
    assert (np.abs(found.numpy()) == state["settings"]["clip_obs"]).any()
    parts = {"": torch.from_numpy(observations), "other": torch.ones(2)}
    assert normalised(parts, state)["other"] is parts["other"]
    assert torch.equal(normalised(parts, state)[""], found)
