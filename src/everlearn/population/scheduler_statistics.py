"""What a population has been doing, as numbers for a logger."""

from __future__ import annotations

import math
from statistics import fmean, pstdev
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from everlearn.population.ledger import Ledger

ATTEMPTS, EXPLOITS, EXPLORATIONS, WITH_VGS = "attempts", "exploits", "explorations", "with_vgs_state"
INCIDENTS, FORMAT = "incidents", "format/"
"""What is counted; exploits by format under ``FORMAT`` and its name."""


def statistics_of(ledger: Ledger) -> dict[str, float]:
    """By name, as Stable-Baselines3's logger takes them; of performances only those that are finite count."""
    members, standings, counts = ledger.members, ledger.standings.values(), ledger.counts
    finite = [one.performance for one in members if one.performance is not None and math.isfinite(one.performance)]
    attempts, exploits = counts[ATTEMPTS], counts[EXPLOITS]
    stats: dict[str, float] = {
        "pbt/population_size": len(members),
        "pbt/generation": max((member.generation for member in members), default=0),
        "pbt/ready_members": sum(standing.has_reported for standing in standings),
        "pbt/failed_ready_checks": max((standing.waits for standing in standings), default=0),
        "pbt/exploitation_count": exploits,
        "pbt/exploration_count": counts[EXPLORATIONS],
        "pbt/exploits_skipped": attempts - exploits,
        "pbt/exploits_with_vgs_state": counts[WITH_VGS],
        "pbt/incidents": counts[INCIDENTS],
    }
    if attempts:
        stats["pbt/exploit_success_rate"] = exploits / attempts
    stats |= {f"pbt/exploits/{name.removeprefix(FORMAT)}": n for name, n in counts.items() if name.startswith(FORMAT)}
    if finite:
        stats |= {
            "pbt/mean_performance": fmean(finite),
            "pbt/std_performance": pstdev(finite),
            "pbt/min_performance": min(finite),
            "pbt/max_performance": max(finite),
        }
    return stats
