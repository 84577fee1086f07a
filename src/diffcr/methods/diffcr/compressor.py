"""The module that owns a transformer's routers and ratios and the context of its current call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Real
from typing import TYPE_CHECKING, Any
from warnings import warn

import torch
from torch import Tensor, nn

from diffcr.core.regions import region_of
from diffcr.core.select import router_logits, scattered_positions
from diffcr.cost.flops import LayerCost, TransformerShape, routed_costs
from diffcr.errors import DiffCRError, DiffCRWarning
from diffcr.methods.base import Attached, TransformerCall
from diffcr.methods.configurations import DiffCRConfig
from diffcr.methods.diffcr import ratios as ratio_core
from diffcr.methods.diffcr.inference_bins import InferenceBins
from diffcr.methods.diffcr.plans import (
    LayerPlan,
    RegionPlan,
    StepContext,
    group_by_region,
    inference_plans,
    settled_plans,
    training_plans,
)

if TYPE_CHECKING:
    from diffcr.hosts.weights import HostWeights
    from diffcr.methods.configurations import RoutedConfig

_FULL_PRECISION = (torch.float32, torch.float64)


_IDLE = (
    "DiffCR is attached and every compression ratio is 0: nothing is saved; fine-tune, load a "
    "checkpoint, or call compressor.set_compression_ratios(...)"
)


class Compressor(Attached["RoutedConfig", StepContext]):
    """Routers and compression ratios of a transformer, registered on it as `transformer.diffcr`.

    Attributes:
        routers: Per block group one Parameter [layers of the group, D]; starts at 0.
        ratios: Parameter [layers, regions], the learned ratios; starts at 0. A buffer where the
            method learns none. Never below float32, whatever `.to(dtype)` says: a bfloat16 ratio
            does not move at a step of 5e-4.
        settled: Whether training computes what inference computes: the nearest bin of every layer,
            whose ratio gets no gradient. `settle_ratios` sets it.
        gradient_scales: Per timestep region, what the ratios' gradient of the diffusion loss is
            multiplied with; None for 1 everywhere.

    The other attributes are those of `Attached`.
    """

    ratios: Tensor

    def __init__(
        self,
        config: RoutedConfig,
        layers_per_group: Mapping[str, int],
        width: int,
        device: torch.device,
        base: HostWeights,
    ) -> None:
        super().__init__(config, base)
        self.routers = nn.ParameterDict(
            {name: torch.zeros(n, width, device=device) for name, n in layers_per_group.items()}
        )
        layers = sum(layers_per_group.values())
        shape = (layers, config.timestep_regions)
        ratios = torch.full(shape, config.initial_compression_ratio, device=device)
        if isinstance(config, DiffCRConfig):
            self.ratios = nn.Parameter(ratios)
        else:
            self.register_buffer("ratios", ratios)
        self.settled = False
        self.gradient_scales: tuple[float, ...] | None = None
        # None where nothing is compiled. Between kernels the second is called, elsewhere the first.
        self.run_branch: Callable[..., Tensor] | None = None
        self.run_block: Callable[..., Tensor] | None = None
        self._given_region: int | None = None
        self._held_rankings: Mapping[int, Tensor] = {}
        self._branch_seed: int | None = None
        self._bins = InferenceBins(config.max_bin)
        self._warned: set[str] = set()

    def train(self, mode: bool = True) -> Compressor:
        """As `nn.Module.train`; the ratios are read anew at the next call."""
        self._bins = InferenceBins(self.config.max_bin)
        trained: Compressor = super().train(mode)
        return trained

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Compressor:
        def keep_precision(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype in _FULL_PRECISION else tensor.to(moved.device)

        self._bins = InferenceBins(self.config.max_bin)
        applied: Compressor = super()._apply(keep_precision, recurse)
        return applied

    @property
    def bounded_ratios(self) -> Tensor:
        """The ratios that loss, bins and reports use: [L, R] in [0, max], with gradient."""
        return ratio_core.bounded(self.ratios, self.config.max_compression_ratio)

    @property
    def learned_compression_ratios(self) -> Tensor:
        """The continuous ratios, [layers, regions] in [0, max], float32, detached."""
        return self.bounded_ratios.detach()

    @property
    def compression_ratios(self) -> Tensor:
        """The ratios as used at inference, [layers, regions], multiples of 0.1, on the CPU."""
        return torch.tensor(self.inference_bins()) / ratio_core.BINS

    @property
    def mean_compression_ratio(self) -> float:
        """Mean of the learned ratios."""
        return float(self.learned_compression_ratios.mean())

    @property
    def realised_mean_compression_ratio(self) -> float:
        """Mean of the ratios as used at inference."""
        return float(self.compression_ratios.mean())

    def inference_bins(self) -> list[list[int]]:
        """Bin of every layer and region at inference, [L][R]; waits for an accelerator."""
        return self._bins.of(self.ratios, may_wait=True)

    def read_ratios(self, values: list[float]) -> None:
        """Take notice of the ratios' present values, [L * R], where the caller has read them."""
        self._bins.take(self.ratios, values)

    def kept_tokens(self, sequence_length: int) -> list[list[int]]:
        """Tokens that each layer computes at inference, [L][R], of `sequence_length` ones."""
        return [
            [ratio_core.kept_tokens(sequence_length, bin_index) for bin_index in row]
            for row in self.inference_bins()
        ]

    def set_compression_ratios(self, compression_ratio: float | Tensor) -> None:
        """Set the learned ratios.

        Args:
            compression_ratio: A number for all layers and regions, or a tensor [layers, regions];
                multiples of 0.1 in [0, `max_compression_ratio`].

        Raises:
            DiffCRError: A value is outside the range or between bins, or the shape is another.
        """
        if isinstance(compression_ratio, Real):
            values = torch.full_like(self.ratios.detach(), float(compression_ratio))
        else:
            values = torch.as_tensor(compression_ratio).to(self.ratios)
        if values.shape != self.ratios.shape:
            raise DiffCRError(
                f"compression ratios of shape {list(values.shape)} do not fit: "
                f"give a number or [layers, regions] = {list(self.ratios.shape)}"
            )
        maximum = self.config.max_compression_ratio
        for value in values.flatten().tolist():
            ratio_core.check_on_a_bin(value, maximum)
        with torch.no_grad():
            self.ratios.copy_(values.clamp(0, maximum))

    def ratio_loss(self, weight: float = 1.0) -> Tensor:
        """`weight * (mean(c) - target)^2` over all layers and regions (Sec. 3.3), a scalar."""
        if not self.training and torch.is_grad_enabled():
            self._warn_once(
                "ratio_loss was called in eval mode, where ratios get no gradient from the "
                "diffusion loss: call transformer.train() first"
            )
        target = self.config.target_compression_ratio
        return weight * ratio_core.ratio_loss(self.bounded_ratios, target)

    @torch.no_grad()
    def project_ratios(self) -> None:
        """Clamp the ratios into [0, max] in place; call it after each optimizer step."""
        self.ratios.clamp_(0, self.config.max_compression_ratio)

    @torch.no_grad()
    def settle_ratios(self) -> None:
        """Round the ratios to the bins of inference and train on with those alone.

        What is left of training then meets every layer as it will be called. Leave the ratios out
        of the optimizer's steps from there on: the ratio loss still has a gradient.
        """
        self.ratios.copy_(self.compression_ratios)
        self.settled = True

    @torch.no_grad()
    def block_outward_gradients(self) -> None:
        """Zero the ratios' gradient where it points out of [0, max] at a bound.

        Call it between backward and the optimizer step: it looks at the sum of all losses, while
        the gradient that backward computes is the true one-sided derivative at a bound.
        """
        gradient = self.ratios.grad
        if gradient is None:
            return
        maximum = self.config.max_compression_ratio
        outward = ((self.ratios <= 0) & (gradient > 0)) | (
            (self.ratios >= maximum) & (gradient < 0)
        )
        gradient.masked_fill_(outward, 0)

    def seed_branches(self, seed: int | None) -> None:
        """Seed of the following forwards' branch draws; None draws from torch's own CPU state."""
        self._branch_seed = seed

    def end_training(self) -> None:
        """Forget what steered a run: seed, gradient scales, settling. Another run starts anew."""
        self._branch_seed = None
        self.gradient_scales = None
        self.settled = False

    @contextmanager
    def in_region(self, region: int) -> Iterator[None]:
        """Within the context every sample is in timestep region `region` and no timestep is read.

        Raises:
            DiffCRError: There is no such region.
        """
        if not 0 <= region < self.config.timestep_regions:
            raise DiffCRError(
                f"timestep region {region} does not exist: "
                f"give 0 to {self.config.timestep_regions - 1}"
            )
        previous, self._given_region = self._given_region, region
        try:
            yield
        finally:
            self._given_region = previous

    @contextmanager
    def holding_rankings(self, rankings: Mapping[int, Tensor]) -> Iterator[None]:
        """Within the context the given layers keep the first tokens of these rankings [B, N]."""
        previous, self._held_rankings = self._held_rankings, dict(rankings)
        try:
            yield
        finally:
            self._held_rankings = previous

    def router_logits(self, layer: int, hidden_states: Tensor) -> Tensor:
        """Scores [B, N], float32, that a layer's router gives to its input [B, N, D]."""
        routers = torch.cat([*self.routers.values()])
        return router_logits(hidden_states, routers[layer])

    def build_context(self, call: TransformerCall) -> StepContext:
        """The plan of one call; one without noise levels needs one region or `in_region`."""
        if self._given_region is not None or call.noise_levels is None:
            regions = [self._given_region or 0]
        else:
            count = self.config.timestep_regions
            regions = [region_of(level, count) for level in call.noise_levels]
        groups = group_by_region(regions, self.ratios.device)
        if self.training and isinstance(self.config, DiffCRConfig):
            if not torch.is_grad_enabled():
                self._warn_once(
                    "the model is called without gradients in train mode, where branches are "
                    "drawn at random: call transformer.eval() first"
                )
            plans = self._training_plans(self.config, [group.region for group in groups])
        else:
            bins = self._bins.of(self.ratios, may_wait=False)
            if not any(bin_index for row in bins for bin_index in row):
                self._warn_once(_IDLE)
            plans = [inference_plans(bins, group.region) for group in groups]
        return StepContext(
            tuple(RegionPlan(g.samples, p) for g, p in zip(groups, plans, strict=True)),
            scattered_positions(call.tokens, call.device),
            self._held_rankings,
        )

    @property
    def reads_timesteps(self) -> bool:
        """Whether a call has to look at its timesteps (a host sync on an accelerator)."""
        return super().reads_timesteps and self._given_region is None

    def layer_costs(self, shape: TransformerShape) -> list[list[LayerCost]]:
        """What every layer computes at inference, [layers][regions], routers included."""
        return routed_costs(shape, self.kept_tokens(shape.image_tokens))

    def describe(self) -> dict[str, Any]:
        """The realised table and both means, for people."""
        return {
            "compression_ratios": [
                [b / ratio_core.BINS for b in row] for row in self.inference_bins()
            ],
            "mean_compression_ratio": {
                "learned": self.mean_compression_ratio,
                "realised": self.realised_mean_compression_ratio,
            },
        }

    def summary_lines(self) -> list[str]:
        """Mean ratios, then those of every layer and region."""
        lines = [
            f"mean compression ratio: {self.mean_compression_ratio:.1%} learned, "
            f"{self.realised_mean_compression_ratio:.1%} realised",
            "compression per layer (rows) and timestep region (columns, clean to noisy), per cent:",
        ]
        for layer, row in enumerate((self.compression_ratios * 100).round().int().tolist()):
            lines.append(f"  {layer:>3}  " + " ".join(f"{value:>3}" for value in row))
        return lines

    def _training_plans(
        self, config: DiffCRConfig, regions: list[int]
    ) -> list[tuple[LayerPlan, ...]]:
        bounded = self.bounded_ratios
        if self.settled:
            bins = self._bins.of(self.ratios, may_wait=False)
            return [settled_plans(bounded, bins, region) for region in regions]
        table = bounded.detach().tolist()
        draws: list[Any] = [None] * config.timestep_regions
        if config.branching == "sampled":
            generator = None
            if self._branch_seed is not None:
                generator = torch.Generator().manual_seed(self._branch_seed)
            # For all regions: what a sample gets must not depend on its neighbours' regions.
            draws = torch.rand(*self.ratios.T.shape, 2, generator=generator).tolist()
        maximum, probability = config.max_bin, config.mixing_probability
        scales = self.gradient_scales or (1.0,) * config.timestep_regions
        return [
            training_plans(
                bounded, table, region, maximum, draws[region], probability, scales[region]
            )
            for region in regions
        ]

    def _warn_once(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            warn(message, DiffCRWarning, stacklevel=3)
