"""The shell that all members of the UPGD family share: options, state, scopes, noise. The formulae are in ``rules``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, ClassVar, Literal, overload

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from everlearn.core.errors import ArgumentError, require_in_range, suggestion
from everlearn.core.rng import private_seed
from everlearn.optim import rules
from everlearn.optim.block import Block, Hyper, Scalar
from everlearn.optim.diagnostics import step_diagnostics
from everlearn.optim.directions import Direction
from everlearn.optim.noise import make_stream, restored_stream
from everlearn.optim.saved_state import require_saved
from everlearn.optim.scopes import SCOPES, largest_utility, scope_etas
from everlearn.optim.shelf import Shelf, Span, hyper_floats, is_large, state_dtype

Preset = Literal["paper", "official"]
NoiseKind = Literal["generator", "table"]

CHUNK_SIZE = 2**17
"""Elements of a large parameter that are updated together per thread: more would leave the cache, fewer cost calls."""

PRESETS: dict[str | None, float] = {None: 2.0, "paper": 1.0, "official": 2.0}
"""Step multiplier of each preset."""


class UtilityOptimizer(torch.optim.Optimizer):
    """Descent in which useful weights move less and useless ones more, with a little noise.

    A subclass names its ``direction`` and hands the arguments below on, with those of its direction. As in torch, a
    gradient that is not finite is taken as it is: mask it before the step. Two optimizers of one class that are made
    without a draw from torch's generator between them share their noise; ``seed`` tells them apart.

    Args:
        params: Parameters, named parameters or groups. A group may carry ``label``: with ``scope="group"`` groups of
            one label share their largest utility.
        options: Hyper-parameters of every group: ``lr, weight_decay, beta_utility, sigma, protect, scope,
            step_multiplier, preset, adaptive_noise, noise_beta, min_noise_std`` and the direction's own.
        noise: ``"generator"`` draws the noise, ``"table"`` looks it up at a tenth of the cost.
        seed: Seed of the noise; by default it follows from torch's global generator without advancing it.

    Raises:
        ArgumentError: If a hyper-parameter is outside its range, or a parameter is sparse or complex.
    """

    direction: ClassVar[Direction]
    factor_acts_on: ClassVar[Literal["step", "gradient"]]
    """Where a variance gradient scaler should act: on the step after normalisation, or on the gradient."""

    def __init__(self, params: ParamsT, options: dict[str, Any], noise: NoiseKind, seed: int | None) -> None:
        self._shelves: list[list[Shelf]] = []
        self._factors: tuple[list[Tensor], Tensor] | None = None
        self._last_step: tuple[Sequence[tuple[Block, Hyper]], Sequence[Tensor | None]] = ((), ())
        self._averages = ("avg_utility", *self.direction.averages)
        super().__init__(params, options)
        self._noise = make_stream(noise, private_seed("optimizer noise", type(self).__name__) if seed is None else seed)

    # --- groups and state -----------------------------------------------------------------------------------------

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; its state is created at once, so that checkpoints have the same keys before the first step."""
        param_group = {**self.defaults, **param_group}
        if "betas" in param_group and "beta1" in self.defaults:
            param_group["beta1"], param_group["beta2"] = param_group.pop("betas")
        if param_group["step_multiplier"] is None:
            param_group["step_multiplier"] = PRESETS.get(param_group["preset"])
        self._check_group(param_group)
        super().add_param_group(param_group)
        params = self.param_groups[-1]["params"]
        strange = [f"{p.dtype} {p.layout}" for p in params if not p.is_floating_point() or p.layout != torch.strided]
        if strange:
            self.param_groups.pop()
            raise ArgumentError(
                f"{type(self).__name__} takes dense real parameters, found {strange}. Leave these to another optimizer."
            )
        self._shelves.append(self._shelve(params, None))

    def _check_group(self, group: Mapping[str, Any]) -> None:
        if group["preset"] not in PRESETS:
            known = suggestion(str(group["preset"]), filter(None, PRESETS))
            raise ArgumentError(f"There is no preset '{group['preset']}'.{known}")
        if "betas" in group:
            raise ArgumentError(f"{type(self).__name__} has no betas. Leave them out of the parameter group.")
        for name in ("lr", "weight_decay", "sigma", "step_multiplier", "min_noise_std"):
            require_in_range(name, float(group[name]), 0)
        for name in ("beta_utility", "noise_beta", "beta1", "beta2"):
            if name in group:
                require_in_range(name, float(group[name]), 0, 1, open_high=True)
        if "eps" in group:
            require_in_range("eps", float(group["eps"]), 0)
        if group["scope"] not in SCOPES:
            raise ArgumentError(f"There is no scope '{group['scope']}'.{suggestion(group['scope'], SCOPES)}")

    def _shelve(self, params: Sequence[Tensor], saved: Mapping[Tensor, Mapping[str, Any]] | None) -> list[Shelf]:
        """Put parameters of one device and dtype together and link their states to the shelf's vectors."""
        kinds: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
        for param in params:
            kinds.setdefault((param.device, state_dtype(param)), []).append(param)
        shelves = []
        for kind in kinds.values():
            members = sorted(kind, key=is_large)  # small ones side by side, so that they are updated together
            states = None if saved is None else [saved[param] for param in members]
            shelves.append(Shelf(members, self._averages, states))
            self.state.update(zip(members, shelves[-1].states(), strict=True))
        return shelves

    def _shelve_all(self, saved: Mapping[Tensor, Mapping[str, Any]]) -> None:
        self._shelves = [self._shelve(group["params"], saved) for group in self.param_groups]

    def _follow_moved_parameters(self) -> None:
        """``module.to(...)`` moves and casts parameters under the optimizer's feet; their state follows."""
        if any(shelf.is_outdated() for shelves in self._shelves for shelf in shelves):
            self._shelve_all(dict(self.state))

    def state_dict(self) -> dict[str, Any]:
        """A snapshot: torch's ``state`` and ``param_groups``, and the position in the stream of noise."""
        snapshot = super().state_dict()
        snapshot["state"] = {
            index: {name: value.clone() for name, value in values.items()}
            for index, values in snapshot["state"].items()
        }
        return {**snapshot, "noise": self._noise.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore state, hyper-parameters (as torch does) and noise; averages keep their precision.

        Raises:
            StateError: If groups, a parameter's state or the noise are missing, incomplete or do not fit; then nothing
                has changed.
        """
        require_saved(state_dict, self)
        saved_ids = [index for group in state_dict["param_groups"] for index in group["params"]]
        params = [param for group in self.param_groups for param in group["params"]]
        noise = restored_stream(state_dict.get("noise", {}))
        self._follow_moved_parameters()
        super().load_state_dict({"state": state_dict["state"], "param_groups": state_dict["param_groups"]})
        saved = {p: state_dict["state"][index] for index, p in zip(saved_ids, params, strict=True)}
        for shelf in chain(*self._shelves):
            shelf.fill([saved[param] for param in shelf.params])
            self.state.update(zip(shelf.params, shelf.states(), strict=True))
        self._noise = noise

    def __getstate__(self) -> dict[str, Any]:
        """What copies and pickles carry, the noise included."""
        return {**super().__getstate__(), "noise": self._noise.state_dict()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Rebuild the links between states and vectors."""
        noise = state.pop("noise", None)
        super().__setstate__(state)
        if noise is not None:
            self._averages = ("avg_utility", *self.direction.averages)
            self._factors, self._last_step = None, ((), ())
            self._noise = restored_stream(noise)
            self._shelve_all(dict(self.state))

    def diagnostics(self) -> dict[str, Tensor]:
        """What the last step did, see ``everlearn.optim.diagnostics``; empty before the first one."""
        return step_diagnostics(*self._last_step, self.direction)

    # --- step -----------------------------------------------------------------------------------------------------

    def scale_next_step(self, parameters: Sequence[Tensor], factors: Tensor) -> None:
        """Take factors, (n,) in the order of ``parameters``, for the next step; others count as 1."""
        self._factors = (list(parameters), factors)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update every parameter that has a gradient.

        Args:
            closure: Recomputes the loss, as in torch.

        Returns:
            What the closure returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._follow_moved_parameters()
        spans = self._loaded_spans(count=True)
        self._draw_noise(spans)
        self._update([(span.block, hyper) for span, hyper in spans])
        for span, _ in spans:
            span.store()
        return loss

    @torch.no_grad()
    def remember_step(self) -> None:
        """Look at a step that was taken on parameters, gradients and state from outside, for ``diagnostics``."""
        blocks = [(span.block, hyper) for span, hyper in self._loaded_spans(count=False)]
        for block, hyper in blocks:
            block.noise = block.param if hyper["sigma"] > 0 else None  # of which only the presence counts
        self._last_step = (blocks, scope_etas(blocks, [largest_utility(block, hyper) for block, hyper in blocks]))

    def shelves(self) -> dict[tuple[int, int], Shelf]:
        """Where the state lies, by the number of the group and the shelf's own in it, in the order of the noise."""
        self._follow_moved_parameters()
        return {(group, number): s for group, shelves in enumerate(self._shelves) for number, s in enumerate(shelves)}

    def draw_noise(self, size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """The next standard normal numbers of the optimizer's stream, (size,); valid until the next draw."""
        return self._noise.draw(size, dtype, device)

    @contextmanager
    def kept_noise(self) -> Iterator[None]:
        """Inside, numbers are drawn that will be drawn again afterwards."""
        state = self._noise.state_dict()
        try:
            yield
        finally:
            self._noise = restored_stream(state)

    def _loaded_spans(self, *, count: bool) -> list[tuple[Span, Hyper]]:
        """Every span with its group's hyper-parameters, loaded, with the factors of this step; maybe counting it."""
        spans = [
            (span, hyper)
            for group, shelves in zip(self.param_groups, self._shelves, strict=True)
            for hyper in (self.hyper(group),)
            for shelf in shelves
            for span in self._spans_of(shelf, hyper, count=count)
        ]
        self._factors = None
        return spans

    def hyper(self, group: Mapping[str, Any]) -> Hyper:
        """The hyper-parameters that the rules see of a group."""
        return hyper_floats(group)

    def decays(self, hyper: Hyper) -> tuple[Scalar, ...]:
        """The decay of every running average, in the order of the running weights; 1 for an average that rests."""
        beta_utility = 1.0 if hyper["scope"] == "none" else hyper["beta_utility"]
        noise_beta = hyper["noise_beta"] if hyper["adaptive_noise"] else 1.0
        return (beta_utility, *self.direction.decays(hyper), noise_beta)

    def _spans_of(self, shelf: Shelf, hyper: Hyper, *, count: bool) -> list[Span]:
        spans = shelf.spans(self.decays(hyper) if count else None, hyper["adaptive_noise"])  # type: ignore[arg-type]
        factors = self._factors_of(shelf)
        for span in spans:
            scale = None if factors is None else span.pick(factors)
            span.block.step_scale, span.block.grad_scale = (
                (scale, None) if self.factor_acts_on == "step" else (None, scale)
            )
        return spans

    def _factors_of(self, shelf: Shelf) -> Tensor | None:
        if self._factors is None:
            return None
        parameters, factors = self._factors
        index = shelf.positions_in(parameters).to(factors.device)
        padded = torch.cat([factors, factors.new_ones(1)])
        return padded[index].to(device=shelf.device, dtype=shelf.dtype)

    def _draw_noise(self, spans: Iterable[tuple[Span, Hyper]]) -> None:
        """One draw for all parameters of a dtype and device; groups with ``sigma=0`` take none."""
        wanted: dict[tuple[torch.dtype, torch.device], list[Block]] = {}
        for span, hyper in spans:
            span.block.noise = None
            if hyper["sigma"] > 0:
                wanted.setdefault((span.block.param.dtype, span.block.param.device), []).append(span.block)
        for (dtype, device), blocks in wanted.items():
            numbers = self._noise.draw(sum(block.param.numel() for block in blocks), dtype, device)
            for block, part in zip(blocks, numbers.split([block.param.numel() for block in blocks]), strict=True):
                block.noise = part.view(block.param.shape)

    def _update(self, blocks: Sequence[tuple[Block, Hyper]]) -> None:
        """Both passes of the rule, in pieces that stay in the cache."""
        size = CHUNK_SIZE * torch.get_num_threads()
        maxima: list[list[Tensor]] = []
        for block, hyper in blocks:
            maxima.append([])
            for chunk in block.chunks(size):
                rules.observe_(chunk, self.direction, hyper)
                maxima[-1] += largest_utility(chunk, hyper)
        etas = scope_etas(blocks, maxima)
        self._last_step = (blocks, etas)
        for (block, hyper), eta in zip(blocks, etas, strict=True):
            rules.observe_update_rms_(block, self.direction, hyper)
            std = rules.noise_std(block, hyper)
            for chunk in (block,) if hyper["scope"] == "row" else block.chunks(size):
                rules.move_(chunk, self.direction, hyper, eta, std)
