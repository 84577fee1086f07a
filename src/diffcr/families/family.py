"""What `attach` has to know of a model family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from diffcr.errors import DiffCRError
from diffcr.seam import BlockLayout

TRAINING_TIMESTEPS = 1000


@dataclass(frozen=True)
class Family:
    """An adapter.

    Attributes:
        name: Of the family.
        transformer_class: Module and name of the host class, matched exactly; a string, so that
            looking a family up imports nothing.
        block_groups: Attributes of the transformer that list the routed blocks, with the blocks'
            layout.
        width: Key of the tokens' width in the compressor: the product of these config entries.
        timestep: Argument of the transformer's forward with the timestep.
        lora_targets: Names of the linear layers inside blocks that a LoRA is added to.
    """

    name: str
    transformer_class: str
    block_groups: dict[str, BlockLayout]
    width: tuple[str, ...]
    timestep: str
    lora_targets: tuple[str, ...]

    def noise_levels(self, timestep: Any) -> list[float]:
        """Noise level in [0, 1] of each sample, or of all, from a DDPM timestep in [0, 1000].

        Args:
            timestep: An integer, a float, or a tensor with one value or one per sample.

        Raises:
            DiffCRError: There is no timestep, or it is outside the range.
        """
        if timestep is None:
            raise DiffCRError("the transformer was called without a timestep: pass one")
        values = timestep.flatten().tolist() if isinstance(timestep, Tensor) else [timestep]
        levels = [float(value) / TRAINING_TIMESTEPS for value in values]
        for level in levels:
            if not 0 <= level <= 1:
                raise DiffCRError(
                    f"timestep {level * TRAINING_TIMESTEPS:g} is outside "
                    f"[0, {TRAINING_TIMESTEPS}]: it lies in no timestep region"
                )
        return levels
