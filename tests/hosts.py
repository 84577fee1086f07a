"""Small host models with random weights, and inputs for them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers import PixArtTransformer2DModel
from torch import Tensor, nn

from diffcr.binding.attachment import attach
from diffcr.methods.diffcr.compressor import Compressor
from diffcr.methods.diffcr.config import DiffCRConfig


def pixart(seed: int = 0, layers: int = 3, sample_size: int = 8) -> PixArtTransformer2DModel:
    """A PixArt transformer of width 32 with 4 x 4 image tokens, in eval mode."""
    torch.manual_seed(seed)
    transformer = PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=8,
        num_layers=layers,
        cross_attention_dim=32,
        sample_size=sample_size,
        patch_size=2,
        caption_channels=32,
        norm_type="ada_norm_single",
        use_additional_conditions=False,
    )
    return transformer.eval()


@dataclass(frozen=True)
class Inputs:
    """What a PixArt transformer is called with: [B, 4, h, w], [B, 5, 32], [B]."""

    latents: Tensor
    prompt_embeds: Tensor
    timesteps: Any

    def only(self, samples: slice) -> Inputs:
        return Inputs(self.latents[samples], self.prompt_embeds[samples], self.timesteps[samples])

    def at(self, timesteps: Any) -> Inputs:
        return replace(self, timesteps=timesteps)

    def to(self, dtype: torch.dtype) -> Inputs:
        return replace(
            self, latents=self.latents.to(dtype), prompt_embeds=self.prompt_embeds.to(dtype)
        )


def inputs(batch: int = 2, seed: int = 1, size: int = 8, timestep: int = 600) -> Inputs:
    """Random inputs, all samples at one timestep."""
    generator = torch.Generator().manual_seed(seed)
    return Inputs(
        torch.randn(batch, 4, size, size, generator=generator),
        torch.randn(batch, 5, 32, generator=generator),
        torch.full((batch,), timestep),
    )


def denoise(transformer: nn.Module, given: Inputs) -> Tensor:
    """One forward: [B, 8, h, w]."""
    output: Tensor = transformer(
        given.latents,
        encoder_hidden_states=given.prompt_embeds,
        timestep=given.timesteps,
        added_cond_kwargs={"resolution": None, "aspect_ratio": None},
        return_dict=False,
    )[0]
    return output


def scramble(compressor: Compressor, seed: int = 2, largest: float = 0.8) -> None:
    """Give routers and ratios random values, as if they had been trained."""
    generator = scramble_routers(compressor, seed)
    with torch.no_grad():
        ratios = torch.rand(compressor.ratios.shape, generator=generator) * largest
        compressor.ratios.copy_(ratios)


def scramble_routers(compressor: Compressor, seed: int = 2) -> torch.Generator:
    """Give routers random values; the generator as it is afterwards."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for router in compressor.routers.values():
            router.copy_(torch.randn(router.shape, generator=generator))
    return generator


def trained_pixart(config: DiffCRConfig | None = None, **options: Any) -> PixArtTransformer2DModel:
    """An attached PixArt transformer with random routers and ratios, in eval mode."""
    transformer = pixart(**options)
    scramble(attach(transformer, config or DiffCRConfig()))
    return transformer


def rankings(batch: int = 2, layers: int = 3, tokens: int = 16, seed: int = 3) -> dict[int, Tensor]:
    """A random token ranking for every layer."""
    generator = torch.Generator().manual_seed(seed)
    return {
        layer: torch.stack([torch.randperm(tokens, generator=generator) for _ in range(batch)])
        for layer in range(layers)
    }


def gradients(module: nn.Module) -> dict[str, Tensor]:
    """Gradients of all parameters that have one."""
    return {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}
