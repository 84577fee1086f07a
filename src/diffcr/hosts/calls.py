"""How a family's pipeline calls its transformer: what goes in, and what comes out.

Latents are [B, C, h, w], or [B, C, f, h, w] of a video, normalised as the pipeline does it
(`diffcr.hosts.latents`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from diffcr.errors import DiffCRError
from diffcr.hosts.prompt import Prompt


class CallInputs(Protocol):
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
        f"how {type(transformer).__name__} is called in training is not known: give its family "
        "call_inputs, or use a training loop of your own"
    )


def no_prompt(pipe: Any, captions: Sequence[str], max_sequence_length: int) -> Prompt:
    """Of a family whose prompts cannot be encoded."""
    raise DiffCRError(
        f"how {type(pipe).__name__} encodes prompts for training is not known: give its family "
        "encode_prompt, or use a training loop of your own"
    )


def no_blank_prompt(config: Any, text_tokens: int) -> Prompt:
    """Of a family whose prompts have no known shape."""
    raise DiffCRError(
        "operations of this model cannot be counted, nor its forwards timed: its family has no "
        "blank_prompt"
    )


# For a family that is made from another one's by `replace`, and is called in another way.
UNTRAINED: Mapping[str, Any] = {
    "call_inputs": no_inputs,
    "encode_prompt": no_prompt,
    "blank_prompt": no_blank_prompt,
}


def same_output(transformer: Any, output: Any, latents: Tensor) -> Tensor:
    """Of a transformer whose output has the latents' layout and sign."""
    predicted: Tensor = output
    return predicted


def turned_output(transformer: Any, output: Any, latents: Tensor) -> Tensor:
    """Of a transformer whose output has the latents' layout, and whose pipeline turns the sign: its
    own way is from noise to the picture."""
    predicted: Tensor = -output
    return predicted


def text_inputs(
    transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt
) -> dict[str, Any]:
    """Of a transformer that is told a text and nothing else."""
    return {
        "hidden_states": latents,
        "timestep": timesteps,
        "encoder_hidden_states": prompt.embeds,
        "return_dict": False,
    }


def masked_text_inputs(
    transformer: Any,
    latents: Tensor,
    timesteps: Tensor,
    prompt: Prompt,
    mask: torch.dtype = torch.int64,
) -> dict[str, Any]:
    """The same with the text's mask, in a dtype `mask`."""
    given = text_inputs(transformer, latents, timesteps, prompt)
    seen = None if prompt.mask is None else prompt.mask.to(mask)
    return {**given, "encoder_attention_mask": seen}


def with_no_given_frames(latents: Tensor) -> Tensor:
    """Latents [B, C, f, h, w] with zeros for given frames and their mask, [B, 2 C + 1, f, h, w], as
    text-to-video pipelines make them for models that also continue pictures."""
    return torch.cat([latents, torch.zeros_like(latents), torch.zeros_like(latents[:, :1])], 1)


def given_beside(config: Any, packed: int = 1) -> str | None:
    """Why a model that takes more channels than it gives is not trained: the others hold a first
    frame, or what is to be filled in.

    Args:
        config: Of the transformer.
        packed: Channels of its input for one of `out_channels`.
    """
    given = packed * (config.get("out_channels") or config.in_channels)
    if given == config.in_channels:
        return None
    return (
        f"it takes {config.in_channels} channels and gives {given}; what it is given beside the "
        "noisy latents is not known in training"
    )


def latents_as_tokens(latents: Tensor) -> Tensor:
    """Latents [B, C, ...] as tokens of one each, [B, N, C]."""
    return latents.flatten(2).transpose(1, 2)


def tokens_as_latents(transformer: Any, output: Tensor, latents: Tensor) -> Tensor:
    """The tokens of `latents_as_tokens` as latents again, in the layout of `latents`."""
    return output.transpose(1, 2).reshape(latents.shape)


def pack_latents(latents: Tensor) -> Tensor:
    """Squares of 2 x 2 latents [B, C, h, w] as tokens [B, h w / 4, 4 C] (diffusers,
    pipeline_flux.py: `_pack_latents`)."""
    squares = latents.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))  # [B, C, rows, 2, columns, 2]
    packed: Tensor = squares.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
    return packed


def unpack_latents(transformer: Any, output: Tensor, latents: Tensor) -> Tensor:
    """The tokens of `pack_latents` as latents again, [B, C, h, w] as `latents` are."""
    rows, columns = (side // 2 for side in latents.shape[2:])
    squares = output.unflatten(2, (-1, 2, 2)).unflatten(1, (rows, columns))
    latent: Tensor = squares.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)
    return latent
