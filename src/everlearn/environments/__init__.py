"""Environments: from a configuration to a checked, monitored, normalised SB3 vector environment."""
