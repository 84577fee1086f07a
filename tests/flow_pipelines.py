"""Real pipelines of flows with tiny random weights, 32 x 32 pixels: FLUX, SD3, Wan."""

from __future__ import annotations

import string
from collections.abc import Callable
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    UMT5Config,
    UMT5EncoderModel,
)

from tests.pipelines import tiny_text_encoder, tiny_tokenizer

CLIP_TOKENS = 16


def tiny_clip_tokenizer() -> CLIPTokenizer:
    """Letters, digits and ends of words."""
    characters = [*string.ascii_lowercase, *string.digits, *".,-"]
    pieces = ["<|startoftext|>", "<|endoftext|>", *characters, *(f"{c}</w>" for c in characters)]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=CLIP_TOKENS)


def tiny_clip(make: Callable[[CLIPTextConfig], Any], vocabulary: int) -> Any:
    """One layer of width 16."""
    return make(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=16,
            projection_dim=16,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=CLIP_TOKENS,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    )


def shifted_autoencoder() -> AutoencoderKL:
    """Four times smaller latents with 4 channels, shifted as those of FLUX and SD3 are."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=32,
        scaling_factor=0.5,
        shift_factor=0.1,
    )


def tiny_flux_pipeline(guidance_embeds: bool = True) -> FluxPipeline:
    """3 + 2 layers, 16 image tokens at 32 x 32 pixels; the shift follows the number of tokens."""
    clip, t5 = tiny_clip_tokenizer(), tiny_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parts = {
            "transformer": FluxTransformer2DModel(
                in_channels=16,
                num_layers=2,
                num_single_layers=2,
                attention_head_dim=12,
                num_attention_heads=2,
                joint_attention_dim=32,
                pooled_projection_dim=16,
                guidance_embeds=guidance_embeds,
                axes_dims_rope=(4, 4, 4),
            ),
            "vae": shifted_autoencoder(),
            "text_encoder": tiny_clip(CLIPTextModel, len(clip)),
            "text_encoder_2": tiny_text_encoder(len(t5)),
        }
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    return _pipeline(FluxPipeline, parts, tokenizer=clip, tokenizer_2=t5, scheduler=scheduler)


def tiny_sd3_pipeline() -> StableDiffusion3Pipeline:
    """3 layers, 16 image tokens."""
    clip, t5 = tiny_clip_tokenizer(), tiny_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parts = {
            "transformer": SD3Transformer2DModel(
                sample_size=8,
                patch_size=2,
                in_channels=4,
                out_channels=4,
                num_layers=3,
                attention_head_dim=8,
                num_attention_heads=4,
                joint_attention_dim=32,
                caption_projection_dim=32,
                pooled_projection_dim=32,
                pos_embed_max_size=8,
            ),
            "vae": shifted_autoencoder(),
            "text_encoder": tiny_clip(CLIPTextModelWithProjection, len(clip)),
            "text_encoder_2": tiny_clip(CLIPTextModelWithProjection, len(clip)),
            "text_encoder_3": tiny_text_encoder(len(t5)),
        }
    return _pipeline(
        StableDiffusion3Pipeline,
        parts,
        tokenizer=clip,
        tokenizer_2=tiny_clip_tokenizer(),
        tokenizer_3=t5,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


def tiny_wan_autoencoder() -> AutoencoderKLWan:
    """8 times smaller latents with means and deviations of their own, 4 frames in one."""
    return AutoencoderKLWan(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.1, 0.2, 0.3, 0.4],
        latents_std=[1.0, 2.0, 0.5, 1.5],
    )


def tiny_wan_pipeline() -> WanPipeline:
    """3 layers; 8 times smaller latents with means and deviations of their own, 4 frames in one."""
    tokenizer = tiny_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parts = {
            "transformer": WanTransformer3DModel(
                patch_size=(1, 2, 2),
                num_attention_heads=2,
                attention_head_dim=12,
                in_channels=4,
                out_channels=4,
                text_dim=32,
                freq_dim=32,
                ffn_dim=32,
                num_layers=3,
                rope_max_seq_len=32,
            ),
            "vae": tiny_wan_autoencoder(),
            "text_encoder": UMT5EncoderModel(
                UMT5Config(
                    vocab_size=len(tokenizer),
                    d_model=32,
                    d_kv=16,
                    d_ff=32,
                    num_layers=1,
                    num_heads=2,
                )
            ),
        }
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    return _pipeline(WanPipeline, parts, tokenizer=tokenizer, scheduler=scheduler)


def _pipeline(pipeline_class: Any, parts: dict[str, Any], **others: Any) -> Any:
    pipe = pipeline_class(**{name: part.eval() for name, part in parts.items()}, **others)
    pipe.set_progress_bar_config(disable=True)
    return pipe
