"""What is pruned, and how much of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from diffcr.cost.flops import BlockShape, LayerTokens, block_flops, dense_flops, pixart_shape
from diffcr.errors import DiffCRError
from diffcr.hosts.published import transformer_config
from diffcr.methods.pruning.units import kept_units, pruned_shape, unit_features, unit_magnitudes

_XL = pixart_shape(transformer_config("pixart-sigma-xl", 512), 120)


@pytest.mark.parametrize("ratio", [0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9])
def test_an_xl_block_meets_its_ratio(ratio: float) -> None:
    pruned = replace(_XL, block=pruned_shape(_XL.block, ratio))
    realised = 1 - dense_flops(pruned).linear / dense_flops(_XL).linear
    assert realised == pytest.approx(ratio, abs=0.02)
    tokens = LayerTokens.alike(_XL.image_tokens)
    blocks = [block_flops(shape.block, tokens, 0).linear for shape in (pruned, _XL)]
    assert 1 - blocks[0] / blocks[1] == pytest.approx(ratio, abs=2e-4)


def test_a_ratio_of_zero_prunes_nothing() -> None:
    pruned = pruned_shape(_XL.block, 0.0)
    assert (pruned.heads, pruned.mlp_width) == (_XL.block.heads, _XL.block.mlp_width)
    assert pruned.attention_width == _XL.block.width


def test_channels_make_up_for_whole_heads() -> None:
    shape = BlockShape(width=32, text_width=32, mlp_width=128, heads=2)
    pruned = pruned_shape(shape, 0.3)
    assert (pruned.heads, pruned.attention_width) == (1, 16)
    # 14 * 32 * 0.7 = 313.6 of each token's width, 6 * 16 of it in the attentions.
    assert pruned.mlp_width == 109
    with pytest.raises(DiffCRError, match=r"compression_ratio 0\.9 .* beside 1 of 2 heads"):
        pruned_shape(shape, 0.9)


def test_the_largest_units_stay_in_their_order() -> None:
    rows, columns = torch.ones(6, 4), torch.ones(5, 6)
    rows[2:4] *= 3
    columns[:, 4] *= 4
    magnitudes = unit_magnitudes([rows, rows], [columns], units=3)
    expected = [rows[:2].square().sum() * 2 + 10, 144 + 10, 16 + 80 + 5]
    assert torch.allclose(magnitudes, torch.tensor(expected).sqrt())
    assert kept_units(magnitudes, 2).tolist() == [1, 2]
    assert kept_units(torch.ones(4), 2).tolist() == [0, 1]
    assert unit_features(torch.tensor([0, 2]), 2).tolist() == [0, 1, 4, 5]
