"""The decoder: a PixArt transformer whose tokens are the masked ones alone.

Shapes: B samples, K masked tokens of each, N = rows * columns tokens of a picture, C latent
channels, D width, E width of the context, T text tokens.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from diffusers import PixArtTransformer2DModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from diffcr.core.select import gather_tokens, put_back, token_rows
from diffcr.errors import DiffCRError

# A pipeline's directory names this module, and diffusers looks for the base class of its models
# in there (pipelines/pipeline_loading_utils.py, get_class_obj_and_candidates).
__all__ = ["LazyTransformer2DModel", "ModelMixin"]


class LazyTransformer2DModel(PixArtTransformer2DModel):  # type: ignore[misc]
    """A PixArt transformer that denoises the masked tokens of a picture.

    Parameters are PixArt's under PixArt's names, and `context_projection`, which joins a context
    token and a noise token on the channel axis (Nitzan et al., arXiv 2404.12382). It starts as
    the identity on the noise half and 0 on the context half: with the weights of a text-to-image
    model and every token masked, the output is that model's, bit for bit in float32.

    Args:
        context_channels: E, the width of the context encoder's tokens.

    The other arguments are those of `diffusers.PixArtTransformer2DModel`.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        num_attention_heads: int = 16,
        attention_head_dim: int = 72,
        in_channels: int = 4,
        out_channels: int | None = 8,
        num_layers: int = 28,
        dropout: float = 0.0,
        norm_num_groups: int = 32,
        cross_attention_dim: int | None = 1152,
        attention_bias: bool = True,
        sample_size: int = 128,
        patch_size: int = 2,
        activation_fn: str = "gelu-approximate",
        num_embeds_ada_norm: int | None = 1000,
        upcast_attention: bool = False,
        norm_type: str = "ada_norm_single",
        norm_elementwise_affine: bool = False,
        norm_eps: float = 1e-6,
        interpolation_scale: int | None = None,
        use_additional_conditions: bool | None = None,
        caption_channels: int | None = None,
        attention_type: str | None = "default",
        context_channels: int = 1152,
    ) -> None:
        super().__init__(
            num_attention_heads=num_attention_heads,
            attention_head_dim=attention_head_dim,
            in_channels=in_channels,
            out_channels=out_channels,
            num_layers=num_layers,
            dropout=dropout,
            norm_num_groups=norm_num_groups,
            cross_attention_dim=cross_attention_dim,
            attention_bias=attention_bias,
            sample_size=sample_size,
            patch_size=patch_size,
            activation_fn=activation_fn,
            num_embeds_ada_norm=num_embeds_ada_norm,
            upcast_attention=upcast_attention,
            norm_type=norm_type,
            norm_elementwise_affine=norm_elementwise_affine,
            norm_eps=norm_eps,
            interpolation_scale=interpolation_scale,
            use_additional_conditions=use_additional_conditions,
            caption_channels=caption_channels,
            attention_type=attention_type,
        )
        self.context_projection = nn.Linear(self.inner_dim + context_channels, self.inner_dim)
        with torch.no_grad():
            nn.init.eye_(self.context_projection.weight)
            nn.init.zeros_(self.context_projection.bias)

    @classmethod
    def from_text_to_image(
        cls, transformer: PixArtTransformer2DModel, context_channels: int
    ) -> Self:
        """A decoder with the weights of a text-to-image model, in its dtype and on its device.

        Args:
            transformer: The text-to-image model; it stays as it is.
            context_channels: E.

        Raises:
            DiffCRError: It is no PixArt transformer, or something is attached to it.
        """
        if type(transformer) is not PixArtTransformer2DModel:
            raise DiffCRError(
                f"{type(transformer).__name__} cannot become a decoder: "
                "give a PixArtTransformer2DModel"
            )
        if hasattr(transformer, "diffcr"):
            raise DiffCRError("a method is attached to the model: call diffcr.detach first")
        config = {k: v for k, v in transformer.config.items() if not k.startswith("_")}
        decoder: Self = cls(**config, context_channels=context_channels)
        decoder.load_state_dict(transformer.state_dict(), strict=False)
        weight = next(transformer.parameters())
        if weight.dtype != decoder.dtype:
            decoder.to(weight.dtype)
        decoder.to(weight.device).train(transformer.training)
        return decoder

    def forward(
        self,
        hidden_states: Tensor,
        token_indices: Tensor | None = None,
        context: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        timestep: Tensor | None = None,
        added_cond_kwargs: dict[str, Tensor | None] | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        encoder_attention_mask: Tensor | None = None,
        return_dict: bool = True,
    ) -> Transformer2DModelOutput | tuple[Tensor]:
        """Predict the noise of the masked tokens.

        The output is as large as the latents, so that schedulers, which compute element by element,
        step it as they step any model's; the values under the mask are the only ones with a
        meaning. The patch embedding is of the whole picture: a thousandth of a step's operations,
        and the text-to-image model's bits.

        Args:
            hidden_states: [B, C, h, w], noisy latents; only masked patches are read.
            token_indices: [B, K] int64, places of the masked tokens, row by row, K at least 1.
            context: [B, K, E], the encoder's tokens there.
            encoder_hidden_states: [B, T, text channels].
            timestep: [B], or one for all.
            added_cond_kwargs: `resolution` and `aspect_ratio`, where the model is told them.
            cross_attention_kwargs: As PixArt's.
            encoder_attention_mask: [B, T], 1 for a token of the prompt; or a bias [B, 1, T].
            return_dict: As in diffusers: an output class, or a tuple.

        Returns:
            [B, C_out, h, w], 0 in patches that are not masked.

        Raises:
            DiffCRError: Nothing is masked, or token places and context do not belong together.
        """
        indices, context = _checked(token_indices, context)
        if encoder_attention_mask is not None and encoder_attention_mask.ndim == 2:
            hidden = (1 - encoder_attention_mask.to(hidden_states.dtype)) * -10000.0
            encoder_attention_mask = hidden.unsqueeze(1)
        height, width = hidden_states.shape[-2:]
        tokens = gather_tokens(self.pos_embed(hidden_states), indices)  # [B, K, D]
        tokens = self.context_projection(torch.cat([tokens, context.to(tokens.dtype)], dim=-1))
        modulation, embedded_timestep = self.adaln_single(
            timestep,
            added_cond_kwargs,
            batch_size=len(tokens),
            hidden_dtype=tokens.dtype,
        )
        if self.caption_projection is not None:
            encoder_hidden_states = self.caption_projection(encoder_hidden_states)
        arguments = {
            "attention_mask": None,
            "encoder_hidden_states": encoder_hidden_states,
            "encoder_attention_mask": encoder_attention_mask,
            "timestep": modulation,
            "cross_attention_kwargs": cross_attention_kwargs,
            "class_labels": None,
        }
        for block in self.transformer_blocks:
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                tokens = self._gradient_checkpointing_func(block, tokens, *arguments.values())
            else:
                tokens = block(tokens, **arguments)
        output = self._picture(self._patches(tokens, embedded_timestep), indices, height, width)
        return Transformer2DModelOutput(sample=output) if return_dict else (output,)

    def _patches(self, tokens: Tensor, embedded_timestep: Tensor) -> Tensor:
        """Predicted patches [B, K, p * p * C_out] of the last block's tokens, as PixArt's."""
        shift, scale = (self.scale_shift_table[None] + embedded_timestep[:, None]).chunk(2, dim=1)
        patches: Tensor = self.proj_out(self.norm_out(tokens) * (1 + scale) + shift)
        return patches

    def _picture(self, patches: Tensor, indices: Tensor, height: int, width: int) -> Tensor:
        """The patches put in their places among zeros, [B, C_out, h, w]."""
        side = self.config.patch_size
        rows, columns = height // side, width // side
        empty = patches.new_zeros(len(patches), rows * columns, patches.shape[-1])
        grid = put_back(empty, token_rows(indices, empty.shape[1]), patches)
        grid = grid.view(-1, rows, columns, side, side, self.out_channels)
        return grid.permute(0, 5, 1, 3, 2, 4).reshape(-1, self.out_channels, height, width)


def _checked(token_indices: Tensor | None, context: Tensor | None) -> tuple[Tensor, Tensor]:
    if token_indices is None or context is None:
        raise DiffCRError("the decoder was called without token_indices or context: pass both")
    if token_indices.ndim != 2 or not token_indices.shape[1]:
        raise DiffCRError(
            f"token_indices has shape {list(token_indices.shape)}: give [samples, masked tokens], "
            "at least one token"
        )
    if context.shape[:2] != token_indices.shape:
        raise DiffCRError(
            f"context has shape {list(context.shape)}, token_indices {list(token_indices.shape)}: "
            "give one context token for each masked token"
        )
    return token_indices, context
