"""The denoising loop that the lazy pipeline and its baselines share.

Shapes: B samples, C latent channels, h x w latents, T text tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler
from numpy.typing import NDArray
from torch import Tensor

from diffcr.errors import DiffCRError
from diffcr.hosts import family_of
from diffcr.inpainting.call import Request


@dataclass(frozen=True)
class Prompts:
    """Encoded prompts of a batch.

    Attributes:
        embeds: [B, T, D].
        mask: [B, T].
        negative_embeds: [B, T, D]; None without guidance.
        negative_mask: [B, T]; None without guidance.
    """

    embeds: Tensor
    mask: Tensor
    negative_embeds: Tensor | None
    negative_mask: Tensor | None

    def select(self, samples: Tensor) -> Prompts:
        """Those of some samples, [b] int64."""
        chosen = [None if v is None else v[samples.to(v.device)] for v in vars(self).values()]
        return Prompts(*chosen)  # type: ignore[arg-type]


def encode_prompts(pipe: Any, prompts: list[str], request: Request) -> Prompts:
    """Prompts through a PixArt pipeline's own text encoder, as the request says."""
    length = request.max_sequence_length
    longest = getattr(pipe.tokenizer, "model_max_length", length)
    found = pipe.encode_prompt(
        prompts,
        do_classifier_free_guidance=request.guidance_scale > 1,
        negative_prompt=request.negative_prompt,
        device=pipe._execution_device,
        max_sequence_length=min(length, longest),
        clean_caption=request.clean_caption,
    )
    return Prompts(*found)


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
        guidance_scale: 1 is none.
        tokens: Further arguments of the model, per sample.

    Returns:
        [B, C_out, h, w]; a learned variance is the prompt's own.
    """
    embeds, mask = prompts.embeds, prompts.mask
    guided = prompts.negative_embeds is not None and prompts.negative_mask is not None
    if guided:
        embeds = torch.cat([prompts.negative_embeds, embeds])  # type: ignore[list-item]
        mask = torch.cat([prompts.negative_mask, mask])  # type: ignore[list-item]
        tokens = {name: torch.cat([value, value]) for name, value in tokens.items()}
    given = torch.cat([latents, latents]) if guided else latents
    timesteps = timestep.to(given.device).expand(len(given))
    inputs = family_of(transformer).call_inputs(transformer, given, timesteps, embeds, mask)
    output: Tensor = transformer(**inputs, **tokens)[0]
    if not guided:
        return output
    without, with_prompt = output.chunk(2)
    channels = latents.shape[1]
    noise, rest = with_prompt[:, :channels], with_prompt[:, channels:]
    guided_noise = without[:, :channels] + guidance_scale * (noise - without[:, :channels])
    return torch.cat([guided_noise, rest], dim=1)


def denoise(
    pipe: Any,
    latents: Tensor,
    num_inference_steps: int,
    generator: Any,
    predict: Callable[[Tensor, Tensor], Tensor],
    after_step: Callable[[Tensor, Tensor | None], Tensor] | None = None,
) -> Tensor:
    """Run the pipeline's scheduler from noise to latents.

    Args:
        pipe: Has a scheduler and a progress bar.
        latents: [B, C, h, w], noise at the scheduler's first level.
        num_inference_steps: At least 1.
        generator: Of schedulers that draw noise; one, or one per sample.
        predict: From the model's input and the timestep to the predicted noise.
        after_step: From the latents after a step and the next timestep (None after the last) to
            those that go on.

    Raises:
        DiffCRError: The scheduler looks at all latents together (dynamic thresholding).
    """
    scheduler = pipe.scheduler
    if scheduler.config.get("thresholding"):
        raise DiffCRError(
            "the scheduler's dynamic thresholding mixes masked and other latents: turn it off"
        )
    scheduler.set_timesteps(num_inference_steps, device=latents.device)
    extra = pipe.prepare_extra_step_kwargs(generator, 0.0)
    timesteps: Tensor = scheduler.timesteps
    with pipe.progress_bar(total=len(timesteps)) as bar:
        for step, timestep in enumerate(timesteps):
            prediction = predict(scheduler.scale_model_input(latents, timestep), timestep)
            if not _takes_variance(scheduler):
                prediction = prediction[:, : latents.shape[1]]
            latents = scheduler.step(prediction, timestep, latents, **extra, return_dict=False)[0]
            if after_step is not None:
                following = timesteps[step + 1] if step + 1 < len(timesteps) else None
                latents = after_step(latents, following)
            bar.update()
    return latents


def _takes_variance(scheduler: Any) -> bool:
    learned = scheduler.config.get("variance_type") in ("learned", "learned_range")
    return learned and isinstance(scheduler, DDPMScheduler)


@torch.no_grad()
def encode_pixels(pipe: Any, pixels: NDArray[np.uint8]) -> Tensor:
    """Scaled latents [1, C, h, w] of a picture [H, W, 3], the mode of their distribution."""
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    image = image.to(pipe._execution_device, pipe.vae.dtype)
    latents: Tensor = pipe.vae.encode(image).latent_dist.mode() * pipe.vae.config.scaling_factor
    return latents


@torch.no_grad()
def decode_pixels(pipe: Any, latents: Tensor) -> NDArray[np.uint8]:
    """Pictures [B, H, W, 3] of scaled latents [B, C, h, w], one at a time: a batch of large ones
    takes the autoencoder's memory many times."""
    pictures = []
    for sample in (latents / pipe.vae.config.scaling_factor).to(pipe.vae.dtype).split(1):
        image = pipe.vae.decode(sample, return_dict=False)[0].float()
        scaled = ((image / 2 + 0.5).clamp(0, 1) * 255).round()
        pictures.append(scaled.to(torch.uint8)[0].permute(1, 2, 0).cpu().numpy())
    return np.stack(pictures)
