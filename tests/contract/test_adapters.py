"""DiffCR beside LoRAs, its own and others'."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model, inject_adapter_in_model
from torch import Tensor, nn

import diffcr
from diffcr.binding.acting import adapted_layers
from diffcr.binding.lora import ADAPTER, add_lora, remove_lora
from diffcr.errors import DiffCRError, DiffCRWarning
from diffcr.hosts import find_transformer
from tests.hosts import denoise, inputs, pixart, scramble, trained_pixart
from tests.tiny_hosts import TINY_HOSTS

pytestmark = pytest.mark.filterwarnings("ignore::diffcr.errors.DiffCRWarning")

FLUX = TINY_HOSTS["FluxTransformer2DModel"]
TARGETS = ["to_q", "to_v"]


def _add_style(transformer: nn.Module) -> None:
    torch.manual_seed(5)
    config = LoraConfig(r=4, target_modules=TARGETS, init_lora_weights=False)
    inject_adapter_in_model(config, transformer, adapter_name="style")


def _train_lora(transformer: nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in transformer.named_parameters():
            if f".lora_B.{ADAPTER}." in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))


def _trainable(transformer: nn.Module) -> set[str]:
    return {name for name, p in transformer.named_parameters() if p.requires_grad}


def _checkpoint(directory: Path) -> Path:
    transformer = pixart()
    scramble(diffcr.attach(transformer))
    add_lora(transformer, rank=2)
    _train_lora(transformer)
    return diffcr.save(transformer, directory)


@torch.no_grad()
def _flux(transformer: nn.Module, **arguments: Any) -> Tensor:
    output: Tensor = transformer(**{**FLUX.inputs(2, 0), **arguments})[0]
    return output


def _styled_flux(directory: Path) -> tuple[Any, dict[str, Tensor]]:
    """A tiny FLUX with a trained checkpoint, and a style of another's for it."""
    transformer = FLUX.make()
    scramble(diffcr.attach(transformer))
    add_lora(transformer, rank=2)
    _train_lora(transformer)
    diffcr.save(transformer, directory)
    other: Any = FLUX.make()
    torch.manual_seed(5)
    other.add_adapter(LoraConfig(r=4, target_modules=TARGETS, init_lora_weights=False), "style")
    from peft import get_peft_model_state_dict

    return transformer, get_peft_model_state_dict(other, adapter_name="style")


def test_a_lora_of_ones_own_works_and_is_said_not_to_be_saved(tmp_path: Path) -> None:
    transformer = trained_pixart()
    inject_adapter_in_model(LoraConfig(r=2, target_modules=["to_q"]), transformer)
    with pytest.raises(DiffCRError, match=r"frozen.*requires_grad_\(True\)"):
        diffcr.parameter_groups(transformer, lr=1e-4)
    transformer.diffcr.requires_grad_(True)
    transformer.diffcr.ratios.requires_grad_(False)
    assert len(diffcr.parameter_groups(transformer, lr=1e-4)) == 2
    transformer.diffcr.ratios.requires_grad_(True)
    groups = diffcr.parameter_groups(transformer, lr=1e-4)
    trained = [id(p) for group in groups for p in group["params"]]
    assert len(trained) == len(set(trained)) == 2 * 2 * 3 + 2
    with pytest.warns(DiffCRWarning, match="'default' is not DiffCR's"):
        diffcr.save(transformer, tmp_path / "saved")


def test_a_peft_model_is_unwrapped() -> None:
    transformer = trained_pixart()
    expected = denoise(transformer, inputs())
    wrapped = get_peft_model(transformer, LoraConfig(r=2, target_modules=["to_q"]))
    assert find_transformer(wrapped) is transformer
    assert (denoise(wrapped, inputs()) - expected).abs().max() < 1e-5
    assert diffcr.summary(wrapped) == diffcr.summary(transformer)


def test_a_lora_goes_into_a_pipelines_transformer() -> None:
    pipe = types.SimpleNamespace(transformer=trained_pixart())
    add_lora(pipe, rank=2)
    assert ADAPTER in pipe.transformer.peft_config


def test_removing_the_lora_leaves_a_host_that_trains() -> None:
    transformer = pixart()
    names = {name for name, _ in transformer.named_parameters()}
    add_lora(transformer, rank=2)
    assert not any(p.requires_grad for n, p in transformer.named_parameters() if "lora_" not in n)
    remove_lora(transformer)
    assert {name for name, _ in transformer.named_parameters()} == names
    assert all(parameter.requires_grad for parameter in transformer.parameters())


def test_ones_own_adapter_stays_on_beside_diffcrs() -> None:
    transformer = pixart()
    _add_style(transformer)
    styled, trainable = denoise(transformer, inputs()), _trainable(transformer)
    diffcr.attach(transformer)
    add_lora(transformer, rank=2)
    assert torch.equal(denoise(transformer, inputs()), styled)
    assert all(".diffcr." in name or name.startswith("diffcr.") for name in _trainable(transformer))
    _train_lora(transformer)
    both = denoise(transformer, inputs())
    assert not torch.allclose(both, styled)
    with diffcr.disabled(transformer):
        assert torch.equal(denoise(transformer, inputs()), styled)
    assert torch.equal(denoise(transformer, inputs()), both)
    remove_lora(transformer)
    assert torch.equal(denoise(transformer, inputs()), styled)
    add_lora(transformer, rank=2)
    diffcr.detach(transformer, restore=True)
    assert torch.equal(denoise(transformer, inputs()), styled)
    assert _trainable(transformer) == trainable


def test_an_adapter_that_was_left_out_stays_so() -> None:
    transformer: Any = FLUX.make()
    bare = _flux(transformer)
    transformer.add_adapter(
        LoraConfig(r=4, target_modules=TARGETS, init_lora_weights=False), "style"
    )
    transformer.set_adapters([], [])
    assert torch.equal(_flux(transformer), bare)
    diffcr.attach(transformer)
    add_lora(transformer, rank=2)
    assert torch.equal(_flux(transformer), bare)
    diffcr.detach(transformer, restore=True)
    assert torch.equal(_flux(transformer), bare)


def test_a_checkpoint_loads_onto_a_styled_model_and_a_style_onto_a_checkpoint(
    tmp_path: Path,
) -> None:
    directory = _checkpoint(tmp_path / "saved")
    before, after = pixart(), pixart()
    _add_style(before)
    diffcr.load(before, directory)
    diffcr.load(after, directory)
    alone = denoise(after, inputs())
    _add_style(after)
    both = denoise(before, inputs())
    assert (denoise(after, inputs()) - both).abs().max() < 1e-6
    assert not torch.allclose(both, alone)
    diffcr.load(before, directory)
    assert torch.equal(denoise(before, inputs()), both)


def test_requires_grad_is_what_it_was() -> None:
    for frozen in (False, True):
        transformer = pixart()
        transformer.requires_grad_(not frozen)
        transformer.proj_out.requires_grad_(frozen)
        trainable = _trainable(transformer)
        for config in (diffcr.DiffCRConfig(), diffcr.StructuredPruningConfig(0.3)):
            diffcr.attach(transformer, config)
            add_lora(transformer, rank=2)
            diffcr.detach(transformer, restore=True)
            assert _trainable(transformer) == trainable


def test_a_style_is_loaded_scaled_and_fused_with_diffusers(tmp_path: Path) -> None:
    transformer, style = _styled_flux(tmp_path / "saved")
    alone = _flux(transformer)
    transformer.load_lora_adapter(style, adapter_name="style", prefix=None)
    both = _flux(transformer)
    assert not torch.allclose(both, alone)
    transformer.set_adapters(["style"], [0.0])
    assert torch.allclose(_flux(transformer), alone, atol=1e-6)
    transformer.set_adapters(["style"], [1.0])
    assert torch.allclose(_flux(transformer), both, atol=1e-6)
    transformer.fuse_lora()
    assert torch.allclose(_flux(transformer), both, atol=1e-4)
    for action in (
        lambda: diffcr.save(transformer, tmp_path / "fused"),
        lambda: diffcr.detach(transformer, restore=True),
        lambda: remove_lora(transformer),
        lambda: diffcr.disabled(transformer).__enter__(),
    ):
        with pytest.raises(DiffCRError, match=r"fused .*unfuse_lora\(\) first"):
            action()
    assert not (tmp_path / "fused").exists()
    transformer.unfuse_lora()
    transformer.delete_adapters("style")
    assert torch.allclose(_flux(transformer), alone, atol=1e-4)


def test_what_would_change_diffcrs_adapter_with_the_others_is_refused(tmp_path: Path) -> None:
    transformer, style = _styled_flux(tmp_path / "saved")
    transformer.load_lora_adapter(style, adapter_name="style", prefix=None)
    both = _flux(transformer)
    with pytest.raises(DiffCRError, match=r"joint_attention_kwargs has scale 0\.5"):
        _flux(transformer, joint_attention_kwargs={"scale": 0.5})
    transformer.fuse_lora(adapter_names=["style"])
    with pytest.raises(DiffCRError, match=r"style alone was fused"):
        _flux(transformer)
    transformer.unfuse_lora()
    transformer.disable_lora()
    with pytest.raises(DiffCRError, match=r"switched off with the others.*enable_lora"):
        _flux(transformer)
    transformer.enable_lora()
    assert torch.allclose(_flux(transformer), both, atol=1e-4)
    transformer.fuse_lora(lora_scale=0.5)
    with pytest.raises(DiffCRError, match="scaled with the others"):
        _flux(transformer)
    transformer.unfuse_lora()
    transformer.unload_lora()
    with pytest.raises(DiffCRError, match="removed with the others.*load the checkpoint again"):
        _flux(transformer)
    diffcr.detach(transformer, restore=True)
    assert torch.allclose(_flux(transformer), _flux(FLUX.make()), atol=1e-4)


def test_a_lora_is_not_added_beside_others_that_are_off_or_fused() -> None:
    transformer: Any = FLUX.make()
    transformer.add_adapter(LoraConfig(r=4, target_modules=TARGETS), "style")
    transformer.disable_lora()
    with pytest.raises(DiffCRError, match=r"switched off.*enable_lora\(\) first"):
        add_lora(transformer, rank=2)
    transformer.enable_lora()
    transformer.fuse_lora()
    with pytest.raises(DiffCRError, match=r"unfuse_lora\(\) first"):
        add_lora(transformer, rank=2)


@torch.no_grad()
def test_fused_adapters_act_as_before_and_leave_no_trace_in_the_end(tmp_path: Path) -> None:
    transformer, style = _styled_flux(tmp_path / "saved")
    transformer.load_lora_adapter(style, adapter_name="style", prefix=None)
    both = _flux(transformer)
    weights = {name: p.clone() for name, p in transformer.named_parameters()}
    diffcr.fuse_lora(transformer)
    assert torch.allclose(_flux(transformer), both, atol=1e-5)
    assert all(type(layer.base_layer) is nn.Linear for _, layer in adapted_layers(transformer))
    assert all(layer.merged for _, layer in adapted_layers(transformer))
    with pytest.raises(DiffCRError, match=r"unfuse_lora\(\) first"):
        diffcr.save(transformer, tmp_path / "fused")
    diffcr.unfuse_lora(transformer)
    diffcr.unfuse_lora(transformer)
    assert all(torch.equal(p, weights[name]) for name, p in transformer.named_parameters())
    assert torch.equal(_flux(transformer), both)
    transformer.delete_adapters("style")
    diffcr.save(transformer, tmp_path / "again")
    diffcr.detach(transformer, restore=True)
    assert torch.equal(_flux(transformer), _flux(FLUX.make()))


def _fails(**_: Any) -> None:
    raise RuntimeError("out of memory")


def test_what_cannot_be_fused_is_refused_and_left_as_it_was() -> None:
    transformer = pixart()
    with pytest.raises(DiffCRError, match="no DiffCR LoRA to fuse"):
        diffcr.fuse_lora(transformer)
    diffcr.attach(transformer)
    add_lora(transformer, rank=2)
    whole = transformer.transformer_blocks[1].attn1.to_q
    whole.base_layer.weight = nn.Parameter(whole.base_layer.weight.to(torch.float8_e4m3fn), False)
    with pytest.raises(DiffCRError, match=r"to_q is quantised"):
        diffcr.fuse_lora(transformer)
    assert not any(layer.merged for _, layer in adapted_layers(transformer))
    whole.base_layer.to("meta")
    with pytest.raises(DiffCRError, match=r"to_q holds no weights \(offloaded\?\)"):
        diffcr.fuse_lora(transformer)
    other = pixart()
    diffcr.attach(other)
    add_lora(other, rank=2)
    last = other.transformer_blocks[-1].ff.net[2]
    last.merge = _fails
    with pytest.raises(RuntimeError, match="out of memory"):
        diffcr.fuse_lora(other)
    assert not any(layer.merged for _, layer in adapted_layers(other))
    del last.merge
    diffcr.fuse_lora(other)
    with pytest.raises(DiffCRError, match=r"unfuse_lora\(\) first"):
        diffcr.fuse_lora(other)
