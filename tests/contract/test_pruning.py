"""Structured pruning through the same calls as every other method."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from accelerate import cpu_offload
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import diffcr
from diffcr.binding.attachment import attach, detach
from diffcr.binding.lora import add_lora
from diffcr.binding.model import changes_dense, disabled, get_attached, get_compressor
from diffcr.cost.counting import count_flops
from diffcr.errors import DiffCRError, DiffCRWarning
from diffcr.hosts.input_size import InputSize
from diffcr.methods.pruning.config import StructuredPruningConfig
from tests.contract.pruned import CONFIG, descend, host_state, pruned_pixart
from tests.hosts import denoise, gradients, inputs, pixart


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_ratio_of_zero_changes_no_bit(dtype: torch.dtype) -> None:
    given = inputs().to(dtype)
    bare = denoise(pixart().to(dtype), given)
    assert torch.equal(denoise(pruned_pixart(StructuredPruningConfig(0.0)).to(dtype), given), bare)


def test_blocks_are_narrower_under_the_same_keys() -> None:
    transformer, bare = pruned_pixart(), pixart()
    state = host_state(transformer)
    assert list(state) == list(bare.state_dict())
    block = transformer.transformer_blocks[1]
    for attention in (block.attn1, block.attn2):
        assert attention.heads == 1
        assert attention.to_q.weight.shape == (16, 32) and attention.to_q.out_features == 16
        assert attention.to_out[0].weight.shape == (32, 16)
        assert attention.to_out[0].in_features == 16
    assert block.ff.net[0].proj.bias.shape == (109,)
    assert "1 of 2 heads" in diffcr.summary(transformer)
    assert "109 of 128 channels" in diffcr.summary(transformer)


def test_what_stays_are_the_largest_heads_and_channels() -> None:
    bare = pixart()
    ff = bare.transformer_blocks[0].ff.net
    magnitudes = ff[0].proj.weight.square().sum(1) + ff[2].weight.square().sum(0)
    kept = magnitudes.topk(109).indices.sort().values
    expected = ff[0].proj.weight[kept]
    with torch.no_grad():
        bare.transformer_blocks[0].attn2.to_v.weight[16:] *= 2
    second = bare.transformer_blocks[0].attn2.to_k.weight[16:].clone()
    attach(bare, CONFIG)
    assert torch.equal(bare.transformer_blocks[0].ff.net[0].proj.weight, expected)
    assert torch.equal(bare.transformer_blocks[0].attn2.to_k.weight, second)


def test_a_pruned_model_is_one_whose_pruned_units_are_zero() -> None:
    transformer, silenced = pruned_pixart(), pixart()
    for layer, block in enumerate(silenced.transformer_blocks):
        kept = {name: rows[layer] for name, rows in transformer.diffcr.named_buffers()}
        with torch.no_grad():
            for name, linear, size in (
                ("self_attention", block.attn1.to_out[0], 16),
                ("cross_attention", block.attn2.to_out[0], 16),
                ("mlp", block.ff.net[2], 1),
            ):
                units = linear.weight.unflatten(1, (-1, size))
                mask = torch.zeros(units.shape[1], 1)
                mask[kept[f"transformer_blocks_{name}"]] = 1
                units.mul_(mask)
    gap = denoise(transformer, inputs()) - denoise(silenced, inputs())
    assert gap.abs().max() < 1e-5


def test_detach_and_disabled_give_the_dense_model_back() -> None:
    bare_model = pixart()
    bare = denoise(bare_model, inputs())
    transformer = pruned_pixart()
    pruned = denoise(transformer, inputs())
    assert not torch.allclose(pruned, bare)
    with disabled(transformer):
        assert torch.equal(denoise(transformer, inputs()), bare)
        assert transformer.transformer_blocks[0].attn1.heads == 2
        with pytest.raises(DiffCRError, match="save outside of it"):
            diffcr.save(transformer, "nowhere")
    assert torch.equal(denoise(transformer, inputs()), pruned)
    detach(transformer)
    assert torch.equal(denoise(transformer, inputs()), bare)
    assert list(transformer.state_dict()) == list(bare_model.state_dict())
    assert all("forward" not in vars(module) for module in transformer.modules())
    for mine, plain in zip(transformer.modules(), bare_model.modules(), strict=True):
        assert vars(mine).keys() == vars(plain).keys()
        assert mine.extra_repr() == plain.extra_repr()


def test_fine_tuning_leaves_the_dense_model_alone_and_detach_says_what_is_lost() -> None:
    transformer, bare = pruned_pixart(), pixart()
    before = denoise(transformer, inputs())
    descend(transformer)
    assert not torch.equal(denoise(transformer, inputs()), before)
    assert not changes_dense(transformer)
    with disabled(transformer):
        assert torch.equal(denoise(transformer, inputs()), denoise(bare, inputs()))
    with pytest.warns(DiffCRWarning, match="dense one again, and what was trained"):
        detach(transformer)
    restored = transformer.state_dict()
    assert all(torch.equal(value, restored[name]) for name, value in bare.state_dict().items())


def test_a_deep_copy_computes_with_its_own_weights() -> None:
    transformer = pruned_pixart()
    expected = denoise(transformer, inputs())
    other = copy.deepcopy(transformer)
    assert torch.equal(denoise(other, inputs()), expected)
    with disabled(other):
        assert torch.equal(denoise(transformer, inputs()), expected)
        assert torch.equal(denoise(other, inputs()), denoise(pixart(), inputs()))
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.zero_()
    assert torch.equal(denoise(other, inputs()), expected)
    with disabled(transformer):
        assert torch.equal(denoise(transformer, inputs()), denoise(pixart(), inputs()))


def test_the_weights_that_are_aside_are_cast_with_the_others() -> None:
    transformer = pruned_pixart().to(torch.bfloat16)
    given = inputs().to(torch.bfloat16)
    assert denoise(transformer, given).dtype == torch.bfloat16
    with disabled(transformer):
        assert torch.equal(denoise(transformer, given), denoise(pixart().bfloat16(), given))
    assert not get_attached(transformer).base.have_changed(transformer)


def test_neighbours_never_change_a_result() -> None:
    transformer = pruned_pixart()
    mine, mixed = inputs(4), inputs(4)
    mixed.latents[1:] = inputs(4, seed=9).latents[1:]
    together = denoise(transformer, mine)
    assert torch.equal(together[0], denoise(transformer, mixed)[0])
    assert (denoise(transformer, mine.only(slice(1, 2))) - together[1:2]).abs().max() < 1e-5


def test_recomputation_under_checkpointing_gives_the_same_gradients() -> None:
    found = []
    for recomputes in (False, True):
        transformer = pruned_pixart().train()
        if recomputes:
            transformer.enable_gradient_checkpointing()
        output = denoise(transformer, inputs())
        # What a distilling step does between its forward and its backward.
        with disabled(transformer), torch.no_grad():
            denoise(transformer, inputs())
        output.square().mean().backward()
        found.append(gradients(transformer))
    plain, recomputed = found
    assert plain.keys() == recomputed.keys() and plain
    for name, gradient in plain.items():
        assert (gradient - recomputed[name]).abs().max() < 1e-6, name


def test_autocast_keeps_the_bare_dtypes() -> None:
    bare, transformer = pixart(), pruned_pixart()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert denoise(transformer, inputs()).dtype == denoise(bare, inputs()).dtype


def test_resolution_may_change_between_calls() -> None:
    transformer = pruned_pixart()
    for size in (8, 16, 10):
        assert denoise(transformer, inputs(size=size)).shape == (2, 8, size, size)


def test_it_is_told_apart_from_routed_methods() -> None:
    transformer = pruned_pixart()
    assert attach(transformer, CONFIG) is get_attached(transformer)
    with pytest.raises(DiffCRError, match="neither routers nor ratios"):
        get_compressor(transformer)
    with pytest.raises(DiffCRError, match="another configuration"):
        attach(transformer, StructuredPruningConfig(0.2))
    with pytest.raises(DiffCRError, match="compression_ratio is 0.95"):
        StructuredPruningConfig(0.95)


def _adapted() -> nn.Module:
    transformer = pixart()
    add_lora(transformer, rank=2)
    return transformer


def _fused() -> nn.Module:
    transformer = pixart()
    transformer.fuse_qkv_projections()
    return transformer


def _offloaded() -> nn.Module:
    transformer: nn.Module = cpu_offload(pixart(), execution_device=torch.device("cpu"))
    return transformer


@pytest.mark.parametrize(
    ("make", "saying"),
    [(_adapted, "plain Linear"), (_fused, "unfuse"), (_offloaded, "holds no weights")],
)
def test_what_cannot_be_pruned_is_refused_whole(make: Any, saying: str) -> None:
    transformer = make()
    keys, modules = list(transformer.state_dict()), len(list(transformer.modules()))
    with pytest.raises(DiffCRError, match=saying):
        attach(transformer, CONFIG)
    assert not hasattr(transformer, "diffcr")
    assert list(transformer.state_dict()) == keys
    assert len(list(transformer.modules())) == modules


def test_an_error_in_the_host_leaves_nothing_of_the_call() -> None:
    transformer = pruned_pixart()
    expected = denoise(transformer, inputs())
    handle = transformer.transformer_blocks[0].ff.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError), disabled(transformer):
        denoise(transformer, inputs())
    handle.remove()
    assert torch.equal(denoise(transformer, inputs()), expected)


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.5])
def test_the_count_of_operations_agrees_with_torch(ratio: float) -> None:
    transformer = pruned_pixart(StructuredPruningConfig(ratio))
    (count,) = count_flops(transformer, InputSize(5)).per_region
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        denoise(transformer, inputs(batch=1))
    assert counter.get_total_flops() == count.total


@pytest.mark.parametrize("granularity", ["block", "model"])
def test_a_compiled_model_agrees(granularity: Any) -> None:
    transformer = pruned_pixart()
    bare = denoise(pixart(), inputs())
    with torch.no_grad():
        eager = denoise(transformer, inputs())
        diffcr.compile(transformer, granularity=granularity, backend="aot_eager")
        assert (denoise(transformer, inputs()) - eager).abs().max() < 1e-5
        with disabled(transformer):
            assert (denoise(transformer, inputs()) - bare).abs().max() < 1e-5
        assert (denoise(transformer, inputs()) - eager).abs().max() < 1e-5
    detach(transformer)
    assert torch.equal(denoise(transformer, inputs()), bare)
    assert all(module._compiled_call_impl is None for module in transformer.modules())
