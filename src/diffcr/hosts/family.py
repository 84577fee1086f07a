"""What `attach` has to know of a model family."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from torch import Tensor

from diffcr.errors import DiffCRError
from diffcr.hosts.calls import (
    BlankPrompt,
    CallInputs,
    EncodePrompt,
    no_blank_prompt,
    no_inputs,
    no_prompt,
    same_output,
)
from diffcr.hosts.layout import BlockLayout
from diffcr.hosts.noise_scale import SCHEDULER_STEPS, NoiseScale


@dataclass(frozen=True)
class InputSize:
    """Of the inputs of one sample's forward.

    Attributes:
        text_tokens: Tokens of a prompt, padding included; at least 0.
        rows: Of the latents; `sample_size` of the model's configuration by default.
        columns: Of the latents, likewise.
        frames: Of the latents.
        masked_tokens: Of a model whose tokens are a part of the grid's, at least 1; all by default.
    """

    text_tokens: int
    rows: int | None = None
    columns: int | None = None
    frames: int = 1
    masked_tokens: int | None = None

    def latents(self, config: Any) -> tuple[int, int]:
        """Rows and columns of the latents of a model with this configuration.

        Raises:
            DiffCRError: Neither they nor the configuration say a size.
        """
        side = config.get("sample_size")
        if side is None and not (self.rows and self.columns):
            raise DiffCRError("the model has no size of its own: give rows and columns of latents")
        return self.rows or side, self.columns or side


@dataclass(frozen=True)
class Grid:
    """Where the routed tokens of a sample lie.

    Attributes:
        rows: Of the grid of patches; 0 where a call does not say it.
        columns: Likewise.
        frames: Of a video, each with a grid of its own.
        beside: Routed tokens that are on no grid, behind the others, such as references'.
    """

    rows: int
    columns: int
    frames: int = 1
    beside: int = 0

    @property
    def tokens(self) -> int:
        """All routed tokens of a sample."""
        return self.frames * self.rows * self.columns + self.beside


def config_patch(config: Any) -> tuple[int, int, int]:
    """Frames, rows and columns of the latents that become one token."""
    patch = getattr(config, "patch_size", 1)
    if isinstance(patch, int):
        return getattr(config, "patch_size_t", None) or 1, patch, patch
    frames, rows, columns = (1, *patch)[-3:]
    return frames, rows, columns


def packed_patch(config: Any) -> tuple[int, int, int]:
    """Of latents that come packed."""
    return 1, 2, 2


def latents_grid(transformer: Any, arguments: Mapping[str, Any]) -> Grid:
    """Of latents [..., h, w], or [B, C, frames, h, w], in the argument `hidden_states`, cut into
    the configuration's patches."""
    latents: Tensor = arguments["hidden_states"]
    patch = config_patch(transformer.config)
    frames = latents.shape[2] // patch[0] if latents.dim() == 5 else 1
    return Grid(latents.shape[-2] // patch[1], latents.shape[-1] // patch[2], frames)


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
        call_inputs: Arguments of the transformer's forward, as the family's pipeline passes them;
            raises DiffCRError where the family cannot be trained.
        grey_inputs: Arguments of the forward that the pipeline makes of a grey video where it is
            given none, from the transformer's configuration and its latents [B, C, f, h, w], as
            large as what is denoised; what `call_inputs` has in their place has their shape alone.
        encode_prompt: Captions as `call_inputs` takes them; raises likewise.
        prediction: What the output says of the noise, in the latents' layout and as the scheduler
            takes it, from the transformer, its output's first entry and the latents.
        refuse_training: Why a model is not trained, from its configuration; None where it is.
        blank_prompt: A prompt without content; raises DiffCRError where its shape is not known.
        blank_inputs: Arguments of the transformer's forward for one sample, without content, on
            the transformer's device and in its dtype, where they are not those of `call_inputs` for
            a blank prompt.
        latent_channels: Of what is denoised, from the configuration; [B, C, ...].
        patch: Frames, rows and columns of the latents that become a token, from the configuration.
        latents_of_scale: Of a side of what the pipeline's `vae_scale_factor` makes one of.
        places_first: Whether the channels of packed latents count the places within a square before
            the autoencoder's channels, [p p C] in place of [C p p].
        video: Whether latents have a dimension of frames.
        guidance: Argument of the pipeline's call with the scale of guidance.
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
    """

    name: str
    transformer_class: str
    block_groups: dict[str, BlockLayout]
    lora_targets: tuple[str, ...]
    timestep: NoiseScale | None = SCHEDULER_STEPS
    timestep_of: Callable[[Any], NoiseScale] | None = None
    call_inputs: CallInputs = no_inputs
    grey_inputs: Callable[[Any, Tensor], dict[str, Any]] | None = None
    encode_prompt: EncodePrompt = no_prompt
    prediction: Callable[[Any, Any, Tensor], Tensor] = same_output
    refuse_training: Callable[[Any], str | None] | None = None
    blank_prompt: BlankPrompt = no_blank_prompt
    blank_inputs: Callable[[Any, InputSize], dict[str, Any]] | None = None
    latent_channels: Callable[[Any], int] = lambda config: int(config.in_channels)
    patch: Callable[[Any], tuple[int, int, int]] = config_patch
    latents_of_scale: int = 1
    places_first: bool = False
    video: bool = False
    guidance: str = "guidance_scale"
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

    def check_trainable(self, transformer: Any) -> None:
        """Raises DiffCRError where it is not known how a transformer is called in training."""
        reason = self.refuse_training and self.refuse_training(transformer.config)
        if reason:
            raise DiffCRError(
                f"this {type(transformer).__name__} cannot be trained: {reason}; give another "
                "model, or use a training loop of your own"
            )
        if self.call_inputs is no_inputs:
            no_inputs(transformer)

    def inputs_without_content(self, transformer: Any, size: InputSize) -> dict[str, Any]:
        """Arguments of the transformer's forward for one sample, without content, on its device and
        in its dtype.

        Raises:
            DiffCRError: The family does not say how it is called.
        """
        if self.blank_inputs is not None:
            return self.blank_inputs(transformer, size)
        config, weights = transformer.config, next(transformer.parameters())
        shape = self.latent_shape(config, *size.latents(config), size.frames)
        latents = weights.new_zeros(shape)
        prompt = self.blank_prompt(config, size.text_tokens).to(weights.device, weights.dtype)
        return self.call_inputs(transformer, latents[None], weights.new_zeros(1), prompt)

    def latent_shape(
        self, config: Any, rows: int, columns: int, frames: int = 1
    ) -> tuple[int, ...]:
        """Of one sample's latents, (C, h, w), or of a video (C, f, h, w)."""
        return (self.latent_channels(config), *([frames] * self.video), rows, columns)

    def tokens_of(self, config: Any, latent_shape: Sequence[int]) -> int:
        """Tokens of a sample whose latents have a shape (C, ...), as pipelines count them."""
        patch = self.patch(config)[-len(latent_shape[1:]) :]
        return prod(side // part for side, part in zip(latent_shape[1:], patch, strict=True))
