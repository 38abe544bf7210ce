"""Population based training in a loop of one's own: four small agents on CartPole. ``python examples/pbt_own_loop.py``.

Every agent trains by itself; after each round those who do badly take over the state of those who do well and go on
with hyper-parameters of their own.
"""

import tempfile

import numpy as np

from everlearn import PPO, HyperparamConfig, PBTConfig, PBTScheduler, PopulationMember

ROUNDS, INTERVAL, N_STEPS = 4, 2, 256
SPACE = [
    HyperparamConfig("learning_rate", 1e-5, 1e-2, is_log_scale=True),
    HyperparamConfig("ent_coef", 1e-4, 0.05, scale="log"),
    HyperparamConfig("gamma", 0.9, 0.999, scale="one_minus"),
    HyperparamConfig("batch_size", 64, 256, divides=N_STEPS),
]


def new_agent(member: PopulationMember) -> PPO:
    """An agent with the hyper-parameters of a member."""
    net = {"net_arch": [32, 32]}
    agent = PPO("MlpPolicy", "CartPole-v1", n_steps=N_STEPS, n_epochs=4, seed=int(member.member_id), policy_kwargs=net)
    agent.set_hyperparameters(member.hyperparams)
    return agent


def score_of(agent: PPO) -> float:
    """The mean return of the last training episodes."""
    return float(np.mean([episode["r"] for episode in agent.ep_info_buffer or [{"r": 0.0}]]))


def train(scheduler: PBTScheduler) -> None:
    """Train the population and tell what happens."""
    agents = {member.member_id: new_agent(member) for member in scheduler.initialize_population()}
    for number in range(1, ROUNDS + 1):
        for member in scheduler.members:
            agent = agents[member.member_id]
            agent.learn(INTERVAL * N_STEPS, reset_num_timesteps=False)
            score = score_of(agent)
            scheduler.update_performance(member, score, number * INTERVAL, model_parameters=agent.get_parameters())
        if number == ROUNDS:
            return
        for member in filter(scheduler.should_exploit_and_explore, scheduler.members):
            agent = agents[member.member_id]
            parameters, hyperparams, _ = scheduler.exploit_and_explore(member)
            if parameters is not None:
                agent.set_parameters(parameters)
                scheduler.verify_exploit(member, agent.get_parameters())
                print(f"round {number}: member {member.member_id} takes over member {member.parent}")
            agent.set_hyperparameters(hyperparams)


def report(scheduler: PBTScheduler) -> None:
    """Print how each member came to be what it is, the best first."""
    for member in sorted(scheduler.members, key=lambda member: -(member.performance or 0.0)):
        print(f"\nMember {member.member_id} has a mean return of {member.performance:.0f}. Its state was trained by")
        for stretch in scheduler.schedule(member):
            values = ", ".join(f"{name}={value:.4g}" for name, value in stretch.hyperparams.items())
            print(f"  member {stretch.member_id}, updates {stretch.first_step} to {stretch.last_step}: {values}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        population = PBTScheduler(
            PBTConfig(
                population_size=4,
                perturbation_interval=INTERVAL,
                hyperparams=SPACE,
                truncation_ratio=0.25,
                checkpoint_dir=directory,
            ),
            seed=0,
        )
        train(population)
        report(population)
