"""The names of hyper-parameters: the constructor's, with one spelling for each, and those that make up a structure."""

from __future__ import annotations

_ALIASES = {"entropy_coef": "ent_coef"}
_PARTS = {"optimizer": "optimizer_kwargs", "vgs": "vgs_kwargs", "kl": "kl_penalty"}
_ARGUMENTS = {
    "optimizer_kwargs.lr": "learning_rate",
    "vgs_kwargs.beta": "vgs_beta",
    "vgs_kwargs.alpha": "vgs_alpha",
    "vgs_kwargs.warmup_steps": "vgs_warmup_steps",
}

STRUCTURAL = frozenset(
    {
        *("policy", "policy_kwargs", "env", "n_envs", "n_steps", "seed", "device"),
        *("net_arch", "activation_fn", "ortho_init", "log_std_init", "features_extractor_class"),
        *("value_head", "n_critics", "critic_reduction", "normalize_returns"),
        *("n_quantiles", "n_atoms", "v_min", "v_max", "use_sde", "sde_sample_freq"),
        *("rollout_buffer_class", "rollout_buffer_kwargs", "stats_window_size", "tensorboard_log", "verbose"),
        *("optimizer_class", "optimizer_kwargs", "variance_gradient_scaling", "vgs_kwargs", "kl_penalty"),
        *("divergence", "compile", "policy_interface"),
    }
)
"""What a running agent cannot change, or what keeps it from taking the weights of another that has it otherwise."""


def without_alias(name: str) -> str:
    """The constructor's name for what other systems call otherwise; any other name as it is."""
    return _ALIASES.get(name, name)


def argument_name(name: str) -> str:
    """The one name under which a model knows a hyper-parameter: ``optimizer.sigma`` is ``optimizer_kwargs.sigma``."""
    part, dot, option = without_alias(name).partition(".")
    path = f"{_PARTS.get(part, part)}{dot}{option}" if dot else part
    return _ARGUMENTS.get(path, path)


def is_structural(name: str) -> bool:
    """Whether it belongs to what an agent is built of; so do the options of the policy and of its value head."""
    name = argument_name(name)
    return name in STRUCTURAL or name.partition(".")[0] in ("policy_kwargs", "value_head")
