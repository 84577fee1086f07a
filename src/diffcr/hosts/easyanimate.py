"""EasyAnimate (diffusers/models/transformers/transformer_easyanimate.py).

Its last blocks call one feed-forward for video and for text.
"""

from __future__ import annotations

from diffcr.hosts.family import Family
from diffcr.hosts.layout import BlockLayout
from diffcr.hosts.lora_targets import JOINT_SELF_ATTENTION
from diffcr.hosts.pipelines.easyanimate import EASYANIMATE_CALL
from diffcr.hosts.token_inputs import ROTARY_TABLE

EASYANIMATE_BLOCK = BlockLayout(
    hidden_states="hidden_states",
    batched=("hidden_states", "encoder_hidden_states", "temb"),
    outputs=("hidden_states", "encoder_hidden_states"),
    token_inputs=(ROTARY_TABLE,),
    first_linear="attn1.to_q",
)

EASYANIMATE = Family(
    name="easyanimate",
    transformer_class=(
        "diffusers.models.transformers.transformer_easyanimate.EasyAnimateTransformer3DModel"
    ),
    block_groups={"transformer_blocks": EASYANIMATE_BLOCK},
    lora_targets=JOINT_SELF_ATTENTION,
    call=EASYANIMATE_CALL,
)
