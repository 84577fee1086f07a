"""Counted operations are those that torch counts."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from diffcr.cost.flops import dense_flops
from diffcr.hosts.lazy import decoder_shape, encoder_shape
from diffcr.hosts.published import transformer_config
from tests.inpainting.hosts import denoise_masked, lazy_inputs, tiny_decoder, tiny_encoder


@pytest.mark.parametrize("masked", [1, 5, 16])
def test_the_decoders_count_agrees_with_torch(masked: int) -> None:
    decoder = tiny_decoder()
    shape = decoder_shape(decoder.config, text_tokens=5, masked_tokens=masked)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        denoise_masked(decoder, lazy_inputs(batch=1, masked=masked))
    assert counter.get_total_flops() == dense_flops(shape).total


def test_the_encoders_count_agrees_with_torch() -> None:
    encoder = tiny_encoder()
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        encoder(torch.zeros(1, 4, 8, 8), torch.zeros(1, 1, 8, 8))
    assert counter.get_total_flops() == dense_flops(encoder_shape(encoder.config)).total


@pytest.mark.parametrize(("masked", "paper"), [(1024, 1085.1), (256, 285.8)])
def test_the_decoder_is_as_large_as_the_papers(masked: int, paper: float) -> None:
    """DiffCR's table of inpainting, Lazy Diffusion at masks of 512 x 512 and 256 x 256; joining
    tokens and the patches of the whole picture are ours."""
    config = {**transformer_config("pixart-alpha-xl", 1024), "context_channels": 1152}
    count = dense_flops(decoder_shape(config, 120, masked)).linear / 1e9
    assert 0 <= count - paper < 0.02 * paper
