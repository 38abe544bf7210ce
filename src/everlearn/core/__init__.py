"""What every other package stands on: errors, state, generators, registries, metrics, flat views."""
