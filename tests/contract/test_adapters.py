"""DiffCR beside LoRAs, its own and others'."""

from __future__ import annotations

import types
from pathlib import Path

import pytest
from peft import LoraConfig, get_peft_model, inject_adapter_in_model

import diffcr
from diffcr.binding.lora import ADAPTER, add_lora, remove_lora
from diffcr.errors import DiffCRError, DiffCRWarning
from diffcr.hosts import find_transformer
from tests.hosts import denoise, inputs, pixart, trained_pixart

pytestmark = pytest.mark.filterwarnings("ignore::diffcr.errors.DiffCRWarning")


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
