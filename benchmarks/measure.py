"""Fair comparison on one machine: contestants take turns, and ratios are taken turn by turn."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, TypeVar

Sample = TypeVar("Sample")
Announce = Callable[[str], None]


def interleave(
    contestants: Mapping[str, Callable[[], Sample]], repetitions: int, announce: Announce
) -> dict[str, list[Sample]]:
    """A turn of each contestant to warm up, then ``repetitions`` rounds in which each has a turn: A B C A B C ...

    Whatever slows the machine for a while then slows everyone.

    Args:
        contestants: What a turn of each runs and measures.
        repetitions: Rounds that count.
        announce: Told before each round what is to come.

    Returns:
        The samples of each contestant, (repetitions,), without the warm-up.
    """
    for name, measure in contestants.items():
        announce(f"warm-up of {name}")
        measure()
    return in_turns(contestants, repetitions, announce)


def in_turns(
    contestants: Mapping[str, Callable[[], Sample]], repetitions: int, announce: Announce
) -> dict[str, list[Sample]]:
    """``interleave`` without a warm-up, for contestants that each time warm up themselves."""
    samples: dict[str, list[Sample]] = {name: [] for name in contestants}
    for repetition in range(1, repetitions + 1):
        announce(f"repetition {repetition} of {repetitions}")
        for name, measure in contestants.items():
            samples[name].append(measure())
    return samples


def paired_ratios(own: Sequence[float], peer: Sequence[float]) -> list[float]:
    """``own / peer`` of each repetition."""
    return [ours / theirs for ours, theirs in zip(own, peer, strict=True)]


def reaches(value: float, bound: float, *, more_is_better: bool) -> bool:
    """Whether a value is as good as a bound, or better."""
    return value >= bound if more_is_better else value <= bound


@dataclass(frozen=True)
class Target:
    """The ratio to a peer that a contestant should reach, or a figure by itself.

    Attributes:
        label: Name of the target.
        contestant: Whose ratio.
        peer: To whom; None where the bounds are on the contestant's own median.
        must: What is required; None for nothing.
        aim: What is wished for; None for nothing beyond ``must``.
    """

    label: str
    contestant: str
    peer: str | None
    must: float | None = None
    aim: float | None = None


@dataclass(frozen=True)
class Comparison:
    """What several contestants needed, or managed, for the same work.

    Attributes:
        title: The work.
        unit: Of the samples.
        samples: Contestant to its samples, (repetitions,), in the order of the repetitions.
        peer: The contestant that ratios refer to.
        more_is_better: True for speeds, False for times.
        targets: Ratios to reach.
        references: The contestants that are not everlearn's.
        details: Further columns: heading to contestant to figure.
    """

    title: str
    unit: str
    samples: Mapping[str, Sequence[float]]
    peer: str
    more_is_better: bool
    targets: Sequence[Target] = ()
    references: Collection[str] = ()
    details: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def median(self, contestant: str) -> float:
        """Median of a contestant's samples."""
        return median(self.samples[contestant])

    def ratio(self, contestant: str, peer: str | None = None) -> float:
        """Median over the repetitions of the ratio to the peer in the same repetition."""
        return median(paired_ratios(self.samples[contestant], self.samples[peer or self.peer]))

    def reached(self, target: Target) -> float:
        """What a target's bounds are on: the ratio to its peer, or the median."""
        if target.peer is None:
            return self.median(target.contestant)
        return self.ratio(target.contestant, target.peer)

    def as_dict(self) -> dict[str, Any]:
        """All samples and what was computed from them, for a machine."""
        return {
            "title": self.title,
            "unit": self.unit,
            "peer": self.peer,
            "more_is_better": self.more_is_better,
            "contestants": {
                name: {
                    "samples": list(samples),
                    "median": self.median(name),
                    "ratio_to_peer": self.ratio(name),
                    **{heading: figures[name] for heading, figures in self.details.items() if name in figures},
                }
                for name, samples in self.samples.items()
            },
            "targets": [{**vars(target), **self._verdicts(target)} for target in self.targets],
        }

    def _verdicts(self, target: Target) -> dict[str, float | bool | None]:
        reached = self.reached(target)
        bounds = {"must_reached": target.must, "aim_reached": target.aim}
        verdicts = {
            name: None if bound is None else reaches(reached, bound, more_is_better=self.more_is_better)
            for name, bound in bounds.items()
        }
        return {"ratio": reached, **verdicts}
