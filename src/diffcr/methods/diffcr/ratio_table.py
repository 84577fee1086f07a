"""A compression ratio for every layer and timestep region: learned, bounded, and as it is used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any
from warnings import warn

import torch
from torch import Tensor, nn

from diffcr.core.sharded import fill_part, own_part, whole
from diffcr.errors import DiffCRError, DiffCRWarning
from diffcr.hosts.host import Host
from diffcr.methods.base import Attached
from diffcr.methods.diffcr.config import DiffCRConfig, RoutedConfig
from diffcr.methods.diffcr.plans import StepContext
from diffcr.methods.diffcr.ratios import BINS, bounded, check_on_a_bin, ratio_loss, snap_bins

_FULL_PRECISION = (torch.float32, torch.float64)


@dataclass(frozen=True)
class _ReadRatios:
    """What was read of the ratios, and the bins that follow.

    Attributes:
        state: Which parameter was read (a deep copy counts its changes anew), and how often it had
            been changed; writes to `.data`, as averages of weights make them, do not count.
        values: The ratios, flat.
        bins: [L][R].
    """

    state: tuple[int, int]
    values: list[float]
    bins: list[list[int]]


class RatioTable(Attached[RoutedConfig, StepContext]):
    """The ratios of a method that routes tokens, `c` of Sec. 3.3 and 3.4.

    Attributes:
        ratios: Parameter [layers, regions], the learned ratios; starts at 0. A buffer where the
            method learns none. Never below float32, whatever `.to(dtype)` says: a bfloat16 ratio
            does not move at a step of 5e-4.
        settled: Whether training computes what inference computes: the nearest bin of every layer,
            whose ratio gets no gradient. `settle_ratios` sets it.
        sharded: Whether the ratios are split over processes (FSDP2), which changes them without
            notice; what reads them is then called by all processes.

    The other attributes are those of `Attached`.
    """

    ratios: Tensor

    def __init__(self, config: RoutedConfig, host: Host) -> None:
        super().__init__(config, host)
        shape = (host.layers, config.timestep_regions)
        # A model without data is called to count what it computes, which the ratios say.
        device = "cpu" if host.device.type == "meta" else host.device
        ratios = torch.full(shape, config.initial_compression_ratio, device=device)
        if isinstance(config, DiffCRConfig):
            self.ratios = nn.Parameter(ratios)
        else:
            self.register_buffer("ratios", ratios)
        self.settled = False
        self.sharded = False
        self._read: _ReadRatios | None = None
        self._warned: set[str] = set()

    @property
    def timestep_regions(self) -> int:
        """Equal parts of the noise range that own a ratio each."""
        return self.config.timestep_regions

    def train(self, mode: bool = True) -> RatioTable:
        """As `nn.Module.train`; the ratios are read anew at the next call."""
        self._read = None
        trained: RatioTable = super().train(mode)
        return trained

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> RatioTable:
        def keep_precision(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype in _FULL_PRECISION else tensor.to(moved.device)

        self._read = None
        for child in self.children():
            child._apply(fn if child is self.beneath else keep_precision, recurse)
        applied: RatioTable = super()._apply(keep_precision, recurse=False)
        return applied

    @property
    def bounded_ratios(self) -> Tensor:
        """The ratios that loss, bins and reports use: [L, R] in [0, max], with gradient."""
        return bounded(whole(self.ratios), self.config.max_compression_ratio)

    @property
    def learned_compression_ratios(self) -> Tensor:
        """The continuous ratios, [layers, regions] in [0, max], float32, detached."""
        return self.bounded_ratios.detach()

    @property
    def compression_ratios(self) -> Tensor:
        """The ratios as used at inference, [layers, regions], multiples of 0.1, on the CPU."""
        return torch.tensor(self.inference_bins()) / BINS

    @property
    def mean_compression_ratio(self) -> float:
        """Mean of the learned ratios."""
        return float(self.learned_compression_ratios.mean())

    @property
    def realised_mean_compression_ratio(self) -> float:
        """Mean of the ratios as used at inference."""
        return float(self.compression_ratios.mean())

    def inference_bins(self, may_wait: bool = True) -> list[list[int]]:
        """Bin of every layer and region at inference, [L][R].

        Args:
            may_wait: Whether an accelerator may be waited for where no change is known of.
        """
        return self._noticed(may_wait).bins

    def known_ratios(self, may_wait: bool = True) -> Tensor:
        """As `learned_compression_ratios`, on the CPU; `may_wait` as for `inference_bins`."""
        values = torch.tensor(self._noticed(may_wait).values, dtype=self.ratios.dtype)
        table = values.view(-1, self.timestep_regions)
        return table.clamp(0, self.config.max_compression_ratio)

    def _noticed(self, may_wait: bool) -> _ReadRatios:
        ratios = self.ratios
        free = may_wait or not _waits(ratios) or ratios.is_inference() or self.sharded
        read = self._read
        if free or read is None or read.state != _state(ratios):
            read = self.read_ratios(whole(ratios.detach()).flatten().tolist())
        return read

    def read_ratios(self, values: list[float]) -> _ReadRatios:
        """Take notice of the ratios' present values, [L * R], where the caller has read them."""
        read, state = self._read, _state(self.ratios)
        if read is None or read.values != values:
            regions = self.timestep_regions
            rows = [values[start : start + regions] for start in range(0, len(values), regions)]
            bins = snap_bins(rows, self.config.max_bin)
        else:
            bins = read.bins
        # One assignment: another thread finds what was read before or this, nothing between.
        self._read = read = _ReadRatios(state, values, bins)
        return read

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
            check_on_a_bin(value, maximum)
        with torch.no_grad():
            self.ratios.copy_(values.clamp(0, maximum))

    def ratio_loss(self, weight: float = 1.0) -> Tensor:
        """`weight * (mean(c) - target)^2` over all layers and regions (Sec. 3.3), a scalar."""
        if not self.training and torch.is_grad_enabled():
            self._warn_once(
                "ratio_loss was called in eval mode, where ratios get no gradient from the "
                "diffusion loss: call transformer.train() first"
            )
        return weight * ratio_loss(self.bounded_ratios, self.config.target_compression_ratio)

    @torch.no_grad()
    def project_ratios(self) -> None:
        """Clamp the ratios into [0, max] in place; call it after each optimizer step."""
        own_part(self.ratios).clamp_(0, self.config.max_compression_ratio)

    @torch.no_grad()
    def settle_ratios(self) -> None:
        """Round the ratios to the bins of inference and train on with those alone.

        What is left of training then meets every layer as it will be called. Leave the ratios out
        of the optimizer's steps from there on: the ratio loss still has a gradient.
        """
        fill_part(self.ratios, self.compression_ratios)
        self.settled = True

    @torch.no_grad()
    def block_outward_gradients(self) -> None:
        """Zero the ratios' gradient where it points out of [0, max] at a bound.

        Call it between backward and the optimizer step: it looks at the sum of all losses, while
        the gradient that backward computes is the true one-sided derivative at a bound.
        """
        if self.ratios.grad is None:
            return
        ratios, gradient = own_part(self.ratios), own_part(self.ratios.grad)
        maximum = self.config.max_compression_ratio
        outward = ((ratios <= 0) & (gradient > 0)) | ((ratios >= maximum) & (gradient < 0))
        gradient.masked_fill_(outward, 0)

    def describe(self) -> dict[str, Any]:
        """The realised table and both means, for people."""
        return {
            "compression_ratios": [[b / BINS for b in row] for row in self.inference_bins()],
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

    def _warn_once(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            warn(message, DiffCRWarning, stacklevel=3)


def _waits(ratios: Tensor) -> bool:
    """Whether reading them waits for an accelerator."""
    return ratios.device.type != "cpu"


def _state(ratios: Tensor) -> tuple[int, int]:
    return id(ratios), 0 if ratios.is_inference() else ratios._version
