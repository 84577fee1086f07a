"""A checkpoint is loaded whole, as it was saved, or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import diffcr
from diffcr.binding.lora import add_lora
from diffcr.binding.model import is_attached
from diffcr.errors import DiffCRError, DiffCRWarning
from tests.checkpoint.stored import change_description, list_anew
from tests.hosts import denoise, inputs, pixart, trained_pixart

_FILES = (
    "diffcr.safetensors",
    "transformer.safetensors",
    "adapter/adapter_model.safetensors",
    "adapter/adapter_config.json",
)


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A checkpoint with everything that one can hold."""
    transformer = trained_pixart()
    add_lora(transformer, rank=2)
    with torch.no_grad():
        transformer.proj_out.weight.add_(0.1)
    return diffcr.save(transformer, tmp_path / "checkpoint")


def _is_refused(checkpoint: Path, saying: str) -> None:
    transformer = pixart()
    before = denoise(transformer, inputs())
    with pytest.raises(DiffCRError, match=saying) as caught:
        diffcr.load(transformer, checkpoint)
    assert "\n" not in str(caught.value) and len(str(caught.value)) <= 400
    assert not is_attached(transformer)
    assert torch.equal(denoise(transformer, inputs()), before)


def test_the_description_lists_the_files(whole: Path) -> None:
    description = json.loads((whole / "diffcr_config.json").read_text())
    assert sorted(description["files"]) == sorted(_FILES)
    diffcr.load(pixart(), whole)


@pytest.mark.parametrize("file", _FILES)
def test_a_missing_file_is_named(whole: Path, file: str) -> None:
    (whole / file).unlink()
    _is_refused(whole, f"{file} is missing: copy the whole checkpoint again")


@pytest.mark.parametrize("file", [name for name in _FILES if name.endswith("safetensors")])
def test_a_missing_or_changed_tensor_is_noticed(whole: Path, file: str) -> None:
    tensors = load_file(whole / file)
    name = sorted(tensors)[0]
    changed = {**tensors, name: tensors[name] + 1}
    for other in (dict(sorted(tensors.items())[1:]), changed):
        save_file(other, whole / file)
        _is_refused(whole, f"{file} is damaged, or not the file that was saved")


def test_a_file_of_another_checkpoint_is_not_mixed_in(whole: Path, tmp_path: Path) -> None:
    plain = diffcr.save(trained_pixart(), tmp_path / "plain")
    (plain / "transformer.safetensors").write_bytes(
        (whole / "transformer.safetensors").read_bytes()
    )
    _is_refused(plain, "transformer.safetensors is not of this checkpoint")


def test_a_checkpoint_without_a_list_loads_with_a_warning(whole: Path) -> None:
    description = json.loads((whole / "diffcr_config.json").read_text())
    del description["files"]
    (whole / "diffcr_config.json").write_text(json.dumps(description))
    with pytest.warns(DiffCRWarning, match="without a list of its files"):
        diffcr.load(pixart(), whole)


def _of_state(change: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], None]:
    def apply(checkpoint: Path) -> None:
        tensors = load_file(checkpoint / "diffcr.safetensors")
        change(tensors)
        save_file(tensors, checkpoint / "diffcr.safetensors")

    return apply


def _of_description(**values: Any) -> Callable[[Path], None]:
    return lambda checkpoint: change_description(checkpoint, **values)


def _not_a_number(file: str) -> Callable[[Path], None]:
    def apply(checkpoint: Path) -> None:
        tensors = load_file(checkpoint / file)
        name = next(name for name in sorted(tensors) if not name.startswith("base_"))
        tensors[name].view(-1)[0] = float("nan")
        save_file(tensors, checkpoint / file)

    return apply


@pytest.mark.parametrize(
    ("damage", "saying"),
    [
        (_of_state(lambda t: t.update(base_weights=t["base_weights"][:3].clone())), "1024 weights"),
        (_of_state(lambda t: t.update(base_weights=t["base_weights"].int())), "1024 weights"),
        (_of_state(lambda t: t.pop("base_weights")), "1024 weights"),
        (_not_a_number("diffcr.safetensors"), "not finite"),
        (_not_a_number("transformer.safetensors"), "not finite"),
        (_not_a_number("adapter/adapter_model.safetensors"), "not finite"),
        (_of_description(base_model={"id": 3, "config_hash": 7}), "was trained on"),
        (_of_description(base_model=[]), "damaged"),
        (_of_description(base_model={}), "is missing"),
        (_of_description(transformer_class=None), "pass the pipeline's model"),
        (_of_description(beneath=3), "damaged"),
        (_of_description(beneath=[3]), "damaged"),
        (_of_description(config={"method": "diffcr", "timestep_regions": 10**9}), "to 1000"),
        (_of_description(config={"method": "diffcr", "timestep_regions": "4"}), "give int"),
        (_of_description(config=[["method", []]]), "method is"),
    ],
)
def test_values_of_a_wrong_kind_are_one_line(
    whole: Path, damage: Callable[[Path], None], saying: str
) -> None:
    damage(whole)
    list_anew(whole)
    _is_refused(whole, saying)


@pytest.mark.parametrize("files", [3, [], "x", {"diffcr.safetensors": 7}])
def test_a_list_of_a_wrong_kind_is_one_line(whole: Path, files: object) -> None:
    change_description(whole, files=files)
    _is_refused(whole, "damaged|is not of this checkpoint")


def test_a_runs_directory_stands_for_its_result(whole: Path) -> None:
    run = whole.parent / "run"
    run.mkdir()
    whole.rename(run / "final")
    transformer = pixart()
    diffcr.load(transformer, run)
    assert is_attached(transformer)
    with pytest.raises(DiffCRError, match=r"diffcr_config\.json cannot be read"):
        diffcr.load(pixart(), run.parent)


def test_the_dense_model_is_not_taken_for_what_fine_tuning_left(whole: Path) -> None:
    transformer = trained_pixart()
    dense = denoise(pixart(), inputs())
    with diffcr.disabled(transformer):
        assert torch.equal(denoise(transformer, inputs()), dense)
    diffcr.load(loaded := pixart(), whole)
    with torch.no_grad():
        transformer.scale_shift_table.add_(0.1)
    for model in (transformer, loaded):
        with (
            pytest.raises(DiffCRError, match="the dense model is not in it"),
            diffcr.disabled(model),
        ):
            pass
        assert model.diffcr.enabled
