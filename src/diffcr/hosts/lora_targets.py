"""Names of the linear layers that families have in common, for their LoRA."""

from __future__ import annotations

SELF_ATTENTION = ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0")
SELF_AND_CROSS_ATTENTION = (
    *SELF_ATTENTION,
    *("attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0"),
)
# Of one attention over picture and text, as `attn` or as `attn1`.
JOINT_ATTENTION = (
    *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
    *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"),
)
JOINT_SELF_ATTENTION = (
    *SELF_ATTENTION,
    *("attn1.add_q_proj", "attn1.add_k_proj", "attn1.add_v_proj", "attn1.to_add_out"),
)
# Of a feed-forward, as `ff` or as `ffn`.
FEED_FORWARD = ("ff.net.0.proj", "ff.net.2")
FFN = ("ffn.net.0.proj", "ffn.net.2")
# Of blocks whose attention and feed-forward run side by side.
SIDE_BY_SIDE = ("proj_mlp", "proj_out")
