"""Held-out losses: fixed draws, inference's own tokens, regions apart."""

from __future__ import annotations

import pytest
import torch

from diffcr.binding.attachment import attach
from diffcr.binding.model import disabled
from diffcr.errors import DiffCRError
from diffcr.evaluation.held_out import held_out_loss
from diffcr.hosts.pipelines.prompt import Prompt
from diffcr.training.data.encoding import EncodedDataset
from tests.hosts import scramble
from tests.pipelines import tiny_pixart_pipeline


def _data(items: int = 3) -> EncodedDataset:
    generator = torch.Generator().manual_seed(0)
    return EncodedDataset(
        latents=torch.randn(items, 4, 8, 8, generator=generator),
        prompts=Prompt(
            torch.randn(items + 1, 5, 32, generator=generator),
            torch.ones(items + 1, 5, dtype=torch.int64),
        ),
        caption_of=torch.arange(1, items + 1),
    )


def test_the_same_whatever_the_batch_size_the_mode_and_the_global_seed() -> None:
    pipe = tiny_pixart_pipeline()
    scramble(attach(pipe))
    first = held_out_loss(pipe, _data(), samples_per_region=6, batch_size=6)
    pipe.transformer.train()
    torch.manual_seed(7)
    second = held_out_loss(pipe, _data(), samples_per_region=6, batch_size=4)
    assert pipe.transformer.training
    assert [len(samples) for samples in first.samples] == [6] * 4
    assert second.noise == pytest.approx(first.noise, rel=1e-4)
    assert second.total == pytest.approx(first.total, rel=1e-4)
    assert first.mean == pytest.approx(sum(first.noise) / 4)


def test_dense_and_compressed_differ_on_the_same_draws() -> None:
    pipe = tiny_pixart_pipeline()
    bare = held_out_loss(pipe, _data(), samples_per_region=3)
    scramble(attach(pipe))
    compressed = held_out_loss(pipe, _data(), samples_per_region=3)
    with disabled(pipe):
        assert held_out_loss(pipe, _data(), samples_per_region=3) == bare
    assert compressed.noise != bare.noise


def test_only_the_region_whose_ratio_changed_changes() -> None:
    pipe = tiny_pixart_pipeline()
    compressor = attach(pipe)
    scramble(compressor)
    before = held_out_loss(pipe, _data(), samples_per_region=3)
    with torch.no_grad():
        compressor.ratios[:, 2] = 0.9
    after = held_out_loss(pipe, _data(), samples_per_region=3)
    changed = [a != b for a, b in zip(before.noise, after.noise, strict=True)]
    assert changed == [False, False, True, False]


def test_a_model_that_predicts_nothing_has_the_noises_own_power() -> None:
    pipe = tiny_pixart_pipeline()
    with torch.no_grad():
        pipe.transformer.proj_out.weight.zero_()
        pipe.transformer.proj_out.bias.zero_()
    loss = held_out_loss(pipe, _data(), samples_per_region=32)
    assert loss.noise == pytest.approx([1.0] * 4, abs=0.1)
    other = held_out_loss(pipe, _data(), samples_per_region=32, seed=1)
    # Every sample has noise of its own, whatever its region and the seed.
    assert len({error for drawn in (loss, other) for row in drawn.samples for error in row}) == 256


def test_bad_numbers_are_refused() -> None:
    with pytest.raises(DiffCRError, match="samples_per_region 0"):
        held_out_loss(tiny_pixart_pipeline(), _data(), samples_per_region=0)
