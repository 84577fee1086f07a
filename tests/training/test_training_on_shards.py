"""Training on shards: as in memory, after an interruption, and where one is damaged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from diffcr.errors import DiffCRError
from diffcr.training import optimization
from diffcr.training.data.encoding import EncodedDataset, encode_dataset
from diffcr.training.data.order import ItemOrder
from diffcr.training.data.pictures import ImageFolder
from diffcr.training.data.shards import (
    ShardedDataset,
)
from diffcr.training.encode_job import EncodingRequest, run_encoding
from diffcr.training.job import run_recipe, train
from diffcr.training.recipe import DataRecipe, OptimizerRecipe
from tests.flow_pipelines import tiny_flux_pipeline
from tests.pipelines import tiny_pixart_pipeline
from tests.training.shards import PICTURES, SQUARE, WIDE, all_of, encode
from tests.training.worker import equal, state, tiny_recipe


def test_training_on_shards_is_training_in_memory(folder: Path, tmp_path: Path) -> None:
    pipe = tiny_pixart_pipeline()
    data = encode(folder, tmp_path / "shards", replace(SQUARE, shard_items=PICTURES))

    class InItsOrder(EncodedDataset):
        def order(self, seed: int) -> ItemOrder:
            return data.order(seed)

    memory = encode_dataset(pipe, ImageFolder(folder, 32), tmp_path / "memory", 48, batch_size=2)
    recipe = tiny_recipe(steps=4, caption_dropout=0.3)
    train(recipe, pipe, data, tmp_path / "a")
    train(recipe, tiny_pixart_pipeline(), InItsOrder(**vars(memory)), tmp_path / "b")
    first, second = state(tmp_path / "a", 4), state(tmp_path / "b", 4)
    # Captions were encoded in other batches, which rounds differently.
    assert all(torch.allclose(first[name], second[name], atol=1e-4) for name in first)


def test_a_run_on_shards_that_is_interrupted_ends_bit_equal(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "shards"
    encode(folder, directory, WIDE)
    recipe = tiny_recipe(steps=8, gradient_accumulation=2)
    train(recipe, tiny_pixart_pipeline(), ShardedDataset(directory, 2), tmp_path / "whole")
    factor = optimization.learning_rate_factor

    def interrupted(optimizer: OptimizerRecipe, step: int, steps: int) -> float:
        if step == 5:
            raise KeyboardInterrupt
        return factor(optimizer, step, steps)

    monkeypatch.setattr(optimization, "learning_rate_factor", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tiny_pixart_pipeline(), ShardedDataset(directory, 2), tmp_path / "halved")
    monkeypatch.undo()
    train(recipe, tiny_pixart_pipeline(), ShardedDataset(directory, 2), tmp_path / "halved")
    assert equal(state(tmp_path / "halved", 8), state(tmp_path / "whole", 8))
    encode(folder, tmp_path / "other", SQUARE)
    with pytest.raises(DiffCRError, match="other data"):
        train(
            recipe, tiny_pixart_pipeline(), ShardedDataset(tmp_path / "other"), tmp_path / "whole"
        )


def test_a_damaged_shard_is_named(folder: Path, tmp_path: Path) -> None:
    data = encode(folder, tmp_path)
    path = tmp_path / "shards" / data.shards[1].file
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DiffCRError, match=f"{data.shards[1].file} is missing or damaged"):
        all_of(data)


@pytest.mark.parametrize("make", [tiny_pixart_pipeline, tiny_flux_pipeline])
def test_a_recipe_trains_on_what_the_command_encodes(
    make: Callable[[], Any], folder: Path, tmp_path: Path
) -> None:
    model, shards = tmp_path / "pipeline", tmp_path / "shards"
    make().save_pretrained(model)
    request = EncodingRequest(
        str(folder), str(model), 32, max_sequence_length=16, shard_items=4, batch_size=2
    )
    assert len(run_encoding(request, shards)) == PICTURES
    settings = DataRecipe(str(shards), resolution=32, max_sequence_length=16)
    recipe = tiny_recipe(steps=2, model=str(model), data=settings)
    result = run_recipe(recipe, tmp_path / "run")
    assert (result.directory / "final" / "diffcr_config.json").exists()
    other = recipe.with_changes(data=replace(settings, resolution=64))
    with pytest.raises(DiffCRError, match=r"data\.resolution is 64, .* was encoded with 32"):
        run_recipe(other, tmp_path / "other")
    (shards / "dataset.json").unlink()
    with pytest.raises(DiffCRError, match="run the same diffcr encode again"):
        run_recipe(recipe, tmp_path / "run")
