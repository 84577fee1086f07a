"""What is pruned, and how much of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import diffcr
from diffcr.binding.attachment import attach
from diffcr.cost.counting import count_flops
from diffcr.errors import DiffCRError
from diffcr.hosts.input_size import InputSize
from diffcr.hosts.published import make_transformer, transformer_config
from diffcr.methods.pruning.config import StructuredPruningConfig
from diffcr.methods.pruning.units import (
    UnitSizes,
    kept_counts,
    kept_units,
    unit_features,
    unit_magnitudes,
)
from tests.inpainting.hosts import tiny_decoder, tiny_encoder

_XL = {**transformer_config("pixart-sigma-xl", 512), "num_layers": 1}


def _block(heads: int, head_width: int, cross_attention: bool = True) -> list[UnitSizes]:
    """A block with a feed-forward of four times its width, as PixArt's and the encoder's."""
    width = heads * head_width
    attentions = (4, 2) if cross_attention else (4,)
    sizes = [UnitSizes(heads, count * width * head_width, True) for count in attentions]
    return [*sizes, UnitSizes(4 * width, 2 * width, False)]


@pytest.mark.parametrize("ratio", [0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9])
def test_an_xl_block_meets_its_ratio(ratio: float) -> None:
    with torch.device("meta"):
        transformer = make_transformer(_XL)
    attach(transformer, StructuredPruningConfig(ratio))
    count, without_text = (count_flops(transformer, InputSize(tokens)) for tokens in (120, 0))
    pruned = count.per_layer[0][0].linear
    outside = count.mean.linear - pruned
    dense = count.dense.linear - outside
    whole = (28 * pruned + outside) / (28 * dense + outside)
    assert 1 - whole == pytest.approx(ratio, abs=0.02)
    pruned = without_text.per_layer[0][0].linear
    dense = without_text.dense.linear - (without_text.mean.linear - pruned)
    assert 1 - pruned / dense == pytest.approx(ratio, abs=2e-4)


@pytest.mark.parametrize(
    ("make", "kept"),
    [
        (
            lambda: make_transformer(_XL),
            "11 of 16 heads are kept, of the feed-forward 3269 of 4608",
        ),
        (tiny_decoder, "1 of 2 heads are kept, of the feed-forward 109 of 128"),
        (tiny_encoder, "1 of 2 heads are kept, of the feed-forward 102 of 128"),
    ],
)
def test_sizes_are_those_of_a_models_layers(make: Any, kept: str) -> None:
    with torch.device("meta"):
        transformer = make()
    attach(transformer, StructuredPruningConfig(0.3))
    assert f"of each attention {kept} channels" in diffcr.summary(transformer)


def test_a_ratio_of_zero_prunes_nothing() -> None:
    sizes = _block(16, 72)
    assert kept_counts(sizes, 0.0) == [units.count for units in sizes] == [16, 16, 4608]


@pytest.mark.parametrize("heads", [4, 5, 16])
@pytest.mark.parametrize("cross_attention", [True, False])
def test_as_many_stay_as_the_block_has_room_for(heads: int, cross_attention: bool) -> None:
    """In units of a token's width: projections of the attentions, then twice the feed-forward."""
    head_width, projections = 24, 6 if cross_attention else 4
    width = heads * head_width
    for percent in range(86):
        ratio = percent / 100
        *attentions, channels = kept_counts(_block(heads, head_width, cross_attention), ratio)
        stays = max(1, round(heads * (1 - ratio)))
        left = (1 - ratio) * (projections * width + 8 * width) - projections * stays * head_width
        assert set(attentions) == {stays}
        assert channels == round(left / 2)


def test_channels_make_up_for_whole_heads() -> None:
    # 14 * 32 * 0.7 = 313.6 of each token's width, 6 * 16 of it in the attentions.
    assert kept_counts(_block(2, 16), 0.3) == [1, 1, 109]
    with pytest.raises(DiffCRError, match=r"compression_ratio 0\.9 .* beside 1 of 2 heads"):
        kept_counts(_block(2, 16), 0.9)


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
