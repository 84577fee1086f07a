"""The embedded pipeline's autoencoder: diffusers' AutoencoderKL, trained on scenes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import l1_loss, mse_loss

from diffcr.core.images import image_tensor
from diffcr.files import replacing_directory
from diffcr.pretraining.fitting import FitSettings, fit
from diffcr.scenes import ScenesDataset

if TYPE_CHECKING:
    from diffusers import AutoencoderKL


@dataclass(frozen=True, kw_only=True)
class AutoencoderSettings(FitSettings):
    """How the autoencoder is trained.

    Attributes:
        images: Scenes of the training split that crops are taken from.
        crop: Side of a crop in pixels. A convolutional network learns from crops at a fraction of
            the cost of whole pictures.
        kl_weight: What the mean divergence per latent value is multiplied with in the loss.
    """

    steps: int = 5000
    batch_size: int = 16
    images: int = 4000
    crop: int = 48
    kl_weight: float = 1e-4


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


def train_autoencoder(settings: AutoencoderSettings, directory: Path) -> dict[str, Any]:
    """Train the autoencoder on random crops of scenes, and save it; the latents' scale goes into
    its `scaling_factor`.

    Returns:
        What was done, for the record, with the reconstructions' quality on the validation split.
    """
    vae = make_autoencoder(settings.seed)
    scenes = ScenesDataset("train", size=settings.images)
    pixels = torch.stack([image_tensor([scene.image])[0] for scene in scenes])

    def loss_of(generator: torch.Generator) -> Tensor:
        crops = _draw_crops(pixels, settings, generator)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            posterior = vae.encode(crops).latent_dist
            decoded = vae.decode(posterior.sample(generator)).sample.float()
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        loss: Tensor = l1_loss(decoded, crops) + mse_loss(decoded, crops) + settings.kl_weight * kl
        return loss

    losses = fit(
        "autoencoder", vae.parameters(), settings, loss_of, weight_decay=1e-4, warm_up=0.05
    )
    vae.eval()
    with torch.no_grad():
        scale = float(vae.encode(pixels[:256]).latent_dist.mode().std())
    vae.register_to_config(scaling_factor=1 / scale)
    validation = ScenesDataset("validation", size=64)
    psnr = reconstruction_psnr(vae, image_tensor([scene.image for scene in validation]))
    with replacing_directory(directory) as written:
        vae.save_pretrained(str(written))
    return {"settings": asdict(settings), "validation_psnr": psnr, "losses": losses}


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
def reconstruction_psnr(vae: AutoencoderKL, pixels: Tensor) -> float:
    """Mean peak signal-to-noise ratio in dB of reconstructed pictures [B, 3, H, W] in [-1, 1]."""
    decoded = vae.decode(vae.encode(pixels).latent_dist.mode()).sample.clamp(-1, 1)
    errors = (decoded - pixels).square().mean(dim=(1, 2, 3))
    return float((10 * torch.log10(4 / errors)).mean())
