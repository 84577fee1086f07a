"""The diffusion loss on data that no model was trained on, with everything random held fixed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffcr.core.regions import region_timesteps
from diffcr.errors import DiffCRError
from diffcr.evaluation.modes import evaluating
from diffcr.hosts import family_of, find_transformer
from diffcr.hosts.latents import grey_inputs
from diffcr.training.data.encoding import EncodedDataset
from diffcr.training.objectives import objective_of


@dataclass(frozen=True)
class HeldOutLoss:
    """Losses by timestep region, clean to noisy.

    Attributes:
        noise: Mean squared error of the predicted noise, or velocity, mean over a region's samples.
        total: With the variational term of the learned variance.
        samples: Per region, that error of every sample in order; the same samples, noise and
            timesteps for every model, so that differences can be taken pairwise.
    """

    noise: tuple[float, ...]
    total: tuple[float, ...]
    samples: tuple[tuple[float, ...], ...]

    @property
    def mean(self) -> float:
        """Error of the prediction over all regions."""
        return sum(self.noise) / len(self.noise)

    def to_json_dict(self) -> dict[str, Any]:
        """Values by name, without the samples."""
        return {"noise": list(self.noise), "total": list(self.total), "mean": self.mean}


@torch.no_grad()
def held_out_loss(
    pipe: Any,
    data: EncodedDataset,
    regions: int = 4,
    samples_per_region: int = 128,
    seed: int = 0,
    batch_size: int = 32,
) -> HeldOutLoss:
    """Diffusion loss in eval mode: an attached model computes what it computes at inference.

    Args:
        pipe: A text-to-image pipeline; its scheduler says what the model predicts.
        data: Encoded with this pipeline; its items are used in order, again from the first where
            there are too few.
        regions: Equal parts of the timesteps to report.
        samples_per_region: Timesteps are spread evenly over a region.
        seed: Of the noise.
        batch_size: Samples per forward.

    Raises:
        DiffCRError: A number is outside its range, or the scheduler is not supported.
    """
    if samples_per_region < 1 or regions < 1:
        raise DiffCRError(
            f"regions is {regions}, samples_per_region {samples_per_region}: give 1 or more"
        )
    noise_errors, totals = [], []
    with evaluating(find_transformer(pipe)):
        for region in range(regions):
            within = region_timesteps(region, regions)
            places = torch.linspace(within.start, within.stop - 1, samples_per_region)
            generator = torch.Generator().manual_seed(1000 * seed + region)
            noise = torch.randn(samples_per_region, *data.latent_shape, generator=generator)
            items = torch.arange(samples_per_region) % len(data)
            timesteps = places.round().long()
            batches = [
                slice(start, start + batch_size)
                for start in range(0, samples_per_region, batch_size)
            ]
            losses = [_losses(pipe, data, items[b], timesteps[b], noise[b]) for b in batches]
            noise_errors.append(torch.cat([loss[0] for loss in losses]))
            totals.append(torch.cat([loss[1] for loss in losses]))
    return HeldOutLoss(
        noise=tuple(float(values.mean()) for values in noise_errors),
        total=tuple(float(values.mean()) for values in totals),
        samples=tuple(tuple(values.tolist()) for values in noise_errors),
    )


def _losses(
    pipe: Any, data: EncodedDataset, items: Tensor, timesteps: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    transformer = find_transformer(pipe)
    family, weights = family_of(transformer), next(transformer.parameters())
    objective = objective_of(pipe.scheduler)
    latents, prompts = data.latents[items], data.prompts[data.caption_of[items]]
    inputs = family.call.inputs(
        transformer,
        objective.add_noise(latents, noise, timesteps).to(weights),
        family.denoising_scale(transformer.config).values(timesteps.to(weights.device)),
        prompts.to(weights.device, weights.dtype),
    )
    inputs.update(grey_inputs(pipe, latents.to(weights)))
    predicted = family.call.prediction(transformer, transformer(**inputs)[0], latents)
    loss = objective.loss(predicted.float().cpu(), latents, noise, timesteps)
    return loss.prediction, loss.total
