"""Saving and loading: whole, checked, on the right model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import diffcr
from diffcr.binding.lora import has_lora
from diffcr.binding.model import is_attached
from diffcr.errors import DiffCRError
from diffcr.hosts.weights import take_fingerprint
from diffcr.methods.diffcr.config import DiffCRConfig
from tests.checkpoint.stored import list_anew, with_lora
from tests.hosts import denoise, inputs, pixart, trained_pixart


def test_a_loaded_model_computes_what_the_saved_one_did(saved: Path) -> None:
    transformer = pixart()
    compressor = diffcr.load(transformer, saved)
    assert torch.equal(denoise(transformer, inputs()), denoise(with_lora(), inputs()))
    assert compressor.config == DiffCRConfig()
    assert (saved / "README.md").read_text().startswith("---\n")
    files = {path.name for path in saved.rglob("*") if path.is_file()}
    assert not any(name.endswith((".bin", ".pt", ".pkl")) for name in files)
    assert "transformer.safetensors" not in files


def test_loading_twice_is_loading_once(saved: Path) -> None:
    transformer = pixart()
    diffcr.load(transformer, saved)
    expected = denoise(transformer, inputs())
    diffcr.load(transformer, saved)
    assert torch.equal(denoise(transformer, inputs()), expected)


def test_loading_replaces_all_of_the_checkpoint_before(saved: Path, tmp_path: Path) -> None:
    plain = trained_pixart(seed=0)
    plain.diffcr.set_compression_ratios(0.5)
    without_lora = diffcr.save(plain, tmp_path / "plain")
    transformer = pixart()
    diffcr.load(transformer, saved)
    diffcr.load(transformer, without_lora)
    assert not has_lora(transformer)
    assert torch.equal(denoise(transformer, inputs()), denoise(plain, inputs()))
    full = trained_pixart()
    with torch.no_grad():
        for parameter in full.transformer_blocks.parameters():
            parameter.mul_(1.001)
    diffcr.load(transformer, diffcr.save(full, tmp_path / "full"))
    with pytest.raises(DiffCRError, match="load the base model anew"):
        diffcr.load(transformer, without_lora)
    assert torch.equal(denoise(transformer, inputs()), denoise(full, inputs()))


@pytest.mark.parametrize("misfit", ["configuration", "adapter", "state"])
def test_a_refused_load_takes_nothing_away(saved: Path, tmp_path: Path, misfit: str) -> None:
    transformer = with_lora()
    before = denoise(transformer, inputs())
    if misfit == "configuration":
        other = diffcr.save(trained_pixart(DiffCRConfig(timestep_regions=2)), tmp_path / "other")
    else:
        name = {"adapter": "adapter/adapter_model", "state": "diffcr"}[misfit]
        file, other = saved / f"{name}.safetensors", saved
        tensors = load_file(file)
        largest = max(tensors, key=lambda key: tensors[key].numel() * ("base" not in key))
        tensors[largest] = tensors[largest][:1].clone()
        save_file(tensors, file)
        list_anew(saved)
    for model in (transformer, pixart()) if misfit != "configuration" else (transformer,):
        present = denoise(model, inputs())
        with pytest.raises(DiffCRError):
            diffcr.load(model, other)
        assert torch.equal(denoise(model, inputs()), present)
    assert not is_attached(model) or model is transformer
    assert torch.equal(denoise(transformer, inputs()), before)


def test_a_change_of_one_small_weight_is_saved_and_a_cast_is_none(tmp_path: Path) -> None:
    for cast in (torch.float16, torch.bfloat16):
        transformer = trained_pixart()
        for name, model in (("cast", transformer.to(cast)), ("back", transformer.float())):
            saved = diffcr.save(model, tmp_path / name)
            assert not (saved / "transformer.safetensors").exists()
            diffcr.load(transformer, saved)
    changed = trained_pixart()
    with torch.no_grad():
        changed.scale_shift_table.add_(0.1)
    other = pixart()
    diffcr.load(other, diffcr.save(changed, tmp_path / "changed"))
    assert torch.equal(denoise(other, inputs()), denoise(changed, inputs()))


def test_changed_host_weights_are_saved_and_loaded(tmp_path: Path) -> None:
    transformer = trained_pixart()
    with torch.no_grad():
        for parameter in transformer.transformer_blocks.parameters():
            parameter.add_(0.01)
    diffcr.save(transformer, tmp_path / "full")
    other = pixart()
    diffcr.load(other, tmp_path / "full")
    assert torch.equal(denoise(other, inputs()), denoise(transformer, inputs()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_fingerprint_passes_half_precision_loads(saved: Path, dtype: torch.dtype) -> None:
    transformer = pixart().to(dtype)
    diffcr.load(transformer, saved)
    assert is_attached(transformer)


@pytest.mark.parametrize(("change", "matches"), [(0.008, True), (0.012, False), (0.05, False)])
def test_a_base_models_weights_are_told_apart_at_one_per_cent(change: float, matches: bool) -> None:
    transformer = pixart()
    before = take_fingerprint(transformer)
    with torch.no_grad():
        for parameter in transformer.parameters():
            parameter.mul_(1 + change)
    after = take_fingerprint(transformer)
    assert before is not None and after is not None
    assert before.matches(after) == matches


def test_another_base_model_is_refused_and_both_are_named(saved: Path) -> None:
    other = pixart(seed=7)
    ours, theirs = take_fingerprint(pixart()), take_fingerprint(other)
    assert ours is not None and theirs is not None
    with pytest.raises(DiffCRError) as caught:
        diffcr.load(other, saved)
    assert ours.describe() in str(caught.value)
    assert theirs.describe() in str(caught.value)
    assert not is_attached(other)
    with pytest.raises(DiffCRError, match="was trained on"):
        diffcr.load(pixart(layers=4), saved)


def test_a_directory_that_does_not_exist_is_not_looked_up_on_the_hub(tmp_path: Path) -> None:
    with pytest.raises(DiffCRError, match="is not a directory"):
        diffcr.load(pixart(), tmp_path / "nothing")


def test_a_hub_id_is_found_in_the_hubs_cache(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "hub" / "models--somebody--compressed"
    (repository / "refs").mkdir(parents=True)
    for revision, ratio in (("main", 0.2), ("v1", 0.5)):
        (repository / "refs" / revision).write_text(revision * 10)
        transformer = pixart()
        diffcr.load(transformer, saved).set_compression_ratios(ratio)
        diffcr.save(transformer, repository / "snapshots" / (revision * 10))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert diffcr.load(pixart(), "somebody/compressed").compression_ratios.eq(0.2).all()
    other = diffcr.load(pixart(), "somebody/compressed", revision="v1")
    assert other.compression_ratios.eq(0.5).all()
    with pytest.raises(DiffCRError, match="not asked while HF_HUB_OFFLINE is set"):
        diffcr.load(pixart(), "somebody/else")


def test_a_foreign_directory_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"x")
    with pytest.raises(DiffCRError, match="holds other files"):
        diffcr.save(trained_pixart(), tmp_path)
    assert (tmp_path / "photo.png").read_bytes() == b"x"


def test_an_interrupted_save_leaves_the_previous_checkpoint(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in saved.rglob("*") if path.is_file()}

    def fail(description: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("diffcr.checkpoint.saving.model_card", fail)
    with pytest.raises(KeyboardInterrupt):
        diffcr.save(trained_pixart(seed=3), saved)
    assert {path: path.read_bytes() for path in saved.rglob("*") if path.is_file()} == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_a_base_models_name_tells_nothing_of_a_disk() -> None:
    transformer = pixart()
    for path, name in (
        ("/home/me/models/mine/transformer", "mine/transformer"),
        (
            "/c/hub/models--PixArt-alpha--Sigma-512/snapshots/ab/transformer",
            "PixArt-alpha/Sigma-512",
        ),
        ("PixArt-alpha/Sigma-512", "PixArt-alpha/Sigma-512"),
    ):
        transformer.register_to_config(_name_or_path=path)
        fingerprint = take_fingerprint(transformer)
        assert fingerprint is not None
        assert fingerprint.model_id == name
