"""A real text-to-image pipeline with tiny random weights: 32 x 32 pixels, 16 image tokens."""

from __future__ import annotations

import string
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
)
from torch import nn
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from diffcr.scenes import vocabulary

TEXT_LENGTH = 48


def tiny_pixart_pipeline(seed: int = 0) -> PixArtSigmaPipeline:
    """A PixArt-Sigma pipeline of 3 layers, width 32 and 4 x 4 image tokens, in eval mode."""
    tokenizer = tiny_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer = PixArtTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=16,
            in_channels=4,
            out_channels=8,
            num_layers=3,
            cross_attention_dim=32,
            sample_size=8,
            patch_size=2,
            caption_channels=32,
            norm_type="ada_norm_single",
            use_additional_conditions=False,
        )
        # A model whose prediction is 0 would make every comparison of outputs pass.
        nn.init.normal_(transformer.proj_out.weight, std=0.1)
        vae = tiny_autoencoder()
        text_encoder = tiny_text_encoder(len(tokenizer))
    pipe = PixArtSigmaPipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder.eval(),
        vae=vae.eval(),
        transformer=transformer.eval(),
        scheduler=DPMSolverMultistepScheduler(),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def tiny_autoencoder() -> AutoencoderKL:
    """Four times smaller latents with 4 channels; its scaling factor is not 1."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=32,
        scaling_factor=0.5,
    )


def tiny_text_encoder(vocabulary: int) -> T5EncoderModel:
    """One layer of width 32."""
    return T5EncoderModel(
        T5Config(
            vocab_size=vocabulary,
            d_model=32,
            d_kv=16,
            d_ff=32,
            num_layers=1,
            num_heads=2,
            dropout_rate=0.0,
            pad_token_id=0,
            eos_token_id=1,
        )
    )


def tiny_tokenizer() -> T5Tokenizer:
    """Words of the scenes' captions and single characters, at most 48 tokens."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -10.0), ("▁", -2.0)]
    pieces += [(f"▁{word}", -1.0) for word in vocabulary()]
    pieces += [(character, -3.0) for character in string.ascii_letters + string.digits + ".,-"]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=TEXT_LENGTH)


def final_latents(pipe: Any, steps: int) -> torch.Tensor:
    """Of one prompt and seed."""
    latents: torch.Tensor = pipe(
        "a red circle",
        num_inference_steps=steps,
        output_type="latent",
        generator=torch.manual_seed(0),
        use_resolution_binning=False,
    ).images
    return latents
