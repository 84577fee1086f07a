"""Training in a loop of one's own, of what `diffcr train` refuses: it is given more than a text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import diffcr
from diffcr.hosts import family_of
from diffcr.training.objectives import objective_of
from tests.families.training import LEFT, STEPS, scheduler_of
from tests.tiny_hosts.host import TinyHost

LEVELS = [0.3, 0.7]  # in different timestep regions


@dataclass(frozen=True)
class Denoised:
    """Which part of a transformer's input is noisy; the rest is given, and stays as it is.

    channels: how many are noisy, before those of what is given.
    dimension: of the channels.
    given_frames: first frames that are clean.
    """

    channels: int
    dimension: int
    given_frames: int

    @classmethod
    def of(cls, host: TinyHost, config: Any) -> Denoised:
        frames_first = host.transformer_class.endswith("CogVideoXTransformer3DModel")
        return cls(
            config.out_channels,
            2 if frames_first else 1,
            int(host.variant == "token_replace"),
        )

    def take(self, states: Tensor) -> Tensor:
        noisy = states.narrow(self.dimension, 0, self.channels)
        return noisy[:, :, self.given_frames :] if self.given_frames else noisy

    def put(self, states: Tensor, noisy: Tensor) -> Tensor:
        states = states.clone()
        self.take(states).copy_(noisy)
        return states


def trains_in_an_own_loop(host: TinyHost) -> None:
    """On inputs as the pipeline gives them the loss of a batch falls, routers and ratios move."""
    torch.manual_seed(0)
    transformer = host.make()
    config = diffcr.DiffCRConfig(target_compression_ratio=0.3, timestep_regions=2)
    compressor = diffcr.attach(transformer, config)
    diffcr.add_lora(transformer, rank=8)
    compressor.set_compression_ratios(0.1)
    optimizer = torch.optim.AdamW(diffcr.parameter_groups(transformer, lr=2e-2))
    objective = objective_of(scheduler_of(transformer))
    denoised, given = Denoised.of(host, transformer.config), host.inputs(2, 0)
    latents = denoised.take(given["hidden_states"])
    noise, timesteps = torch.randn_like(latents), 1000 * torch.tensor(LEVELS)
    if family_of(transformer).name == "cogvideox":
        timesteps = timesteps.long()
    noisy = objective.add_noise(latents, noise, timesteps)
    inputs = host.with_timesteps(
        {**given, "hidden_states": denoised.put(given["hidden_states"], noisy)}, LEVELS
    )
    before = [p.detach().clone() for p in (compressor.ratios, *compressor.routers.values())]
    losses = []
    transformer.train()
    for _ in range(STEPS):
        output = denoised.take(transformer(**inputs)[0])
        loss = objective.loss(output, latents, noise, timesteps).total.mean()
        (loss + compressor.ratio_loss(0.1)).backward()
        compressor.block_outward_gradients()
        optimizer.step()
        optimizer.zero_grad()
        compressor.project_ratios()
        losses.append(loss.item())
    assert min(losses[-3:]) < LEFT * losses[0], losses
    after = [compressor.ratios, *compressor.routers.values()]
    assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
