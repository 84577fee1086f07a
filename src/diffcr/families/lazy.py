"""The two models of `diffcr.inpainting`: the decoder of masked tokens and its context encoder.

Both are made of the blocks of PixArt's family. The decoder's tokens are some of the grid's, and it
says which; the encoder sees a picture once, without a timestep.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from diffcr.errors import DiffCRError
from diffcr.families.family import Family
from diffcr.families.pixart import PIXART, PIXART_BLOCK, pixart_inputs


def _refuse_to_denoise(
    transformer: Any,
    latents: Tensor,
    timesteps: Tensor,
    prompt_embeds: Tensor,
    prompt_mask: Tensor | None,
) -> dict[str, Any]:
    raise DiffCRError(f"{type(transformer).__name__} denoises nothing: pass the transformer")


LAZY_DECODER = Family(
    name="lazy-decoder",
    transformer_class="diffcr.inpainting.decoder.LazyTransformer2DModel",
    block_groups={"transformer_blocks": PIXART_BLOCK},
    width=PIXART.width,
    timestep="timestep",
    latents="hidden_states",
    lora_targets=PIXART.lora_targets,
    # What is masked, `token_indices` and `context`, the caller adds.
    call_inputs=pixart_inputs,
    token_positions="token_indices",
)
LAZY_ENCODER = Family(
    name="lazy-encoder",
    transformer_class="diffcr.inpainting.encoder.ContextEncoder",
    block_groups={"transformer_blocks": PIXART_BLOCK},
    width=PIXART.width,
    timestep=None,
    latents="hidden_states",
    lora_targets=PIXART.lora_targets,
    call_inputs=_refuse_to_denoise,
)
