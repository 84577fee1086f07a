"""Real pipelines of videos around tiny transformers, which are given embeddings in place of texts:
their text encoders have billions of parameters and no tiny form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from diffusers import (
    AllegroPipeline,
    AutoencoderKLHunyuanVideo15,
    AutoencoderKLMagvit,
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    Cosmos2_5_PredictBasePipeline,
    Cosmos2TextToImagePipeline,
    CosmosTextToWorldPipeline,
    EasyAnimatePipeline,
    EDMEulerScheduler,
    EulerAncestralDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeliosPipeline,
    HeliosScheduler,
    HunyuanVideo15Pipeline,
    Kandinsky5T2VPipeline,
    LTX2Pipeline,
    MochiPipeline,
    MotifVideoPipeline,
    UniPCMultistepScheduler,
    WanVACEPipeline,
    WanVACETransformer3DModel,
)
from diffusers.guiders import ClassifierFreeGuidance
from diffusers.pipelines.ltx2 import LTX2TextConnectors
from torch import Tensor, nn

from diffcr.hosts.pipelines.prompt import Prompt
from tests.flow_pipelines import tiny_wan_autoencoder
from tests.tiny_hosts import TINY_HOSTS
from tests.tiny_hosts.cog import build_cogvideox
from tests.tiny_hosts.host import seeded
from tests.tiny_hosts.ltx import build2
from tests.tiny_hosts.wan import build as build_wan

_generator = torch.Generator().manual_seed(2)
TEXT = torch.randn(1, 7, 20, generator=_generator)
MASK = torch.tensor([[1, 1, 1, 1, 1, 0, 0]])


@dataclass(frozen=True)
class Call:
    """Of a pipeline: its arguments for a prompt, and the prompt as training has it.

    latents: their shape, [B, C, f, h, w].
    """

    pipe: Any
    latents: tuple[int, ...]
    prompt: Prompt = field(default_factory=lambda: Prompt(TEXT))
    arguments: dict[str, Any] = field(default_factory=dict)


def _of(pipeline_class: Any, transformer: Any, scheduler: Any, **parts: Any) -> Any:
    parts = {"tokenizer": None, "text_encoder": None, "vae": None, **parts}
    return pipeline_class(transformer=transformer, scheduler=scheduler, **parts)


def _host(name: str) -> nn.Module:
    return TINY_HOSTS[name].make()


def cogvideox(**options: Any) -> Call:
    """5B, or 1.5."""
    transformer = seeded(
        partial(build_cogvideox, use_rotary_positional_embeddings=True, **options)
    )()
    scheduler = CogVideoXDDIMScheduler(prediction_type="v_prediction")
    pipe = _of(CogVideoXPipeline, transformer, scheduler)
    size = {"height": 64, "width": 32, "num_frames": 21, "guidance_scale": 1.0}
    return Call(pipe, (1, 4, 6, 8, 4), arguments={"prompt_embeds": TEXT, **size})


def wan_vace() -> Call:
    options = {"vace_layers": [0, 2], "vace_in_channels": 2 * 4 + 8 * 8}
    transformer = seeded(partial(build_wan, WanVACETransformer3DModel, **options))()
    parts = {"vae": tiny_wan_autoencoder()}
    pipe = _of(WanVACEPipeline, transformer, FlowMatchEulerDiscreteScheduler(), **parts)
    size = {"height": 64, "width": 32, "num_frames": 9, "guidance_scale": 1.0}
    return Call(pipe, (1, 4, 3, 8, 4), arguments={"prompt_embeds": TEXT, **size})


def ltx2() -> Call:
    transformer = seeded(partial(build2, audio_in_channels=128, audio_out_channels=128))()
    connector = {"num_attention_heads": 2, "attention_head_dim": 10, "num_layers": 1}
    connector["num_learnable_registers"] = 7
    options = {f"{of}_connector_{k}": v for of in ("video", "audio") for k, v in connector.items()}
    connectors = LTX2TextConnectors(caption_channels=20, text_proj_in_factor=1, **options).eval()
    parts = {"connectors": connectors, "audio_vae": None, "vocoder": None}
    pipe = _of(LTX2Pipeline, transformer, FlowMatchEulerDiscreteScheduler(), **parts)
    with torch.no_grad():
        video, sound, seen = connectors(TEXT, MASK.flip(1), padding_side="left")
    size = {"height": 128, "width": 64, "num_frames": 17, "guidance_scale": 1.0}
    size |= {"audio_guidance_scale": 1.0, "stg_scale": 0.0, "audio_stg_scale": 0.0}
    size |= {"modality_scale": 1.0, "audio_modality_scale": 1.0}
    arguments = {"prompt_embeds": TEXT, "prompt_attention_mask": MASK.flip(1), **size}
    return Call(
        pipe, (1, 16, 3, 4, 2), Prompt(video, extra={"sound": sound, "seen": seen}), arguments
    )


def hunyuan_video15() -> Call:
    vae = AutoencoderKLHunyuanVideo15(latent_channels=4, block_out_channels=(32,) * 5)
    parts = {"text_encoder_2": None, "tokenizer_2": None, "vae": vae}
    guider = ClassifierFreeGuidance(guidance_scale=1.0)
    transformer = _host("HunyuanVideo15Transformer3DModel")
    scheduler = FlowMatchEulerDiscreteScheduler(shift=5.0)
    pipe = _of(HunyuanVideo15Pipeline, transformer, scheduler, guider=guider, **parts)
    letters, letters_mask = TEXT[:, :5, :18], MASK[:, 2:]
    arguments = {"prompt_embeds": TEXT, "prompt_embeds_mask": MASK, "prompt_embeds_2": letters}
    arguments |= {"prompt_embeds_mask_2": letters_mask}
    size = {"height": 64, "width": 32, "num_frames": 9}
    prompt = Prompt(TEXT, MASK, extra={"letters": letters, "letters_mask": letters_mask})
    return Call(pipe, (1, 4, 3, 4, 2), prompt, {**arguments, **size})


def mochi() -> Call:
    scheduler = FlowMatchEulerDiscreteScheduler(invert_sigmas=True)
    pipe = _of(MochiPipeline, _host("MochiTransformer3DModel"), scheduler)
    text = TEXT[..., :16]
    size = {"height": 64, "width": 32, "num_frames": 13, "guidance_scale": 1.0}
    arguments = {"prompt_embeds": text, "prompt_attention_mask": MASK.bool(), **size}
    return Call(pipe, (1, 4, 3, 8, 4), Prompt(text, MASK), arguments)


class _Unasked(nn.Module):
    """In the place of a checker of texts, of which there are none."""

    device = torch.device("cpu")

    def check_text_safety(self, text: str) -> bool:
        return True


def cosmos1() -> Call:
    transformer = _host("CosmosTransformer3DModel")
    checker = {"safety_checker": _Unasked()}
    pipe = _of(CosmosTextToWorldPipeline, transformer, EDMEulerScheduler(), **checker)
    return Call(pipe, (1, 4, 3, 8, 4), arguments={**_COSMOS, "num_frames": 17})


def cosmos2() -> Call:
    """Of pictures: that of videos is given frames."""
    transformer = _host("CosmosTransformer3DModel-cosmos2")
    scheduler = FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True)
    checker = {"safety_checker": _Unasked()}
    pipe = _of(Cosmos2TextToImagePipeline, transformer, scheduler, **checker)
    return Call(pipe, (1, 4, 1, 8, 4), arguments=_COSMOS)


def cosmos2_5() -> Call:
    transformer = _host("CosmosTransformer3DModel-per_frame_timestep")
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)
    parts = {"safety_checker": _Unasked(), "vae": tiny_wan_autoencoder()}
    pipe = _of(Cosmos2_5_PredictBasePipeline, transformer, scheduler, **parts)
    return Call(pipe, (1, 4, 3, 8, 4), arguments={**_COSMOS, "num_frames": 9})


_COSMOS = {"prompt_embeds": TEXT, "height": 64, "width": 32, "guidance_scale": 1.0}


def kandinsky5() -> Call:
    transformer = _host("Kandinsky5Transformer3DModel-visual_cond")
    parts = {"text_encoder_2": None, "tokenizer_2": None}
    pipe = _of(Kandinsky5T2VPipeline, transformer, FlowMatchEulerDiscreteScheduler(), **parts)
    pooled: Tensor = TEXT[:, 0, :18]
    arguments = {"prompt_embeds_qwen": TEXT, "prompt_embeds_clip": pooled}
    arguments |= {"prompt_cu_seqlens": torch.tensor([0, 7], dtype=torch.int32)}
    size = {"height": 64, "width": 32, "num_frames": 9, "guidance_scale": 1.0}
    prompt = Prompt(TEXT, torch.ones(1, 7, dtype=torch.int64), pooled)
    return Call(pipe, (1, 4, 3, 8, 4), prompt, {**arguments, **size})


def allegro() -> Call:
    scheduler = EulerAncestralDiscreteScheduler()
    pipe = _of(AllegroPipeline, _host("AllegroTransformer3DModel"), scheduler)
    size = {"height": 64, "width": 32, "num_frames": 9, "guidance_scale": 1.0}
    arguments = {"prompt_embeds": TEXT, "prompt_attention_mask": MASK, **size}
    return Call(pipe, (1, 4, 3, 8, 4), Prompt(TEXT, MASK), arguments)


def easyanimate() -> Call:
    vae = AutoencoderKLMagvit(latent_channels=4, block_out_channels=[8] * 4, norm_num_groups=4)
    transformer = _host("EasyAnimateTransformer3DModel")
    pipe = _of(EasyAnimatePipeline, transformer, FlowMatchEulerDiscreteScheduler(), vae=vae)
    size = {"height": 64, "width": 32, "num_frames": 9, "guidance_scale": 1.0}
    arguments = {"prompt_embeds": TEXT, "prompt_attention_mask": MASK, **size}
    return Call(pipe, (1, 4, 3, 8, 4), arguments=arguments)


def motif_video() -> Call:
    guider = ClassifierFreeGuidance(guidance_scale=1.0)
    parts = {"guider": guider, "vae": tiny_wan_autoencoder()}
    transformer = _host("MotifVideoTransformer3DModel")
    pipe = _of(MotifVideoPipeline, transformer, FlowMatchEulerDiscreteScheduler(), **parts)
    size = {"height": 64, "width": 32, "num_frames": 9}
    arguments = {"prompt_embeds": TEXT, "prompt_attention_mask": MASK, **size}
    return Call(pipe, (1, 4, 3, 8, 4), Prompt(TEXT, MASK), arguments)


def helios() -> Call:
    pipe = _of(
        HeliosPipeline,
        _host("HeliosTransformer3DModel"),
        HeliosScheduler(stages=1, stage_range=[0, 1]),
        vae=tiny_wan_autoencoder(),
    )
    size = {"height": 64, "width": 32, "num_frames": 9, "guidance_scale": 1.0}
    arguments = {"prompt_embeds": TEXT, "num_latent_frames_per_chunk": 3, **size}
    return Call(pipe, (1, 4, 3, 8, 4), arguments=arguments)


VIDEO_PIPELINES: dict[str, Callable[[], Call]] = {
    "wan-vace": wan_vace,
    "cogvideox": cogvideox,
    "cogvideox-1.5": partial(cogvideox, patch_size_t=2, patch_bias=False),
    "ltx2": ltx2,
    "hunyuan-video-1.5": hunyuan_video15,
    "mochi": mochi,
    "cosmos-1": cosmos1,
    "cosmos-2": cosmos2,
    "cosmos-2.5": cosmos2_5,
    "kandinsky5": kandinsky5,
    "allegro": allegro,
    "easyanimate": easyanimate,
    "motif-video": motif_video,
    "helios": helios,
}
