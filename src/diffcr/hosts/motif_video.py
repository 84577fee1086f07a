"""Motif-Video, whose blocks take what those of HunyuanImage take
(diffusers/models/transformers/transformer_motif_video.py).

The last blocks may be a decoder, to which the video that the others computed is the text: it is
computed whole, and the decoder's own tokens are routed.
"""

from __future__ import annotations

from diffcr.hosts.family import Family
from diffcr.hosts.hunyuan_image import HUNYUAN_IMAGE_BLOCK, HUNYUAN_IMAGE_SINGLE_BLOCK
from diffcr.hosts.lora_targets import JOINT_ATTENTION, SIDE_BY_SIDE
from diffcr.hosts.pipelines.motif_video import MOTIF_VIDEO_CALL

MOTIF_VIDEO = Family(
    name="motif-video",
    transformer_class=(
        "diffusers.models.transformers.transformer_motif_video.MotifVideoTransformer3DModel"
    ),
    block_groups={
        "transformer_blocks": HUNYUAN_IMAGE_BLOCK,
        "single_transformer_blocks": HUNYUAN_IMAGE_SINGLE_BLOCK,
    },
    lora_targets=(
        *JOINT_ATTENTION,
        *("cross_attn.to_q", "cross_attn.to_k", "cross_attn.to_v", "cross_attn.to_out.0"),
        *SIDE_BY_SIDE,
    ),
    call=MOTIF_VIDEO_CALL,
)
