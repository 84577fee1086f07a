"""Every random draw of a training step, as a function of the seed and the step alone.

Nothing has to be stored to resume, and processes that take slices of one global micro-batch train
to the weights of a single process.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from diffcr.core.regions import region_timesteps
from diffcr.training.data.order import ItemOrder, shuffled


@dataclass(frozen=True)
class MicroBatch:
    """What one micro-batch is made of; B samples over all processes.

    Attributes:
        indices: [B] int64, items of the data set.
        region: Timestep region of all samples, 0 the cleanest.
        regions: How many there are.
        timesteps: [B] int64, 0 to 999, uniform in the region.
        noise: [B, C, ...] float32, of unit variance.
        drop_caption: [B] bool, whose caption is replaced by the empty one.
        branch_seed: Below 2^63, what the compressor's draws of branches begin with.
    """

    indices: Tensor
    region: int
    regions: int
    timesteps: Tensor
    noise: Tensor
    drop_caption: Tensor
    branch_seed: int

    def of_process(self, process: int, processes: int) -> MicroBatch:
        """The samples of one of several processes, B / processes each."""
        size = len(self.indices) // processes
        rows = slice(process * size, (process + 1) * size)
        return replace(
            self,
            indices=self.indices[rows],
            timesteps=self.timesteps[rows],
            noise=self.noise[rows],
            drop_caption=self.drop_caption[rows],
        )


@dataclass(frozen=True)
class Draws:
    """A run's draws.

    Attributes:
        seed: 0 or more; another seed gives other draws throughout.
        order: Which items a micro-batch has.
        micro_batch_size: B, over all processes.
        gradient_accumulation: Micro-batches per step.
        timestep_regions: A micro-batch falls in one, its timesteps uniformly inside it. As many
            micro-batches in a row as there are regions meet each of them once, in random order:
            with `gradient_accumulation` a multiple of them, every step does.
        caption_dropout: Share of samples whose caption is dropped, in [0, 1].
    """

    seed: int
    order: ItemOrder
    micro_batch_size: int
    gradient_accumulation: int
    timestep_regions: int
    caption_dropout: float

    def micro_batch(self, step: int, micro: int) -> MicroBatch:
        """Draws of micro-batch `micro` of step `step`, both from 0."""
        state = np.random.SeedSequence([self.seed, step, micro]).generate_state(2, np.uint64)
        generator = torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))
        size = self.micro_batch_size
        batch = step * self.gradient_accumulation + micro
        region = self._region(batch)
        timesteps = region_timesteps(region, self.timestep_regions)
        drawn = self.order.draw(batch, size, generator)
        return MicroBatch(
            indices=drawn.indices,
            region=region,
            regions=self.timestep_regions,
            timesteps=torch.randint(timesteps.start, timesteps.stop, (size,), generator=generator),
            noise=torch.randn(size, *drawn.latent_shape, generator=generator),
            drop_caption=torch.rand(size, generator=generator) < self.caption_dropout,
            branch_seed=int(state[1] >> np.uint64(1)),
        )

    def _region(self, batch: int) -> int:
        turn, place = divmod(batch, self.timestep_regions)
        return int(shuffled(self.seed, turn, self.timestep_regions)[place])
