"""Slow and obvious twin of the gradient statistics: every gradient is kept, every weight written out."""

import math


def weights(betas: list[float]) -> list[float]:
    return [(1 - beta) * math.prod(betas[k + 1 :]) for k, beta in enumerate(betas)]


def noise_and_signal(gradients: list[list[float]], betas: list[float]) -> tuple[float, float]:
    weight = weights(betas)
    total = sum(weight)
    share = sum(w**2 for w in weight) / total**2
    noise, squared_means = 0.0, 0.0
    for element in zip(*gradients, strict=True):
        mean = sum(w * g for w, g in zip(weight, element, strict=True)) / total
        variance = sum(w * (g - mean) ** 2 for w, g in zip(weight, element, strict=True)) / total
        noise += variance / (1 - share)
        squared_means += mean**2
    return noise, squared_means - share * noise
