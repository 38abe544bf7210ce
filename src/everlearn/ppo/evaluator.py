"""One way to ask any policy what it thinks of observations and actions."""

from __future__ import annotations

from stable_baselines3.common import policies as sb3
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import Tensor, nn

from everlearn.ppo.policy import ActorCriticPolicy, Evaluation, unwrapped
from everlearn.values import CriticEnsemble, ScalarHead
from everlearn.values.clipping import clipped_prediction_loss
from everlearn.values.reduction import MeanReduction


class Evaluator(nn.Module):
    """One call for any policy: an ensemble of ours, or the scalar value of an SB3 ``ActorCriticPolicy`` of the user.

    Args:
        policy: The policy; the evaluator owns no parameters of its own.
    """

    ensemble: CriticEnsemble

    def __init__(self, policy: sb3.ActorCriticPolicy) -> None:
        super().__init__()
        self.policy: sb3.ActorCriticPolicy = unwrapped(policy)
        if isinstance(self.policy, ActorCriticPolicy):
            self.ensemble = self.policy.ensemble
        else:
            self.ensemble = CriticEnsemble(ScalarHead(), MeanReduction(), value_clipping=clipped_prediction_loss)

    def forward(self, observations: PyTorchObs, actions: Tensor) -> Evaluation:
        """The evaluation of a batch."""
        if isinstance(self.policy, ActorCriticPolicy):
            return self.policy.evaluate(observations, actions)
        values, log_prob, entropy = self.policy.evaluate_actions(observations, actions)
        return Evaluation(log_prob, entropy, self.ensemble.distributions([values.reshape(-1, 1)]))
