"""The Hub: what is pushed, what is fetched, and one line for whatever fails."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image

import diffcr
from diffcr.checkpoint.card import PLACE
from diffcr.cli import main
from diffcr.errors import DiffCRError
from tests.checkpoint.hub import Hub, stand_in
from tests.checkpoint.stored import with_lora
from tests.hosts import denoise, inputs, pixart, trained_pixart


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with stand_in(monkeypatch, tmp_path) as running:
        yield running


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return diffcr.save(with_lora(), tmp_path / "checkpoint")


def _run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


def test_what_is_pushed_is_loaded(
    hub: Hub, saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (saved / "notes.pkl").write_bytes(b"mine")
    before = {file: file.read_bytes() for file in saved.rglob("*") if file.is_file()}
    assert _run("push", str(saved), "somebody/small", "--license", "apache-2.0") == 0
    said = capsys.readouterr()
    assert f"{hub.url}/somebody/small" in said.out
    assert "diffcr: pushing 0.1 MB in 6 files to" in said.err
    pushed = hub.commits["somebody/small"][-1]
    assert {*pushed} == {
        "README.md",
        "ratios.png",
        "diffcr_config.json",
        "diffcr.safetensors",
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
    }
    card = ModelCard(pushed["README.md"].decode())
    assert card.data.license == "apache-2.0"
    assert 'diffcr.load(pipe, "somebody/small")' in card.text and PLACE not in card.text
    assert {file: file.read_bytes() for file in saved.rglob("*") if file.is_file()} == before

    transformer = pixart()
    diffcr.load(transformer, "somebody/small")
    assert torch.equal(denoise(transformer, inputs()), denoise(with_lora(), inputs()))
    said = capsys.readouterr()
    assert f"diffcr: fetching 0.1 MB in 6 files from {hub.url}/somebody/small" in said.err
    assert "dry-run" not in said.err
    diffcr.load(transformer, "somebody/small")
    assert "fetching" not in capsys.readouterr().err


def test_another_push_leaves_nothing_of_the_one_before(
    hub: Hub, saved: Path, tmp_path: Path
) -> None:
    diffcr.push(saved, "somebody/small")
    first = f"{len(hub.commits['somebody/small']) - 1:040x}"
    plain = trained_pixart()
    plain.diffcr.set_compression_ratios(0.5)
    diffcr.push(diffcr.save(plain, tmp_path / "other"), "somebody/small")
    assert not any(name.startswith("adapter") for name in hub.commits["somebody/small"][-1])
    latest, earlier = pixart(), pixart()
    diffcr.load(latest, "somebody/small")
    assert torch.equal(denoise(latest, inputs()), denoise(plain, inputs()))
    diffcr.load(earlier, "somebody/small", revision=first)
    assert torch.equal(denoise(earlier, inputs()), denoise(with_lora(), inputs()))


def test_a_directory_of_that_name_wins(
    hub: Hub, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "somebody").mkdir()
    saved.rename(tmp_path / "somebody" / "small")
    monkeypatch.chdir(tmp_path)
    diffcr.load(pixart(), "somebody/small")
    assert hub.asked == []


def test_what_is_no_checkpoint_is_not_fetched(hub: Hub) -> None:
    hub.commits["somebody/pipeline"] = [{"model_index.json": b"{}", "a.safetensors": b"x" * 99}]
    with pytest.raises(DiffCRError, match=r"holds no diffcr_config\.json: it is no checkpoint"):
        diffcr.load(pixart(), "somebody/pipeline")
    assert not any(asked.startswith("GET") and "/resolve/" in asked for asked in hub.asked)


def test_what_has_to_be_unpickled_is_not_fetched(hub: Hub, saved: Path, tmp_path: Path) -> None:
    diffcr.push(saved, "somebody/small")
    hub.commits["somebody/small"][-1]["pytorch_model.bin"] = b"pickled"
    diffcr.load(pixart(), "somebody/small")
    assert not any("pytorch_model.bin" in asked for asked in hub.asked)
    assert not [*(tmp_path / "cache").rglob("*.bin")]


def test_failures_are_one_line_that_says_what_to_do(
    hub: Hub, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(repository: str, message: str, revision: str | None = None) -> None:
        with pytest.raises(DiffCRError, match=message) as caught:
            diffcr.load(pixart(), repository, revision=revision)
        assert "\n" not in str(caught.value)

    diffcr.push(saved, "somebody/small")
    hub.commits["somebody/gated"] = hub.commits["somebody/small"]
    hub.gated.add("somebody/gated")
    refused("somebody/none", "does not exist, or is private")
    refused("somebody/gated", "asks for its terms to be accepted")
    refused("somebody/small", "has no revision 'v9'", revision="v9")
    refused("some body/small", "neither a directory nor a Hub id")
    with monkeypatch.context() as logged_in:
        logged_in.setenv("HF_TOKEN", "hf_another")
        refused("somebody/else", "refused the request")
        with pytest.raises(DiffCRError, match="refused the request: `hf auth login`"):
            diffcr.push(saved, "somebody/small")
    with pytest.raises(DiffCRError, match="write it as user/name"):
        diffcr.push(saved, "small")
    (saved / "diffcr.safetensors").unlink()
    with pytest.raises(DiffCRError, match="is missing"):
        diffcr.push(saved, "somebody/small")
    diffcr.load(pixart(), "somebody/small")
    with monkeypatch.context() as offline:
        offline.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        refused("somebody/else", "not asked while HF_HUB_OFFLINE is set")
        diffcr.load(pixart(), "somebody/small")
    with socket.create_server(("127.0.0.1", 0)) as server:
        nobody = f"http://127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", nobody)
    refused("somebody/else", "cannot be reached, and the cache has no copy of it")


def test_the_picture_has_a_cell_for_every_layer_and_region(saved: Path) -> None:
    with Image.open(saved / "ratios.png") as picture:
        ratios = diffcr.load(pixart(), saved).compression_ratios
        shades = [picture.getpixel((102 + 92 * region, 68)) for region in range(4)]
    order = sorted(range(4), key=lambda region: -sum(shades[region]))
    assert [*ratios[0, order]] == sorted(ratios[0])
