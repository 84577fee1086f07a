"""What `attach` has to know of a model family."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from diffcr.core.regions import TIMESTEPS
from diffcr.errors import DiffCRError
from diffcr.hosts.layout import BlockLayout


class CallInputs(Protocol):
    """From what is denoised to the arguments of the transformer's forward, by name."""

    def __call__(
        self,
        transformer: Any,
        latents: Tensor,
        timesteps: Tensor,
        prompt_embeds: Tensor,
        prompt_mask: Tensor | None,
    ) -> dict[str, Any]:
        """Latents [B, C, h, w], timesteps [B], embeddings [B, T, D] and their mask [B, T]."""
        ...


@dataclass(frozen=True)
class InputSize:
    """Of the inputs of one sample's forward.

    Attributes:
        text_tokens: Tokens of a prompt, padding included; at least 0.
        rows: Of the latents; `sample_size` of the model's configuration by default.
        columns: Of the latents, likewise.
        masked_tokens: Of a model whose tokens are a part of the grid's, at least 1; all by default.
    """

    text_tokens: int
    rows: int | None = None
    columns: int | None = None
    masked_tokens: int | None = None

    def latents(self, config: Any) -> tuple[int, int]:
        """Rows and columns of the latents of a model with this configuration."""
        return self.rows or config.sample_size, self.columns or config.sample_size


@dataclass(frozen=True)
class Family:
    """An adapter.

    Attributes:
        name: Of the family.
        transformer_class: Module and name of the host class, matched exactly; a string, so that
            looking a family up imports nothing.
        block_groups: Attributes of the transformer that list the routed blocks, with the blocks'
            layout.
        timestep: Argument of the transformer's forward with the timestep; None where there is none:
            such a model has one timestep region.
        latents: Argument of the transformer's forward with the noisy latents, [B, C, h, w].
        conditioning: Argument of the transformer's forward with the prompt's embeddings, one tensor
            for all steps of a sampling run; None where there is none.
        lora_targets: Names of the linear layers inside blocks that a LoRA is added to.
        call_inputs: Arguments of the transformer's forward, as the family's pipeline passes them.
        blank_inputs: Arguments of the transformer's forward for one sample, without content, on
            the transformer's device and in its dtype.
        token_positions: Argument of the transformer's forward with the places of its tokens on the
            grid of the latents' patches, [B, K] int64, row by row; None where its tokens are the
            whole grid.
    """

    name: str
    transformer_class: str
    block_groups: dict[str, BlockLayout]
    timestep: str | None
    latents: str
    lora_targets: tuple[str, ...]
    call_inputs: CallInputs
    blank_inputs: Callable[[Any, InputSize], dict[str, Any]]
    token_positions: str | None = None
    conditioning: str | None = None

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
        levels = [float(value) / TIMESTEPS for value in values]
        for level in levels:
            if not 0 <= level <= 1:
                raise DiffCRError(
                    f"timestep {level * TIMESTEPS:g} is outside "
                    f"[0, {TIMESTEPS}]: it lies in no timestep region"
                )
        return levels
