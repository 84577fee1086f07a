"""How a family's pipeline calls its transformer: what goes in, and what comes out.

Latents are [B, C, h, w], or [B, C, f, h, w] of a video, normalised as the pipeline does it
(`diffcr.hosts.latents`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

from torch import Tensor

from diffcr.errors import DiffCRError
from diffcr.hosts.grid import config_patch
from diffcr.hosts.input_size import InputSize
from diffcr.hosts.pipelines.prompt import Prompt


class Inputs(Protocol):
    """From what is denoised to the arguments of the transformer's forward, by name."""

    def __call__(
        self, transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt
    ) -> dict[str, Any]:
        """Latents [B, C, ...], timesteps [B] as the family's `NoiseScale` has them, B prompts."""
        ...


class EncodePrompt(Protocol):
    """From captions to what the transformer is told of them, by the pipeline's own encoders."""

    def __call__(self, pipe: Any, captions: Sequence[str], max_sequence_length: int) -> Prompt:
        """At least one caption; each is cut to a number of tokens."""
        ...


class BlankPrompt(Protocol):
    """A prompt without content."""

    def __call__(self, config: Any, text_tokens: int) -> Prompt:
        """For one sample of a model with this configuration: zeros, on the CPU."""
        ...


def no_inputs(transformer: Any, *given: Any, **named: Any) -> dict[str, Any]:
    """Of a family that cannot be trained."""
    raise DiffCRError(
        f"how {type(transformer).__name__} is called in training is not known: give its family a "
        "call with inputs, or use a training loop of your own"
    )


def no_prompt(pipe: Any, captions: Sequence[str], max_sequence_length: int) -> Prompt:
    """Of a family whose prompts cannot be encoded."""
    raise DiffCRError(
        f"how {type(pipe).__name__} encodes prompts for training is not known: give its family a "
        "call with encode_prompt, or use a training loop of your own"
    )


def no_blank_prompt(config: Any, text_tokens: int) -> Prompt:
    """Of a family whose prompts have no known shape."""
    raise DiffCRError(
        "operations of this model cannot be counted, nor its forwards timed: its family's call has "
        "no blank_prompt"
    )


def same_output(transformer: Any, output: Any, latents: Tensor) -> Tensor:
    """Of a transformer whose output has the latents' layout and sign."""
    predicted: Tensor = output
    return predicted


def turned_output(transformer: Any, output: Any, latents: Tensor) -> Tensor:
    """Of a transformer whose output has the latents' layout, and whose pipeline turns the sign: its
    own way is from noise to the picture."""
    predicted: Tensor = -output
    return predicted


@dataclass(frozen=True)
class PipelineCall:
    """How a pipeline calls its transformer: what training, evaluation and counting follow.

    Attributes:
        inputs: Arguments of the transformer's forward, as the family's pipeline passes them;
            raises DiffCRError where the family cannot be trained.
        grey_inputs: Arguments of the forward that the pipeline makes of a grey video where it is
            given none, from the transformer's configuration and its latents [B, C, f, h, w], as
            large as what is denoised; what `inputs` has in their place has their shape alone.
        encode_prompt: Captions as `inputs` takes them; raises likewise.
        prediction: What the output says of the noise, in the latents' layout and as the scheduler
            takes it, from the transformer, its output's first entry and the latents.
        refuse_training: Why a model is not trained, from its configuration; None where it is.
        blank_prompt: A prompt without content; raises DiffCRError where its shape is not known.
        blank_inputs: Arguments of the transformer's forward for one sample, without content, on
            the transformer's device and in its dtype, where they are not those of `inputs` for a
            blank prompt.
        latent_channels: Of what is denoised, from the configuration; [B, C, ...].
        patch: Frames, rows and columns of the latents that become a token, from the configuration.
        latents_of_scale: Of a side of what the pipeline's `vae_scale_factor` makes one of.
        places_first: Whether the channels of packed latents count the places within a square before
            the autoencoder's channels, [p p C] in place of [C p p].
        video: Whether latents have a dimension of frames.
        guidance: Argument of the pipeline's call with the scale of guidance.
    """

    inputs: Inputs = no_inputs
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

    def check_trainable(self, transformer: Any) -> None:
        """Raises DiffCRError where it is not known how a transformer is called in training."""
        reason = self.refuse_training and self.refuse_training(transformer.config)
        if reason:
            raise DiffCRError(
                f"this {type(transformer).__name__} cannot be trained: {reason}; give another "
                "model, or use a training loop of your own"
            )
        if self.inputs is no_inputs:
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
        return self.inputs(transformer, latents[None], weights.new_zeros(1), prompt)

    def latent_shape(
        self, config: Any, rows: int, columns: int, frames: int = 1
    ) -> tuple[int, ...]:
        """Of one sample's latents, (C, h, w), or of a video (C, f, h, w)."""
        return (self.latent_channels(config), *([frames] * self.video), rows, columns)

    def tokens_of(self, config: Any, latent_shape: Sequence[int]) -> int:
        """Tokens of a sample whose latents have a shape (C, ...), as pipelines count them."""
        patch = self.patch(config)[-len(latent_shape[1:]) :]
        return prod(side // part for side, part in zip(latent_shape[1:], patch, strict=True))
