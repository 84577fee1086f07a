"""Models with the layout of Flux: Chroma, Bria, Fibo, Ovis-Image and LongCat-Image."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from diffusers import (
    BriaFiboTransformer2DModel,
    BriaTransformer2DModel,
    ChromaTransformer2DModel,
    LongCatImageTransformer2DModel,
    OvisImageTransformer2DModel,
)
from torch import Tensor, nn

from tests.tiny_hosts.flux import image_ids
from tests.tiny_hosts.host import (
    HEADS,
    LEVEL,
    Draws,
    Inputs,
    linear_timesteps,
    ragged_mask,
    tiny_host,
)

TEXT_ROWS = 7
IMAGE = (6, 4)
TOKENS = 6 * 4
DOUBLE_BLOCKS, SINGLE_BLOCKS = 2, 3
# Of a layer of Fibo's text encoder; the prompt's embeddings are two of them, side by side.
FIBO_WIDTH = 10
# Places of LongCat's images begin behind those of the longest prompt.
LONGCAT_START = 32


def build(cls: type[nn.Module], **options: Any) -> nn.Module:
    return cls(
        in_channels=16,
        num_layers=DOUBLE_BLOCKS,
        num_single_layers=SINGLE_BLOCKS,
        attention_head_dim=12,
        num_attention_heads=HEADS,
        joint_attention_dim=20,
        axes_dims_rope=(4, 4, 4),
        **options,
    )


def inputs(batch: int, seed: int, noisy: float, **more: Any) -> Inputs:
    draws = Draws(batch, seed)
    return {
        "hidden_states": draws.normal(TOKENS, 16),
        "timestep": torch.full((batch,), noisy * LEVEL),
        "encoder_hidden_states": draws.normal(TEXT_ROWS, 20),
        "txt_ids": torch.zeros(TEXT_ROWS, 3),
        "img_ids": image_ids(*IMAGE),
        "return_dict": False,
        **more,
    }


def chroma_inputs(batch: int, seed: int, ragged: bool) -> Inputs:
    text = ragged_mask(batch, TEXT_ROWS) if ragged else torch.ones(batch, TEXT_ROWS)
    # Numbers as the pipeline has them: attention adds them, it does not mask by them.
    mask = torch.cat([text.float(), torch.ones(batch, TOKENS)], dim=1)
    return inputs(batch, seed, 1, attention_mask=mask, joint_attention_kwargs={})


def fibo_inputs(batch: int, seed: int, ragged: bool) -> Inputs:
    draws = Draws(batch, seed + 1)
    # The pipeline passes a mask only where a row is masked.
    mask = torch.cat([ragged_mask(batch, TEXT_ROWS), torch.ones(batch, TOKENS).bool()], dim=1)
    return inputs(
        batch,
        seed,
        1000,
        text_encoder_layers=[
            draws.normal(TEXT_ROWS, FIBO_WIDTH) for _ in range(DOUBLE_BLOCKS + SINGLE_BLOCKS)
        ],
        joint_attention_kwargs={"attention_mask": mask[:, None, None, :]} if ragged else {},
    )


def diagonal_ids() -> Tensor:
    """[T, 3]: text rows on the grid's diagonal."""
    places = torch.arange(TEXT_ROWS).float()
    return torch.stack([torch.zeros(TEXT_ROWS), places, places], dim=1)


def ovis_inputs(batch: int, seed: int) -> Inputs:
    return inputs(batch, seed, 1, txt_ids=diagonal_ids(), joint_attention_kwargs={})


def longcat_inputs(batch: int, seed: int) -> Inputs:
    return inputs(
        batch,
        seed,
        1,
        guidance=None,
        txt_ids=diagonal_ids(),
        img_ids=image_ids(*IMAGE, image=1) + torch.tensor([0, LONGCAT_START, LONGCAT_START]),
    )


HOSTS = (
    *(
        tiny_host(
            ChromaTransformer2DModel,
            partial(
                build,
                ChromaTransformer2DModel,
                approximator_num_channels=16,
                approximator_hidden_dim=32,
                approximator_layers=2,
            ),
            partial(chroma_inputs, ragged=bool(variant)),
            TOKENS,
            linear_timesteps(1),
            variant,
        )
        for variant in ("", "ragged")
    ),
    tiny_host(
        BriaTransformer2DModel,
        partial(build, BriaTransformer2DModel),
        partial(inputs, noisy=1000, attention_kwargs=None),
        TOKENS,
        linear_timesteps(1000),
    ),
    *(
        tiny_host(
            BriaFiboTransformer2DModel,
            partial(build, BriaFiboTransformer2DModel, text_encoder_dim=FIBO_WIDTH),
            partial(fibo_inputs, ragged=bool(variant)),
            TOKENS,
            linear_timesteps(1000),
            variant,
        )
        for variant in ("", "ragged")
    ),
    tiny_host(
        OvisImageTransformer2DModel,
        partial(build, OvisImageTransformer2DModel, out_channels=16),
        ovis_inputs,
        TOKENS,
        linear_timesteps(1),
    ),
    tiny_host(
        LongCatImageTransformer2DModel,
        partial(build, LongCatImageTransformer2DModel),
        longcat_inputs,
        TOKENS,
        linear_timesteps(1),
    ),
)
