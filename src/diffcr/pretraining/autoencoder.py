"""The embedded pipeline's autoencoder: diffusers' AutoencoderKL, trained on scenes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import l1_loss, mse_loss

from diffcr.core.images import image_tensor
from diffcr.scenes import ScenesDataset

if TYPE_CHECKING:
    from diffusers import AutoencoderKL


@dataclass(frozen=True)
class AutoencoderSettings:
    """How the autoencoder is trained.

    Attributes:
        steps: Optimiser steps.
        batch_size: Crops per step.
        images: Scenes that crops are taken from.
        crop: Side of a crop in pixels. A convolutional network learns from crops at a fraction of
            the cost of whole pictures.
        learning_rate: Peak of a cosine schedule of AdamW.
        kl_weight: Of the mean divergence per latent value.
        seed: Of weights and draws.
    """

    steps: int = 5000
    batch_size: int = 16
    images: int = 4000
    crop: int = 48
    learning_rate: float = 2e-3
    kl_weight: float = 1e-4
    seed: int = 0


def make_autoencoder(seed: int) -> AutoencoderKL:
    """Random weights: 4 x downsampling to 4 channels, no attention."""
    from diffusers import AutoencoderKL

    torch.manual_seed(seed)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 64, 96),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=16,
        sample_size=96,
        mid_block_add_attention=False,
    )


def train_autoencoder(
    settings: AutoencoderSettings, report: Callable[[int, float], None]
) -> AutoencoderKL:
    """Train on random crops of scenes; the latents' scale goes into `scaling_factor`.

    Args:
        settings: How.
        report: Called with the step and the loss after each step.
    """
    vae = make_autoencoder(settings.seed)
    scenes = ScenesDataset("train", size=settings.images)
    pixels = torch.stack([image_tensor([scene.image])[0] for scene in scenes])
    generator = torch.Generator().manual_seed(settings.seed)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=settings.learning_rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, settings.steps, pct_start=0.05
    )
    for step in range(settings.steps):
        crops = _draw_crops(pixels, settings, generator)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            posterior = vae.encode(crops).latent_dist
            decoded = vae.decode(posterior.sample(generator)).sample.float()
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        loss = l1_loss(decoded, crops) + mse_loss(decoded, crops) + settings.kl_weight * kl
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        report(step + 1, float(loss.detach()))
    vae.eval()
    vae.register_to_config(scaling_factor=1 / latent_scale(vae, pixels[:256]))
    return vae


def _draw_crops(
    pixels: Tensor, settings: AutoencoderSettings, generator: torch.Generator
) -> Tensor:
    count, room = len(pixels), pixels.shape[-1] - settings.crop
    chosen = torch.randint(count, (settings.batch_size,), generator=generator).tolist()
    # Corners at multiples of 8 keep the downsampling grid where it is in a whole picture.
    corners = torch.randint(room // 8 + 1, (settings.batch_size, 2), generator=generator) * 8
    return torch.stack(
        [
            pixels[i, :, y : y + settings.crop, x : x + settings.crop]
            for i, (y, x) in zip(chosen, corners.tolist(), strict=True)
        ]
    )


@torch.no_grad()
def latent_scale(vae: AutoencoderKL, pixels: Tensor) -> float:
    """Standard deviation of the latents of pictures [B, 3, H, W]."""
    return float(vae.encode(pixels).latent_dist.mode().std())


@torch.no_grad()
def reconstruction_psnr(vae: AutoencoderKL, pixels: Tensor) -> float:
    """Mean peak signal-to-noise ratio in dB of reconstructed pictures [B, 3, H, W] in [-1, 1]."""
    decoded = vae.decode(vae.encode(pixels).latent_dist.mode()).sample.clamp(-1, 1)
    errors = (decoded - pixels).square().mean(dim=(1, 2, 3))
    return float((10 * torch.log10(4 / errors)).mean())
