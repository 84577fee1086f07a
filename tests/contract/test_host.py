"""Attaching leaves the host what it is."""

from __future__ import annotations

import copy
import types
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload, cpu_offload_with_hook
from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module
from diffusers import ContextParallelConfig, PixArtTransformer2DModel
from diffusers.training_utils import EMAModel
from torch import nn
from torch.testing._internal.distributed.fake_pg import FakeStore

import diffcr
from diffcr.binding.attachment import attach, detach
from diffcr.binding.model import get_compressor
from diffcr.errors import DiffCRError, DiffCRWarning
from diffcr.hosts import find_transformer
from diffcr.methods.diffcr.config import DiffCRConfig
from tests.hosts import denoise, inputs, pixart, scramble, trained_pixart
from tests.tiny_hosts import TINY_HOSTS

pytestmark = pytest.mark.filterwarnings("ignore::diffcr.errors.DiffCRWarning")


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("branching", ["both", "sampled"])
def test_freshly_attached_changes_no_bit(training: bool, branching: str) -> None:
    transformer = pixart().train(training)
    bare = denoise(transformer, inputs())
    attach(transformer, DiffCRConfig(branching=branching))  # type: ignore[arg-type]
    assert torch.equal(denoise(transformer, inputs()), bare)


def test_freshly_attached_in_bfloat16_changes_no_bit() -> None:
    transformer = pixart().to(torch.bfloat16)
    given = inputs().to(torch.bfloat16)
    bare = denoise(transformer, given)
    attach(transformer)
    assert torch.equal(denoise(transformer, given), bare)


def test_a_deep_copy_computes_with_its_own_weights() -> None:
    transformer = trained_pixart()
    expected = denoise(transformer, inputs())
    other = copy.deepcopy(transformer)
    assert torch.equal(denoise(other, inputs()), expected)
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            if "transformer_blocks" in name or name.startswith("diffcr."):
                parameter.zero_()
    assert torch.equal(denoise(transformer, inputs()), expected)
    assert not torch.equal(denoise(other, inputs()), expected)
    detach(other)
    assert get_compressor(transformer) is transformer.diffcr


def test_a_deep_copy_notices_its_own_changes() -> None:
    transformer = trained_pixart()
    other = copy.deepcopy(transformer)
    before = other.diffcr.inference_bins()
    for _ in range(transformer.diffcr.ratios._version + 2):
        other.diffcr.set_compression_ratios(0.9)
        assert other.diffcr.compression_ratios.eq(0.9).all()
        with torch.no_grad():
            other.diffcr.ratios.copy_(transformer.diffcr.ratios)
        assert other.diffcr.inference_bins() == before


def test_the_same_configuration_again_is_a_no_op_and_another_an_error() -> None:
    transformer = pixart()
    compressor = attach(transformer, DiffCRConfig())
    assert attach(transformer, DiffCRConfig()) is compressor
    with pytest.raises(DiffCRError, match="another configuration"):
        attach(transformer, DiffCRConfig(timestep_regions=2))


def test_a_patched_block_is_refused_and_named() -> None:
    transformer = pixart()
    block = transformer.transformer_blocks[1]
    block.forward = types.MethodType(type(block).forward, block)
    with pytest.raises(DiffCRError, match=r"transformer_blocks\.1"):
        attach(transformer)
    assert not hasattr(transformer, "diffcr")
    assert "forward" not in vars(transformer.transformer_blocks[0])


def test_accelerates_hooks_are_refused_before_and_work_after_attach() -> None:
    class Counting(ModelHook):
        calls = 0

        def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            Counting.calls += 1
            return args, kwargs

    hooked = pixart()
    add_hook_to_module(hooked.transformer_blocks[0], Counting())
    with pytest.raises(DiffCRError, match=r"transformer_blocks\.0"):
        attach(hooked)
    transformer = trained_pixart()
    expected = denoise(transformer, inputs())
    for block in transformer.transformer_blocks:
        add_hook_to_module(block, Counting())
    assert torch.equal(denoise(transformer, inputs()), expected)
    assert Counting.calls == 3
    with pytest.raises(DiffCRError, match=r"transformer_blocks\.0"):
        detach(transformer)
    remove_hook_from_module(transformer, recurse=True)
    detach(transformer)
    assert torch.equal(denoise(transformer, inputs()), denoise(pixart(), inputs()))


def test_an_unsupported_class_is_refused_with_the_supported_ones() -> None:
    with pytest.raises(DiffCRError, match="Linear is not.*PixArtTransformer2DModel"):
        attach(nn.Linear(2, 2))
    with pytest.raises(DiffCRError, match="no transformer"):
        attach(object())


def test_an_idle_model_is_warned_of_once() -> None:
    transformer = pixart()
    attach(transformer)
    with pytest.warns(DiffCRWarning, match="every compression ratio is 0"):
        denoise(transformer, inputs())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        denoise(transformer, inputs())


def test_an_error_in_the_host_leaves_nothing_of_the_call() -> None:
    transformer = trained_pixart()
    with pytest.raises(RuntimeError):
        denoise(transformer, inputs().at(torch.tensor([600, 600, 600])))
    with pytest.raises(AssertionError, match="outside of its transformer"):
        transformer.transformer_blocks[0](torch.zeros(1, 16, 32))


def test_a_wrapped_transformer_is_found() -> None:
    transformer = pixart()
    assert find_transformer(nn.DataParallel(transformer)) is transformer
    assert "PixArtTransformer2DModel" in diffcr.supported_models()


def test_precision_of_routers_and_ratios_survives_a_cast() -> None:
    transformer = trained_pixart()
    before = transformer.diffcr.ratios.clone()
    transformer.to(torch.bfloat16)
    assert transformer.diffcr.ratios.dtype == torch.float32
    assert torch.equal(transformer.diffcr.ratios, before)
    assert transformer.double().diffcr.ratios.dtype == torch.float64


def test_bfloat16_autocast_keeps_the_bare_dtypes() -> None:
    transformer = pixart()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        bare = denoise(transformer, inputs())
        scramble(attach(transformer))
        routed = denoise(transformer, inputs())
    assert routed.dtype == bare.dtype
    assert torch.isfinite(routed).all()


def test_summary_names_what_is_attached() -> None:
    transformer = trained_pixart()
    text = diffcr.summary(transformer)
    assert "timestep_regions=4" in text
    assert len([line for line in text.splitlines() if line.startswith("    ")]) == 3


def test_parameter_groups_decay_neither_routers_nor_ratios() -> None:
    transformer = trained_pixart()
    groups = diffcr.parameter_groups(transformer, lr=1e-4, router_lr=1e-3, weight_decay=0.1)
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert decays[id(transformer.diffcr.ratios)] == 0
    assert all(decays[id(p)] == 0 for p in transformer.diffcr.routers.values())
    assert len(decays) == sum(1 for _ in transformer.parameters())


def test_bins_follow_an_average_that_is_copied_in_and_out() -> None:
    transformer = trained_pixart()
    compressor = transformer.diffcr
    average = EMAModel(transformer.parameters())
    trained = compressor.inference_bins()
    compressor.set_compression_ratios(0.0)
    average.store(transformer.parameters())
    assert compressor.compression_ratios.eq(0).all()
    before = denoise(transformer, inputs())
    average.copy_to(transformer.parameters())
    assert not torch.equal(denoise(transformer, inputs()), before)
    assert compressor.inference_bins() == trained
    average.restore(transformer.parameters())
    assert torch.equal(denoise(transformer, inputs()), before)


def test_a_model_in_ddp_is_refused(tmp_path: Path) -> None:
    transformer = pixart()
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1
    )
    try:
        with pytest.raises(DiffCRError, match="attach first, then wrap"):
            attach(nn.parallel.DistributedDataParallel(transformer))
    finally:
        torch.distributed.destroy_process_group()
    attach(transformer)


def test_layer_by_layer_offload_is_refused_with_what_to_do() -> None:
    transformer = trained_pixart()
    cpu_offload(transformer, execution_device=torch.device("cpu"))
    with pytest.raises(DiffCRError, match="enable_model_cpu_offload"):
        denoise(transformer, inputs())


def test_modes_that_mislead_are_warned_of() -> None:
    transformer = trained_pixart()
    with pytest.warns(DiffCRWarning, match=r"ratio_loss was called in eval mode"):
        transformer.diffcr.ratio_loss()
    transformer.train()
    with torch.no_grad(), pytest.warns(DiffCRWarning, match="without gradients in train mode"):
        denoise(transformer, inputs())


def test_routers_and_ratios_are_next_to_nothing_beside_the_model() -> None:
    with torch.device("meta"):
        transformer = PixArtTransformer2DModel(
            num_layers=28, sample_size=64, caption_channels=4096, use_additional_conditions=False
        )
    compressor = attach(transformer)
    added = sum(parameter.numel() for parameter in compressor.parameters())
    total = sum(parameter.numel() for parameter in transformer.parameters())
    assert total > 6e8 and added / total < 1e-4


def test_whole_model_offload_changes_nothing() -> None:
    transformer = trained_pixart()
    expected = denoise(transformer, inputs())
    cpu_offload_with_hook(transformer, execution_device=torch.device("cpu"))
    assert torch.equal(denoise(transformer, inputs()), expected)


def test_context_parallel_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    host = TINY_HOSTS["FluxTransformer2DModel"]
    # Stands for an accelerator, which diffusers asks for.
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
    monkeypatch.setattr(torch._C, "_get_accelerator", lambda: torch.device("cpu"))
    torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    try:
        for attached_first in (True, False):
            transformer: Any = host.make()
            if attached_first:
                attach(transformer)
            transformer.enable_parallelism(config=ContextParallelConfig(ulysses_degree=2))
            with pytest.raises(DiffCRError, match="context parallel splits a sample's tokens"):
                transformer(**host.inputs(1, 0)) if attached_first else attach(transformer)
    finally:
        torch.distributed.destroy_process_group()
