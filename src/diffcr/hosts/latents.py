"""Pictures to latents, normalised as pipelines do it: one place for every autoencoder's way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from diffcr.core.images import image_tensor
from diffcr.errors import DiffCRError
from diffcr.hosts import family_of, find_transformer
from diffcr.hosts.loading import vae_scale


@torch.no_grad()
def encode_images(pipe: Any, images: Sequence[Image.Image]) -> Tensor:
    """Latents of pictures of one size, scaled as the pipeline scales them, on the autoencoder's
    device and in its dtype.

    Returns:
        [B, C, h, w]; [B, C, f, h, w] for a transformer of videos, to which a picture is a video of
        one frame of latents, or where a token has several, as CogVideoX 1.5's, of as many alike.
        Contiguous.

    Raises:
        DiffCRError: How the autoencoder's latents are scaled is not known, or they are not finite,
            as a half-precision autoencoder may make them.
    """
    transformer: Any = find_transformer(pipe)
    call = family_of(transformer).call
    pixels = image_tensor(images).to(pipe.vae.device, pipe.vae.dtype)
    of_videos = _encodes_videos(pipe.vae)
    encoded = pipe.vae.encode(pixels.unsqueeze(2) if of_videos else pixels)
    latents = normalise(pipe.vae, _mode(encoded), call.places_first)
    if not bool(latents.isfinite().all()):
        raise DiffCRError(
            f"the autoencoder's latents of a picture are not finite in {pipe.vae.dtype}: give it a "
            "wider dtype"
        )
    if call.video:
        frames, *_ = call.patch(transformer.config)
        latents = (latents if of_videos else latents.unsqueeze(2)).expand(-1, -1, frames, -1, -1)
    elif of_videos:
        latents = latents.squeeze(2)
    # As they are when read from a file: of another layout a model makes other last bits, and a run
    # that finds them encoded would end elsewhere than the one that encoded them.
    return latents.contiguous()


@torch.no_grad()
def grey_inputs(pipe: Any, latents: Tensor) -> dict[str, Any]:
    """Arguments of the transformer's forward that stand for a video that is not given, for latents
    [B, C, f, h, w]; none but for families that have them (`PipelineCall.grey_inputs`)."""
    transformer: Any = find_transformer(pipe)
    call = family_of(transformer).call
    if call.grey_inputs is None:
        return {}
    frames, *sides = latents.shape[2:]
    frames = pipe.vae_scale_factor_temporal * (frames - 1) + 1
    sides = [vae_scale(pipe) * side for side in sides]
    grey = torch.zeros(1, 3, frames, *sides, device=pipe.vae.device, dtype=pipe.vae.dtype)
    encoded = normalise(pipe.vae, _mode(pipe.vae.encode(grey))).to(latents)
    return call.grey_inputs(transformer.config, encoded.expand_as(latents))


def normalise(vae: Any, latents: Tensor, places_first: bool = False) -> Tensor:
    """What a pipeline makes of an autoencoder's latents [B, C, ...] before it adds noise: by the
    mean and deviation of every channel where the autoencoder has them, else by shift and factor.

    Args:
        vae: The autoencoder.
        latents: Its own.
        places_first: As in `PipelineCall`, for statistics of packed latents (FLUX.2's autoencoder).

    Raises:
        DiffCRError: The autoencoder has none of them.
    """
    config = vae.config
    if hasattr(vae, "bn"):
        return _normalise_squares(vae, latents, places_first)
    # LTX's autoencoder has them as buffers.
    known = {**dict(vae.named_buffers()), **{k: v for k, v in config.items() if v is not None}}
    mean, deviation = known.get("latents_mean"), known.get("latents_std")
    factor = config.get("scaling_factor")
    if mean is not None and deviation is not None:
        # Those of Cosmos 1 are of every frame, for as many as a video may have.
        shape = (1, latents.shape[1], -1, *[1] * (latents.dim() - 3))
        mean, deviation = (
            torch.as_tensor(v).to(latents).reshape(shape)[:, :, : latents.shape[2]]
            for v in (mean, deviation)
        )
        normalised: Tensor = (latents - mean) / deviation
        return normalised if factor is None else normalised * factor
    if factor is None:
        raise DiffCRError(
            f"how latents of {type(vae).__name__} are scaled is not known: encode the data with a "
            "script of your own"
        )
    shift = config.get("shift_factor")
    scaled: Tensor = (latents if shift is None else latents - shift) * factor
    return scaled


def _normalise_squares(vae: Any, latents: Tensor, places_first: bool) -> Tensor:
    """By a mean and a variance for each channel and place in a square of p x p latents (diffusers,
    pipeline_flux2.py: `_encode_vae_image`)."""
    (_, channels, rows, columns), (side, _) = latents.shape, vae.config.patch_size

    def over_picture(statistic: Tensor) -> Tensor:
        squares = statistic.to(latents)
        if places_first:
            squares = squares.unflatten(0, (-1, channels)).T.flatten()
        return squares.view(channels, side, side).repeat(1, rows // side, columns // side)

    deviation = (over_picture(vae.bn.running_var) + vae.config.batch_norm_eps).sqrt()
    normalised: Tensor = (latents - over_picture(vae.bn.running_mean)) / deviation
    return normalised


def _encodes_videos(vae: Any) -> bool:
    """Whether it takes [B, 3, frames, H, W]: its first convolution has three dimensions."""
    dimensions: int = next(p.dim() for p in vae.encoder.parameters() if p.dim() > 3)
    return dimensions == 5


def _mode(encoded: Any) -> Tensor:
    # An autoencoder without a distribution, DC-AE, gives its latents alone.
    latents: Tensor = encoded.latent if hasattr(encoded, "latent") else encoded.latent_dist.mode()
    return latents
