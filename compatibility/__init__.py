"""The test suites of the neighbours, run on everlearn's classes: Stable-Baselines3's tests, and rl_zoo3's commands."""
