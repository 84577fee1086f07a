"""A pipeline of scenes with an untrained transformer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from diffcr.pretraining.size import EMBEDDED, PipelineSize

if TYPE_CHECKING:
    from diffusers import PixArtSigmaPipeline, PixArtTransformer2DModel


def make_transformer(
    seed: int, size: PipelineSize = EMBEDDED, caption_channels: int = 128
) -> PixArtTransformer2DModel:
    """A PixArt transformer with learned sigma; a token is 8 x 8 pixels."""
    from diffusers import PixArtTransformer2DModel

    torch.manual_seed(seed)
    transformer = PixArtTransformer2DModel(
        num_attention_heads=size.width // 32,
        attention_head_dim=32,
        in_channels=4,
        out_channels=8,
        num_layers=size.layers,
        cross_attention_dim=size.width,
        sample_size=size.latent_side,
        patch_size=2,
        interpolation_scale=1,
        caption_channels=caption_channels,
        norm_type="ada_norm_single",
        use_additional_conditions=False,
    )
    initialise_transformer(transformer)
    return transformer


@torch.no_grad()
def initialise_transformer(transformer: PixArtTransformer2DModel) -> None:
    """DiT's initialisation, the output at 0 (Peebles & Xie 2023). Cross-attention is not zeroed as
    in PixArt-alpha, which starts from a class-conditional model: this one has to read captions from
    the beginning.

    PixArt draws the caption projection with a standard deviation of 0.02, which suits 4096 input
    channels. At 128 it leaves captions at 0.03 of the tokens' scale, and 1500 steps learned next to
    nothing of them; Xavier's keeps their scale.
    """
    for module in transformer.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    nn.init.xavier_uniform_(transformer.pos_embed.proj.weight.flatten(1))
    for linear in (
        transformer.adaln_single.emb.timestep_embedder.linear_1,
        transformer.adaln_single.emb.timestep_embedder.linear_2,
        transformer.adaln_single.linear,
    ):
        nn.init.normal_(linear.weight, std=0.02)
    nn.init.zeros_(transformer.proj_out.weight)


def assemble_pipeline(
    vae: Any, text_encoder: Any, tokenizer: Any, seed: int, size: PipelineSize = EMBEDDED
) -> PixArtSigmaPipeline:
    """A `PixArtSigmaPipeline` with an untrained transformer.

    The cosine schedule (Nichol & Dhariwal 2021, Sec. 3.2) in place of PixArt's linear one: on
    24 x 24 latents the linear one is noise alone in its upper half, and half of the training steps
    and two of four timestep regions would have next to nothing to learn. DPM-Solver needs the log
    signal-to-noise ratio bounded there.
    """
    from diffusers import DPMSolverMultistepScheduler, PixArtSigmaPipeline

    scheduler = DPMSolverMultistepScheduler(
        beta_schedule="squaredcos_cap_v2", num_train_timesteps=1000, lambda_min_clipped=-5.1
    )
    return PixArtSigmaPipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        vae=vae,
        transformer=make_transformer(seed, size),
        scheduler=scheduler,
    )
