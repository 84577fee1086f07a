"""DiT: a class in place of a prompt; blocks are PixArt's class
(diffusers/models/transformers/dit_transformer_2d.py)."""

from __future__ import annotations

from diffcr.hosts.family import Family
from diffcr.hosts.pipelines.dit import DIT_CALL
from diffcr.hosts.pixart import PIXART, SELF_ATTENTION_BLOCK

DIT = Family(
    name="dit",
    transformer_class="diffusers.models.transformers.dit_transformer_2d.DiTTransformer2DModel",
    block_groups={"transformer_blocks": SELF_ATTENTION_BLOCK},
    conditioning="class_labels",
    lora_targets=PIXART.lora_targets,
    call=DIT_CALL,
)
