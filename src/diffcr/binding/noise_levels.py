"""Noise levels of a call, for which an accelerator is waited for as seldom as can be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffcr.hosts.noise_scale import NoiseScale
from diffcr.methods.base import Attached
from diffcr.methods.diffcr.ratio_table import RatioTable

# Of a schedule; what is larger is no list of timesteps.
_MOST_VALUES = 4096


@dataclass
class ReadSchedule:
    """The timesteps of a sampling run, read with its first call: pipelines hand every call a view
    of one tensor, or numbers of their own.

    Attributes:
        view: On the accelerator; held, so that its memory is no other tensor's.
        version: torch's count of changes when it was read.
        values: All of its memory, [n] on the CPU.
        noise_level: Of the last call, the highest of its samples.
    """

    view: Tensor
    version: int
    values: Tensor
    noise_level: float

    def holds(self, timestep: Tensor) -> bool:
        """Whether a tensor is a view of what was read."""
        return (
            timestep.untyped_storage().data_ptr() == self.view.untyped_storage().data_ptr()
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
    all while a sampling run goes on along a schedule that was read: where the level rises, another
    run begins, and ratios that changed unseen are read, too.

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
        if max(levels) <= known.noise_level:
            known.noise_level = max(levels)
            return levels
    read = _read(attached, timestep)
    levels = scale.levels(read.of(read.view))
    read.noise_level = max(levels)
    current.schedule = None if timestep.is_inference() else read
    return levels


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
    return ReadSchedule(timestep, version, torch.tensor(values[:size], dtype=torch.float64), 0.0)
