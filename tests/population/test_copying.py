import pytest
import torch

from everlearn import AdaptiveUPGD
from everlearn.core.digest import identical
from everlearn.core.errors import StateError
from everlearn.population.copying import for_copy


def parameters(noise: str = "generator") -> dict:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = AdaptiveUPGD([weight], noise=noise)
    weight.grad = torch.ones(3)
    optimizer.step()
    return {
        "policy": {"weight": weight.detach()},
        "policy.optimizer": optimizer.state_dict(),
        "vgs_state": {"step_count": torch.tensor(1.0)},
        "kl_penalty_state": {"coefficient": 1.0},
    }


def test_everything_is_copied_but_for_the_stream_of_noise() -> None:
    source = parameters()
    copy = for_copy(source, "everything", "copy", seed=7)
    assert copy.keys() == source.keys()
    for name in ("policy", "vgs_state", "kl_penalty_state"):
        assert identical(copy[name], source[name])
    assert identical(copy["policy.optimizer"]["state"], source["policy.optimizer"]["state"])
    assert copy["policy.optimizer"]["noise"] == {"kind": "generator", "seed": 7, "generators": {}}


def test_no_two_members_draw_the_same_noise() -> None:
    """B27: the copy gets its own fresh generators."""
    source = parameters("table")
    noises = [for_copy(source, "everything", "copy", seed)["policy.optimizer"]["noise"] for seed in (1, 2)]
    assert noises == [{"kind": "table", "seed": seed, "counter": 0} for seed in (1, 2)]


def test_a_reset_leaves_the_optimizer_out() -> None:
    assert for_copy(parameters(), "everything", "reset", 0).keys() == {"policy", "vgs_state", "kl_penalty_state"}


def test_weights_alone() -> None:
    assert for_copy(parameters(), "weights", "copy", 0).keys() == {"policy"}
    assert for_copy({**parameters(), "normaliser": {}}, "weights", "copy", 0).keys() == {"policy", "normaliser"}


def test_tensors_without_parts_are_all_weights() -> None:
    flat = {"layer.weight": torch.ones(2)}
    assert for_copy(flat, "weights", "reset", 0) == flat


def test_an_optimizer_without_noise_is_copied_as_it_is() -> None:
    source = {"policy": {}, "policy.optimizer": {"state": {}, "param_groups": []}}
    assert for_copy(source, "everything", "copy", 0) == source


@pytest.mark.parametrize("noise", [3, {"kind": "unknown"}])
def test_noise_that_is_none_is_refused(noise) -> None:
    with pytest.raises(StateError, match=r"policy\.optimizer\.noise is no state"):
        for_copy({"policy": {}, "policy.optimizer": {"noise": noise}}, "everything", "copy", 0)
