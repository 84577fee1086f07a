"""PRX: text rows are keys alone (diffusers/models/transformers/transformer_prx.py)."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from diffcr.hosts.family import Family
from diffcr.hosts.layout import BlockLayout, TokenInput
from diffcr.hosts.noise_scale import NoiseScale
from diffcr.hosts.prompt import Prompt, blank_text, of_seen_rows

PRX_BLOCK = BlockLayout(
    hidden_states="hidden_states",
    batched=(
        *("hidden_states", "encoder_hidden_states", "temb"),
        *("image_rotary_emb", "attention_mask"),
    ),
    token_inputs=(TokenInput("image_rotary_emb", dims=(2,)),),
    first_linear="attention.img_qkv_proj",
    # The feed-forward is no module; what is behind its activation is linear.
    mlp="mlp_act",
)


def _inputs(transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt) -> dict[str, Any]:
    return {
        "hidden_states": latents,
        "timestep": timesteps,
        "encoder_hidden_states": prompt.embeds,
        "attention_mask": None if prompt.mask is None else prompt.mask.bool(),
        "return_dict": False,
    }


def _refuse_training(config: Any) -> str | None:
    if config.resolution_embeds:
        return "it denoises pixels and predicts the picture, not the velocity of a flow"
    return None


PRX = Family(
    name="prx",
    transformer_class="diffusers.models.transformers.transformer_prx.PRXTransformer2DModel",
    block_groups={"blocks": PRX_BLOCK},
    timestep=NoiseScale(noisy=1),
    call_inputs=_inputs,
    encode_prompt=of_seen_rows,
    blank_prompt=partial(blank_text, channels="context_in_dim"),
    refuse_training=_refuse_training,
    width=lambda config: int(config.hidden_size),
    lora_targets=(
        *("attention.img_qkv_proj", "attention.txt_kv_proj", "attention.to_out.0"),
        *("gate_proj", "up_proj", "down_proj"),
    ),
)
