"""Checkpoints that are no checkpoints, and what is said of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import diffcr
from diffcr.binding.lora import has_lora
from diffcr.binding.model import get_compressor, is_attached
from diffcr.errors import DiffCRError
from tests.checkpoint.stored import change_description, list_anew
from tests.hosts import denoise, inputs, pixart, trained_pixart


@pytest.mark.parametrize("config", [{"method": "dense"}, "abc", {"method": [1]}, {}])
def test_a_checkpoint_that_describes_nothing_is_refused(saved: Path, config: object) -> None:
    change_description(saved, config=config)
    with pytest.raises(DiffCRError):
        diffcr.load(pixart(), saved)


@pytest.mark.parametrize(
    "change",
    [
        {"r": 0},
        {"r": "a"},
        {"target_modules": ["nowhere"]},
        {"target_modules": "(("},
        {"target_modules": "(([a-z_.0-9]+)+)+!"},
        {"target_modules": 7},
        {"peft_type": "?"},
        {"peft_type": "IA3"},
        {"peft_type": 7},
        {"lora_alpha": "much"},
        {"rank_pattern": 3},
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "olora"},
        {"modules_to_save": ["proj_out"]},
    ],
    ids=str,
)
def test_an_adapter_configuration_that_does_not_fit_is_refused(
    saved: Path, change: dict[str, object]
) -> None:
    path = saved / "adapter" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    list_anew(saved)
    transformer = pixart().requires_grad_(False)
    before = {name: value.clone() for name, value in transformer.state_dict().items()}
    with pytest.raises(DiffCRError, match="adapter|LoRA"):
        diffcr.load(transformer, saved)
    assert not is_attached(transformer) and not has_lora(transformer)
    after = transformer.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert not any(parameter.requires_grad for parameter in transformer.parameters())


@pytest.mark.parametrize(
    "file", ["diffcr_config.json", "diffcr.safetensors", "adapter/adapter_model.safetensors"]
)
@pytest.mark.parametrize("damage", ["missing", "truncated", "garbage"])
def test_a_damaged_checkpoint_is_one_clear_line_and_changes_nothing(
    saved: Path, file: str, damage: str
) -> None:
    path = saved / file
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"\x00" * 64)
    transformer = pixart()
    before = denoise(transformer, inputs())
    with pytest.raises(DiffCRError) as caught:
        diffcr.load(transformer, saved)
    assert path.name in str(caught.value) and "\n" not in str(caught.value)
    assert not is_attached(transformer) and not has_lora(transformer)
    assert torch.equal(denoise(transformer, inputs()), before)


def test_a_checkpoint_of_another_format_is_refused(saved: Path) -> None:
    change_description(saved, format=99)
    with pytest.raises(DiffCRError, match="format 99"):
        diffcr.load(pixart(), saved)


def test_ratios_out_of_range_are_refused() -> None:
    compressor = get_compressor(trained_pixart())
    for value, reason in (
        (0.95, "outside"),
        (-0.1, "outside"),
        (0.25, "multiple"),
        (1.5, "outside"),
    ):
        with pytest.raises(DiffCRError, match=reason):
            compressor.set_compression_ratios(value)
    with pytest.raises(DiffCRError, match="shape"):
        compressor.set_compression_ratios(torch.zeros(2, 4))
    compressor.set_compression_ratios(0.2)
    assert compressor.compression_ratios.eq(0.2).all()
    assert compressor.realised_mean_compression_ratio == pytest.approx(0.2)
