"""rl_zoo3's commands with everlearn's algorithms: ``python zoo_commands.py train --algo everlearn_ppo ...``."""

import sys

import rl_zoo3.enjoy
import rl_zoo3.exp_manager
import rl_zoo3.hyperparams_opt
import rl_zoo3.train

from everlearn import PPO, DistributionalPPO

ALGORITHMS = {"everlearn_ppo": PPO, "distributional_ppo": DistributionalPPO}
COMMANDS = {"train": rl_zoo3.train.train, "enjoy": rl_zoo3.enjoy.enjoy}
SEARCH = rl_zoo3.hyperparams_opt  # used by train --optimize-hyperparameters

for module in (rl_zoo3, rl_zoo3.train, rl_zoo3.enjoy, rl_zoo3.exp_manager):
    module.ALGOS.update(ALGORITHMS)
for spaces in (SEARCH.HYPERPARAMS_SAMPLER, SEARCH.HYPERPARAMS_CONVERTER):
    spaces.update(dict.fromkeys(ALGORITHMS, spaces["ppo"]))

if __name__ == "__main__":
    command = sys.argv.pop(1) if len(sys.argv) > 1 else ""
    if command not in COMMANDS:
        sys.exit(f"Usage: zoo_commands.py train|enjoy [options of rl_zoo3], not {command!r}.")
    COMMANDS[command]()
