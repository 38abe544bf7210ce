"""Members that train together: what each would learn alone, whatever becomes of the others."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback
from stable_baselines3.common.vec_env import DummyVecEnv

from everlearn import PPO, DistributionalPPO
from everlearn.core import graphs
from everlearn.core.digest import digest
from everlearn.core.errors import ArgumentError, NonFiniteError
from everlearn.core.rng import GlobalGenerators, kept_generators
from everlearn.ppo import compiled, stacked
from everlearn.ppo.training_together import Together
from tests.ppo.side_by_side import (
    STEPS,
    Members,
    assert_same,
    everything,
    learn,
    logged,
    plain,
    run,
)
from tests.ppo.updates import assert_close_at_scale, learned, model_of
from tests.ppo.worlds import world

needs_compiler = pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Graphs are their own functions, called on copies once as a trace is; the number of rows of each that was made."""
    made: list[int] = []

    def as_it_is(function: Any, example: Any) -> Any:
        flags = example[-1]
        made.append(len(flags) if flags.dim() == 2 else 0)
        function(*(tensor.clone() for tensor in example))
        return function

    for module in (compiled, stacked):
        monkeypatch.setattr(module, "compiled", as_it_is)
    return made


@pytest.fixture
def alone_uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the graph of several members is compiled, which takes long enough."""

    def as_it_is(function: Any, example: Any) -> Any:
        function(*(tensor.clone() for tensor in example))
        return function

    monkeypatch.setattr(compiled, "compiled", as_it_is)


@needs_compiler
@pytest.mark.usefixtures("alone_uncompiled", "untouched_generators")
@pytest.mark.slow
@pytest.mark.parametrize("members", [plain, everything])
def test_each_learns_what_it_learns_alone_by_one_graph_for_all_runs(members: Any) -> None:
    """Twice the same to the bit, with other numbers by the same graph, also in a training that is continued."""
    compilations = graphs.compilations
    alone, twins, again = members(), members(), members()
    alone.alone(learn)
    together = twins.together()
    assert run(together, learn) == twins.models
    assert graphs.compilations == compilations + 1
    for found, expected in zip(twins.models, alone.models, strict=True):
        assert (found.update_compiler.compiled, found.update_compiler.reason) == (True, None)
        assert_same(found, expected)
        assert logged(found) == pytest.approx(logged(expected), rel=1e-3, abs=1e-4)
    assert [*map(digest, together.generators)] == [*map(digest, alone.generators)]
    assert len({digest(state) for state in together.generators}) == 3

    first = [digest(learned(model)) for model in twins.models]
    together.models[:], together.generators[:] = again.models, again.generators
    run(together, learn)
    assert [digest(learned(model)) for model in again.models] == first

    def change_and_learn(model: PPO) -> PPO:
        model.set_hyperparameter("learning_rate", 1e-3 * (1 + model.seed))
        model.ent_coef, model.gamma, model.max_grad_norm = 0.05, 0.9, 0.2 + 0.1 * model.seed
        model.clip_range = 0.15
        return model.learn(64, reset_num_timesteps=False)

    alone.alone(change_and_learn)
    run(together, change_and_learn)
    assert graphs.compilations == compilations + 1
    for found, expected in zip(again.models, alone.models, strict=True):
        assert_same(found, expected, 1e-3)
    assert [*map(digest, together.generators)] == [*map(digest, alone.generators)]


def compared(members: Members, alone: Members, work: Any = learn, resting: Any = ()) -> list[Any]:
    """What comes of the work together; each member is as its twin is that did it alone, and draws the same."""
    together = members.together()
    expected, found = alone.alone(work), run(together, work, resting)
    for number, (model, twin) in enumerate(zip(members.models, alone.models, strict=True)):
        if number not in resting:
            assert_same(model, twin)
            assert digest(together.generators[number]) == digest(alone.generators[number])
            assert type(found[number]) is type(expected[number])
    return found


@pytest.mark.parametrize(
    "arguments",
    [
        {"place": "cartpole"},
        {"value_head": {"kind": "categorical", "n_atoms": 11}, "n_critics": 1, "clip_range_vf": None},
        {"value_head": "scalar", "optimizer_class": "upgd", "normalize_advantage": False},
        {"use_sde": True, "variance_gradient_scaling": False, "n_steps": 40},
        {"optimizer_class": "adamw", "optimizer_kwargs": {"lr": 1e-3}},
    ],
    ids=["discrete", "categorical", "scalar, upgd", "gSDE, a short minibatch", "adamw"],
)
@pytest.mark.filterwarnings("ignore:You have specified a mini-batch size")
def test_every_kind_of_member_learns_what_it_learns_alone(arguments: dict[str, Any], uncompiled: list[int]) -> None:
    changes = (
        [{"optimizer_kwargs": arguments.pop("optimizer_kwargs")}] * 3 if "optimizer_kwargs" in arguments else [{}] * 3
    )
    compared(everything(changes, **arguments), everything(changes, **arguments))
    assert uncompiled == [0, 0, 0, 3]


def test_convolutions_learn_what_they_learn_alone(uncompiled: list[int]) -> None:
    members, alone = (plain(place="dictionaries", policy="MultiInputPolicy") for _ in range(2))
    alone.alone(lambda model: model.learn(32))
    run(members.together(), lambda model: model.learn(32))
    for found, expected in zip(members.models, alone.models, strict=True):
        assert_same(found, expected, 1e-3)


class At(BaseCallback):
    """Does something once, at the end of the second rollout of one member."""

    def __init__(self, seed: int, action: Any) -> None:
        super().__init__()
        self.seed, self.action, self.rollouts = seed, action, 0

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self.rollouts += 1
        if self.rollouts == 2 and self.model.seed == self.seed:
            self.action(self.model)


def learning_with(action: Any, seed: int = 1) -> Any:
    return lambda model: model.learn(STEPS, callback=At(seed, action))


def test_updates_of_one_stop_where_its_kl_has_grown_too_large(uncompiled: list[int]) -> None:
    changes = [{}, {"target_kl": 1e-4}, {}]
    members = plain(changes)
    compared(members, plain(changes))
    assert [model._n_updates for model in members.models] == [6, 5, 6], "and not 9"


def spoil_a_return(model: PPO) -> None:
    model.rollout_buffer.returns[-1] = np.nan


@pytest.mark.parametrize("members", [plain, everything])
def test_an_update_that_is_not_finite_is_skipped_by_its_member_alone(members: Any, uncompiled: list[int]) -> None:
    common = {"normalize_returns": False} if members is everything else {}
    found = members(**common)
    compared(found, members(**common), learning_with(spoil_a_return))
    assert [model.skipped_updates for model in found.models] == [0, 3, 0]


def spoil_all_returns(model: PPO) -> None:
    model.rollout_buffer.returns[:] = np.nan


def test_a_divergence_of_one_ends_it_where_it_would_end_alone(uncompiled: list[int]) -> None:
    """After so many skipped updates nothing more is drawn or done, although the epoch goes on for the others."""
    common = {"n_steps": 64, "normalize_returns": False, "divergence": {"kind": "stop", "patience": 2}}
    members = everything(**common)
    results = compared(members, everything(**common), learning_with(spoil_all_returns))
    assert isinstance(results[1], NonFiniteError)
    assert members.models[1].skipped_updates == 2


def test_a_state_that_is_restored_in_one_is_no_matter_of_the_others(uncompiled: list[int]) -> None:
    common = {"n_steps": 64, "normalize_returns": False, "divergence": {"kind": "restore", "patience": 2}}
    with pytest.warns(UserWarning, match="The last good state is restored"):
        members = everything(**common)
        compared(members, everything(**common), learning_with(spoil_all_returns))
    assert [model.divergence_guard.restores for model in members.models] == [0, 1, 0]


class Failing(gymnasium.Wrapper[Any, Any, Any, Any]):
    def __init__(self) -> None:
        super().__init__(gymnasium.make("Pendulum-v1"))
        self.steps = 0

    def step(self, action: Any) -> Any:
        self.steps += 1
        if self.steps == 50:
            raise OSError("the simulator is gone")
        return super().step(action)


def test_a_failing_environment_is_the_end_of_its_member_alone(uncompiled: list[int]) -> None:
    members, alone = plain(), plain()
    members.models[1].set_env(DummyVecEnv([Failing]))
    together = members.together()
    alone.alone(learn)
    results = run(together, learn)
    assert (type(results[1]), str(results[1])) == (OSError, "the simulator is gone")
    assert members.models[1].is_resumable, "as alone: what is learned, and the last clean point"
    for number in (0, 2):
        assert_same(members.models[number], alone.models[number])
    members.models[1].set_env(world("pendulum"))
    assert run(together, learn, resting=[0, 2]) == [None, members.models[1], None]
    assert uncompiled == [0, 0, 0, 3]


def test_a_member_that_rests_is_left_alone_to_the_bit(uncompiled: list[int]) -> None:
    members = everything()
    before, state = digest(members.models[1].get_parameters()), members.generators[1]
    compared(members, everything(), resting=[1])
    assert digest(members.models[1].get_parameters()) == before
    assert members.models[1].num_timesteps == 0
    assert members.generators[1] is state


def test_minibatches_of_another_size_are_done_apart_with_one_warning(uncompiled: list[int]) -> None:
    changes = [{}, {}, {"batch_size": 8}]
    with pytest.warns(UserWarning, match="member 2 are not done with the others'.*built otherwise") as told:
        compared(plain(changes), plain(changes))
    assert len([each for each in told if "not done with" in str(each.message)]) == 1
    assert uncompiled == [0, 0, 0, 3, 0], "it has a graph of its own"


def test_another_layer_of_the_same_shape_is_built_otherwise(uncompiled: list[int]) -> None:
    changes = [{}, {"policy_kwargs": {"activation_fn": torch.nn.ReLU}}, {}]
    with pytest.warns(UserWarning, match="member 1 are not done with the others'.*built otherwise"):
        compared(plain(changes), plain(changes))


def test_where_no_two_are_alike_each_has_its_own_graph(uncompiled: list[int]) -> None:
    changes = [{"batch_size": size} for size in (8, 16, 32)]
    with pytest.warns(UserWarning, match="built otherwise"):
        compared(plain(changes), plain(changes))
    assert 3 not in uncompiled


def test_one_by_itself_is_a_population_too(uncompiled: list[int]) -> None:
    compared(Members([{}], algorithm=PPO), Members([{}], algorithm=PPO))
    assert uncompiled == [0, 1]


def test_what_is_not_to_be_compiled_is_eager_to_the_bit(uncompiled: list[int]) -> None:
    changes = [{}, {"compile": False}, {}]
    members, alone = plain(changes), plain(changes)
    compared(members, alone)
    assert digest(learned(members.models[1])) == digest(learned(alone.models[1]))
    assert members.models[1].update_compiler.reason is not None


def test_what_cannot_be_compiled_is_eager_with_one_warning(uncompiled: list[int]) -> None:
    changes = [{}, {"optimizer_class": torch.optim.RMSprop}, {}]
    with pytest.warns(UserWarning, match="RMSprop has no functional step") as told:
        run(plain(changes).together(), learn)
    assert len([each for each in told if "cannot be compiled" in str(each.message)]) == 1


def test_a_population_is_compiled_by_itself(uncompiled: list[int]) -> None:
    members = plain(compile="auto")
    run(members.together(), learn)
    assert uncompiled == [3]
    for model in members.models:
        assert (model.update_compiler.compiled, model._compiles) == (True, True)
        assert model._actor is not None, "and acts by numpy, as it does alone"
    alone = plain(compile="auto").models[0].learn(STEPS)
    assert (alone.update_compiler.compiled, alone._actor) == (False, None)


@pytest.mark.parametrize("problem", ["OSError: no compiler", "NotCompiled: the graph's update is not the eager one"])
def test_without_a_right_graph_for_all_each_does_its_own(
    problem: str, uncompiled: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(function: Any, example: Any) -> Any:
        if problem.startswith("OSError"):
            raise OSError("no compiler")
        function(*(tensor.clone() for tensor in example))
        return lambda *tensors: function(*tensors[:-3], tensors[-3].flip(1) // 2, *tensors[-2:])

    monkeypatch.setattr(stacked, "compiled", broken)
    with pytest.warns(UserWarning, match=f"not done with the others', which is slower: {problem}") as told:
        compared(everything(), everything())
    assert len([each for each in told if "not done with" in str(each.message)]) == 3
    assert uncompiled == [0] * 6


class Scaled(torch.nn.Module):
    """An activation with a number of which it does not tell."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.factor * inputs)


def scaled(*factors: float) -> Members:
    return plain([{"policy_kwargs": {"activation_fn": partial(Scaled, factor)}} for factor in factors])


def test_a_graph_is_compared_for_every_member_and_again_for_another_policy(uncompiled: list[int]) -> None:
    """So a constant that a trace has burnt in is found out for a member that has another one."""
    members, alone = scaled(1, 2, 1), scaled(1, 2, 1)
    together = members.together()
    with pytest.warns(UserWarning, match="member 1 .*the graph's update is not the eager one"):
        run(together, learn)
    alone.alone(learn)
    together.models[0], alone.models[0] = (scaled(3, 1, 1).models[0] for _ in range(2))
    with pytest.warns(UserWarning, match="member 0 .*the graph's update is not the eager one"):
        run(together, learn)
    alone.alone(learn)
    for found, expected in zip(together.models, alone.models, strict=True):
        assert_same(found, expected)
    assert uncompiled.count(3) == 1


class Watching(BaseCallback):
    """Notes the policy's parameters as each rollout begins, and what the optimizer and the scaler remember."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[dict[str, Any]] = []

    def _on_rollout_start(self) -> None:
        self.seen.append(learned(self.model))

    def _on_step(self) -> bool:
        return True


def test_callbacks_see_what_has_been_learned(uncompiled: list[int]) -> None:
    watching: dict[int, Watching] = {}

    def watched(model: PPO) -> PPO:
        return model.learn(STEPS, callback=watching.setdefault(id(model), Watching()))

    members, alone = everything(), everything()
    compared(members, alone, watched)
    for model, twin in zip(members.models, alone.models, strict=True):
        found, expected = watching[id(model)].seen, watching[id(twin)].seen
        assert len(found) == STEPS // 32
        for one, other in zip(found, expected, strict=True):
            assert_close_at_scale(one, other, 1e-3)
        assert digest(found[0]) != digest(found[1]) != digest(found[2])


def test_a_checkpoint_of_a_member_is_continued(uncompiled: list[int], tmp_path: Path) -> None:
    """Alone or together it comes to where the uninterrupted training came; its generators go on, too."""

    def saving(model: PPO) -> PPO:
        return model.learn(STEPS, callback=CheckpointCallback(50, str(tmp_path), f"member{model.seed}"))

    members = everything()
    together = members.together()
    run(together, saving)

    resumed: list[list[Any]] = []
    for _ in range(2):
        resumed.append([])
        for number in range(3):
            with kept_generators():
                path = tmp_path / f"member{number}_50_steps.zip"
                model = DistributionalPPO.resume(path, env=world("pendulum"))
                resumed[-1].append((model, GlobalGenerators().state_dict()))
    continued = Together(*zip(*resumed[0], strict=True))
    run(continued, lambda model: model.continue_learning())
    for number, (model, state) in enumerate(resumed[1]):
        with kept_generators():
            GlobalGenerators().load_state_dict(state)
            model.continue_learning()
            assert digest(GlobalGenerators().state_dict()) == digest(together.generators[number])
    assert [*map(digest, continued.generators)] == [*map(digest, together.generators)]
    for model, (again, _), (alone, _) in zip(members.models, *resumed, strict=True):
        assert digest(learned(again)) == digest(learned(model)), "to the bit, in the same company"
        assert_same(alone, model)


@pytest.mark.parametrize("members", [plain, everything])
def test_copied_restored_and_loaded_members_need_no_other_graph(
    members: Any, uncompiled: list[int], tmp_path: Path
) -> None:
    """As in a population, where one goes on from another's weights, or comes from a file into its place."""
    found = members()
    together = found.together()
    run(together, learn)
    first, second, third = together.models
    third.set_parameters(first.get_parameters())
    second.save(tmp_path / "second")
    loaded = type(second).load(tmp_path / "second", env=world("pendulum"))
    together.models[1] = loaded

    def go_on(model: PPO) -> PPO:
        return model.learn(64, reset_num_timesteps=False)

    assert run(together, go_on) == [first, loaded, third]
    assert (second.num_timesteps, loaded.num_timesteps) == (STEPS, STEPS + 64)
    assert uncompiled == [3]


def test_an_interruption_in_one_ends_all_and_leaves_them_usable(uncompiled: list[int]) -> None:
    def interrupt(model: PPO) -> None:
        raise KeyboardInterrupt

    members = plain()
    own = [model.update_compiler for model in members.models]
    together = members.together()
    with pytest.raises(KeyboardInterrupt):
        run(together, learning_with(interrupt))
    assert [model.update_compiler for model in members.models] == own
    assert [model.num_timesteps for model in members.models] == [64, 64, 64]
    run(together, learn)
    assert [model.num_timesteps for model in members.models] == [STEPS] * 3


def test_members_begin_with_different_generators_that_follow_from_those_of_now() -> None:
    models = [model_of(algorithm=PPO) for _ in range(2)]
    found = []
    with kept_generators():
        for seed in (3, 3, 4):
            torch.manual_seed(seed)
            found.append([digest(state) for state in Together(models).generators])
    assert found[0] == found[1] != found[2]
    assert len({*found[0], *found[2]}) == 4


@pytest.mark.parametrize(("models", "works"), [(2, 1), (2, 3)])
def test_there_is_one_work_for_each_member(models: int, works: int) -> None:
    together = Together([model_of(algorithm=PPO) for _ in range(models)])
    with pytest.raises(ArgumentError, match=f"{works} works for {models} models"):
        together.run([None] * works)


def test_a_model_is_one_member() -> None:
    model = model_of(algorithm=PPO)
    with pytest.raises(ArgumentError, match="no model twice"):
        Together([model, model]).run([None, None])
    with pytest.raises(ArgumentError, match="1 states of generators for 2 models"):
        Together([model, model], [{}])
