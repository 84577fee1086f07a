"""A real inpainting pipeline with tiny random weights: 32 x 32 pixels, 8 x 8 pixels a token."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from diffcr.inpainting import ContextEncoder, LazyInpaintPipeline, LazyTransformer2DModel
from tests.hosts import Inputs, inputs, pixart
from tests.pipelines import tiny_pixart_pipeline


def tiny_encoder(seed: int = 5, layers: int = 2) -> ContextEncoder:
    """A context encoder of width 32 for 8 x 8 latents, in eval mode."""
    torch.manual_seed(seed)
    encoder = ContextEncoder(
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=layers,
        sample_size=8,
        patch_size=2,
    )
    return encoder.eval()


def tiny_decoder(layers: int = 3) -> LazyTransformer2DModel:
    """A decoder of masked tokens with 4 x 4 places, whose context has a say, in eval mode."""
    host = pixart(layers=layers)
    nn.init.normal_(host.proj_out.weight, std=0.1)
    decoder = LazyTransformer2DModel.from_text_to_image(host, context_channels=32)
    with torch.no_grad():
        decoder.context_projection.weight[:, 32:].normal_(std=0.2)
    return decoder


def tiny_lazy_pipeline(seed: int = 0) -> LazyInpaintPipeline:
    """A pipeline around such models, in eval mode."""
    base = tiny_pixart_pipeline(seed)
    decoder = LazyTransformer2DModel.from_text_to_image(base.transformer, context_channels=32)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(seed)
        half = decoder.context_projection.weight[:, 32:]
        half.copy_(0.2 * torch.randn(half.shape, generator=generator))
    pipe = LazyInpaintPipeline(
        tokenizer=base.tokenizer,
        text_encoder=base.text_encoder,
        vae=base.vae,
        transformer=decoder,
        encoder=tiny_encoder(),
        scheduler=base.scheduler,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


@dataclass(frozen=True)
class LazyInputs:
    """What a decoder is called with: PixArt's inputs, [B, K] places and [B, K, 32] context."""

    given: Inputs
    indices: Tensor
    context: Tensor

    def only(self, samples: slice) -> LazyInputs:
        return LazyInputs(self.given.only(samples), self.indices[samples], self.context[samples])

    def at(self, timesteps: Tensor) -> LazyInputs:
        return replace(self, given=self.given.at(timesteps))


def lazy_inputs(batch: int = 2, masked: int = 12, seed: int = 1, size: int = 8) -> LazyInputs:
    """Random inputs with as many masked tokens of (size / 2)^2, other ones in every sample."""
    generator = torch.Generator().manual_seed(seed)
    tokens = (size // 2) ** 2
    places = [
        torch.randperm(tokens, generator=generator)[:masked].sort().values for _ in range(batch)
    ]
    context = torch.randn(batch, masked, 32, generator=generator)
    return LazyInputs(inputs(batch, seed, size), torch.stack(places), context)


def denoise_masked(decoder: nn.Module, inputs: LazyInputs) -> Tensor:
    """One forward: [B, 8, h, w]."""
    output: Tensor = decoder(
        inputs.given.latents,
        token_indices=inputs.indices,
        context=inputs.context,
        encoder_hidden_states=inputs.given.prompt_embeds,
        timestep=inputs.given.timesteps,
        added_cond_kwargs={"resolution": None, "aspect_ratio": None},
        return_dict=False,
    )[0]
    return output


def photograph(height: int = 32, width: int = 32, seed: int = 0) -> NDArray[np.uint8]:
    """Noise, so that a pixel that moved or changed is noticed: [H, W, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def box_mask(height: int = 32, width: int = 32, part: float = 0.25) -> NDArray[np.uint8]:
    """White in the middle, `part` of each side: [H, W], 0 or 255."""
    mask = np.zeros((height, width), np.uint8)
    down, across = (max(round(length * part), 1) for length in (height, width))
    top, left = (height - down) // 2, (width - across) // 2
    mask[top : top + down, left : left + across] = 255
    return mask
