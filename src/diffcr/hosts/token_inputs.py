"""Arguments with an entry per row of the sequence that the blocks of several families take."""

from __future__ import annotations

from diffcr.hosts.layout import TokenInput

# Cosines and sines that all samples share, of the sequence's rows alone.
ROTARY_TABLE = TokenInput("image_rotary_emb", dims=(0,), shared=True)

# The same with the text's rows in front, and a mask of rows by rows of both.
JOINT_TABLE = TokenInput("image_rotary_emb", dims=(0,), others="before", shared=True)
JOINT_MASK = TokenInput(
    "joint_attention_kwargs", keys=("attention_mask",), dims=(-2, -1), others="before"
)

# Which keys are seen; the text's are behind the sequence's.
MASK_WITH_TEXT_BEHIND = TokenInput("attention_mask", dims=(-1,), others="after")
