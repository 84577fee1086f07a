"""Noise levels of a call, for which an accelerator is waited for as seldom as can be."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from diffcr.hosts.noise_scale import NoiseScale
from diffcr.methods.base import Attached
from diffcr.methods.diffcr.ratio_table import RatioTable

# Of a schedule; what is larger is no list of timesteps.
_MOST_VALUES = 4096


@dataclass(frozen=True)
class ReadSchedule:
    """The timesteps of a sampling run as its first call read them, and where it is: pipelines hand
    every call a view of one number of them, or numbers of their own.

    A buffer that is kept and filled anew is none of these: what a collective or `.data` writes is
    no change that torch counts.

    Attributes:
        view: What the last call was told, on the accelerator; held, so that its memory is no other
            tensor's.
        version: torch's count of changes when it was read.
        values: All of its memory, [n] on the CPU.
        noise_level: Of the last call.
    """

    view: Tensor
    version: int
    values: Tensor
    noise_level: float

    @property
    def is_schedule(self) -> bool:
        """Whether these are steps of a run, and the call was told one of them."""
        steps = self.values.diff()
        monotonic = bool((steps > 0).all() or (steps < 0).all())
        return len(steps) > 0 and monotonic and _is_one_number(self.view)

    def holds(self, timestep: Tensor) -> bool:
        """Whether a tensor is another number of what was read."""
        return (
            _is_one_number(timestep)
            and timestep.storage_offset() != self.view.storage_offset()
            and timestep.untyped_storage().data_ptr() == self.view.untyped_storage().data_ptr()
            and timestep.dtype == self.view.dtype
            and timestep._version == self.version
        )

    def of(self, timestep: Tensor) -> Tensor:
        """The values of a view, on the CPU."""
        return self.values.as_strided(timestep.size(), timestep.stride(), timestep.storage_offset())


def read_noise_levels(
    attached: Attached[Any, Any], scale: NoiseScale, timestep: Any
) -> list[float]:
    """Noise levels in [0, 1] of the samples of a call, or one of all.

    An accelerator is waited for once, for them and for the ratios of a routed method; and not at
    all while a sampling run goes down a schedule that was read. Where the level does not fall,
    another run begins, or ratios may have changed unseen: both are read.

    Args:
        attached: The method.
        scale: How the host is told the noise level.
        timestep: What it was told, as for `NoiseScale.levels`.
    """
    if not isinstance(timestep, Tensor) or timestep.device.type in ("cpu", "meta"):
        return scale.levels(timestep)
    timestep, current = timestep.detach(), attached.current
    known = current.schedule
    if isinstance(known, ReadSchedule) and known.holds(timestep):
        levels = scale.levels(known.of(timestep))
        if levels[0] < known.noise_level:
            current.schedule = replace(known, view=timestep, noise_level=levels[0])
            return levels
    read = _read(attached, timestep)
    levels = scale.levels(read.of(read.view))
    current.schedule = None
    if not timestep.is_inference() and read.is_schedule:
        current.schedule = replace(read, noise_level=levels[0])
    return levels


def _is_one_number(timestep: Tensor) -> bool:
    """Whether it is one number in memory, for however many samples."""
    return all(
        size == 1 or stride == 0
        for size, stride in zip(timestep.size(), timestep.stride(), strict=True)
    )


def _read(attached: Attached[Any, Any], timestep: Tensor) -> ReadSchedule:
    size = timestep.untyped_storage().nbytes() // timestep.element_size()
    if size > _MOST_VALUES:
        timestep = timestep.contiguous().clone()
        size = timestep.numel()
    everything = timestep.as_strided((size,), (1,), 0)
    if isinstance(attached, RatioTable) and attached.ratios.device == timestep.device:
        ratios = attached.ratios.detach().flatten()
        values = torch.cat([everything.to(ratios.dtype), ratios]).tolist()
        attached.read_ratios(values[size:])
    else:
        values = everything.tolist()
    version = 0 if timestep.is_inference() else timestep._version
    return ReadSchedule(timestep, version, torch.tensor(values[:size], dtype=torch.float64), 1.0)
