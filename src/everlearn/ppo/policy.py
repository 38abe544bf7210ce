"""SB3's actor-critic policies, with an ensemble of value distributions for a critic."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from stable_baselines3.common import policies as sb3
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, MlpExtractor
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn

from everlearn.checkpoint.limits import LIMITS, Limits
from everlearn.checkpoint.places import Place
from everlearn.core.errors import ArgumentError
from everlearn.optim.utility_optimizer import UtilityOptimizer
from everlearn.values import CriticEnsemble, ReturnScale, ScalarHead, ValueDistribution, ValueHead, heads, reductions
from everlearn.values.clipping import clipped_prediction_loss, clipped_value_loss
from everlearn.values.reduction import Reduction

HeadSpec = str | Mapping[str, Any] | ValueHead
ReductionSpec = str | Mapping[str, Any] | Reduction

CRITIC_MODULES = ("vf_features_extractor.", "mlp_extractor.value_net.", "value_net.", "critics.")


class Evaluation(NamedTuple):
    """What one forward pass says about a batch of observations and actions."""

    log_prob: Tensor
    """Log-probability of the actions, (batch,)."""
    entropy: Tensor | None
    """Entropy of the action distributions, (batch,); None where it has no closed form."""
    distributions: tuple[ValueDistribution, ...]
    """What each critic predicts, in the head's unit."""
    action_distribution: Any = None
    """Of the actions before any squashing, as torch sees it (several: a list); None where the policy hides it."""


class Critic(nn.Module):
    """A further critic: its own extractor, trunk and output layer.

    Args:
        features_extractor: Maps preprocessed observations to features.
        trunk: Maps features to a latent.
        value_net: Maps the latent to the outputs of the value head.
    """

    def __init__(self, features_extractor: BaseFeaturesExtractor, trunk: nn.Module, value_net: nn.Linear) -> None:
        super().__init__()
        self.features_extractor = features_extractor
        self.trunk = trunk
        self.value_net = value_net

    def forward(self, features: Tensor) -> Tensor:
        """The outputs, (batch, n_outputs), for the features of this critic's extractor."""
        outputs: Tensor = self.value_net(self.trunk(features))
        return outputs


class ActorCriticPolicy(sb3.ActorCriticPolicy):
    """SB3's policy with ``n_critics`` value distributions; what leaves it is one value in reward units.

    Critic 0 keeps SB3's modules and names (with a scalar head: SB3's whole ``state_dict``); further critics stand
    beside it in ``critics``, initialised after SB3's modules. With a scalar head and one critic, value clipping is
    SB3's (the clipped prediction alone); otherwise it is the larger loss of the prediction and its clipped copy.

    Args:
        args: SB3's positional arguments: observation space, action space, learning rate schedule, ...
        value_head: Name, ``{"kind": ...}`` mapping or object.
        n_critics: How many critics, >= 1.
        critic_reduction: How they become one value: name, mapping or object.
        normalize_returns: Whether heads predict in units of a running return scale.
        share_critic_extractor: Whether further critics read critic 0's features; it warns, because two heads on one
            latent are hardly two critics.
        kwargs: SB3's keyword arguments.
    """

    def __init__(
        self,
        *args: Any,
        value_head: HeadSpec = "scalar",
        n_critics: int = 1,
        critic_reduction: ReductionSpec = "mean",
        normalize_returns: bool = False,
        share_critic_extractor: bool = False,
        **kwargs: Any,
    ) -> None:
        # SB3's constructor calls _build, which needs these; modules cannot be set before it has run.
        self._critic_arguments: dict[str, Any] = {
            "value_head": value_head,
            "n_critics": n_critics,
            "critic_reduction": critic_reduction,
            "normalize_returns": normalize_returns,
            "share_critic_extractor": share_critic_extractor,
        }
        super().__init__(*args, **kwargs)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        shared = {"share_features_extractor": self.share_features_extractor}  # which SB3 leaves out
        return {**super()._get_constructor_parameters(), **shared, **self._critic_arguments}

    def save(self, path: Place) -> None:
        """Save arguments, spaces and weights in a file that executes nothing; the suffix ``.zip`` may be left out."""
        from everlearn.ppo.policy_file import save_policy

        save_policy(self, path)

    @classmethod
    def load(
        cls,
        path: Place,
        device: torch.device | str = "auto",
        *,
        sha256: str | None = None,
        limits: Limits | None = None,
    ) -> Self:
        """The policy that ``save`` has written, whose class has to be this one.

        Args:
            path: A path, whose suffix ``.zip`` may be left out, or an open binary file.
            device: Where it computes.
            sha256: The file's SHA-256 in hexadecimal; another file is refused.
            limits: How much the file may ask for; ``everlearn.checkpoint.limits.LIMITS`` by default.

        Raises:
            CheckpointError: If the file is damaged, no policy of this class, or does not fit.
        """
        from everlearn.ppo.policy_file import load_policy

        return load_policy(cls, path, device, limits or LIMITS, sha256)

    # --- construction ---------------------------------------------------------------------------------------------

    def _build(self, lr_schedule: Schedule) -> None:
        kind, self.optimizer_class = self.optimizer_class, _NoOptimizer  # SB3's would lack what is built below
        super()._build(lr_schedule)
        self.optimizer_class = kind
        arguments = self._critic_arguments
        head = heads.build(arguments["value_head"])
        self.return_scale = ReturnScale() if arguments["normalize_returns"] else None
        if head.n_outputs != 1:
            self.value_net = self._value_net(head)
        self.critics = nn.ModuleList(self._further_critic(head) for _ in range(1, arguments["n_critics"]))
        sb3_clipping = isinstance(head, ScalarHead) and arguments["n_critics"] == 1
        self.ensemble = CriticEnsemble(
            head,
            reductions.build(arguments["critic_reduction"]),
            arguments["n_critics"],
            self.return_scale,
            clipped_prediction_loss if sb3_clipping else clipped_value_loss,
        )
        self.optimizer = self._make_optimizer(lr_schedule(1))

    def _value_net(self, head: ValueHead) -> nn.Linear:
        value_net = nn.Linear(self.mlp_extractor.latent_dim_vf, head.n_outputs)
        if self.ortho_init:
            self.init_weights(value_net, gain=1)
        return value_net

    def _further_critic(self, head: ValueHead) -> Critic:
        if type(self.mlp_extractor) is not MlpExtractor:
            raise ArgumentError(
                f"n_critics={self._critic_arguments['n_critics']} builds each critic's trunk from net_arch, but this "
                f"policy has its own {type(self.mlp_extractor).__name__}. Use n_critics=1, or give trunks by net_arch."
            )
        if self._critic_arguments["share_critic_extractor"]:
            warnings.warn("share_critic_extractor=True: critics on one latent agree almost always.", stacklevel=2)
            extractor = self.vf_features_extractor
        else:
            extractor = self.make_features_extractor()
        widths = self.net_arch.get("vf", []) if isinstance(self.net_arch, dict) else self.net_arch
        trunk = MlpExtractor(self.features_dim, {"pi": [], "vf": widths}, self.activation_fn, self.device).value_net
        if self.ortho_init:
            if extractor is not self.vf_features_extractor:
                extractor.apply(partial(self.init_weights, gain=np.sqrt(2)))
            trunk.apply(partial(self.init_weights, gain=np.sqrt(2)))
        return Critic(extractor, trunk, self._value_net(head))

    def _make_optimizer(self, lr: float) -> torch.optim.Optimizer:
        """SB3's call for other optimizers; for the UPGD family groups by part and by whether weights decay."""
        if issubclass(self.optimizer_class, UtilityOptimizer):
            return self.optimizer_class(self.parameter_groups(), lr=lr, **self.optimizer_kwargs)  # type: ignore[call-arg]
        return self.optimizer_class(self.parameters(), lr=lr, **self.optimizer_kwargs)  # type: ignore[call-arg]

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Named parameters by part (``label`` actor, critics, shared); 1-D ones and ``log_std`` take no decay or noise.

        One largest utility for all parts would let the part with the larger loss switch off the others' gating.
        """
        groups: dict[tuple[str, bool], list[tuple[str, nn.Parameter]]] = {}
        for name, parameter in self.named_parameters():
            plain = parameter.dim() < 2 or name == "log_std"
            groups.setdefault((self.part_of(name), plain), []).append((name, parameter))
        return [
            {"params": named, "label": label, **({"weight_decay": 0.0, "sigma": 0.0} if plain else {})}
            for (label, plain), named in groups.items()
        ]

    def part_of(self, name: str) -> str:
        """Which part a parameter belongs to, by its name: actor, critics or shared."""
        if name.startswith(CRITIC_MODULES):
            return "critics"
        return "shared" if name.startswith("features_extractor.") and self.share_features_extractor else "actor"

    # --- forward passes -------------------------------------------------------------------------------------------

    def _latents(self, observations: PyTorchObs) -> tuple[Tensor, Tensor]:
        """The latents of the actor and of critic 0."""
        features = self.extract_features(observations)
        if self.share_features_extractor:
            return self.mlp_extractor(features)  # type: ignore[no-any-return]
        actor_features, critic_features = features
        return self.mlp_extractor.forward_actor(actor_features), self.mlp_extractor.forward_critic(critic_features)

    def _distributions(self, observations: PyTorchObs, latent_vf: Tensor) -> tuple[ValueDistribution, ...]:
        further = [
            critic(sb3.BaseModel.extract_features(self, observations, critic.features_extractor))  # type: ignore[arg-type]
            for critic in self.critics
        ]
        return self.ensemble.distributions([self.value_net(latent_vf), *further])

    def evaluate(self, observations: PyTorchObs, actions: Tensor) -> Evaluation:
        """Log-probabilities and entropies of actions, and every critic's distribution, in one pass."""
        latent_pi, latent_vf = self._latents(observations)
        distribution = self._get_action_dist_from_latent(latent_pi)
        log_prob = distribution.log_prob(actions)
        values = self._distributions(observations, latent_vf)
        return Evaluation(log_prob, distribution.entropy(), values, distribution.distribution)

    def forward(self, obs: Tensor, deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Actions, reduced values (batch, 1) in reward units, and log-probabilities."""
        latent_pi, latent_vf = self._latents(obs)
        values = self.ensemble.value(self._distributions(obs, latent_vf)).unsqueeze(1)
        distribution = self._get_action_dist_from_latent(latent_pi)
        actions = distribution.get_actions(deterministic=deterministic)
        log_prob = distribution.log_prob(actions)
        return actions.reshape((-1, *self.action_space.shape)), values, log_prob  # type: ignore[misc]

    def evaluate_actions(self, obs: PyTorchObs, actions: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """SB3's method: reduced values (batch, 1) in reward units, log-probabilities, entropies."""
        evaluation = self.evaluate(obs, actions)
        return (
            self.ensemble.value(evaluation.distributions).unsqueeze(1),
            evaluation.log_prob,
            evaluation.entropy,
        )

    def predict_values(self, obs: PyTorchObs) -> Tensor:
        """Reduced values, (batch, 1), in reward units."""
        return self.ensemble.value(self.predict_distributions(obs)).unsqueeze(1)

    def predict_distributions(self, obs: PyTorchObs) -> tuple[ValueDistribution, ...]:
        """Every critic's distribution, in the head's unit."""
        features = sb3.BaseModel.extract_features(self, obs, self.vf_features_extractor)
        return self._distributions(obs, self.mlp_extractor.forward_critic(features))

    def value_nets(self) -> list[nn.Linear]:
        """The output layer of every critic."""
        return [self.value_net, *(critic.value_net for critic in self.critics)]  # type: ignore[list-item]


class _NoOptimizer(torch.optim.Optimizer):
    """Stands where SB3 makes an optimizer that would be replaced at once: of large networks that costs time."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take anything, and do nothing with it."""


class ActorCriticCnnPolicy(ActorCriticPolicy, sb3.ActorCriticCnnPolicy):
    """The same for images: SB3's ``CnnPolicy``."""


class MultiInputActorCriticPolicy(ActorCriticPolicy, sb3.MultiInputActorCriticPolicy):
    """The same for dictionary observations: SB3's ``MultiInputPolicy``."""


def unwrapped(policy: Any) -> Any:
    """The policy itself, within what ``torch.compile`` puts around it."""
    return getattr(policy, "_orig_mod", policy)


def parameters_by_part(policy: sb3.ActorCriticPolicy) -> list[dict[str, Any]]:
    """Named parameters in groups by part: actor, critics, shared; one group for a policy of the user."""
    parts: dict[str, list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in policy.named_parameters():
        label = policy.part_of(name) if isinstance(policy, ActorCriticPolicy) else "policy"
        parts.setdefault(label, []).append((name, parameter))
    return [{"params": named, "label": label} for label, named in parts.items()]
