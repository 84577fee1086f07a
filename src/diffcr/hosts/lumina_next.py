"""Lumina-Next (diffusers/models/transformers/lumina_nextdit2d.py).

The timestep falls from 1 for a picture to 0 for noise. Its proportional attention
(`base_sequence_length`) goes by the number of tokens that a block computes.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from diffcr.hosts.family import Family
from diffcr.hosts.layout import BlockLayout, TokenInput
from diffcr.hosts.noise_scale import NoiseScale
from diffcr.hosts.prompt import Prompt, blank_text, of_seen_rows

LUMINA_NEXT_BLOCK = BlockLayout(
    hidden_states="hidden_states",
    batched=(
        *("hidden_states", "attention_mask", "image_rotary_emb"),
        *("encoder_hidden_states", "encoder_mask", "temb"),
    ),
    token_inputs=(TokenInput("attention_mask"), TokenInput("image_rotary_emb")),
    first_linear="attn1.to_q",
    # A norm of the feed-forward's output undoes what scales that.
    mlp="ffn_norm2",
)


def _inputs(transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt) -> dict[str, Any]:
    """Rotary places as for pictures of the model's own size, which the pipeline stretches for
    larger ones."""
    from diffusers.models.embeddings import get_2d_rotary_pos_embed_lumina

    config = transformer.config
    rows, columns = (side // config.patch_size for side in latents.shape[2:])
    width = config.hidden_size // config.num_attention_heads
    own_tokens = (config.sample_size // config.patch_size) ** 2
    return {
        "hidden_states": latents,
        "timestep": timesteps,
        "encoder_hidden_states": prompt.embeds,
        "encoder_mask": prompt.mask,
        "image_rotary_emb": get_2d_rotary_pos_embed_lumina(width, rows, columns),
        "cross_attention_kwargs": {"base_sequence_length": own_tokens},
        "return_dict": False,
    }


def _prediction(transformer: Any, output: Tensor, latents: Tensor) -> Tensor:
    """The pipeline takes the first half of the channels and turns the sign."""
    return -output[:, : latents.shape[1]]


LUMINA_NEXT = Family(
    name="lumina-next",
    transformer_class="diffusers.models.transformers.lumina_nextdit2d.LuminaNextDiT2DModel",
    block_groups={"layers": LUMINA_NEXT_BLOCK},
    timestep=NoiseScale(clean=1, noisy=0),
    call_inputs=_inputs,
    encode_prompt=of_seen_rows,
    prediction=_prediction,
    blank_prompt=partial(blank_text, channels="cross_attention_dim", masked=True),
    width=lambda config: int(config.hidden_size),
    lora_targets=(
        *("attn1.to_q", "attn1.to_k", "attn1.to_v"),
        *("attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0"),
    ),
)
