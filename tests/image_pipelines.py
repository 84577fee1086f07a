"""Pipelines of pictures that are called with embeddings, without text encoders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from diffusers import (
    AutoencoderKLFlux2,
    BriaPipeline,
    CogVideoXDDIMScheduler,
    CogView3PlusPipeline,
    CogView4Pipeline,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    HiDreamImagePipeline,
    HunyuanImagePipeline,
    Krea2Pipeline,
    OvisImagePipeline,
    PRXPipeline,
)
from torch import Tensor

from diffcr.hosts.pipelines.prompt import Prompt
from tests.flow_pipelines import shifted_autoencoder
from tests.tiny_hosts import TINY_HOSTS
from tests.tiny_hosts.host import seeded


def rows(*shape: int) -> Tensor:
    return torch.randn(1, *shape, generator=torch.Generator().manual_seed(2))


TEXT = rows(6, 20)
MASK = torch.tensor([[1, 1, 1, 1, 0, 0]])
LAYERS, POOLED, GLYPHS = rows(3, 6, 18), rows(16), rows(5, 18)
GLYPH_MASK = torch.tensor([[1, 1, 0, 0, 0]])


def scheduler() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)


def host(name: str) -> Any:
    return TINY_HOSTS[name].make()


def flux2_autoencoder() -> AutoencoderKLFlux2:
    """Two times smaller latents with 4 channels, and statistics of 16 that all differ."""
    autoencoder = AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(4, 4),
        layers_per_block=1,
        norm_num_groups=2,
        latent_channels=4,
        mid_block_add_attention=False,
    )
    autoencoder.bn.running_mean.copy_(torch.linspace(-1, 1, 16))
    autoencoder.bn.running_var.copy_(torch.linspace(0.5, 3, 16))
    return autoencoder.eval()


def klein() -> Any:
    own = host("Flux2Transformer2DModel").config
    build = partial(Flux2Transformer2DModel.from_config, own, guidance_embeds=False)
    transformer = seeded(build)()
    return Flux2KleinPipeline(scheduler(), flux2_autoencoder(), None, None, transformer)


def hidream() -> Any:
    transformer = host("HiDreamImageTransformer2DModel")
    pipe = HiDreamImagePipeline(scheduler(), None, *[None] * 8, transformer)
    # It scales what is asked for to its own number of pixels.
    pipe.default_sample_size = 8
    return pipe


@dataclass
class Given:
    """A pipeline, and its prompt as its call and as training take it."""

    make: Callable[[], Any]
    options: dict[str, Any] = field(default_factory=dict)
    prompt: Prompt = field(default_factory=lambda: Prompt(TEXT))


EMBEDS = {"prompt_embeds": TEXT}
UNGUIDED = {"guidance_scale": 1.0}
GIVEN = {
    "flux2": Given(
        lambda: Flux2Pipeline(scheduler(), None, None, None, host("Flux2Transformer2DModel")),
        EMBEDS,
    ),
    "klein": Given(klein, EMBEDS | UNGUIDED),
    "ovis": Given(
        lambda: OvisImagePipeline(
            scheduler(), None, None, None, host("OvisImageTransformer2DModel")
        ),
        # With the default it would ask for a text encoder's dtype.
        EMBEDS | UNGUIDED | {"negative_prompt": None},
    ),
    "bria": Given(
        lambda: BriaPipeline(
            host("BriaTransformer2DModel"), scheduler(), shifted_autoencoder(), None, None
        ),
        EMBEDS | UNGUIDED,
    ),
    "krea2": Given(
        lambda: Krea2Pipeline(scheduler(), None, None, None, host("Krea2Transformer2DModel")),
        {"prompt_embeds": rows(6, 5, 20), "prompt_embeds_mask": MASK.bool(), "guidance_scale": 0.0},
        Prompt(rows(6, 5, 20), MASK),
    ),
    "cogview4": Given(
        lambda: CogView4Pipeline(None, None, None, host("CogView4Transformer2DModel"), scheduler()),
        EMBEDS | UNGUIDED,
    ),
    "cogview3-plus": Given(
        lambda: CogView3PlusPipeline(
            None, None, None, host("CogView3PlusTransformer2DModel"), CogVideoXDDIMScheduler()
        ),
        EMBEDS | UNGUIDED,
    ),
    "hidream": Given(
        hidream,
        {
            "prompt_embeds_t5": TEXT,
            "prompt_embeds_llama3": LAYERS.transpose(0, 1),
            "pooled_prompt_embeds": POOLED,
            "guidance_scale": 1.0,
        },
        Prompt(TEXT, pooled=POOLED, extra={"llama3": LAYERS}),
    ),
    "hunyuan-image": Given(
        lambda: HunyuanImagePipeline(
            FlowMatchEulerDiscreteScheduler(),
            *[None] * 5,
            host("HunyuanImageTransformer2DModel"),
        ),
        EMBEDS
        | {
            "prompt_embeds_mask": MASK,
            "prompt_embeds_2": GLYPHS,
            "prompt_embeds_mask_2": GLYPH_MASK,
        },
        Prompt(TEXT, MASK, extra={"glyphs": GLYPHS, "glyph_mask": GLYPH_MASK}),
    ),
    "prx": Given(
        lambda: PRXPipeline(
            host("PRXTransformer2DModel"), FlowMatchEulerDiscreteScheduler(), None, None
        ),
        EMBEDS | UNGUIDED | {"prompt_attention_mask": MASK.bool(), "use_resolution_binning": False},
        Prompt(TEXT, MASK),
    ),
}
