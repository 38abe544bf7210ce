"""Slow and obvious twins of the value heads' kernels: one sample, python numbers, loops."""

import math


def quantile_huber_loss(quantiles: list[float], target: float, kappa: float) -> float:
    total = 0.0
    for i, quantile in enumerate(quantiles):
        level = (i + 0.5) / len(quantiles)
        error = target - quantile
        huber = error**2 / 2 if abs(error) <= kappa else kappa * (abs(error) - kappa / 2)
        total += (level if error >= 0 else 1 - level) * huber
    return total / len(quantiles)


def project(probabilities: list[float], positions: list[float], support: list[float]) -> list[float]:
    projected = [0.0] * len(support)
    for mass, position in zip(probabilities, positions, strict=True):
        if position <= support[0]:
            projected[0] += mass
        elif position >= support[-1]:
            projected[-1] += mass
        else:
            upper = next(k for k, atom in enumerate(support) if atom > position)
            nearness = (position - support[upper - 1]) / (support[upper] - support[upper - 1])
            projected[upper - 1] += mass * (1 - nearness)
            projected[upper] += mass * nearness
    return projected


def lower_tail_mean(positions: list[float], probabilities: list[float], alpha: float) -> float:
    left, total = alpha, 0.0
    for position, mass in sorted(zip(positions, probabilities, strict=True)):
        taken = min(left, mass)
        total += taken * position
        left -= taken
    return total / (alpha - left)


def gaussian_histogram(value: float, centres: list[float], sigma_ratio: float) -> list[float]:
    width = centres[1] - centres[0]
    mean = min(max(value, centres[0]), centres[-1])

    def below(edge: float) -> float:
        return 0.5 * (1 + math.erf((edge - mean) / (math.sqrt(2) * sigma_ratio * width)))

    masses = [below(centre + width / 2) - below(centre - width / 2) for centre in centres]
    return [mass / sum(masses) for mass in masses]


def running_scale(rollouts: list[list[float]], beta: float) -> tuple[float, float]:
    """Mean and standard deviation of all returns, each rollout weighing ``beta`` times its successor."""
    weights = [beta**age for age in reversed(range(len(rollouts)))]
    total = sum(weights)
    mean = sum(w * sum(r) / len(r) for w, r in zip(weights, rollouts, strict=True)) / total
    variance = sum(w * sum((x - mean) ** 2 for x in r) / len(r) for w, r in zip(weights, rollouts, strict=True)) / total
    return mean, math.sqrt(variance)
