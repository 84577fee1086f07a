"""What detaching and disabling leave."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from diffcr.binding.attachment import attach, detach
from diffcr.binding.lora import add_lora
from diffcr.binding.model import disabled
from diffcr.errors import DiffCRError, DiffCRWarning
from tests.hosts import denoise, inputs, pixart, scramble, trained_pixart

pytestmark = pytest.mark.filterwarnings("ignore::diffcr.errors.DiffCRWarning")


def test_detach_restores_the_model_and_its_keys() -> None:
    transformer = pixart()
    bare, keys = denoise(transformer, inputs()), list(transformer.state_dict())
    modules = [name for name, _ in transformer.named_modules()]
    scramble(attach(transformer))
    assert [k for k in transformer.state_dict() if not k.startswith("diffcr.")] == keys
    assert not torch.equal(denoise(transformer, inputs()), bare)
    detach(transformer)
    assert torch.equal(denoise(transformer, inputs()), bare)
    assert list(transformer.state_dict()) == keys
    assert [name for name, _ in transformer.named_modules()] == modules
    assert all("forward" not in vars(module) for module in transformer.modules())


def test_detach_refuses_a_block_that_was_patched_since() -> None:
    transformer = trained_pixart()
    block = transformer.transformer_blocks[2]
    ours = block.forward
    block.forward = lambda *args, **kwargs: ours(*args, **kwargs)
    with pytest.raises(DiffCRError, match=r"transformer_blocks\.2"):
        detach(transformer)
    block.forward = ours
    detach(transformer)


def test_save_pretrained_is_refused_while_attached(tmp_path: object) -> None:
    transformer = trained_pixart()
    with pytest.raises(DiffCRError, match=r"diffcr\.save"):
        transformer.save_pretrained(str(tmp_path))
    detach(transformer)
    transformer.save_pretrained(str(tmp_path))


def test_disabled_is_the_dense_model_without_adapters() -> None:
    transformer = trained_pixart()
    dense = denoise(pixart(), inputs())
    add_lora(transformer, rank=2)
    for name, parameter in transformer.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    compressed = denoise(transformer, inputs())
    with disabled(transformer):
        assert torch.equal(denoise(transformer, inputs()), dense)
    assert torch.equal(denoise(transformer, inputs()), compressed)
    assert not torch.allclose(compressed, dense)


def test_detach_says_that_fine_tuned_host_weights_stay() -> None:
    transformer = pixart()
    attach(transformer)
    with torch.no_grad():
        transformer.proj_out.bias.add_(0.1)
    changed = transformer.proj_out.bias.detach().clone()
    with pytest.warns(DiffCRWarning, match="load the base model anew"):
        detach(transformer)
    assert torch.equal(transformer.proj_out.bias, changed)


def test_detach_keeps_a_lora_and_says_so_or_removes_it() -> None:
    transformer = trained_pixart()
    keys = list(pixart().state_dict())
    add_lora(transformer, rank=2)
    with pytest.warns(DiffCRWarning, match="restore=True"):
        detach(transformer)
    assert any("lora_" in key for key in transformer.state_dict())
    attach(transformer)
    detach(transformer, restore=True)
    assert list(transformer.state_dict()) == keys
    assert torch.equal(denoise(transformer, inputs()), denoise(pixart(), inputs()))
