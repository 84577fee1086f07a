"""What `diffcr train --estimate` says, held to what a run allocates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffcr.cli import main
from diffcr.errors import DiffCRError
from diffcr.training.estimate import estimate_memory
from diffcr.training.optimization import WeightAverage, make_optimizers
from diffcr.training.recipe import DataRecipe, TrainingRecipe
from diffcr.training.run import make_trainable
from tests.hosts import inputs, pixart
from tests.pipelines import tiny_pixart_pipeline
from tests.training.worker import BOTH, tiny_recipe


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("pipeline")
    tiny_pixart_pipeline().save_pretrained(directory)
    return str(directory)


def recipe(model: str, **changes: object) -> TrainingRecipe:
    data = DataRecipe(resolution=32, max_sequence_length=5)
    return replace(tiny_recipe(), model=model, data=data, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("finetune", ["full", "lora", "none"])
def test_what_is_counted_is_what_a_run_holds(model: str, finetune: str) -> None:
    chosen = recipe(model, finetune=finetune)
    estimate = estimate_memory(chosen)
    transformer = tiny_pixart_pipeline().transformer
    make_trainable(transformer, chosen)
    trained = {n: p for n, p in transformer.named_parameters() if p.requires_grad}
    optimizers = make_optimizers(transformer, chosen)
    for parameter in trained.values():
        parameter.grad = torch.zeros_like(parameter)
    for optimizer in optimizers:
        optimizer.step()
    moments = [
        value
        for optimizer in optimizers
        for state in optimizer.state.values()
        for value in state.values()
        if value.dim() > 0
    ]
    average = WeightAverage(trained, 0.9)
    assert estimate.weights == _bytes(list(transformer.parameters()))
    assert estimate.gradients == _bytes([p.grad for p in trained.values() if p.grad is not None])
    assert estimate.optimizer == pytest.approx(_bytes(moments), rel=0.01)
    assert estimate.averages == 2 * _bytes(list(average.values.values()))


def _bytes(tensors: list[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def test_activations_are_of_the_size_of_those_that_are_kept(model: str) -> None:
    estimate = estimate_memory(recipe(model, method=BOTH, finetune="full", batch_size=2))
    transformer = pixart(layers=3)
    own = {parameter.data_ptr() for parameter in transformer.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    given = inputs()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = transformer(
            given.latents,
            encoder_hidden_states=given.prompt_embeds,
            timestep=given.timesteps,
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
        )[0]
    assert output.requires_grad
    assert 0.5 < estimate.activations / sum(kept.values()) < 2


def test_processes_share_what_is_split(model: str) -> None:
    alone, both = (estimate_memory(recipe(model, finetune="full"), n) for n in (1, 2))
    split = estimate_memory(recipe(model, finetune="full", sharding="fsdp"), 2)
    assert both.weights == alone.weights and both.gradients == 2 * alone.gradients
    assert 2 * both.activations == alone.activations
    for part in ("weights", "gradients", "optimizer", "averages"):
        assert getattr(split, part) == getattr(alone, part) // 2
    assert split.gathered > 0 == alone.gathered
    taught = estimate_memory(recipe(model, finetune="full", distillation_weight=1.0))
    assert 0 < taught.teacher < taught.weights
    assert estimate_memory(recipe(model, distillation_weight=1.0)).teacher == 0
    with pytest.raises(DiffCRError, match="cannot be split over 3 processes"):
        estimate_memory(recipe(model), 3)


def test_the_command_prints_and_stops(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("name: some\ndata: {resolution: 32}\n")
    with pytest.raises(SystemExit) as exit_:
        main(["train", str(file), "--model", model, "--estimate", "--output", str(tmp_path / "r")])
    assert exit_.value.code == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("total")
    assert not (tmp_path / "r").exists()
