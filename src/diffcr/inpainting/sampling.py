"""From noise to pictures: what the lazy pipeline and its baselines share.

Shapes: B samples, C latent channels, h x w latents, T text tokens, G 2 with guidance and else 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler
from diffusers.utils.torch_utils import randn_tensor
from numpy.typing import NDArray
from torch import Tensor

from diffcr.errors import DiffCRError
from diffcr.hosts import family_of
from diffcr.hosts.pipelines.prompt import Prompt
from diffcr.inpainting.request import Prepared

# A tokenizer keeps padding and truncation between calls: threads that share one would cut each
# other's prompts.
_TEXT_LOCK = Lock()


def working_side(pipe: Any) -> int:
    """Longer side of the pictures that a pipeline's model works on, in pixels."""
    return int(pipe.vae_scale_factor * pipe.transformer.config.sample_size)


def pixels_per_token(pipe: Any) -> int:
    """Side of a token's square of pixels."""
    return int(pipe.vae_scale_factor * pipe.transformer.config.patch_size)


@dataclass(frozen=True)
class Prompts:
    """Encoded prompts of a batch, one tensor for all steps; with guidance all negative ones come
    first.

    Attributes:
        embeds: [G B, T, D].
        mask: [G B, T], 1 for a token of the prompt.
        halves: G, 2 with guidance and else 1.
    """

    embeds: Tensor
    mask: Tensor
    halves: int

    def select(self, samples: Tensor) -> Prompts:
        """Those of some samples, [b] int64."""
        batch = len(self.embeds) // self.halves
        rows = torch.cat([samples + half * batch for half in range(self.halves)])
        return Prompts(self.embeds[rows], self.mask[rows], self.halves)


def encode_prompts(pipe: Any, prepared: Prepared) -> Prompts:
    """The samples' prompts through a PixArt pipeline's own text encoder."""
    request = prepared.request
    length = request.max_sequence_length
    with _TEXT_LOCK:
        embeds, mask, negative_embeds, negative_mask = pipe.encode_prompt(
            prepared.prompts,
            do_classifier_free_guidance=request.guidance_scale > 1,
            negative_prompt=request.negative_prompt,
            device=pipe._execution_device,
            max_sequence_length=min(length, getattr(pipe.tokenizer, "model_max_length", length)),
            clean_caption=request.clean_caption,
        )
    if negative_embeds is None:
        return Prompts(embeds, mask, halves=1)
    return Prompts(torch.cat([negative_embeds, embeds]), torch.cat([negative_mask, mask]), halves=2)


def guided_prediction(
    transformer: Any,
    latents: Tensor,
    timestep: Tensor,
    prompts: Prompts,
    guidance_scale: float,
    **tokens: Tensor,
) -> Tensor:
    """Predicted noise with classifier-free guidance; both halves are one call of the model.

    Args:
        transformer: A PixArt transformer or a decoder of masked tokens.
        latents: [B, C, h, w], as the scheduler scales the model's input.
        timestep: Scalar.
        prompts: Of the batch.
        guidance_scale: Of no account where the prompts have no negative ones.
        tokens: Further arguments of the model, per sample.

    Returns:
        [B, C_out, h, w]; a learned variance is the prompt's own.
    """
    given = torch.cat([latents] * prompts.halves)
    timesteps = timestep.to(given.device).expand(len(given))
    prompt = Prompt(prompts.embeds, prompts.mask)
    inputs = family_of(transformer).call.inputs(transformer, given, timesteps, prompt)
    repeated = {name: torch.cat([value] * prompts.halves) for name, value in tokens.items()}
    output: Tensor = transformer(**inputs, **repeated)[0]
    if prompts.halves == 1:
        return output
    without, with_prompt = output.chunk(2)
    channels = latents.shape[1]
    noise, rest = with_prompt[:, :channels], with_prompt[:, channels:]
    guided_noise = without[:, :channels] + guidance_scale * (noise - without[:, :channels])
    return torch.cat([guided_noise, rest], dim=1)


class Sampler:
    """One call's way from noise to latents: iterating gives its timesteps, scalars, noisy to clean.

    A scheduler counts its steps and keeps earlier outputs. Every call takes a copy of the
    pipeline's, so that threads may share a pipeline.

    Args:
        pipe: Has a scheduler and a progress bar.
        prepared: Says how many steps, and what draws noise.

    Raises:
        DiffCRError: The scheduler looks at all latents together (dynamic thresholding).
    """

    def __init__(self, pipe: Any, prepared: Prepared) -> None:
        if pipe.scheduler.config.get("thresholding"):
            raise DiffCRError(
                "the scheduler's dynamic thresholding mixes masked and other latents: turn it off"
            )
        self.scheduler = deepcopy(pipe.scheduler)
        self.scheduler.set_timesteps(
            prepared.request.num_inference_steps, device=pipe._execution_device
        )
        self._pipe = pipe
        self._prepared = prepared
        self._options = pipe.prepare_extra_step_kwargs(prepared.generator, 0.0)
        learned = self.scheduler.config.get("variance_type") in ("learned", "learned_range")
        self._takes_variance = learned and isinstance(self.scheduler, DDPMScheduler)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self._pipe.progress_bar(self.scheduler.timesteps))

    def noise(self, dtype: torch.dtype) -> Tensor:
        """Latents [B, C, h, w] of pure noise at the scheduler's first level."""
        pipe, prepared = self._pipe, self._prepared
        sides = [side // pipe.vae_scale_factor for side in prepared.edits[0].working_region.shape]
        shape = (len(prepared.edits), pipe.transformer.config.in_channels, *sides)
        device, noise = pipe._execution_device, prepared.latents
        if noise is None:
            noise = randn_tensor(shape, prepared.generator, device, dtype)
        scaled: Tensor = noise.to(device) * self.scheduler.init_noise_sigma
        return scaled

    def model_input(self, latents: Tensor, timestep: Tensor) -> Tensor:
        """Latents [B, C, h, w] as the model sees them."""
        scaled: Tensor = self.scheduler.scale_model_input(latents, timestep)
        return scaled

    def step(self, prediction: Tensor, timestep: Tensor, latents: Tensor) -> Tensor:
        """The latents [B, C, h, w] after a step, from a prediction [B, C_out, h, w]."""
        if not self._takes_variance:
            prediction = prediction[:, : latents.shape[1]]
        stepped: Tensor = self.scheduler.step(
            prediction, timestep, latents, **self._options, return_dict=False
        )[0]
        return stepped


@torch.no_grad()
def encode_pixels(pipe: Any, pixels: NDArray[np.uint8]) -> Tensor:
    """Scaled latents [1, C, h, w] of a picture [H, W, 3], the mode of their distribution."""
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    image = image.to(pipe._execution_device, pipe.vae.dtype)
    latents: Tensor = pipe.vae.encode(image).latent_dist.mode() * pipe.vae.config.scaling_factor
    return latents


@torch.no_grad()
def decode_pixels(pipe: Any, latents: Tensor) -> list[NDArray[np.uint8]]:
    """Pictures [H, W, 3] of scaled latents [B, C, h, w], one at a time: a batch of large ones takes
    the autoencoder's memory many times.

    Raises:
        DiffCRError: One is not finite, which would be written as black.
    """
    pictures = []
    for sample in (latents / pipe.vae.config.scaling_factor).to(pipe.vae.dtype).split(1):
        image = pipe.vae.decode(sample, return_dict=False)[0].float()
        if not bool(image.isfinite().all()):
            raise DiffCRError(
                "a repainted picture is not finite (NaN): the models' weights or dtype cannot make "
                "it; lower the guidance, or give a wider dtype or other weights"
            )
        scaled = ((image / 2 + 0.5).clamp(0, 1) * 255).round()
        pictures.append(scaled.to(torch.uint8)[0].permute(1, 2, 0).cpu().numpy())
    return pictures
