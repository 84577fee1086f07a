"""Counted operations are those that torch counts."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from diffcr.binding.attachment import attach
from diffcr.cost.counting import count_flops
from diffcr.hosts.input_size import InputSize
from diffcr.hosts.published import transformer_config
from diffcr.inpainting import LazyTransformer2DModel
from diffcr.methods.at_edm.config import ATEDMConfig
from diffcr.methods.config import MethodConfig
from diffcr.methods.diffcr.config import MoDConfig
from diffcr.methods.tome.config import ToMeConfig
from tests.inpainting.hosts import denoise_masked, lazy_inputs, tiny_decoder, tiny_encoder


@pytest.mark.parametrize("masked", [1, 5, 16])
def test_the_decoders_count_agrees_with_torch(masked: int) -> None:
    decoder = tiny_decoder()
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        denoise_masked(decoder, lazy_inputs(batch=1, masked=masked))
    count = count_flops(decoder, InputSize(5, masked_tokens=masked))
    assert counter.get_total_flops() == count.dense.total
    assert count.image_tokens == masked


def test_the_encoders_count_agrees_with_torch() -> None:
    encoder = tiny_encoder()
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        encoder(torch.zeros(1, 4, 8, 8), torch.zeros(1, 1, 8, 8))
    count = count_flops(encoder, InputSize(0))
    assert counter.get_total_flops() == count.dense.total
    assert count.image_tokens == 16


@pytest.mark.parametrize(("masked", "paper"), [(1024, 1085.1), (256, 285.8)])
def test_the_decoder_is_as_large_as_the_papers(masked: int, paper: float) -> None:
    """DiffCR's table of inpainting, Lazy Diffusion at masks of 512 x 512 and 256 x 256; joining
    tokens and the patches of the whole picture are ours."""
    config = {**transformer_config("pixart-alpha-xl", 1024), "context_channels": 1152}
    with torch.device("meta"):
        decoder = LazyTransformer2DModel.from_config(config)
    count = count_flops(decoder, InputSize(120, masked_tokens=masked)).dense
    assert 0 <= count.linear / 1e9 - paper < 0.02 * paper
    expected = {1024: (1090390523904, 1241536462848), 256: (287191793664, 299611127808)}
    assert (count.linear, count.total) == expected[masked]


@pytest.mark.parametrize("method", [MoDConfig(0.5), ToMeConfig(0.3, "block"), ATEDMConfig(0.3)])
def test_the_decoder_is_counted_as_it_runs_under_a_method(method: MethodConfig) -> None:
    decoder = tiny_decoder()
    attach(decoder, method)
    count = count_flops(decoder, InputSize(5, masked_tokens=12))
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        denoise_masked(decoder, lazy_inputs(batch=1, masked=12))
    # Timestep 600 lies in the third region of four, the routers' products torch does not count.
    routers = 3 * 2 * 12 * 32 if method == MoDConfig(0.5) else 0
    seen = counter.get_total_flops() + routers
    assert seen == count.per_region[2 * len(count.per_region) // 4].total


def test_an_encoders_layers_have_two_parts() -> None:
    encoder = tiny_encoder()
    attach(encoder, ToMeConfig(0.25, "mlp"))
    assert count_flops(encoder, InputSize(0)).skipped == [[0.125]] * 2
