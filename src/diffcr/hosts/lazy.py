"""The two models of `diffcr.inpainting`: the decoder of masked tokens and its context encoder.

Both are made of the blocks of PixArt's family. The decoder's tokens are some of the grid's, and it
says which; the encoder sees a picture once, without a timestep.
"""

from __future__ import annotations

from diffcr.hosts.family import Family
from diffcr.hosts.pipelines.lazy import LAZY_DECODER_CALL, LAZY_ENCODER_CALL
from diffcr.hosts.pixart import PIXART, PIXART_BLOCK, SELF_ATTENTION_BLOCK

LAZY_DECODER = Family(
    name="lazy-decoder",
    transformer_class="diffcr.inpainting.decoder.LazyTransformer2DModel",
    block_groups={"transformer_blocks": PIXART_BLOCK},
    lora_targets=PIXART.lora_targets,
    token_positions="token_indices",
    call=LAZY_DECODER_CALL,
)

LAZY_ENCODER = Family(
    name="lazy-encoder",
    transformer_class="diffcr.inpainting.encoder.ContextEncoder",
    block_groups={"transformer_blocks": SELF_ATTENTION_BLOCK},
    timestep=None,
    conditioning=None,
    lora_targets=PIXART.lora_targets,
    call=LAZY_ENCODER_CALL,
)
