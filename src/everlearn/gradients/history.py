"""What is remembered of the gradients of several tensors: the state of variance gradient scaling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, final

import torch
from torch import Tensor

from everlearn.core.errors import ArgumentError, StateError
from everlearn.core.flat import FlatLayout
from everlearn.gradients import statistics

LIFETIME = ("skipped_steps", "resets")
"""Counts that a reset leaves alone."""


@dataclass(frozen=True)
class Observation:
    """The gradients of one step, copied.

    Args:
        gradient: All gradients in one vector, zero where a tensor has none, (numel,).
        seen: Which tensors have a gradient, booleans (n,).
        mean_absolute: Mean absolute value of the elements seen, 0-d.
        norm: Norm of all gradients together, 0-d.
    """

    gradient: Tensor
    seen: Tensor
    mean_absolute: Tensor
    norm: Tensor


@final
class GradientHistory:
    """Mean and scatter over time of the gradients of n named tensors, in float32 at least.

    ``mean`` and ``ss`` are vectors over all elements, which ``layout`` cuts into tensors; ``c`` and ``q`` are
    each tensor's sum of weights and of squared weights, (n,), so that a tensor without a gradient is neither
    observed nor decayed. All of them change in place.

    Args:
        names: One name per tensor; None for "0", "1", ...
        tensors: The parameters: only shapes, dtypes and device are used.

    Raises:
        ArgumentError: If the tensors are on several devices.
    """

    def __init__(self, names: Sequence[str] | None, tensors: Sequence[Tensor]) -> None:
        devices = sorted({str(tensor.device) for tensor in tensors})
        if len(devices) > 1:
            raise ArgumentError(f"The parameters are on several devices, {devices}. Use one scaler for each.")
        device = tensors[0].device
        dtype = reduce(torch.promote_types, (tensor.dtype for tensor in tensors), torch.float32)
        self.names = [str(index) for index in range(len(tensors))] if names is None else list(names)
        self.layout = FlatLayout(tensors)
        self.sizes = torch.tensor(self.layout.sizes, dtype=torch.float64, device=device)
        self.mean = torch.zeros(self.layout.numel, dtype=dtype, device=device)
        self.ss = torch.zeros_like(self.mean)
        self.c = torch.zeros_like(self.sizes)
        self.q = torch.zeros_like(self.sizes)
        self.magnitude_weight = torch.zeros((), dtype=torch.float64, device=device)
        self.grad_mean_ema = torch.zeros_like(self.magnitude_weight)
        self.grad_norm_ema = torch.zeros_like(self.magnitude_weight)
        self.step_count = torch.zeros_like(self.magnitude_weight)  # as torch's own counters: a number like the others
        self.skipped_steps = torch.zeros_like(self.step_count)
        self.resets = torch.zeros_like(self.step_count)

    def copy_of(self, gradients: Sequence[Tensor | None]) -> Observation:
        """The gradients of one step, to be taken in later, whatever happens to the originals until then."""
        present = [gradient is not None for gradient in gradients]
        known = [
            self.mean.new_zeros(shape) if gradient is None else gradient
            for gradient, shape in zip(gradients, self.layout.shapes, strict=True)
        ]
        flat = self.layout.gather_(torch.empty_like(self.mean), known)
        count = sum(size for size, there in zip(self.layout.sizes, present, strict=True) if there)
        seen = torch.tensor(present, device=flat.device)
        return Observation(flat, seen, *statistics.magnitudes([flat], max(count, 1)))

    def observe(self, observation: Observation, beta: float) -> None:
        """Take in the gradients of one step; the weights of earlier ones of the same tensor decay by beta."""
        decay = torch.full_like(self.c, beta).masked_fill_(~observation.seen, 1.0)
        statistics.advance_weights_(self.c, self.q, decay)
        ratio = torch.where(observation.seen, (1 - decay) / self.c, 0.0)
        spread = self._spread(ratio, 1 - decay, decay)
        statistics.observe_(self.mean, self.ss, observation.gradient, *spread)
        statistics.move_averages_(
            (self.grad_mean_ema, self.grad_norm_ema),
            self.magnitude_weight,
            (observation.mean_absolute, observation.norm),
            beta,
        )
        self.step_count += 1

    def _spread(self, *per_tensor: Tensor) -> list[Tensor]:
        """Values (n,) for every element; one number each where all tensors agree and it costs nothing to look."""
        if self.c.device.type == "cpu" and all(bool((values == values[0]).all()) for values in per_tensor):
            return [values[0] for values in per_tensor]
        return [self.layout.expand(values.to(self.mean.dtype)) for values in per_tensor]

    def is_measured(self) -> Tensor:
        """Which tensors were seen at least twice, booleans (n,)."""
        return statistics.is_measured(self.c, self.q)

    def noise_and_signal(self) -> tuple[Tensor, Tensor]:
        """Noise and signal of each tensor, (n,), in squared units of the gradient."""
        sum_ss, sum_mean_squared = self.layout.sums(self.ss), self.layout.sums(self.mean.double().square())
        return statistics.noise_and_signal(sum_ss, sum_mean_squared, self.c, self.q)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of the state by name, live: to write into one is to change the history."""
        elementwise = {
            f"{part}.{name}": view
            for part, flat in (("mean", self.mean), ("ss", self.ss))
            for name, view in zip(self.names, self.layout.views(flat), strict=True)
        }
        return elementwise | {name: tensor for name, tensor in self.vectors().items() if name not in ("mean", "ss")}

    def vectors(self) -> dict[str, Tensor]:
        """The same with ``mean`` and ``ss`` whole, as vectors over all elements."""
        return {
            "mean": self.mean,
            "ss": self.ss,
            "c": self.c,
            "q": self.q,
            "grad_mean_ema": self.grad_mean_ema,
            "grad_norm_ema": self.grad_norm_ema,
            "magnitude_weight": self.magnitude_weight,
            "step_count": self.step_count,
            "skipped_steps": self.skipped_steps,
            "resets": self.resets,
        }

    def state_dict(self) -> dict[str, Tensor]:
        """A snapshot of every tensor of the state by name."""
        return {name: tensor.clone() for name, tensor in self.tensors().items()}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
        """Restore a snapshot, or raise and stay as before.

        Args:
            state: Tensors by name, on any device.
            strict: Whether names must agree; if not, what is missing stays and what is unknown is ignored.

        Raises:
            StateError: If names disagree or a shape differs.
        """
        own = self.tensors()
        missing = [name for name in own if name not in state]
        unknown = [name for name in state if name not in own]
        if strict and (missing or unknown):
            raise StateError(
                f"The gradient statistics do not fit: {missing[:5]} are missing, {unknown[:5]} are unknown. "
                "Load what a scaler over the same parameters with the same names has saved."
            )
        common = {name: tensor for name, tensor in own.items() if name in state}
        for name, tensor in common.items():
            if tensor.shape != state[name].shape:
                raise StateError(
                    f"The gradient statistic '{name}' has shape {tuple(state[name].shape)}, but here it "
                    f"needs {tuple(tensor.shape)}. Load what was saved over parameters of the same shapes."
                )
        for name, tensor in common.items():
            tensor.copy_(state[name])

    def fits(self, tensors: Sequence[Tensor]) -> bool:
        """Whether the tensors have the same shapes in the same order."""
        return [tensor.shape for tensor in tensors] == self.layout.shapes

    def moved_to(self, tensors: Sequence[Tensor], names: Sequence[str] | None) -> GradientHistory:
        """The history of new tensors: all of this one where all shapes agree, else only the lifetime counts.

        Args:
            tensors: The new parameters.
            names: Their names; None for the present ones where all shapes agree, else for "0", "1", ...
        """
        fits = self.fits(tensors)
        successor = GradientHistory(self.names if fits else names, tensors)
        state = self.state_dict()
        successor.load_state_dict({name: state[name] for name in (state if fits else LIFETIME)}, strict=False)
        successor.names = list(names or successor.names)
        return successor

    def clear(self) -> None:
        """Forget everything but the lifetime counts; the count of resets grows by one."""
        for name, tensor in self.tensors().items():
            if name not in LIFETIME:
                tensor.zero_()
        self.resets += 1
