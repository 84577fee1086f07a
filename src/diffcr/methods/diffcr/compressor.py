"""The module that owns a transformer's routers beside its table of ratios, and plans its calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from diffcr.core.regions import region_of
from diffcr.core.select import router_logits, scattered_positions
from diffcr.errors import DiffCRError
from diffcr.hosts.host import Host
from diffcr.methods.base import TransformerCall
from diffcr.methods.diffcr.bypass import LinearBypass
from diffcr.methods.diffcr.config import Bypass, DiffCRConfig, RoutedConfig
from diffcr.methods.diffcr.kept_updates import RoutedCall, UpdateRun
from diffcr.methods.diffcr.plans import (
    LayerPlan,
    RegionPlan,
    StepContext,
    group_by_region,
    inference_plans,
    settled_plans,
    training_plans,
)
from diffcr.methods.diffcr.ratio_table import RatioTable
from diffcr.methods.diffcr.ratios import kept_tokens

_IDLE = (
    "DiffCR is attached and every compression ratio is 0: nothing is saved; fine-tune, load a "
    "checkpoint, or call compressor.set_compression_ratios(...)"
)


class Compressor(RatioTable):
    """Routers and compression ratios of a transformer, registered on it as `transformer.diffcr`.

    Attributes:
        routers: Per block group one Parameter [layers of the group, D]; starts at 0. Where layers
            share a router, a row for each `route_every` of them.
        linear_bypass: The maps of tokens that bypass a layer; None where the configuration has
            none.
        gradient_scales: Per timestep region, what the ratios' gradient of the diffusion loss is
            multiplied with; None for 1 everywhere.

    The other attributes are those of `RatioTable`.
    """

    current: RoutedCall

    def __init__(self, config: RoutedConfig, host: Host) -> None:
        super().__init__(config, host)
        self.current = RoutedCall()
        self._layers_of = Counter(block.group for block in host.blocks)
        self.routers = nn.ParameterDict(
            {
                group: torch.zeros(-(-layers // config.route_every), host.width, device=host.device)
                for group, layers in self._layers_of.items()
            }
        )
        self.linear_bypass: LinearBypass | None = None
        self.set_bypass(config.bypass, config.bypass_rank, config.max_age)
        self.gradient_scales: tuple[float, ...] | None = None
        # None where nothing is compiled. Between kernels the second is called, elsewhere the first.
        self.run_branch: Callable[..., Tensor] | None = None
        self.run_block: Callable[..., Tensor] | None = None
        self._branch_seed: int | None = None

    @property
    def width(self) -> int:
        """D, of the tokens."""
        router: Tensor = next(iter(self.routers.values()))
        return router.shape[1]

    def set_bypass(self, bypass: Bypass, bypass_rank: int = 16, max_age: int = 1) -> None:
        """Give tokens that bypass a layer something else, see `DiffCRConfig`.

        A map that was there is lost; a map that is made changes nothing before it is fitted or
        trained. Make an optimizer after it, and compile after it.

        Raises:
            DiffCRError: A value is outside its range.
        """
        self.config = replace(self.config, bypass=bypass, bypass_rank=bypass_rank, max_age=max_age)
        self.keeps_steps = bypass == "reuse"
        self.linear_bypass = None
        if bypass == "linear":
            maps = LinearBypass(self._layers_of, self.width, bypass_rank, self.timestep_regions)
            self.linear_bypass = maps.to(next(iter(self.routers.values())))

    def kept_tokens(self, sequence_length: int) -> list[list[int]]:
        """Tokens that each layer computes at inference, [L][R], of `sequence_length` ones."""
        return [[kept_tokens(sequence_length, b) for b in row] for row in self.inference_bins()]

    def seed_branches(self, seed: int | None) -> None:
        """Seed of the following forwards' branch draws; None draws from torch's own CPU state."""
        self._branch_seed = seed

    def end_training(self) -> None:
        """Forget what steered a run: seed, gradient scales, settling. Another run starts anew."""
        self._branch_seed = None
        self.gradient_scales = None
        self.settled = False

    @contextmanager
    def holding_rankings(self, rankings: Mapping[int, Tensor]) -> Iterator[None]:
        """Within the context the given layers keep the first tokens of these rankings [B, N]."""
        previous, self.current.rankings = self.current.rankings, dict(rankings)
        try:
            yield
        finally:
            self.current.rankings = previous

    def router(self, group: str, row: int) -> Tensor:
        """[D], of a layer by its block group and its place there."""
        router: Tensor = self.routers[group][row // self.config.route_every]
        return router

    def ranking_layer(self, layer: int) -> int:
        """The layer before which the tokens are scored that a layer chooses among."""
        return layer - self._place(layer)[1] % self.config.route_every

    def router_logits(self, layer: int, hidden_states: Tensor) -> Tensor:
        """Scores [B, N], float32, that a layer's router gives to [B, N, D], the input of its
        `ranking_layer`."""
        return router_logits(hidden_states, self.router(*self._place(layer)))

    def _place(self, layer: int) -> tuple[str, int]:
        for group, layers in self._layers_of.items():
            if layer < layers:
                return group, layer
            layer -= layers
        raise IndexError(f"the model has no layer {layer} beyond its last")

    def build_context(self, call: TransformerCall) -> StepContext:
        """The plan of one call; one without noise levels needs one region or `in_region`."""
        regions = [self.current.region or 0]
        if self.current.region is None and call.noise_levels is not None:
            regions = [region_of(level, self.timestep_regions) for level in call.noise_levels]
        groups = group_by_region(regions, call.device)
        plan = self._plans(call.tokens)
        return StepContext(
            tuple(RegionPlan(g.samples, plan(g.region), g.region) for g in groups),
            scattered_positions(call.tokens, call.device),
            self.current.rankings,
            self._run(call),
        )

    def _run(self, call: TransformerCall) -> UpdateRun | None:
        """The sampling run whose updates a call reuses, and adds to. In batches that mix noise
        levels and in a given region there is none, and skipped tokens get nothing."""
        if self.config.bypass != "reuse":
            return None
        if self.training:
            raise DiffCRError(
                "bypass 'reuse' needs the steps of a sampling run, which training has not: call "
                "transformer.eval(), or compressor.set_bypass('identity') to train"
            )
        levels = {*(call.noise_levels or ())}
        if self.current.region is not None or len(levels) != 1:
            # What follows is not the run that was left.
            self.current.end(call.conditioning)
            return None
        run = self.current.run(call.conditioning, levels.pop())
        run.calls += 1
        return run

    def graph_key(self) -> Hashable | None:
        """As `Attached.graph_key`: the plans of one region's layers, and the maps of a region."""
        context = self.context
        if len(context.regions) > 1 or context.rankings or self.keeps_steps:
            return None
        (plan,) = context.regions
        if self.linear_bypass is None:
            return plan.layers
        return plan.layers, plan.region, id(self.linear_bypass)

    def _plans(self, tokens: int) -> Callable[[int], tuple[LayerPlan, ...]]:
        """From a region to the plans of its layers."""
        if self.training and isinstance(self.config, DiffCRConfig):
            if not torch.is_grad_enabled():
                self._warn_once(
                    "the model is called without gradients in train mode, where branches are "
                    "drawn at random: call transformer.eval() first"
                )
            return self._training_plans(self.config, tokens)
        bins = self.inference_bins(may_wait=False)
        if not any(map(any, bins)):
            self._warn_once(_IDLE)
        return lambda region: inference_plans(bins, region, tokens)

    def _training_plans(
        self, config: DiffCRConfig, tokens: int
    ) -> Callable[[int], tuple[LayerPlan, ...]]:
        bounded = self.bounded_ratios
        if self.settled:
            bins = self.inference_bins(may_wait=False)
            return lambda region: settled_plans(bounded, bins, region, tokens)
        # An optimizer may write past torch's count of changes; with a region given, the caller
        # answers for that, as at inference.
        table = self.known_ratios(may_wait=self.current.region is None).tolist()
        draws: list[Any] = [None] * config.timestep_regions
        if config.branching == "sampled":
            generator = None
            if self._branch_seed is not None:
                generator = torch.Generator().manual_seed(self._branch_seed)
            # For all regions: what a sample gets must not depend on its neighbours' regions.
            draws = torch.rand(*self.ratios.T.shape, 2, generator=generator).tolist()
        scales = self.gradient_scales or (1.0,) * config.timestep_regions
        return lambda region: training_plans(
            bounded, table, config, region, tokens, draws[region], scales[region]
        )

    @property
    def reads_timesteps(self) -> bool:
        """Whether a call has to look at its timesteps (a host sync on an accelerator)."""
        reads = super().reads_timesteps or self.keeps_steps
        return reads and self.current.region is None

    def skips_somewhere(self, layer: int) -> bool:
        """Whether a layer skips tokens in any region at inference."""
        return any(self.inference_bins(may_wait=False)[layer])

    def forget_run(self) -> None:
        """As `Attached.forget_run`."""
        self.current.forget()

    def visited_regions(self, noise_levels: Sequence[float]) -> list[int | None]:
        """As `Attached.visited_regions`: with "reuse" a step that begins a run is dense."""
        regions = super().visited_regions(noise_levels)
        if self.keeps_steps:
            run = UpdateRun()
            for step, level in enumerate(noise_levels):
                if step == 0 or not run.goes_on(level):
                    regions[step] = None
                run.noise_level = level
        return regions

    def summary_lines(self) -> list[str]:
        """As `RatioTable.summary_lines`, and what the calling thread's runs hold."""
        lines = super().summary_lines()
        if self.keeps_steps:
            held = sum(run.memory for run in self.current.known())
            lines.append(f"kept of past steps: {held / 2**20:.1f} MiB")
        return lines
