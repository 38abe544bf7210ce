"""Scopes: whose largest utility normalises a weight's utility."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Literal

import torch
from torch import Tensor

from everlearn.optim import rules
from everlearn.optim.block import Block, Hyper

Scope = Literal["global", "group", "tensor", "row", "none"]
SCOPES = ("global", "group", "tensor", "row", "none")


def largest_utility(block: Block, hyper: Hyper) -> list[Tensor]:
    """The block's largest utility, as a list of one; none where the gate is off."""
    return [] if hyper["scope"] == "none" else [rules.largest_utility(block, corrected=_corrected(hyper))]


def scope_etas(blocks: Sequence[tuple[Block, Hyper]], maxima: Sequence[Sequence[Tensor]]) -> list[Tensor | None]:
    """Eta of every block: the largest utility in the scope that its group declares; None without a gate.

    Args:
        blocks: Blocks with their group's hyper-parameters.
        maxima: The largest utilities of each block's pieces.
    """
    shared: dict[Hashable, list[Tensor]] = {}
    for (_, hyper), pieces in zip(blocks, maxima, strict=True):
        shared.setdefault(_shares_with(hyper), []).extend(pieces)
    largest = {key: _largest(pieces) for key, pieces in shared.items() if pieces}
    return [_eta(block, hyper, largest) for block, hyper in blocks]


def _corrected(hyper: Hyper) -> bool:
    """The released code corrects the bias of the utility but not that of the largest one."""
    return bool(hyper["preset"] != "official")


def _shares_with(hyper: Hyper) -> Hashable:
    """Blocks with equal keys share their largest utility."""
    if hyper["scope"] == "group":
        return "group", hyper.get("label") or id(hyper)
    return str(hyper["scope"])


def _largest(pieces: Sequence[Tensor]) -> Tensor:
    return torch.stack([piece.to(pieces[0].device) for piece in pieces]).amax()


def _eta(block: Block, hyper: Hyper, largest: dict[Hashable, Tensor]) -> Tensor | None:
    match hyper["scope"]:
        case "none":
            return None
        case "row":
            return rules.row_norms(block)
        case "tensor":
            return rules.largest_utilities_per_parameter(block, corrected=_corrected(hyper))
        case _:
            return largest[_shares_with(hyper)].to(block.param.device)
