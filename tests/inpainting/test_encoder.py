"""The encoder sees a picture and its mask, and is routed like every other host."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import diffcr
from diffcr.binding.attachment import attach, detach
from diffcr.errors import DiffCRError
from diffcr.hosts import family_of
from diffcr.hosts.pipelines.prompt import Prompt
from diffcr.inpainting import ContextEncoder
from diffcr.methods.at_edm.config import ATEDMConfig
from diffcr.methods.config import MethodConfig
from diffcr.methods.diffcr.config import DiffCRConfig, MoDConfig
from diffcr.methods.pruning.config import StructuredPruningConfig
from diffcr.methods.tome.config import ToMeConfig
from tests.hosts import scramble, scramble_routers
from tests.inpainting.hosts import tiny_encoder

pytestmark = pytest.mark.filterwarnings("ignore::diffcr.errors.DiffCRWarning")
_METHODS: dict[str, MethodConfig] = {
    "diffcr": DiffCRConfig(target_compression_ratio=0.5, timestep_regions=1),
    "mod": MoDConfig(0.5),
    "tome": ToMeConfig(0.4),
    "at-edm": ATEDMConfig(0.3, early_regions=0, layers_per_group=2),
    "pruning": StructuredPruningConfig(0.3),
}
every = pytest.mark.parametrize("config", _METHODS.values(), ids=_METHODS.keys())


def _see(encoder: nn.Module, batch: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(batch, 4, 8, 8, generator=generator)
    mask = torch.rand(batch, 1, 8, 8, generator=generator).round()
    tokens: Tensor = encoder(latents, mask)
    return tokens


def _attached(config: MethodConfig) -> ContextEncoder:
    encoder = tiny_encoder()
    method = attach(encoder, config)
    if isinstance(config, DiffCRConfig):
        scramble(method)
    if isinstance(config, MoDConfig):
        scramble_routers(method)
    return encoder


def test_one_token_per_patch_and_the_mask_is_seen() -> None:
    encoder = tiny_encoder()
    assert _see(encoder).shape == (2, 16, 32) and encoder.context_channels == 32
    latents = torch.randn(1, 4, 8, 8)
    hidden, visible = torch.ones(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)
    assert not torch.allclose(encoder(latents, hidden), encoder(latents, visible))


def test_saved_and_loaded(tmp_path: Path) -> None:
    encoder = tiny_encoder()
    encoder.save_pretrained(tmp_path)
    assert torch.equal(_see(ContextEncoder.from_pretrained(tmp_path)), _see(encoder))


def test_freshly_attached_changes_no_bit_and_detach_restores() -> None:
    bare = _see(tiny_encoder())
    encoder = tiny_encoder()
    scramble_routers(attach(encoder, DiffCRConfig(timestep_regions=1)))
    encoder.diffcr.routers["transformer_blocks"].data.zero_()
    assert torch.equal(_see(encoder), bare)
    detach(encoder)
    assert torch.equal(_see(encoder), bare)


@every
def test_it_is_routed(config: MethodConfig, tmp_path: Path) -> None:
    encoder = _attached(config)
    routed = _see(encoder)
    assert not torch.allclose(routed, _see(tiny_encoder()))
    diffcr.save(encoder, tmp_path / "saved")
    loaded = tiny_encoder()
    diffcr.load(loaded, tmp_path / "saved")
    assert torch.equal(_see(loaded), routed)


def test_gradients_reach_routers_and_ratios_under_checkpointing() -> None:
    encoder = _attached(_METHODS["diffcr"]).train()
    encoder.enable_gradient_checkpointing()
    encoder.diffcr.seed_branches(1)
    _see(encoder).square().mean().backward()
    assert encoder.diffcr.routers["transformer_blocks"].grad.abs().max() > 0
    assert encoder.diffcr.ratios.grad is not None


@pytest.mark.parametrize("config", [DiffCRConfig(), ATEDMConfig(0.2)])
def test_what_tells_timesteps_apart_is_refused(config: MethodConfig) -> None:
    encoder = tiny_encoder()
    with pytest.raises(DiffCRError, match="without a timestep.*timestep_regions=1"):
        attach(encoder, config)
    assert not hasattr(encoder, "diffcr")


def test_it_denoises_nothing() -> None:
    encoder = tiny_encoder()
    empty = torch.zeros(1)
    with pytest.raises(DiffCRError, match="denoises nothing"):
        family_of(encoder).call.inputs(encoder, empty, empty, Prompt(empty))
