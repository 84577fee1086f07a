"""Pruned models that are saved and loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import diffcr
from diffcr.binding.attachment import detach
from diffcr.binding.lora import add_lora
from diffcr.binding.model import disabled, get_attached
from diffcr.errors import DiffCRError, DiffCRWarning
from tests.checkpoint.stored import list_anew
from tests.contract.pruned import CONFIG, descend, host_state, pruned_pixart
from tests.hosts import denoise, inputs, pixart


@pytest.mark.parametrize("trained", ["nothing", "lora", "full"])
def test_save_and_load(trained: str, tmp_path: Path) -> None:
    transformer = pruned_pixart()
    if trained == "lora":
        add_lora(transformer, rank=2)
    if trained != "nothing":
        # The second factor of a LoRA starts at 0: the first has no gradient before it moves.
        descend(transformer)
        descend(transformer)
    directory = diffcr.save(transformer, tmp_path / "saved")
    assert (directory / "transformer.safetensors").exists() == (trained == "full")
    assert "Structured pruning" in (directory / "README.md").read_text()
    loaded = pixart()
    assert diffcr.load(loaded, directory).config == CONFIG
    assert torch.equal(denoise(loaded, inputs()), denoise(transformer, inputs()))
    assert not torch.equal(denoise(pruned_pixart(), inputs()), denoise(loaded, inputs())) or (
        trained == "nothing"
    )
    assert get_attached(loaded).base.have_changed(loaded) == (trained == "full")
    diffcr.load(loaded, directory)
    assert torch.equal(denoise(loaded, inputs()), denoise(transformer, inputs()))
    with pytest.raises(DiffCRError, match="base model"):
        diffcr.load(pixart(seed=1), directory)


def test_a_loaded_model_keeps_the_units_that_were_trained(tmp_path: Path) -> None:
    """Rounding can order units of nearly the same magnitude differently."""
    transformer = pruned_pixart()
    pruner = get_attached(transformer)
    state = {name: buffer.clone() for name, buffer in pruner.state_dict().items()}
    heads = "transformer_blocks_self_attention"
    state[heads] = 1 - state[heads]
    pruner.load_state_dict(state)
    loaded = pixart().to(torch.bfloat16)
    diffcr.load(loaded, diffcr.save(transformer, tmp_path / "saved"))
    assert torch.equal(loaded.diffcr.get_buffer(heads), state[heads])
    assert not get_attached(loaded).base.have_changed(loaded)
    for name, value in host_state(transformer).items():
        assert torch.equal(host_state(loaded)[name], value.to(torch.bfloat16)), name


def test_a_checkpoint_of_other_shapes_leaves_the_bare_model(tmp_path: Path) -> None:
    directory = diffcr.save(pruned_pixart(), tmp_path / "saved")
    save_file(pixart().state_dict(), directory / "transformer.safetensors")
    list_anew(directory)
    loaded = pixart()
    with pytest.raises(DiffCRError, match="has shape"):
        diffcr.load(loaded, directory)
    assert not hasattr(loaded, "diffcr")
    assert torch.equal(denoise(loaded, inputs()), denoise(pixart(), inputs()))


@pytest.mark.parametrize("restore", [False, True])
def test_a_lora_goes_in_and_leaves_with_the_pruning(
    restore: bool, recwarn: pytest.WarningsRecorder
) -> None:
    transformer = pruned_pixart()
    pruned = denoise(transformer, inputs())
    add_lora(transformer, rank=2)
    assert torch.equal(denoise(transformer, inputs()), pruned)
    descend(transformer)
    assert not torch.equal(denoise(transformer, inputs()), pruned)
    with disabled(transformer):
        assert torch.equal(denoise(transformer, inputs()), denoise(pixart(), inputs()))
    detach(transformer, restore=restore)
    assert torch.equal(denoise(transformer, inputs()), denoise(pixart(), inputs()))
    assert list(transformer.state_dict()) == list(pixart().state_dict())
    said = [str(w.message) for w in recwarn if issubclass(w.category, DiffCRWarning)]
    assert len(said) == (0 if restore else 1)
