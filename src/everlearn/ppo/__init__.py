"""PPO and DistributionalPPO: one algorithm, two sets of defaults."""
