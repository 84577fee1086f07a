"""Wan 2.1 and 2.2, text and image to video, VACE, Animate, ChronoEdit
(diffusers/models/transformers/transformer_wan*.py, transformer_chronoedit.py).

With a timestep per token (TI2V) the modulation has a row per token. Blocks of VACE that give hints
to others stay dense: a token without a hint would be another.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffcr.hosts.calls import UNTRAINED, given_beside, text_inputs
from diffcr.hosts.family import Family
from diffcr.hosts.layout import BlockLayout, TokenInput
from diffcr.hosts.lora_targets import SELF_AND_CROSS_ATTENTION
from diffcr.hosts.prompt import Prompt, blank_text, of_embeds

WAN_BLOCK = BlockLayout(
    hidden_states="hidden_states",
    batched=("hidden_states", "encoder_hidden_states", "temb", "rotary_emb"),
    token_inputs=(TokenInput("rotary_emb"), TokenInput("temb", of_ndim=4)),
    first_linear="attn1.to_q",
    mlp="ffn",
)


def _vace_inputs(
    transformer: Any, latents: Tensor, timesteps: Tensor, prompt: Prompt
) -> dict[str, Any]:
    config = transformer.config
    return {
        **text_inputs(transformer, latents, timesteps, prompt),
        **_vace_control(config, torch.zeros_like(latents)),
        "control_hidden_states_scale": latents.new_ones(len(config.vace_layers)),
    }


def _vace_control(config: Any, grey: Tensor) -> dict[str, Any]:
    """What is kept and what is made anew, both grey, and a mask that says that all is made."""
    channels = config.vace_in_channels - 2 * grey.shape[1]
    mask = torch.ones_like(grey[:, :1]).expand(-1, channels, -1, -1, -1)
    return {"control_hidden_states": torch.cat([grey, grey, mask], 1)}


WAN = Family(
    name="wan",
    transformer_class="diffusers.models.transformers.transformer_wan.WanTransformer3DModel",
    block_groups={"blocks": WAN_BLOCK},
    call_inputs=text_inputs,
    encode_prompt=of_embeds,
    blank_prompt=partial(blank_text, channels="text_dim"),
    refuse_training=given_beside,
    video=True,
    lora_targets=(
        *SELF_AND_CROSS_ATTENTION,
        *("ffn.net.0.proj", "ffn.net.2"),
    ),
)
WAN_VACE = replace(
    WAN,
    name="wan-vace",
    call_inputs=_vace_inputs,
    grey_inputs=_vace_control,
    transformer_class=(
        "diffusers.models.transformers.transformer_wan_vace.WanVACETransformer3DModel"
    ),
)
WAN_ANIMATE = replace(
    WAN,
    name="wan-animate",
    **UNTRAINED,
    refuse_training=lambda config: (
        "it is given a reference picture and videos of a pose and a face"
    ),
    transformer_class=(
        "diffusers.models.transformers.transformer_wan_animate.WanAnimateTransformer3DModel"
    ),
)
CHRONO_EDIT = replace(
    WAN,
    name="chrono-edit",
    **UNTRAINED,
    refuse_training=lambda config: "it is given the picture to edit",
    transformer_class=(
        "diffusers.models.transformers.transformer_chronoedit.ChronoEditTransformer3DModel"
    ),
)
