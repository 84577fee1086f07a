"""What a recipe's settings do to a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import PixArtTransformer2DModel
from torch import Tensor
from torch._dynamo import OptimizedModule
from torch.optim.optimizer import register_optimizer_step_pre_hook

import diffcr
from diffcr.binding.model import get_compressor
from diffcr.errors import DiffCRError
from diffcr.methods.config import DenseConfig
from diffcr.methods.diffcr.config import DiffCRConfig
from diffcr.training.losses import RunLoss
from diffcr.training.objectives import objective_of
from diffcr.training.recipe import OptimizerRecipe
from diffcr.training.run import (
    make_draws,
    make_teacher,
    make_trainable,
)
from diffcr.training.run_directory import read_history
from diffcr.training.task import TextToImage
from tests.hosts import denoise, inputs, pixart
from tests.training.worker import (
    METHOD,
    equal,
    run,
    state,
    tiny_data,
    tiny_pipe,
    tiny_recipe,
    tiny_task,
)


@pytest.mark.parametrize(
    "changes",
    [
        {"mixed_precision": "bf16"},
        {"gradient_checkpointing": True},
        {"gradient_accumulation": 2},
        {"distillation_weight": 1.0},
        {"ema_decay": 0.0},
        {"finetune": "full"},
        {"finetune": "full", "distillation_weight": 1.0, "mixed_precision": "bf16"},
        {"finetune": "full", "optimizer": OptimizerRecipe("muon", 1e-3)},
        {"tracker": "tensorboard"},
        {"finetune": "none"},
        {"method": DiffCRConfig(timestep_regions=1, branching="both", gate="sigmoid-mlp")},
    ],
    ids=lambda changes: next(iter(changes)) + "-" + str(next(iter(changes.values())))[:8],
)
def test_settings_train(tmp_path: Path, changes: dict[str, Any]) -> None:
    pipe = tiny_pipe()
    result = run(tmp_path / "run", tiny_recipe(steps=2, **changes), pipe)
    compressor = get_compressor(pipe.transformer)
    assert compressor.ratios.dtype == torch.float32
    assert bool(list((tmp_path / "run").rglob("events.out*"))) == ("tracker" in changes)
    assert result.mean_compression_ratio and result.mean_compression_ratio > 0
    loaded = pixart(layers=2)
    diffcr.load(loaded, tmp_path / "run" / "final")
    with torch.no_grad():
        assert torch.equal(denoise(loaded, inputs()), denoise(pipe.transformer, inputs()))


@pytest.mark.parametrize(
    "method", [pytest.param(DenseConfig(), marks=pytest.mark.slow), METHOD], ids=["dense", "diffcr"]
)
def test_a_compiled_run_gives_what_a_plain_one_gives(
    tmp_path: Path, method: DenseConfig | DiffCRConfig
) -> None:
    losses = []
    for compiled in (False, True):
        pipe, directory = tiny_pipe(), tmp_path / str(compiled)
        run(directory, tiny_recipe(steps=4, method=method, finetune="full", compile=compiled), pipe)
        losses.append([line["loss"] for line in read_history(directory / "history.jsonl")])
        # What is handed back is not compiled.
        assert not [m for m in pipe.transformer.modules() if isinstance(m, OptimizedModule)]
        assert method == DenseConfig() or get_compressor(pipe.transformer).run_branch is None
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert losses[0][0] != losses[0][3]


def test_muon_moves_the_blocks_matrices_and_resumes_bit_equal(tmp_path: Path) -> None:
    recipe = tiny_recipe(
        steps=4, finetune="full", checkpoint_every=2, optimizer=OptimizerRecipe("muon", 1e-3)
    )
    run(tmp_path / "whole", recipe)
    run(tmp_path / "parts", replace(recipe, steps=2))
    run(tmp_path / "parts", recipe)
    whole = state(tmp_path / "whole", 4)
    assert equal(whole, state(tmp_path / "parts", 4))
    momenta = {name for name in whole if name.startswith("optimizer/momentum_buffer/")}
    seconds = {name for name in whole if name.startswith("optimizer/exp_avg_sq/")}
    blocks = "transformer_blocks.0.attn1.to_q.weight"
    assert f"optimizer/momentum_buffer/{blocks}" in momenta
    assert not [name for name in momenta if "diffcr." in name or "bias" in name]
    assert [name for name in seconds if "diffcr." in name]
    assert not momenta & {name.replace("exp_avg_sq", "momentum_buffer") for name in seconds}
    # Orthogonal updates of AdamW's size: no direction outweighs the others, 0.2 * rate an entry.
    start = dict(pixart(layers=2).named_parameters())[blocks].detach()
    change = whole[f"parameter/{blocks}"] - start
    values = torch.linalg.svdvals(change)
    assert values.max() < 4 * values.median()
    assert 1e-4 < change.square().mean().sqrt() < 4 * 0.2 * 1e-3 * 1.1


@pytest.mark.parametrize("finetune", ["full", "lora"])
def test_the_teacher_stays_the_dense_model_before_training(finetune: Any) -> None:
    task = tiny_task()
    transformer, cpu = task.trained, torch.device("cpu")
    given = inputs()
    call = {
        "hidden_states": given.latents,
        "encoder_hidden_states": given.prompt_embeds,
        "timestep": given.timesteps,
        "added_cond_kwargs": {"resolution": None, "aspect_ratio": None},
        "return_dict": False,
    }
    with torch.no_grad():
        before = denoise(transformer, given)
    recipe = tiny_recipe(steps=1, finetune=finetune, distillation_weight=1.0)
    teacher = make_teacher(task, recipe, cpu)
    assert teacher is not None
    compressor = make_trainable(transformer.train(), recipe)
    assert compressor is not None
    compressor.set_compression_ratios(0.5)
    with torch.no_grad():
        for parameter in transformer.parameters():
            if parameter.requires_grad and parameter is not compressor.ratios:
                parameter.add_(0.1)
    output = teacher(call)
    assert torch.equal(output, before) and not output.requires_grad
    assert not torch.equal(denoise(transformer, given), before)


def test_the_dense_model_has_no_teacher() -> None:
    with pytest.raises(DiffCRError, match="its own teacher"):
        tiny_recipe(DenseConfig(), steps=1, distillation_weight=1.0)
    assert make_teacher(tiny_task(), tiny_recipe(steps=1), torch.device("cpu")) is None


def test_gradient_checkpointing_changes_no_result(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    run(tmp_path / "plain", tiny_recipe(steps=3))
    run(tmp_path / "checkpointed", tiny_recipe(steps=3, gradient_checkpointing=True))
    assert equal(state(tmp_path / "plain", 3), state(tmp_path / "checkpointed", 3))


@pytest.mark.parametrize(("finetune", "file"), [("lora", "adapter"), ("full", "transformer")])
def test_the_dense_model_trains_through_the_same_loop(
    tmp_path: Path, finetune: Any, file: str
) -> None:
    result = run(tmp_path / "run", tiny_recipe(DenseConfig(), steps=2, finetune=finetune))
    assert result.mean_compression_ratio is None
    assert any((tmp_path / "run" / "final" / file).glob("*.safetensors"))


def test_accumulated_gradients_are_the_mean_over_micro_batches(tmp_path: Path) -> None:
    recipe = tiny_recipe(steps=1, gradient_accumulation=2, finetune="full")
    recipe = recipe.with_changes(optimizer=replace(recipe.optimizer, gradient_clip=0.0))
    stepped: dict[int, Tensor] = {}

    def look(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            stepped.update({id(p): p.grad.clone() for p in group["params"]})

    hook = register_optimizer_step_pre_hook(look)
    pipe = tiny_pipe()
    run(tmp_path / "run", recipe, pipe)
    hook.remove()
    accumulated = {n: stepped[id(p)] for n, p in pipe.transformer.named_parameters()}
    alone = tiny_pipe()
    task = TextToImage(alone, tiny_data())
    compressor = make_trainable(alone.transformer.train(), recipe)
    assert compressor is not None
    objective = objective_of(alone.scheduler, recipe.largest_loss_weight)
    draws = make_draws(recipe, task, processes=1)
    for micro in range(2):
        draw = draws.micro_batch(0, micro)
        compressor.seed_branches(draw.branch_seed)
        losses = RunLoss(objective).losses(alone.transformer, task.batch(draw, objective))
        (losses.total / 2 + compressor.ratio_loss(recipe.ratio_loss.weight) / 2).backward()
    for name, parameter in alone.transformer.named_parameters():
        assert parameter.grad is not None
        assert (parameter.grad - accumulated[name]).abs().max() < 1e-6, name


def test_a_model_that_is_told_the_pictures_size_trains(tmp_path: Path) -> None:
    pipe = tiny_pipe()
    torch.manual_seed(0)
    pipe.transformer = PixArtTransformer2DModel.from_config(
        {
            **pipe.transformer.config,
            "use_additional_conditions": True,
            "attention_head_dim": 24,
            "cross_attention_dim": 48,
        }
    )
    result = run(tmp_path / "run", tiny_recipe(steps=2), pipe)
    assert result.mean_compression_ratio and result.mean_compression_ratio > 0
