"""The counter against the paper's figures and against torch's own."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from diffcr.binding.attachment import attach
from diffcr.cost.flops import (
    BlockShape,
    Flops,
    LayerTokens,
    TransformerShape,
    block_flops,
    dense_flops,
    flops_per_region,
    mean_flops,
    pixart_shape,
    routed_costs,
    router_flops,
)
from diffcr.hosts.published import transformer_config
from diffcr.methods.diffcr.config import DiffCRConfig
from tests.hosts import denoise, inputs, pixart, scramble

XL_2 = transformer_config("pixart-sigma-xl", 512)
TEXT_TOKENS = 5


def _uniform(shape: TransformerShape, kept: int) -> Flops:
    (count,) = flops_per_region(shape, routed_costs(shape, [[kept]] * shape.layers))
    return count


def test_the_papers_figures_are_met() -> None:
    shape = pixart_shape(XL_2, text_tokens=120)
    assert shape.image_tokens == 1024
    dense = dense_flops(shape).linear
    assert dense / 1e9 == pytest.approx(1084.8, rel=1e-4)
    assert 16 * dense / 1e9 == pytest.approx(17361.7, rel=1e-3)
    uniform = _uniform(shape, 820).linear
    assert 16 * uniform / 1e9 == pytest.approx(13949.3, rel=1e-3)
    # The paper counts 80 % of 1024 tokens, 819.2, and no routers; ours is whole tokens.
    floor = _uniform(shape, 819).linear
    fractional = 0.8 * floor + 0.2 * uniform - 28 * router_flops(shape).linear
    assert fractional / 1e9 == pytest.approx(871.7, rel=1e-4)


def test_total_holds_the_products_of_attention() -> None:
    shape = pixart_shape(XL_2, text_tokens=120)
    dense = dense_flops(shape)
    assert dense.total - dense.linear == 28 * 4 * 1152 * 1024 * (1024 + 120)


@pytest.mark.parametrize("processor", ["sdpa", "plain"])
def test_dense_total_agrees_with_torch(processor: str) -> None:
    transformer = pixart()
    if processor == "plain":
        transformer.set_attn_processor(AttnProcessor())
    shape = pixart_shape(transformer.config, TEXT_TOKENS)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        denoise(transformer, inputs(batch=1))
    assert counter.get_total_flops() == dense_flops(shape).total


def test_routed_total_agrees_with_torch_in_every_region() -> None:
    transformer = pixart()
    compressor = attach(transformer, DiffCRConfig(max_compression_ratio=1.0))
    scramble(compressor, largest=1.0)
    with torch.no_grad():
        compressor.ratios[1, 2] = 1.0
    shape = pixart_shape(transformer.config, TEXT_TOKENS)
    expected = flops_per_region(shape, compressor.layer_costs(shape))
    assert 0 in [row[2] for row in compressor.kept_tokens(16)]
    for region, count in enumerate(expected):
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            denoise(transformer, inputs(batch=1, timestep=250 * region + 100))
        # torch does not count matrix-vector products, which the routers are.
        assert counter.get_total_flops() == count.total - 3 * router_flops(shape).total


def test_other_resolutions_and_a_head_for_sizes() -> None:
    shape = pixart_shape(XL_2, text_tokens=120, height=32, width=96)
    assert shape.image_tokens == 16 * 48
    sized = pixart_shape({**XL_2, "use_additional_conditions": True}, text_tokens=120)
    plain = pixart_shape(XL_2, text_tokens=120)
    assert sized.outside_blocks.linear > plain.outside_blocks.linear


def test_a_block_without_kept_tokens_costs_nothing() -> None:
    shape = BlockShape(width=8, text_width=8, mlp_width=32)
    assert block_flops(shape, LayerTokens.alike(0), 5) == Flops(0, 0)
    one, two = (block_flops(shape, LayerTokens.alike(n), 0) for n in (1, 2))
    assert two.linear == 2 * one.linear
    assert two.total - two.linear == 4 * (one.total - one.linear)


def test_arithmetic_of_counts() -> None:
    assert Flops(1, 2) + Flops(3, 4) == Flops(4, 6)
    assert mean_flops([Flops(1, 2), Flops(3, 6)]) == Flops(2, 4)
