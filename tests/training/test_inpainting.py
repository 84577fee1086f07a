"""The training loop on an inpainting pipeline."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

import diffcr
from diffcr.binding.model import get_compressor
from diffcr.errors import DiffCRError
from diffcr.inpainting import LazyInpaintPipeline
from diffcr.methods.config import DenseConfig
from diffcr.methods.diffcr.config import DiffCRConfig, MoDConfig
from diffcr.scenes import ScenesDataset
from diffcr.training.data.masked import MaskedDataset, encode_masked
from diffcr.training.draws import Draws
from diffcr.training.job import run_recipe, train
from diffcr.training.losses import RunLoss
from diffcr.training.objectives import objective_of
from diffcr.training.recipe import DataRecipe, InpaintingRecipe, TrainingRecipe, recipe_from_dict
from diffcr.training.task import Inpainting
from tests.inpainting.hosts import tiny_lazy_pipeline
from tests.training.worker import METHOD, STILL, equal, state, tiny_data, tiny_pipe, tiny_recipe

ENCODER = DiffCRConfig(target_compression_ratio=0.5, timestep_regions=1)
SCENES = ScenesDataset(size=12, resolution=32)


@dataclass(frozen=True)
class Encoded:
    pipe: LazyInpaintPipeline
    data: MaskedDataset
    cache: Path


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Encoded:
    cache = tmp_path_factory.mktemp("encoded")
    pipe = tiny_lazy_pipeline()
    return Encoded(pipe, encode_masked(pipe, SCENES, cache, 3), cache)


def lazy_recipe(part: Any, **changes: Any) -> TrainingRecipe:
    return tiny_recipe(steps=3, finetune="full", inpainting=InpaintingRecipe(part), **changes)


def parameters(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def test_masks_are_encoded_once_as_the_pipeline_encodes_them(encoded: Encoded) -> None:
    data = encoded.data
    assert len(data) == 36 and len(data.pictures) == 12
    assert data.picture_of.tolist() == [item for item in range(12) for _ in range(3)]
    files = sorted(encoded.cache.iterdir())
    again = encode_masked(encoded.pipe, SCENES, encoded.cache, 3)
    assert sorted(encoded.cache.iterdir()) == files
    assert torch.equal(again.visible, data.visible) and torch.equal(again.tokens, data.tokens)
    for group in data.groups:
        counts = data.tokens[group].sum(dim=1)
        assert (counts == counts[0]).all()
        places = data.token_indices(group)
        assert all(data.tokens[i][p].all() for i, p in zip(group, places, strict=True))
    assert sorted(int(i) for group in data.groups for i in group) == list(range(36))
    # Of a whole mask nothing is seen, whatever the picture; of others something.
    whole = (data.coverage == 1).flatten(1).all(dim=1).nonzero().flatten()
    assert len(whole) > 1 and data.tokens[whole].all()
    first, second, *_ = data.visible[whole]
    assert torch.allclose(first, second, atol=1e-5)
    assert not torch.allclose(
        first, data.visible[data.coverage.flatten(1).mean(1).argmin()], atol=0.1
    )


def test_the_loss_is_that_of_masked_latents_alone(encoded: Encoded) -> None:
    pipe = tiny_lazy_pipeline()
    task = Inpainting(pipe, encoded.data, "both")
    objective = objective_of(pipe.scheduler)
    loss = RunLoss(objective)
    draws = Draws(0, task.order(0), 4, 1, 2, 0.1)
    draw = next(d for d in (draws.micro_batch(s, 0) for s in range(50)) if _partial(encoded, d))
    batch = task.batch(draw, objective)
    mask = encoded.data.tokens[draw.indices].view(4, 1, 4, 4)
    mask = mask.repeat_interleave(2, 2).repeat_interleave(2, 3)
    with torch.no_grad():
        output = task.model(**batch.inputs)[0]
    alone = []
    for sample in range(4):
        kept = mask[sample, 0]
        strips = [v[sample, :, kept][None, :, None] for v in (output, batch.latents, batch.noise)]
        times = batch.timesteps[sample : sample + 1]
        alone.append(objective.loss(*strips, times).total)
    losses = loss.losses(task.model, batch)
    assert torch.allclose(losses.diffusion, torch.cat(alone).mean(), rtol=1e-5)
    # Noise under the mask decides the loss, noise elsewhere does not.
    outside = torch.where(mask, draw.noise, draw.noise + 1)
    other = task.batch(replace(draw, noise=outside), objective)
    elsewhere = loss.losses(task.model, other)
    assert torch.allclose(elsewhere.diffusion, losses.diffusion, atol=1e-6)


def _partial(encoded: Encoded, draw: Any) -> bool:
    return 0 < int(encoded.data.tokens[draw.indices[0]].sum()) < 16


def test_both_models_train_and_are_opened_by_the_pipeline(encoded: Encoded, tmp_path: Path) -> None:
    pipe = tiny_lazy_pipeline()
    before = parameters(pipe.encoder), parameters(pipe.transformer)
    train(lazy_recipe("both", method=DenseConfig()), pipe, encoded.data, tmp_path / "run")
    for model, values in zip((pipe.encoder, pipe.transformer), before, strict=True):
        moved = [n for n, p in model.named_parameters() if not torch.equal(p, values[n])]
        assert len(moved) > 0.8 * len(values)
    for name in ("encoder", "transformer"):
        model = getattr(pipe, name)
        loaded = type(model).from_pretrained(tmp_path / "run" / "final" / name)
        assert all(
            torch.equal(p, dict(loaded.named_parameters())[n]) for n, p in model.named_parameters()
        )


@pytest.mark.parametrize(
    ("part", "method"),
    [
        ("decoder", DiffCRConfig(target_compression_ratio=0.3, timestep_regions=2)),
        ("decoder", MoDConfig(compression_ratio=0.3)),
        ("encoder", ENCODER),
    ],
    ids=["decoder", "decoder-mod", "encoder"],
)
@pytest.mark.parametrize("finetune", ["full", "lora"])
def test_a_method_trains_in_one_model_beside_the_other(
    encoded: Encoded, tmp_path: Path, part: Any, method: Any, finetune: Any
) -> None:
    pipe = tiny_lazy_pipeline()
    trained, other = pipe.transformer, pipe.encoder
    if part == "encoder":
        trained, other = other, trained
    beside = parameters(other)
    recipe = lazy_recipe(part, method=method, distillation_weight=1.0)
    recipe = recipe.with_changes(finetune=finetune)
    result = train(recipe, pipe, encoded.data, tmp_path / "run")
    assert result.mean_compression_ratio and result.mean_compression_ratio > 0
    assert all(torch.equal(p, beside[n]) for n, p in other.named_parameters())
    assert any(router.abs().sum() > 0 for router in get_compressor(trained).routers.values())
    fresh = tiny_lazy_pipeline()
    diffcr.load(fresh if part == "decoder" else fresh.encoder, tmp_path / "run" / "final")
    loaded = fresh.transformer if part == "decoder" else fresh.encoder
    for name, value in trained.named_parameters():
        assert torch.equal(dict(loaded.named_parameters())[name], value), name
    goes_on = {"checkpoint": str(tmp_path / "run" / "final"), "optimizer": STILL, "steps": 1}
    train(replace(recipe, **goes_on), tiny_lazy_pipeline(), encoded.data, tmp_path / "on")
    files = (tmp_path / run / "final" / "diffcr.safetensors" for run in ("run", "on"))
    assert equal(*map(load_file, files))


def test_an_interrupted_run_ends_as_an_uninterrupted_one(encoded: Encoded, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    recipe = lazy_recipe("both", method=DenseConfig()).with_changes(steps=6)
    train(recipe, tiny_lazy_pipeline(), encoded.data, tmp_path / "whole")
    train(recipe.with_changes(steps=3), tiny_lazy_pipeline(), encoded.data, tmp_path / "parts")
    train(recipe, tiny_lazy_pipeline(), encoded.data, tmp_path / "parts")
    assert equal(state(tmp_path / "whole", 6), state(tmp_path / "parts", 6))


@pytest.mark.parametrize("part", ["decoder", "encoder"])
def test_a_run_does_not_go_on_with_another_model_beside(
    encoded: Encoded, tmp_path: Path, part: Any
) -> None:
    method = ENCODER if part == "encoder" else METHOD
    recipe = lazy_recipe(part, method=method)
    train(recipe, tiny_lazy_pipeline(), encoded.data, tmp_path / "run")
    other = tiny_lazy_pipeline()
    beside = other.transformer if part == "encoder" else other.encoder
    with torch.no_grad():
        for parameter in beside.parameters():
            parameter.mul_(1.5)
    with pytest.raises(DiffCRError, match="another base model"):
        train(recipe.with_changes(steps=4), other, encoded.data, tmp_path / "run")
    masks = encode_masked(encoded.pipe, SCENES, encoded.cache, 2)
    with pytest.raises(DiffCRError, match="other data"):
        train(recipe.with_changes(steps=4), tiny_lazy_pipeline(), masks, tmp_path / "run")
    train(recipe.with_changes(steps=4), tiny_lazy_pipeline(), encoded.data, tmp_path / "run")


@pytest.mark.parametrize("part", ["both", "decoder", "encoder"])
def test_gradient_checkpointing_changes_no_result(
    encoded: Encoded, tmp_path: Path, part: Any
) -> None:
    torch.set_num_threads(1)
    method = {"both": DenseConfig(), "decoder": METHOD, "encoder": ENCODER}[part]
    recipe = lazy_recipe(part, method=method)
    for name, checkpointed in (("plain", False), ("checkpointed", True)):
        pipe = tiny_lazy_pipeline()
        changed = recipe.with_changes(gradient_checkpointing=checkpointed)
        train(changed, pipe, encoded.data, tmp_path / name)
        models = (pipe.encoder, pipe.transformer)
        assert all(m.gradient_checkpointing is checkpointed for m in models)
    assert equal(state(tmp_path / "plain", 3), state(tmp_path / "checkpointed", 3))


def test_masks_are_drawn_anew_where_what_decides_them_changes(
    encoded: Encoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    def everything(random: Any, side: int, objects: Any) -> Any:
        return np.ones((side, side), dtype=bool)

    with monkeypatch.context() as patch:
        patch.setattr("diffcr.training.data.masked.draw_mask", everything)
        whole = encode_masked(encoded.pipe, SCENES, encoded.cache, 3)
    assert whole.tokens.all() and not encoded.data.tokens.all()
    with monkeypatch.context() as patch:
        patch.setattr(LazyInpaintPipeline, "pixels_per_token", 4)
        assert encode_masked(encoded.pipe, SCENES, encoded.cache, 3).tokens.shape == (36, 64)


def test_photographs_train_by_recipe(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    lines = []
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        lines.append(json.dumps({"file_name": f"{number}.png", "text": "a photograph"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    tiny_lazy_pipeline().save_pretrained(tmp_path / "model")
    data = DataRecipe(source=str(folder), resolution=32, max_sequence_length=8)
    recipe = lazy_recipe("decoder", method=METHOD, model=str(tmp_path / "model"), data=data)
    result = run_recipe(recipe, tmp_path / "runs" / "lazy")
    assert result.mean_compression_ratio and result.mean_compression_ratio > 0
    larger = recipe.with_changes(data=replace(data, resolution=64))
    with pytest.raises(DiffCRError, match=r"resolution is 64, the pipeline works at 32"):
        run_recipe(larger, tmp_path / "runs" / "larger")


def test_a_checkpoint_goes_into_the_model_that_it_is_for(encoded: Encoded, tmp_path: Path) -> None:
    pipe = tiny_lazy_pipeline()
    train(lazy_recipe("encoder", method=ENCODER), pipe, encoded.data, tmp_path / "run")
    final = tmp_path / "run" / "final"
    with pytest.raises(DiffCRError, match="is for a ContextEncoder, this is a LazyTransformer2D"):
        diffcr.load(tiny_lazy_pipeline(), final)
    card = (final / "README.md").read_text()
    assert "diffcr.load(pipe.encoder, " in card and "mask_image=mask" in card


def test_tasks_are_not_mixed_up(encoded: Encoded, tmp_path: Path) -> None:
    with pytest.raises(DiffCRError, match="for a text-to-image pipeline, not for a LazyInpaint"):
        train(tiny_recipe(steps=1), encoded.pipe, encoded.data, tmp_path / "a")
    with pytest.raises(DiffCRError, match="for a LazyInpaintPipeline, not for a SimpleName"):
        train(lazy_recipe("decoder"), tiny_pipe(), tiny_data(), tmp_path / "b")
    with pytest.raises(DiffCRError, match="no masks: encode them with encode_masked"):
        train(lazy_recipe("decoder"), encoded.pipe, encoded.data.pictures, tmp_path / "c")
    with pytest.raises(DiffCRError, match="have masks: encode them with encode_dataset"):
        train(tiny_recipe(steps=1), tiny_pipe(), encoded.data, tmp_path / "d")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inpainting": {"part": "both"}}, "'both' models are trained dense"),
        ({"inpainting": {"part": "decoder"}, "method": {"method": "dense"}}, "trained dense"),
        ({"inpainting": {"part": "encoder"}}, "timestep_regions is 4 for the encoder"),
        ({"inpainting": {"part": "decode"}}, "'both' or 'decoder' or 'encoder'"),
        ({"inpainting": {"parts": "both"}}, "did you mean 'inpainting.part'"),
        ({"inpainting": {"part": "decoder", "masks_per_picture": 0}}, "give 1 to 1000"),
        ({"inpainting": 3}, "inpainting holds 3"),
    ],
)
def test_recipes_that_cannot_be_run_are_refused(changes: dict[str, Any], message: str) -> None:
    values = {"name": "lazy", "finetune": "full", **changes}
    values.setdefault("method", {"method": "diffcr", "timestep_regions": 4})
    with pytest.raises(DiffCRError, match=message):
        recipe_from_dict(values, "lazy.yaml")


def test_a_recipe_without_inpainting_reads_null() -> None:
    recipe = recipe_from_dict({"name": "plain", "inpainting": None}, "plain.yaml")
    assert recipe.inpainting is None
    assert recipe_from_dict(recipe.to_json_dict(), "plain.json") == recipe
    lazy = lazy_recipe("decoder")
    assert recipe_from_dict(lazy.to_json_dict(), "lazy.json") == lazy
