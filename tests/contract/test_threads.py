"""Threads that share one attached model get what one thread gets."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from diffcr.binding.attachment import attach
from diffcr.methods.at_edm.config import ATEDMConfig
from diffcr.methods.config import MethodConfig
from diffcr.methods.diffcr.compressor import Compressor
from diffcr.methods.diffcr.config import DiffCRConfig, MoDConfig
from diffcr.methods.tome.config import ToMeConfig
from tests.hosts import Inputs, denoise, inputs, pixart, scramble, trained_pixart

_CALLS = 400
_CONFIGS: dict[str, MethodConfig] = {
    "one region": DiffCRConfig(timestep_regions=1),
    "four regions": DiffCRConfig(timestep_regions=4),
    "sigmoid-mlp": MoDConfig(0.3, gate="sigmoid-mlp"),
    "tome": ToMeConfig(0.3, placement="attention-mlp"),
    "at-edm": ATEDMConfig(0.3),
}


def _given() -> list[Inputs]:
    """Calls of all regions, and of two sizes, in the order in which threads take them."""
    return [
        inputs(seed=seed, timestep=timestep, size=size)
        for seed, (timestep, size) in enumerate([(10, 8), (300, 16), (600, 8), (990, 16)])
    ]


def _on_four_threads(work: Callable[[Inputs], Tensor], given: list[Inputs]) -> list[Tensor]:
    with ThreadPoolExecutor(4) as threads:
        return list(threads.map(work, given))


@pytest.mark.parametrize("config", _CONFIGS.values(), ids=_CONFIGS)
def test_forwards_equal_those_of_one_thread(config: MethodConfig) -> None:
    transformer = pixart()
    attached = attach(transformer, config)
    if isinstance(attached, Compressor):
        scramble(attached)
    given = _given()
    with torch.no_grad():
        alone = [denoise(transformer, one) for one in given]

    def work(one: Inputs) -> Tensor:
        with torch.no_grad():
            return denoise(transformer, one)

    together = _on_four_threads(work, given * (_CALLS // len(given)))
    assert all(torch.equal(found, alone[i % len(given)]) for i, found in enumerate(together)), (
        f"{config} on four threads"
    )


def _gradient(transformer: nn.Module, given: Inputs) -> Tensor:
    latents = given.latents.clone().requires_grad_()
    output = denoise(transformer, Inputs(latents, given.prompt_embeds, given.timesteps))
    (gradient,) = torch.autograd.grad(output.square().sum(), latents)
    return gradient


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_equal_those_of_one_thread(checkpointing: bool) -> None:
    transformer = trained_pixart()
    if checkpointing:
        transformer.enable_gradient_checkpointing()
    given = _given()
    # In training the branches that are drawn depend on the order of calls.
    transformer.diffcr.settle_ratios()
    transformer.train()
    alone = [_gradient(transformer, one) for one in given]
    together = _on_four_threads(lambda one: _gradient(transformer, one), given * 25)
    assert all(torch.equal(found, alone[i % 4]) for i, found in enumerate(together))


def test_a_region_that_one_thread_gives_is_its_own() -> None:
    transformer = trained_pixart()
    given = inputs(timestep=990)
    with torch.no_grad():
        alone = denoise(transformer, given)
        with transformer.diffcr.in_region(0), ThreadPoolExecutor(1) as threads:
            inside = denoise(transformer, given)
            other = threads.submit(lambda: torch.no_grad()(denoise)(transformer, given)).result()
    assert torch.equal(other, alone)
    assert not torch.equal(inside, alone)
