"""The decoder is the text-to-image model on fewer tokens, and keeps every promise of a host."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

import diffcr
from diffcr.binding.attachment import attach, detach
from diffcr.errors import DiffCRError
from diffcr.inpainting import LazyTransformer2DModel
from diffcr.methods.at_edm.config import ATEDMConfig
from diffcr.methods.config import MethodConfig
from diffcr.methods.diffcr.config import DiffCRConfig, MoDConfig
from diffcr.methods.pruning.config import StructuredPruningConfig
from diffcr.methods.tome.config import ToMeConfig
from tests.hosts import denoise, gradients, inputs, pixart, scramble_routers
from tests.inpainting.hosts import (
    LazyInputs,
    denoise_masked,
    lazy_inputs,
    tiny_decoder,
)

pytestmark = pytest.mark.filterwarnings("ignore::diffcr.errors.DiffCRWarning")
_IDENTITIES: dict[str, MethodConfig] = {
    "diffcr": DiffCRConfig(timestep_regions=10),
    "mod": MoDConfig(0.0),
    "tome": ToMeConfig(0.0),
    "at-edm": ATEDMConfig(0.0),
}
_METHODS: dict[str, MethodConfig] = {
    "diffcr": DiffCRConfig(timestep_regions=10),
    "mod": MoDConfig(0.3),
    "tome": ToMeConfig(0.4),
    "tome-block": ToMeConfig(0.4, placement="block"),
    "at-edm": ATEDMConfig(0.3),
    "pruning": StructuredPruningConfig(0.3),
}
every = pytest.mark.parametrize("config", _METHODS.values(), ids=_METHODS.keys())


def _attached(config: MethodConfig) -> LazyTransformer2DModel:
    decoder = tiny_decoder()
    method = attach(decoder, config)
    if isinstance(config, DiffCRConfig | MoDConfig):
        scramble_routers(method)
    if isinstance(config, DiffCRConfig):
        generator = torch.Generator().manual_seed(4)
        method.ratios.data.copy_(0.8 * torch.rand(method.ratios.shape, generator=generator))
    return decoder


def _fully_masked(context: float = 3.0) -> LazyInputs:
    given = inputs()
    return LazyInputs(given, torch.arange(16).expand(2, 16), torch.full((2, 16, 24), context))


@pytest.mark.parametrize("size", [8, 12])
def test_with_every_token_masked_it_is_the_text_to_image_model_bit_for_bit(size: int) -> None:
    host = pixart()
    nn.init.normal_(host.proj_out.weight)
    decoder = LazyTransformer2DModel.from_text_to_image(host, context_channels=24)
    given, tokens = inputs(size=size), (size // 2) ** 2
    everything = torch.arange(tokens).expand(2, tokens)
    masked = LazyInputs(given, everything, torch.full((2, tokens, 24), 3.0))
    assert torch.equal(denoise_masked(decoder, masked), denoise(host, given))


def test_context_reaches_the_output_once_its_half_is_trained() -> None:
    decoder, given = tiny_decoder(), lazy_inputs()
    other = LazyInputs(given.given, given.indices, given.context + 1)
    assert not torch.allclose(denoise_masked(decoder, given), denoise_masked(decoder, other))


def test_nothing_but_masked_patches_is_read_and_written() -> None:
    decoder, given = tiny_decoder(), lazy_inputs(masked=3)
    expected = denoise_masked(decoder, given)
    patches = torch.zeros(2, 16, dtype=torch.bool).scatter(1, given.indices, True).view(2, 1, 4, 4)
    masked = patches.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.equal(expected * masked, expected) and expected.abs().max() > 0
    disturbed = torch.where(masked, given.given.latents, 1e6)
    given.given.latents.copy_(disturbed)
    assert torch.equal(denoise_masked(decoder, given), expected)


def test_tokens_are_at_their_true_positions() -> None:
    decoder, given = tiny_decoder(), lazy_inputs(batch=1, masked=4)
    order = torch.tensor([2, 0, 3, 1])
    shuffled = LazyInputs(given.given, given.indices[:, order], given.context[:, order])
    gap = denoise_masked(decoder, shuffled) - denoise_masked(decoder, given)
    assert gap.abs().max() < 1e-5


def test_saved_and_loaded(tmp_path: Path) -> None:
    decoder = tiny_decoder()
    decoder.save_pretrained(tmp_path)
    loaded = LazyTransformer2DModel.from_pretrained(tmp_path)
    assert torch.equal(
        denoise_masked(loaded, lazy_inputs()), denoise_masked(decoder, lazy_inputs())
    )


def test_mistakes_are_named() -> None:
    decoder, given = tiny_decoder(), lazy_inputs()
    with pytest.raises(DiffCRError, match="at least one token"):
        denoise_masked(decoder, LazyInputs(given.given, given.indices[:, :0], given.context))
    with pytest.raises(DiffCRError, match="one context token for each"):
        denoise_masked(decoder, LazyInputs(given.given, given.indices, given.context[:, 1:]))
    with pytest.raises(DiffCRError, match="pass both"):
        decoder(given.given.latents)
    with pytest.raises(DiffCRError, match="Linear cannot become a decoder"):
        LazyTransformer2DModel.from_text_to_image(nn.Linear(2, 2), 24)
    host = pixart()
    attach(host)
    with pytest.raises(DiffCRError, match=r"diffcr\.detach first"):
        LazyTransformer2DModel.from_text_to_image(host, 24)


@pytest.mark.parametrize("config", _IDENTITIES.values(), ids=_IDENTITIES.keys())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_freshly_attached_changes_no_bit(config: MethodConfig, dtype: torch.dtype) -> None:
    given = lazy_inputs()
    cast = LazyInputs(given.given.to(dtype), given.indices, given.context.to(dtype))
    decoder = tiny_decoder().to(dtype)
    bare = denoise_masked(decoder, cast)
    attach(decoder, config)
    assert torch.equal(denoise_masked(decoder, cast), bare)


@every
def test_tokens_are_saved_and_detach_and_disabled_restore(config: MethodConfig) -> None:
    given = lazy_inputs()
    bare = denoise_masked(tiny_decoder(), given)
    decoder = _attached(config)
    assert not torch.allclose(denoise_masked(decoder, given), bare)
    with diffcr.disabled(decoder):
        assert torch.equal(denoise_masked(decoder, given), bare)
    detach(decoder)
    assert torch.equal(denoise_masked(decoder, given), bare)


@every
def test_neighbours_never_change_a_result(config: MethodConfig) -> None:
    decoder = _attached(config)
    mine, others = lazy_inputs(3), lazy_inputs(3, seed=9)
    together = denoise_masked(decoder, mine)
    mixed = copy.deepcopy(mine)
    for own, other in (
        (mixed.given.latents, others.given.latents),
        (mixed.given.prompt_embeds, others.given.prompt_embeds),
        (mixed.indices, others.indices),
        (mixed.context, others.context),
    ):
        own[1:] = other[1:]
    assert torch.equal(denoise_masked(decoder, mixed)[0], together[0])
    alone = denoise_masked(decoder, mine.only(slice(1, 2)))
    assert (alone - together[1:2]).abs().max() < 1e-5


@every
def test_save_and_load(config: MethodConfig, tmp_path: Path) -> None:
    decoder = _attached(config)
    diffcr.save(decoder, tmp_path / "saved")
    loaded = tiny_decoder()
    diffcr.load(loaded, tmp_path / "saved")
    given = lazy_inputs()
    assert torch.equal(denoise_masked(loaded, given), denoise_masked(decoder, given))


@every
def test_recomputation_under_checkpointing_gives_the_same_gradients(
    config: MethodConfig,
) -> None:
    found = []
    for recomputes in (False, True):
        decoder = _attached(config).train()
        if recomputes:
            decoder.enable_gradient_checkpointing()
        if isinstance(config, DiffCRConfig):
            decoder.diffcr.seed_branches(3)
        denoise_masked(decoder, lazy_inputs()).square().mean().backward()
        found.append(gradients(decoder))
    plain, recomputed = found
    assert plain.keys() == recomputed.keys() and plain
    for name, gradient in plain.items():
        assert (gradient - recomputed[name]).abs().max() < 1e-6, name


@every
def test_the_number_of_masked_tokens_may_change_between_calls(config: MethodConfig) -> None:
    decoder = _attached(config)
    for masked in (16, 1, 5, 12):
        assert torch.isfinite(denoise_masked(decoder, lazy_inputs(masked=masked))).all()


def test_tome_on_every_token_is_tome_on_the_grid() -> None:
    config = ToMeConfig(0.4)
    host = pixart()
    nn.init.normal_(host.proj_out.weight)
    decoder = LazyTransformer2DModel.from_text_to_image(host, context_channels=24)
    attach(host, config)
    attach(decoder, config)
    expected = denoise(host, inputs())
    assert torch.equal(denoise_masked(decoder, _fully_masked()), expected)


def test_a_lora_goes_in() -> None:
    decoder = tiny_decoder()
    before = denoise_masked(decoder, lazy_inputs())
    diffcr.add_lora(decoder, rank=2)
    assert torch.equal(denoise_masked(decoder, lazy_inputs()), before)
    assert not decoder.context_projection.weight.requires_grad
