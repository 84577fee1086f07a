"""The embedded default's parts, at toy size, and as shipped."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import PixArtSigmaPipeline
from transformers import T5Tokenizer

from diffcr.binding.attachment import attach
from diffcr.checkpoint.card import CARD_FILE, PICTURE_FILE, model_card
from diffcr.checkpoint.loading import load
from diffcr.checkpoint.saving import save
from diffcr.checkpoint.stored import CONFIG_FILE
from diffcr.errors import DiffCRError
from diffcr.evaluation.held_out import held_out_loss
from diffcr.files import read_json, read_text
from diffcr.pretrained import default_checkpoint_path, default_pipeline_path
from diffcr.pretraining.build import STAGES, build_default, read_records
from diffcr.pretraining.install import install_build, install_checkpoint
from diffcr.pretraining.size import EMBEDDED
from diffcr.pretraining.text import MAX_SEQUENCE_LENGTH, make_tokenizer
from diffcr.pretraining.transformer import make_transformer
from diffcr.scenes import ScenesDataset
from diffcr.training.data.encoding import encode_dataset
from tests.hosts import denoise, inputs, pixart, scramble


def test_the_tokenizer_knows_the_grammar_and_survives_a_round_trip(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(str(tmp_path))
    loaded = T5Tokenizer.from_pretrained(str(tmp_path))
    caption = ScenesDataset("test").describe(0).caption
    ids = loaded(caption).input_ids
    assert ids == tokenizer(caption).input_ids
    assert len(ids) == len(caption.replace(",", " ,").split()) + 1
    unknown = loaded("a zebra").input_ids
    assert loaded.unk_token_id not in unknown
    assert "zebra" in loaded.decode(unknown, skip_special_tokens=True).replace(" ", "")


def test_an_untrained_transformer_predicts_nothing() -> None:
    transformer = make_transformer(0, replace(EMBEDDED, layers=2))
    output = transformer(
        torch.randn(1, 4, 24, 24),
        encoder_hidden_states=torch.randn(1, 3, 128),
        timestep=torch.tensor([5]),
        added_cond_kwargs={"resolution": None, "aspect_ratio": None},
        return_dict=False,
    )[0]
    assert output.shape == (1, 8, 24, 24)
    assert output.abs().max() == 0


def test_building_skips_what_is_there(tmp_path: Path) -> None:
    build_default(tmp_path, shorten=0.0005, stages=STAGES[:-1])
    records = read_records(tmp_path)
    assert set(records) == {"text", "autoencoder", "judge", "pipeline"}
    assert records["autoencoder"]["validation_psnr"] > 0
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
    build_default(tmp_path, shorten=0.0005, stages=STAGES[:-1])
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()} == before


def test_installing_replaces_what_is_embedded(tmp_path: Path) -> None:
    build_directory, package = tmp_path / "build", tmp_path / "package"
    for name in ("scenes", "judge"):
        (build_directory / name).mkdir(parents=True)
        with pytest.raises(DiffCRError, match=r"is missing") if name == "scenes" else nullcontext():
            install_build(build_directory, package)
    (build_directory / "scenes" / "new").write_text("x")
    install_checkpoint(default_checkpoint_path(), package)
    (package / "inpainting").mkdir()
    assert (package / "scenes-diffcr" / "diffcr_config.json").exists()
    with pytest.raises(DiffCRError):
        install_checkpoint(build_directory, package)
    install_build(build_directory, package)
    assert (package / "scenes" / "new").exists()
    assert not (package / "scenes-diffcr").exists()
    assert not (package / "inpainting").exists()


def test_an_embedded_checkpoint_holds_host_weights_at_half_the_size(tmp_path: Path) -> None:
    trained = pixart()
    scramble(attach(trained))
    save(trained, tmp_path / "checkpoint", weights=True)
    install_checkpoint(tmp_path / "checkpoint", tmp_path / "package")
    sizes = [
        (tmp_path / name / "transformer.safetensors").stat().st_size
        for name in ("checkpoint", "package/scenes-diffcr")
    ]
    assert sizes[1] < 0.6 * sizes[0]
    loaded = pixart()
    load(loaded, tmp_path / "package" / "scenes-diffcr")
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    expected, found = denoise(trained, inputs()), denoise(loaded, inputs())
    assert not torch.equal(expected, found)
    assert torch.allclose(expected, found, atol=1e-2)


def test_the_embedded_checkpoint_has_the_card_that_save_writes() -> None:
    shipped = default_checkpoint_path()
    assert read_text(shipped / CARD_FILE) == model_card(read_json(shipped / CONFIG_FILE))
    assert (shipped / PICTURE_FILE).is_file()


def test_the_shipped_pipeline_loads_plainly_and_is_small() -> None:
    pipe = PixArtSigmaPipeline.from_pretrained(default_pipeline_path())
    config = pipe.transformer.config
    assert (config.sample_size // config.patch_size) ** 2 >= 144
    assert config.num_layers >= 8
    root = default_checkpoint_path().parent
    inpainting = root / "inpainting"
    sizes = {path: path.stat().st_size for path in root.rglob("*") if path.is_file()}
    assert sum(size for path, size in sizes.items() if inpainting not in path.parents) < 30e6
    assert sum(size for path, size in sizes.items() if inpainting in path.parents) < 20e6
    assert not list(root.rglob("*.bin")) and not list(root.rglob("*.pt"))


def test_the_shipped_transformer_predicts_noise(tmp_path: Path) -> None:
    pipe = PixArtSigmaPipeline.from_pretrained(default_pipeline_path())
    data = encode_dataset(pipe, ScenesDataset("test", size=16), tmp_path, 48)
    loss = held_out_loss(pipe, data, regions=4, samples_per_region=16)
    # Predicting no noise at all scores 1 everywhere.
    assert max(loss.noise) < 0.6 and loss.noise[3] < 0.05


def test_the_shipped_text_encoder_reads_captions_through_the_pipeline() -> None:
    pipe = PixArtSigmaPipeline.from_pretrained(default_pipeline_path())
    captions = [ScenesDataset("test").describe(i).caption for i in range(32)]

    def encode(prompts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        embeddings, mask, _, _ = pipe.encode_prompt(
            prompts, do_classifier_free_guidance=False, max_sequence_length=MAX_SEQUENCE_LENGTH
        )
        return embeddings, mask.bool()

    embeddings, mask = encode(captions)
    assert embeddings.shape == (32, MAX_SEQUENCE_LENGTH, 128)
    words = [len(caption.replace(",", " ,").split()) for caption in captions]
    assert mask.sum(1).tolist() == [count + 1 for count in words]
    assert 0.9 < float(embeddings[mask].detach().std()) < 1.1
    assert torch.equal(encode([caption.upper() for caption in captions])[0], embeddings)
