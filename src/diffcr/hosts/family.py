"""What `attach` has to know of a model family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from diffcr.errors import DiffCRError
from diffcr.hosts.grid import Grid, latents_grid
from diffcr.hosts.layout import BlockLayout
from diffcr.hosts.noise_scale import SCHEDULER_STEPS, NoiseScale
from diffcr.hosts.pipelines.call import PipelineCall


def attention_width(config: Any) -> int:
    """Width of the tokens of a model whose attention heads share it."""
    width: int = config.num_attention_heads * config.attention_head_dim
    return width


@dataclass(frozen=True)
class Family:
    """An adapter.

    Attributes:
        name: Of the family.
        transformer_class: Module and name of the host class, matched exactly; a string, so that
            looking a family up imports nothing.
        block_groups: Attributes of the transformer that list the routed blocks, with the blocks'
            layout, in the order in which they are called.
        timestep: How the transformer's forward is told the noise level; None where it is not: such
            a model has one timestep region.
        timestep_of: What takes the place of `timestep`, from the transformer's configuration, where
            models of the class are told it in several ways.
        lora_targets: Names of the linear layers inside blocks that a LoRA is added to; with a
            group's name in front, in its blocks alone.
        latents: Argument of the transformer's forward with what is denoised.
        grid: Where the routed tokens lie, from the transformer and the arguments of its forward.
        read_grid: The same for methods that need rows and columns, where they stand in tensors
            alone, for which an accelerator is waited for; None where `grid` says them.
        token_positions: Argument of the transformer's forward with the places of its tokens on the
            grid of the latents' patches, [B, K] int64, row by row; None where its tokens are the
            whole grid.
        conditioning: Argument of the transformer's forward with the prompt's embeddings, one tensor
            for all steps of a sampling run, or several, of which the first counts; None where
            there is none.
        width: Of the routed tokens, from the transformer's configuration.
        starts: First routed row of every sample in the blocks' sequence, [B] int64 on the device,
            for layouts with `rows` "per-sample".
        refuse: Why a call of a transformer with these arguments cannot be routed, from its
            configuration and them; None where it can. At `attach` there are no arguments.
        refuse_checkpointing: Why a call with these arguments cannot be computed with gradient
            checkpointing; None where it can.
        refuse_compile: Why its blocks cannot be compiled; None where they can.
        call: How the family's pipeline calls the transformer; it is for training, evaluation and
            counting, and a family without can be attached.
    """

    name: str
    transformer_class: str
    block_groups: dict[str, BlockLayout]
    lora_targets: tuple[str, ...]
    timestep: NoiseScale | None = SCHEDULER_STEPS
    timestep_of: Callable[[Any], NoiseScale] | None = None
    latents: str = "hidden_states"
    grid: Callable[[Any, Mapping[str, Any]], Grid] = latents_grid
    read_grid: Callable[[Any, Mapping[str, Any]], Grid] | None = None
    token_positions: str | None = None
    conditioning: str | None = "encoder_hidden_states"
    width: Callable[[Any], int] = attention_width
    starts: Callable[[Any, Mapping[str, Any]], Tensor] | None = None
    refuse: Callable[[Any, Mapping[str, Any]], str | None] | None = None
    refuse_checkpointing: Callable[[Mapping[str, Any]], str | None] | None = None
    refuse_compile: str | None = None
    call: PipelineCall = field(default_factory=PipelineCall)

    def __post_init__(self) -> None:
        if self.starts is None:
            for group, layout in self.block_groups.items():
                if layout.rows == "per-sample":
                    raise DiffCRError(
                        f"{group} has rows 'per-sample': give the family `starts`, which says "
                        "where they begin"
                    )

    def noise_scale(self, config: Any) -> NoiseScale | None:
        """How a transformer of this configuration is told the noise level; None where it is not."""
        return self.timestep if self.timestep_of is None else self.timestep_of(config)

    def denoising_scale(self, config: Any) -> NoiseScale:
        """The same of a transformer that denoises.

        Raises:
            DiffCRError: It is told no noise level.
        """
        scale = self.noise_scale(config)
        if scale is None:
            raise DiffCRError(f"models of the family {self.name} are told no noise level")
        return scale

    def tokens(self, transformer: Any, arguments: Mapping[str, Any]) -> int:
        """Routed tokens of a sample in a call with these arguments."""
        if self.token_positions is not None:
            held: int = arguments[self.token_positions].shape[1]
            return held
        return self.grid(transformer, arguments).tokens
