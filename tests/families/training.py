"""Training of every family by its own objective, on its tiny host."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import DDPMScheduler, EDMEulerScheduler, FlowMatchEulerDiscreteScheduler
from safetensors.torch import load_file
from torch import Tensor, nn

import diffcr
from diffcr.binding.model import get_compressor
from diffcr.hosts import family_of
from diffcr.hosts.noise_scale import QuarterLogSigma
from diffcr.hosts.pipelines.prompt import Prompt
from diffcr.training.data.encoding import EncodedDataset
from diffcr.training.job import train
from diffcr.training.losses import RunLoss
from diffcr.training.objectives import objective_of
from diffcr.training.recipe import OptimizerRecipe, RatioLossRecipe, TrainingRecipe
from diffcr.training.run import make_draws, make_trainable
from diffcr.training.task import TextToImage
from tests.flow_pipelines import tiny_wan_autoencoder
from tests.tiny_hosts.host import TinyHost

# Square, as DiT's pictures are.
ROWS, COLUMNS, FRAMES, TEXT_ROWS = 8, 8, 2, 7
# On one batch; a model that learns nothing stays where it is.
STEPS, LEFT = 12, 0.75

DISCRETE = {
    "pixart": "epsilon",
    "dit": "epsilon",
    "cogvideox": "v_prediction",
    "cogview3-plus": "v_prediction",
    "allegro": "epsilon",
}


def scheduler_of(transformer: Any) -> Any:
    """As its pipelines have: what it predicts, not its numbers."""
    family = family_of(transformer)
    if family.name in DISCRETE:
        return DDPMScheduler(prediction_type=DISCRETE[family.name])
    if isinstance(family.noise_scale(transformer.config), QuarterLogSigma):
        return EDMEulerScheduler()
    return FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)


def random_data(transformer: Any, items: int = 4) -> EncodedDataset:
    """Latents and prompts of the shapes that the family names."""
    family, config = family_of(transformer), transformer.config
    family.call.check_trainable(transformer)
    generator = torch.Generator().manual_seed(0)

    def samples(count: int, like: Tensor) -> Tensor:
        if not like.is_floating_point():
            # Classes, or the mask of a prompt.
            return torch.arange(count) if like.dim() == 1 else like.expand(count, -1)
        return torch.randn(count, *like.shape[1:], generator=generator)

    blank = family.call.blank_prompt(config, TEXT_ROWS).tensors()
    prompts = {name: samples(items + 1, tensor) for name, tensor in blank.items()}
    latents = torch.randn(
        items, *family.call.latent_shape(config, ROWS, COLUMNS, FRAMES), generator=generator
    )
    return EncodedDataset(latents, Prompt.of_tensors(prompts), torch.arange(1, items + 1))


def recipe(steps: int) -> TrainingRecipe:
    return TrainingRecipe(
        name="tiny",
        method=diffcr.DiffCRConfig(target_compression_ratio=0.3, timestep_regions=2),
        finetune="lora",
        lora_rank=8,
        steps=steps,
        batch_size=2,
        checkpoint_every=2,
        optimizer=OptimizerRecipe(learning_rate=2e-2, ratio_learning_rate=2e-2),
        ratio_loss=RatioLossRecipe(raise_every=2, ramp=0.3),
    )


def pipe_of(host: TinyHost) -> Any:
    transformer = host.make()
    pipe = SimpleNamespace(transformer=transformer, scheduler=scheduler_of(transformer))
    if family_of(transformer).call.grey_inputs is not None:
        torch.manual_seed(0)
        pipe.vae = tiny_wan_autoencoder()
        pipe.vae_scale_factor_spatial, pipe.vae_scale_factor_temporal = 8, 4
    return pipe


def losses_of_one_batch(host: TinyHost) -> list[float]:
    """The diffusion loss of a batch, before each of some steps on it; routers and ratios move."""
    torch.manual_seed(0)
    pipe, settings = pipe_of(host), recipe(STEPS)
    task = TextToImage(pipe, random_data(pipe.transformer))
    transformer: nn.Module = pipe.transformer.train()
    compressor = make_trainable(transformer.requires_grad_(False), settings)
    assert compressor is not None
    compressor.ratios.data.fill_(0.05)
    trained = [p for p in transformer.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=settings.optimizer.learning_rate)
    draw = make_draws(settings, task, 1).micro_batch(0, 0)
    objective = objective_of(pipe.scheduler)
    batch, loss = task.batch(draw, objective), RunLoss(objective)
    before = [p.detach().clone() for p in (compressor.ratios, *compressor.routers.values())]
    found = []
    for _ in range(STEPS):
        # DiT drops classes at random.
        torch.manual_seed(0)
        compressor.seed_branches(draw.branch_seed)
        losses = loss.losses(transformer, batch)
        (losses.total + compressor.ratio_loss(0.1)).backward()
        compressor.block_outward_gradients()
        optimizer.step()
        optimizer.zero_grad()
        compressor.project_ratios()
        found.append(float(losses.diffusion))
    after = [compressor.ratios, *compressor.routers.values()]
    assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    return found


def state(directory: Path, step: int) -> dict[str, Tensor]:
    return load_file(directory / "checkpoints" / f"step-{step:07d}" / "state.safetensors")


def trains(host: TinyHost) -> None:
    """On one batch the loss of the family's objective falls, routers and ratios move; a run that
    was interrupted ends bit-equal."""
    losses = losses_of_one_batch(host)
    assert min(losses[-3:]) < LEFT * losses[0], losses
    with TemporaryDirectory() as directory:
        whole, parts = Path(directory) / "whole", Path(directory) / "parts"
        for path, steps in ((whole, 4), (parts, 2), (parts, 4)):
            pipe = pipe_of(host)
            train(recipe(steps), pipe, random_data(pipe.transformer), path)
        first, second = state(whole, 4), state(parts, 4)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert get_compressor(pipe.transformer).mean_compression_ratio > 0
