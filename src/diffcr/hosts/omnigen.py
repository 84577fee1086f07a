"""OmniGen: one sequence of padding, text and given images, timestep, image
(diffusers/models/transformers/transformer_omnigen.py).

All samples take the places of the first one. The timestep falls from 1 for a picture to 0 for
noise.
"""

from __future__ import annotations

from diffcr.hosts.family import Family
from diffcr.hosts.layout import BlockLayout, TokenInput
from diffcr.hosts.noise_scale import NoiseScale
from diffcr.hosts.pipelines.omnigen import OMNIGEN_CALL
from diffcr.hosts.token_inputs import ROTARY_TABLE

OMNIGEN_BLOCK = BlockLayout(
    hidden_states="hidden_states",
    batched=("hidden_states", "attention_mask"),
    rows="last",
    token_inputs=(TokenInput("attention_mask", dims=(-2, -1)), ROTARY_TABLE),
    first_linear="self_attn.to_q",
    mlp="mlp",
)

OMNIGEN = Family(
    name="omnigen",
    transformer_class=(
        "diffusers.models.transformers.transformer_omnigen.OmniGenTransformer2DModel"
    ),
    block_groups={"layers": OMNIGEN_BLOCK},
    timestep=NoiseScale(clean=1, noisy=0),
    conditioning="input_ids",
    width=lambda config: int(config.hidden_size),
    lora_targets=(
        *("self_attn.to_q", "self_attn.to_k", "self_attn.to_v", "self_attn.to_out.0"),
        *("mlp.gate_up_proj", "mlp.down_proj"),
    ),
    call=OMNIGEN_CALL,
)
