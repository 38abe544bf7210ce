"""Microseconds of an optimizer step, beside torch's AdamW and the cost of random numbers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from statistics import median

import torch
from torch import Tensor
from torch._inductor.utils import fresh_cache

from benchmarks.compiled_step import CompiledStep
from benchmarks.measure import Announce, Comparison, Target, interleave, paired_ratios
from benchmarks.plots import draw_comparison, panels
from benchmarks.results import Report
from benchmarks.tables import Table, comparison_table, target_table
from everlearn.optim.adaptive_upgd import AdaptiveUPGD
from everlearn.optim.upgd import UPGD
from everlearn.report.wording import number

Shape = tuple[int, ...]
OptimizerMaker = Callable[[list[Tensor]], torch.optim.Optimizer]

FOREACH, FUSED, RANDN = "AdamW foreach", "AdamW fused", "randn"
PEER = f"{FOREACH} + {RANDN}"
TABLE, NO_NOISE = "AdaptiveUPGD, noise table", "AdaptiveUPGD, no noise"
NOISY = ("AdaptiveUPGD", "AdaptiveUPGD, adaptive noise", "UPGD")
_LR, _DECAY = 3e-4, 1e-3
TORCH_OPTIMIZERS: dict[str, OptimizerMaker] = {
    FOREACH: partial(torch.optim.AdamW, lr=_LR, weight_decay=_DECAY, foreach=True),
    FUSED: partial(torch.optim.AdamW, lr=_LR, weight_decay=_DECAY, fused=True),
    "AdamW for-loop": partial(torch.optim.AdamW, lr=_LR, weight_decay=_DECAY, foreach=False),
}
OWN_OPTIMIZERS: dict[str, OptimizerMaker] = {
    "AdaptiveUPGD": partial(AdaptiveUPGD, lr=_LR, weight_decay=_DECAY, seed=0),
    "AdaptiveUPGD, adaptive noise": partial(AdaptiveUPGD, lr=_LR, weight_decay=_DECAY, seed=0, adaptive_noise=True),
    TABLE: partial(AdaptiveUPGD, lr=_LR, weight_decay=_DECAY, seed=0, noise="table"),
    NO_NOISE: partial(AdaptiveUPGD, lr=_LR, weight_decay=_DECAY, seed=0, sigma=0.0),
    "UPGD": partial(UPGD, lr=_LR, weight_decay=_DECAY, seed=0),
}
COMPILED = ("AdaptiveUPGD", TABLE, NO_NOISE, "UPGD")
"""Those of everlearn's that are also timed as a compiled graph."""
METHOD = (
    "Microseconds of one `step()` with gradients that are set once, timed in batches. The peer is torch's AdamW with "
    "`foreach=True` plus what drawing one normal number per parameter costs, for UPGD is such a step with noise. The "
    "networks are SB3's MlpPolicy for HalfCheetah, an actor and two critics of 256 x 256 for Humanoid, and ten layers "
    "of 1000 x 1000. *Compiled* is the functional step of the same optimizer as one graph, from the same gradients and "
    "with the same noise, drawn outside of it. State counts the tensors of `optimizer.state` in bytes per parameter; a "
    "noise table is a further 8 MiB, for all optimizers of a process together."
)


def compiled_name(name: str) -> str:
    """The contestant that is an optimizer's compiled step."""
    return f"{name}, compiled"


@dataclass(frozen=True)
class Network:
    """The tensors of a network.

    Attributes:
        title: What it is like.
        shapes: Of its parameters.
        steps: Optimizer steps per sample, so that a sample takes some hundredths of a second.
        compiled_must: For the compiled step without noise beside fused AdamW; None for nothing.
        compiled_aim: For the compiled step with the noise table beside fused AdamW; None for nothing.
    """

    title: str
    shapes: Sequence[Shape]
    steps: int
    compiled_must: float | None = None
    compiled_aim: float | None = None

    @property
    def numel(self) -> int:
        """Number of parameters."""
        return sum(map(math.prod, self.shapes))

    def targets(self, *, compiled: bool) -> list[Target]:
        """What everlearn's optimizers should reach."""
        targets = [Target("P4", name, PEER, must=1.5) for name in NOISY]
        if compiled and self.compiled_must is not None:
            targets.append(Target("P4", compiled_name(NO_NOISE), FUSED, must=self.compiled_must))
        if compiled and self.compiled_aim is not None:
            targets.append(Target("P4", compiled_name(TABLE), FUSED, aim=self.compiled_aim))
        return targets


def layers(*sizes: int) -> list[Shape]:
    """Weights and biases of an MLP with these layer sizes."""
    return [shape for size, width in pairwise(sizes) for shape in ((width, size), (width,))]


NETWORKS = (
    Network("11 k parameters (HalfCheetah)", [(6,), *layers(17, 64, 64, 6), *layers(17, 64, 64, 1)], 100),
    Network(
        "470 k parameters (Humanoid, two critics)",
        [(17,), *layers(348, 256, 256, 17), *layers(348, 256, 256, 1) * 2],
        20,
    ),
    Network("10 M parameters (ten wide layers)", layers(*[1000] * 11), 3, compiled_must=3.0, compiled_aim=4.0),
)


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
        networks: How many of the networks, the smallest first.
        repetitions: Samples of each contestant, after one to warm up.
        compiled: Whether steps are timed compiled, too.
    """

    networks: int = len(NETWORKS)
    repetitions: int = 15
    compiled: bool = True


SHORT = Settings(networks=1, repetitions=2, compiled=False)


def run(settings: Settings, announce: Announce) -> Report:
    """Measure all optimizers on the networks."""
    comparisons = [_compare(network, settings, announce) for network in NETWORKS[: settings.networks]]
    summary = [compiled_table(comparisons)] if settings.compiled else []
    figure, axes = panels("One optimizer step", len(comparisons), 1, size=(9.5, 4.8 if settings.compiled else 4.0))
    for row, comparison in zip(axes, comparisons, strict=True):
        draw_comparison(row[0], comparison)
    return Report(
        name="optimizers",
        title="Optimizer step",
        method=METHOD,
        settings=asdict(settings),
        data=[comparison.as_dict() for comparison in comparisons],
        tables=[*map(comparison_table, comparisons), *summary, target_table(comparisons)],
        figure=figure,
    )


def _compare(network: Network, settings: Settings, announce: Announce) -> Comparison:
    optimizers = {
        name: make(parameters_with_gradients(network.shapes))
        for name, make in (TORCH_OPTIMIZERS | OWN_OPTIMIZERS).items()
    }
    compiled = _compiled_steps(network, announce) if settings.compiled else {}
    steps: dict[str, Callable[[], object]] = {name: optimizer.step for name, optimizer in optimizers.items()}
    steps |= {RANDN: partial(torch.randn, network.numel, generator=torch.Generator()), **compiled}
    contestants = {name: partial(microseconds, step, network.steps) for name, step in steps.items()}
    samples = interleave(contestants, settings.repetitions, lambda what: announce(f"{network.title}: {what}"))
    samples[PEER] = [step + noise for step, noise in zip(samples[FOREACH], samples[RANDN], strict=True)]
    references = [*TORCH_OPTIMIZERS, RANDN, PEER]
    state = {name: state_bytes(optimizer) for name, optimizer in optimizers.items()}
    return Comparison(
        title=network.title,
        unit="µs",
        samples={name: samples[name] for name in [*references, *OWN_OPTIMIZERS, *compiled]},
        peer=PEER,
        more_is_better=False,
        targets=network.targets(compiled=settings.compiled),
        references=references,
        details={
            f"ratio to {FUSED}": {
                name: median(paired_ratios(own, samples[FUSED])) for name, own in samples.items() if name != RANDN
            },
            "bytes per parameter": state | {compiled_name(name): state[name] for name in COMPILED if compiled},
            "compiling, s": {name: step.seconds for name, step in compiled.items()},
        },
    )


def _compiled_steps(network: Network, announce: Announce) -> dict[str, CompiledStep]:
    """The compiled step of each of ``COMPILED``, by its contestant's name."""
    steps = {}
    for name in COMPILED:
        announce(f"{network.title}: compiling {name}")
        optimizer = OWN_OPTIMIZERS[name](parameters_with_gradients(network.shapes))
        with fresh_cache():
            steps[compiled_name(name)] = CompiledStep(optimizer)
    return steps


def compiled_table(comparisons: Sequence[Comparison]) -> Table:
    """A row per network and optimizer that was timed both ways: microseconds eager and compiled, and their ratio."""
    rows = []
    for comparison in comparisons:
        for name in COMPILED:
            own, other = compiled_name(name), comparison.median(name)
            figures = (other, comparison.median(own), comparison.ratio(own, name))
            rows.append([f"{comparison.title}: {name}", *map(number, figures)])
    return Table("Eager and compiled", ["µs of a step", "eager", "compiled", "compiled to eager"], rows)


def parameters_with_gradients(shapes: Sequence[Shape]) -> list[Tensor]:
    """Parameters and gradients from a normal distribution, the same for every contestant."""
    generator = torch.Generator().manual_seed(0)
    parameters = [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    return parameters


def microseconds(step: Callable[[], object], times: int) -> float:
    """Mean duration of ``times`` steps in a row."""
    start = time.perf_counter()
    for _ in range(times):
        step()
    return 1e6 * (time.perf_counter() - start) / times


def state_bytes(optimizer: torch.optim.Optimizer) -> float:
    """Bytes of the tensors in the optimizer's state, per parameter."""
    tensors = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
    numel: int = sum(parameter.numel() for group in optimizer.param_groups for parameter in group["params"])
    return sum(tensor.nbytes for tensor in tensors) / numel
