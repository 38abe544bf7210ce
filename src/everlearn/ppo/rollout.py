"""Collecting a rollout, and the rollout as tensors for the update."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs
from torch import Tensor

from everlearn.core.finite import require_finite
from everlearn.environments.finite import FiniteSubprocessVecEnv, FiniteVecEnv
from everlearn.environments.normaliser import Normaliser
from everlearn.ppo.acting import Actor
from everlearn.ppo.action_kl import action_parameters
from everlearn.ppo.evaluator import Evaluator
from everlearn.ppo.loss import Minibatch, mean_kl, rows

GATES = (FiniteVecEnv, FiniteSubprocessVecEnv, Normaliser)
"""Environments that have refused what is not finite when a step returns."""
CHUNK = 4096
"""Samples per forward pass over a whole rollout."""


class RolloutCollector(OnPolicyAlgorithm):
    """SB3's rollout collection, which refuses rewards and observations that are not finite."""

    _actor: Actor | None = None
    """Acts in the policy's place while rollouts are collected; None: the policy itself, bit for bit as in SB3."""
    is_stepping = False
    """Whether the environments are at work, so that the rollout may be abandoned at once."""

    def collect_rollouts(
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: RolloutBuffer, n_rollout_steps: int
    ) -> bool:
        """Fill the buffer with ``n_rollout_steps`` steps of every environment, as SB3 does.

        Callbacks find SB3's names among the local variables.

        Args:
            env: The training environments.
            callback: Called at the start, after every step and at the end.
            rollout_buffer: Filled.
            n_rollout_steps: Steps per environment.

        Returns:
            False if a callback stopped the rollout.

        Raises:
            NonFiniteError: If an environment returns a NaN or an infinity; nothing has been learned from it.
        """
        assert self._last_obs is not None, "No previous observation was provided"
        require_finite("observation", self._last_obs, step=self.num_timesteps // env.num_envs)
        self.policy.set_training_mode(False)
        n_steps = 0
        rollout_buffer.reset()
        if self.use_sde:
            self._reset_noise(env.num_envs)
        callback.on_rollout_start()
        actor = self._ready_actor()

        while n_steps < n_rollout_steps:
            if self.use_sde and self.sde_sample_freq > 0 and n_steps % self.sde_sample_freq == 0:
                self._reset_noise(env.num_envs)
            obs_tensor = obs_as_tensor(self._last_obs, self.device)  # type: ignore[arg-type]
            actions, values, log_probs = self._decided(actor, obs_tensor)
            actions = actions.cpu().numpy()
            clipped_actions = self._within_bounds(actions)
            self.is_stepping = True
            try:
                new_obs, rewards, dones, infos = env.step(clipped_actions)
            finally:
                self.is_stepping = False
            self.num_timesteps += env.num_envs
            steps = self.num_timesteps // env.num_envs
            if type(env) not in GATES:
                self._require_finite(new_obs, rewards, steps)

            callback.update_locals(locals())
            if not callback.on_step():
                return False

            self._update_info_buffer(infos, dones)
            n_steps += 1
            if isinstance(self.action_space, spaces.Discrete):
                actions = actions.reshape(-1, 1)
            self._bootstrap_truncated(rewards, dones, infos)
            add_step(rollout_buffer, (self._last_obs, actions, rewards, self._last_episode_starts, values, log_probs))
            self._last_obs = new_obs  # type: ignore[assignment]
            self._last_episode_starts = dones

        with torch.no_grad():
            values = self.policy.predict_values(obs_as_tensor(new_obs, self.device))  # type: ignore[arg-type]
        compute_advantages(rollout_buffer, values, dones)
        callback.update_locals(locals())
        callback.on_rollout_end()
        return True

    @torch.no_grad()
    def _reset_noise(self, n_envs: int) -> None:
        """Draw matrices of gSDE to explore with, which need no gradients."""
        self.policy.reset_noise(n_envs)

    def _ready_actor(self) -> Actor | None:
        """The actor with the parameters of now, where it fits the policy and the observations of now."""
        actor = self._actor
        if actor is None or actor.policy is not self.policy or not actor.fits(self._last_obs):
            return None
        actor.refresh()
        return actor

    def _decided(self, actor: Actor | None, obs_tensor: PyTorchObs) -> tuple[Any, Tensor, Tensor]:
        """Actions, values and log-probabilities for the last observations."""
        if actor is not None:
            return actor(self._last_obs)  # type: ignore[arg-type]
        with torch.no_grad():
            return self.policy(obs_tensor)  # type: ignore[no-any-return]

    def _require_finite(self, observations: VecEnvObs, rewards: np.ndarray, step: int) -> None:
        """Refuse what the simulation returned, as it was before a normaliser could clip or spread it."""
        normaliser = self._vec_normalize_env
        if normaliser is not None:
            observations, rewards = normaliser.get_original_obs(), normaliser.get_original_reward()
        require_finite("reward", rewards, step=step)
        require_finite("observation", observations, step=step)

    def _within_bounds(self, actions: np.ndarray) -> np.ndarray:
        """Actions as the environment takes them: unscaled where the policy squashes, clipped elsewhere."""
        if not isinstance(self.action_space, spaces.Box):
            return actions
        if self.policy.squash_output:
            return np.asarray(self.policy.unscale_action(actions))
        return np.asarray(np.clip(actions, self.action_space.low, self.action_space.high))

    def _bootstrap_truncated(self, rewards: np.ndarray, dones: np.ndarray, infos: list[dict[str, Any]]) -> None:
        """``r <- r + gamma * V(terminal)`` where a time limit ended the episode; the recursion is cut there anyway."""
        for index in np.flatnonzero(dones):
            info = infos[index]
            if info.get("TimeLimit.truncated", False) and info.get("terminal_observation") is not None:
                steps = self.num_timesteps // len(dones)
                require_finite("terminal observation", info["terminal_observation"], step=steps, environment=int(index))
                terminal_obs = self.policy.obs_to_tensor(info["terminal_observation"])[0]
                with torch.no_grad():
                    rewards[index] += (self.gamma * self.policy.predict_values(terminal_obs)[0]).item()


def add_step(buffer: RolloutBuffer, step: tuple[Any, ...]) -> None:
    """``buffer.add(*step)``; of SB3's own buffer for vectors and images without its copies on the way."""
    plain = type(buffer) is RolloutBuffer and isinstance(buffer.observation_space, spaces.Box)
    if not plain or "add" in vars(buffer):
        buffer.add(*step)
        return
    observations, actions, rewards, episode_starts, values, log_probs = step
    at = buffer.pos
    buffer.observations[at] = observations
    buffer.actions[at] = actions.reshape(buffer.n_envs, buffer.action_dim)
    buffer.rewards[at] = rewards
    buffer.episode_starts[at] = episode_starts
    buffer.values[at] = values.cpu().numpy().ravel()
    buffer.log_probs[at] = log_probs.cpu().numpy()
    buffer.pos = at + 1
    buffer.full = buffer.full or buffer.pos == buffer.buffer_size


def compute_advantages(buffer: RolloutBuffer, last_values: Tensor, dones: np.ndarray) -> None:
    """``buffer.compute_returns_and_advantage(last_values, dones)``; of SB3's own, with its bits, in fewer operations.

    ``A_t = delta_t + gamma * lambda * going_on_t * A_(t+1)``, with ``delta_t = r_t + gamma * V_(t+1) * going_on_t -
    V_t``, where ``going_on_t`` is 0 at the end of an episode. All but the recursion is done for all steps at once.
    """
    own = type(buffer).compute_returns_and_advantage is not RolloutBuffer.compute_returns_and_advantage
    if own or "compute_returns_and_advantage" in vars(buffer) or last_values.dtype is not torch.float32:
        buffer.compute_returns_and_advantage(last_values=last_values, dones=dones)
        return
    going_on = 1.0 - np.concatenate([buffer.episode_starts[1:], dones.astype(np.float32)[np.newaxis]])
    following = np.concatenate([buffer.values[1:], last_values.cpu().numpy().reshape(1, -1)])
    deltas = buffer.rewards + buffer.gamma * following * going_on - buffer.values
    weights = buffer.gamma * buffer.gae_lambda * going_on
    advantage: Any = 0
    for delta, weight, row in zip(deltas[::-1], weights[::-1], buffer.advantages[::-1], strict=True):
        advantage = delta + weight * advantage
        row[:] = advantage
    buffer.returns = buffer.advantages + buffer.values


@dataclass(frozen=True)
class Rollout:
    """A whole rollout as tensors, in the buffer's order (environment by environment).

    Args:
        samples: All samples as one minibatch.
        values: Reduced values as the rollout stored them, in reward units, (size,).
        raw_returns: In reward units, (size,).
    """

    samples: Minibatch
    values: Tensor
    raw_returns: Tensor

    def __len__(self) -> int:
        return len(self.raw_returns)

    def batches(self, batch_size: int) -> list[Tensor]:
        """The rows of the rollout in random order, in pieces: SB3's permutation, from numpy's global generator."""
        order = torch.as_tensor(np.random.permutation(len(self)), device=self.raw_returns.device)
        return list(order.split(batch_size))


def read_rollout(buffer: RolloutBuffer, action_space: spaces.Space[Any]) -> Rollout:
    """Everything in a rollout buffer as tensors, for any buffer class, without advancing a generator.

    The buffer hands out its samples in a random order, which is undone.
    """
    state = np.random.get_state()
    shuffled = next(iter(buffer.get(batch_size=None)))
    np.random.set_state(state)
    order = np.random.permutation(len(shuffled.returns))
    np.random.set_state(state)
    back = torch.as_tensor(np.argsort(order), device=shuffled.returns.device)
    actions = shuffled.actions[back]
    if isinstance(action_space, spaces.Discrete):
        actions = actions.long().flatten()
    values, returns = shuffled.old_values[back], shuffled.returns[back]
    samples = Minibatch(
        rows(shuffled.observations, back),
        actions,
        shuffled.old_log_prob[back],
        shuffled.advantages[back],
        returns,
        values.unsqueeze(1),
    )
    return Rollout(samples, values, returns)


@dataclass(frozen=True)
class Behaviour:
    """What the policy says of a whole rollout before the first update, when it still is the one that acted.

    Args:
        log_prob: Of the actions taken, (size,).
        means: What each critic expects, (size, n_critics), in the heads' unit.
        value: The reduced value in reward units, (size,).
        action_parameters: Of the action distributions, (size, k); None where their divergence has no closed form.
    """

    log_prob: Tensor
    means: Tensor
    value: Tensor
    action_parameters: Tensor | None


@torch.no_grad()
def recover_behaviour(evaluator: Evaluator, rollout: Rollout) -> Behaviour:
    """One pass over the rollout, in chunks: the old log-probabilities and every critic's old output."""
    parts = []
    for start in range(0, len(rollout), CHUNK):
        samples = rollout.samples.rows(slice(start, start + CHUNK))
        evaluation = evaluator(samples.observations, samples.actions)
        ensemble = evaluator.ensemble
        parts.append(
            (
                evaluation.log_prob,
                ensemble.means(evaluation.distributions),
                ensemble.value(evaluation.distributions),
                action_parameters(evaluation.action_distribution),
            )
        )
    log_prob, means, value, parameters = zip(*parts, strict=True)
    has_parameters = parameters[0] is not None
    return Behaviour(
        torch.cat(log_prob), torch.cat(means), torch.cat(value), torch.cat(parameters) if has_parameters else None
    )


@torch.no_grad()
def rollout_kl(evaluator: Evaluator, rollout: Rollout) -> float:
    """Mean KL(old || new) over all states of a rollout, of the policy as it is now."""
    total = 0.0
    for start in range(0, len(rollout), CHUNK):
        samples = rollout.samples.rows(slice(start, start + CHUNK))
        evaluation = evaluator(samples.observations, samples.actions)
        total += float(mean_kl(evaluation, samples)) * len(samples.returns)
    return total / len(rollout)
