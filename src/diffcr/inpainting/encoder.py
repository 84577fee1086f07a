"""The context encoder: a ViT that sees the visible part of a picture once, outside of denoising.

Shapes: B samples, C latent channels, N = rows * columns tokens, D width.
"""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.attention import AttentionMixin, BasicTransformerBlock
from diffusers.models.embeddings import PatchEmbed
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn


class ContextEncoder(ModelMixin, AttentionMixin, ConfigMixin):  # type: ignore[misc]
    """From the latents of a picture with the masked pixels taken out, and the mask, to one token
    per token of the decoder.

    Latents, not pixels: a patch of 2 x 2 latents is exactly one token of the decoder, and the
    sequence is as long as the decoder's at full mask. Blocks are diffusers' `BasicTransformerBlock`
    with layer norms and self-attention alone. The default sizes are ViT-XL/2's, Lazy Diffusion's.

    Args:
        num_attention_heads: Of a block.
        attention_head_dim: Channels of a head; D is their product.
        in_channels: C, without the mask.
        num_layers: Blocks.
        sample_size: Height and width of the latents that positions are scaled to.
        patch_size: Of a token, in latents; the decoder's.
        interpolation_scale: Of the position table, as PixArt's.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ("BasicTransformerBlock", "PatchEmbed")
    _skip_layerwise_casting_patterns = ("pos_embed", "norm")

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        num_attention_heads: int = 16,
        attention_head_dim: int = 72,
        in_channels: int = 4,
        num_layers: int = 28,
        sample_size: int = 128,
        patch_size: int = 2,
        interpolation_scale: int | None = None,
    ) -> None:
        super().__init__()
        self.gradient_checkpointing = False
        width = num_attention_heads * attention_head_dim
        self.pos_embed = PatchEmbed(
            height=sample_size,
            width=sample_size,
            patch_size=patch_size,
            in_channels=in_channels + 1,
            embed_dim=width,
            interpolation_scale=interpolation_scale or max(sample_size // 64, 1),
        )
        self.transformer_blocks = nn.ModuleList(
            BasicTransformerBlock(
                width,
                num_attention_heads,
                attention_head_dim,
                activation_fn="gelu-approximate",
                attention_bias=True,
                norm_type="layer_norm",
                norm_eps=1e-6,
            )
            for _ in range(num_layers)
        )
        self.norm_out = nn.LayerNorm(width, eps=1e-6)

    @property
    def context_channels(self) -> int:
        """D, the width of a context token."""
        return int(self.config.num_attention_heads * self.config.attention_head_dim)

    def forward(self, hidden_states: Tensor, mask: Tensor) -> Tensor:
        """Context tokens of a picture.

        Args:
            hidden_states: [B, C, h, w], scaled latents of the picture with masked pixels grey.
            mask: [B, 1, h, w], in [0, 1], share of each latent's pixels that are masked.

        Returns:
            [B, N, D], tokens row by row.
        """
        tokens = self.pos_embed(torch.cat([hidden_states, mask.to(hidden_states.dtype)], dim=1))
        for block in self.transformer_blocks:
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                tokens = self._gradient_checkpointing_func(block, tokens)
            else:
                tokens = block(tokens)
        context: Tensor = self.norm_out(tokens)
        return context
