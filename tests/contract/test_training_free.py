"""Methods without training keep the same promises as routed ones."""

from __future__ import annotations

import copy
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import diffcr
from diffcr.binding.attachment import attach, detach
from diffcr.binding.lora import add_lora
from diffcr.binding.model import disabled, get_attached, get_compressor
from diffcr.core.regions import region_of
from diffcr.cost.counting import count_flops
from diffcr.errors import DiffCRError
from diffcr.hosts.grid import Grid
from diffcr.hosts.input_size import InputSize
from diffcr.methods.at_edm.config import ATEDMConfig
from diffcr.methods.base import TransformerCall
from diffcr.methods.config import MethodConfig
from diffcr.methods.tome.config import ToMeConfig
from tests.hosts import denoise, gradients, inputs, pixart

_LAYERS = 6
_ATEDM = ATEDMConfig(compression_ratio=0.3, layers_per_group=3)
_CONFIGS: dict[str, MethodConfig] = {
    "tome-attention": ToMeConfig(0.4),
    "tome-mlp": ToMeConfig(0.4, placement="mlp"),
    "tome-attention-mlp": ToMeConfig(0.4, placement="attention-mlp", destinations="top-left"),
    "tome-block": ToMeConfig(0.4, placement="block"),
    "at-edm": _ATEDM,
}
_AT_ZERO = {name: type(config)(compression_ratio=0.0) for name, config in _CONFIGS.items()}
every = pytest.mark.parametrize("config", _CONFIGS.values(), ids=_CONFIGS.keys())


def attached_host(config: MethodConfig) -> nn.Module:
    transformer = pixart(layers=_LAYERS)
    attach(transformer, config)
    return transformer


@pytest.mark.parametrize("config", _AT_ZERO.values(), ids=_AT_ZERO.keys())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_ratio_of_zero_changes_no_bit(config: MethodConfig, dtype: torch.dtype) -> None:
    given = inputs().to(dtype)
    bare = denoise(pixart(layers=_LAYERS).to(dtype), given)
    assert torch.equal(denoise(attached_host(config).to(dtype), given), bare)


@every
def test_tokens_are_saved_and_detach_and_disabled_restore(config: MethodConfig) -> None:
    bare_model = pixart(layers=_LAYERS)
    keys = list(bare_model.state_dict())
    bare = denoise(bare_model, inputs())
    transformer = attached_host(config)
    assert list(transformer.state_dict()) == keys
    assert not torch.allclose(denoise(transformer, inputs()), bare)
    with disabled(transformer):
        assert torch.equal(denoise(transformer, inputs()), bare)
    detach(transformer)
    assert torch.equal(denoise(transformer, inputs()), bare)
    assert all("forward" not in vars(module) for module in transformer.modules())


@every
def test_a_deep_copy_computes_with_its_own_weights(config: MethodConfig) -> None:
    transformer = attached_host(config)
    expected = denoise(transformer, inputs())
    other = copy.deepcopy(transformer)
    assert torch.equal(denoise(other, inputs()), expected)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert denoise(other, inputs()).abs().max() == 0
    assert torch.equal(denoise(transformer, inputs()), expected)


@every
def test_neighbours_never_change_a_result(config: MethodConfig) -> None:
    transformer = attached_host(config)
    mine, others = inputs(4), inputs(4, seed=9)
    mixed = inputs(4)
    mixed.latents[1:] = others.latents[1:]
    mixed.prompt_embeds[1:] = others.prompt_embeds[1:]
    together = denoise(transformer, mine)
    assert torch.equal(together[0], denoise(transformer, mixed)[0])
    alone = denoise(transformer, mine.only(slice(1, 2)))
    assert (alone - together[1:2]).abs().max() < 1e-5


@every
def test_recomputation_under_checkpointing_gives_the_same_gradients(
    config: MethodConfig,
) -> None:
    found = []
    for recomputes in (False, True):
        transformer = attached_host(config).train()
        if recomputes:
            transformer.enable_gradient_checkpointing()
        outputs = [denoise(transformer, inputs(timestep=timestep)) for timestep in (100, 900)]
        sum(output.square().mean() for output in outputs).backward()
        found.append(gradients(transformer))
    plain, recomputed = found
    assert plain.keys() == recomputed.keys() and plain
    for name, gradient in plain.items():
        assert (gradient - recomputed[name]).abs().max() < 1e-6, name


@every
def test_save_and_load(config: MethodConfig, tmp_path: Path) -> None:
    transformer = attached_host(config)
    diffcr.save(transformer, tmp_path / "saved")
    loaded = pixart(layers=_LAYERS)
    assert diffcr.load(loaded, tmp_path / "saved").config == config
    assert torch.equal(denoise(loaded, inputs()), denoise(transformer, inputs()))
    assert config.method in (tmp_path / "saved" / "README.md").read_text()
    with pytest.raises(DiffCRError, match="base model"):
        diffcr.load(pixart(seed=1, layers=_LAYERS), tmp_path / "saved")


@every
def test_autocast_keeps_the_bare_dtypes(config: MethodConfig) -> None:
    bare, transformer = pixart(layers=_LAYERS), attached_host(config)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert denoise(transformer, inputs()).dtype == denoise(bare, inputs()).dtype


@every
def test_resolution_may_change_between_calls_and_a_lora_goes_in(config: MethodConfig) -> None:
    transformer = attached_host(config)
    add_lora(transformer, rank=2)
    for size in (8, 16, 10, 8):
        assert denoise(transformer, inputs(size=size)).shape == (2, 8, size, size)


@every
def test_it_is_told_apart_from_routed_methods(config: MethodConfig) -> None:
    transformer = attached_host(config)
    assert attach(transformer, config) is get_attached(transformer)
    assert config.method in diffcr.summary(transformer).replace("ATEDM", "at-edm").replace(
        "ToMe", "tome"
    )
    with pytest.raises(DiffCRError, match="neither routers nor ratios"):
        get_compressor(transformer)
    with pytest.raises(DiffCRError, match="another configuration"):
        attach(transformer)


@every
def test_an_error_in_the_host_leaves_nothing_of_the_call(config: MethodConfig) -> None:
    transformer = attached_host(config)
    expected = denoise(transformer, inputs())
    ff = transformer.transformer_blocks[0].ff
    handle = ff.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        denoise(transformer, inputs())
    handle.remove()
    assert torch.equal(denoise(transformer, inputs()), expected)
    with pytest.raises(AssertionError, match="outside of its transformer"):
        transformer.transformer_blocks[0](torch.zeros(1, 16, 32))


def _tokens_seen(transformer: Any, timestep: int) -> dict[str, list[int]]:
    seen: dict[str, list[int]] = {"attn1": [], "attn2": [], "ff": []}
    hooks = []
    for block in transformer.transformer_blocks:
        for name, counts in seen.items():
            part = getattr(block, name)
            # Inside of the part: what is bound changes the number of tokens on the way in.
            inner = part.net[0] if name == "ff" else part.to_q
            hooks.append(
                inner.register_forward_hook(
                    lambda _, args, __, counts=counts: counts.append(args[0].shape[1])
                )
            )
    denoise(transformer, inputs(timestep=timestep))
    for hook in hooks:
        hook.remove()
    return seen


@every
@pytest.mark.parametrize("timestep", [100, 900])
def test_the_count_of_operations_is_of_the_tokens_that_are_computed(
    config: MethodConfig, timestep: int
) -> None:
    transformer = attached_host(config)
    count = count_flops(transformer, InputSize(5))
    region = region_of(timestep / 1000, get_attached(transformer).timestep_regions)
    parts = zip(*_tokens_seen(transformer, timestep).values(), strict=True)
    skipped = [1 - sum(tokens) / 3 / 16 for tokens in parts]
    assert [row[region] for row in count.skipped] == skipped
    assert max(skipped) > 0
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        denoise(transformer, inputs(batch=1, timestep=timestep))
    assert counter.get_total_flops() == count.per_region[region].total


def test_at_edm_skips_the_mean_that_it_is_asked_for() -> None:
    for layers_per_group in (2, 4, 5):
        transformer = pixart(layers=10)
        attach(transformer, ATEDMConfig(0.3, layers_per_group=layers_per_group))
        skipped = count_flops(transformer, InputSize(5, 128, 128)).skipped
        means = [sum(column) / 10 for column in zip(*skipped, strict=True)]
        assert sum(means) / 4 == pytest.approx(0.3, abs=1e-3)
        assert means[3] < means[0] == means[1] == means[2]


def test_at_edm_refuses_what_it_cannot_do() -> None:
    transformer = attached_host(_ATEDM)
    with pytest.raises(DiffCRError, match="one timestep for all samples"):
        denoise(transformer, inputs(2).at(torch.tensor([950, 10])))
    same = denoise(transformer, inputs(2).at(torch.tensor([300, 10])))
    assert torch.isfinite(same).all()
    with pytest.raises(DiffCRError, match="lower it, or raise layers_per_group"):
        attach(pixart(layers=5), ATEDMConfig(0.39, layers_per_group=2, early_regions=0))
    with pytest.raises(DiffCRError, match="compression_ratio is 0.9"):
        ATEDMConfig(0.9)


def test_pruned_tokens_get_the_update_of_what_they_attend_to() -> None:
    transformer = pixart(layers=3)
    attach(transformer, ATEDMConfig(0.3, layers_per_group=3, early_regions=0))
    blocks = transformer.transformer_blocks
    computed: list[torch.Tensor] = []
    blocks[2].register_forward_hook(lambda *call: computed.append(call[-1]))
    denoise(transformer, inputs())
    kept = round(16 * (1 - count_flops(transformer, InputSize(5)).skipped[1][0]))
    bare = pixart(layers=3)
    before: list[torch.Tensor] = []
    bare.transformer_blocks[0].register_forward_hook(lambda *call: before.append(call[-1]))
    denoise(bare, inputs())
    for after, token in zip(computed[0], before[0], strict=True):
        updates = (after - token).mul(1e4).round()
        assert len(torch.unique(updates, dim=0)) == kept < 16
        assert len(torch.unique(after, dim=0)) == 16


def test_a_mask_over_image_tokens_is_refused() -> None:
    for config in (ToMeConfig(0.4), _ATEDM):
        transformer = attached_host(config)
        block = transformer.transformer_blocks[0]
        call = TransformerCall([0.1], Grid(rows=4, columns=4), torch.device("cpu"))
        with (
            transformer.diffcr.entering(call, transformer.diffcr.build_context(call)),
            pytest.raises(DiffCRError, match="attention_mask"),
        ):
            block(torch.zeros(1, 16, 32), attention_mask=torch.zeros(1, 1, 16))


@every
def test_a_compiled_model_agrees(config: MethodConfig) -> None:
    transformer = attached_host(config)
    with pytest.raises(DiffCRError, match="granularity='model'"):
        diffcr.compile(transformer)
    with torch.no_grad():
        eager = [denoise(transformer, inputs(timestep=timestep)) for timestep in (100, 900)]
        diffcr.compile(transformer, granularity="model", backend="aot_eager")
        for timestep, expected in zip((100, 900), eager, strict=True):
            found = denoise(transformer, inputs(timestep=timestep))
            assert (found - expected).abs().max() < 1e-5


def test_a_patched_part_is_refused_and_named() -> None:
    transformer = pixart()
    part = transformer.transformer_blocks[1].attn1
    part.forward = types.MethodType(type(part).forward, part)
    with pytest.raises(DiffCRError, match=r"transformer_blocks\.1\.attn1"):
        attach(transformer, ToMeConfig())
    assert not hasattr(transformer, "diffcr")
