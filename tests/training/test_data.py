"""Folders of pictures, and encoding."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest
import torch
from PIL import Image

from diffcr.errors import DiffCRError
from diffcr.scenes import ScenesDataset
from diffcr.training.data.encoding import encode_dataset
from diffcr.training.data.pictures import ImageFolder, read_batches
from tests.pipelines import tiny_pixart_pipeline


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    entries = []
    for index, size in enumerate([(40, 32), (32, 64), (100, 80)]):
        Image.new("RGB", size, (80 * index, 10, 10)).save(tmp_path / f"{index}.png")
        entries.append({"file_name": f"{index}.png", "text": f"a red circle {index % 2}"})
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, entries)))
    return tmp_path


def test_a_folder_gives_square_pictures_and_captions(folder: Path) -> None:
    data = ImageFolder(folder, 32)
    assert len(data) == 3
    assert all(data[i].image.size == (32, 32) for i in range(3))
    assert data[1].caption == "a red circle 1"
    assert len(ImageFolder(folder, 32, size=2)) == 2


def test_encoding_scales_latents_and_shares_captions(folder: Path, tmp_path: Path) -> None:
    pipe = tiny_pixart_pipeline()
    data = ImageFolder(folder, 32)
    encoded = encode_dataset(pipe, data, tmp_path / "cache", 48, batch_size=2)
    assert encoded.latents.shape == (3, 4, 8, 8)
    assert encoded.caption_of.tolist() == [1, 2, 1]
    pixels = torch.full((1, 3, 32, 32), -1.0)
    pixels[0, 1:] = 10 / 127.5 - 1
    with torch.no_grad():
        expected = pipe.vae.encode(pixels).latent_dist.mode() * pipe.vae.config.scaling_factor
    assert torch.allclose(encoded.latents[0], expected[0], atol=1e-5)
    assert len(encoded.prompts) == 3
    rows = encoded.captions(torch.tensor([0, 1, 2]), torch.tensor([False, True, False]))
    assert rows.tolist() == [1, 0, 1]


def test_encoded_data_is_kept_and_never_mixed_up(folder: Path, tmp_path: Path) -> None:
    pipe = tiny_pixart_pipeline()
    cache = tmp_path / "cache"
    first = encode_dataset(pipe, ImageFolder(folder, 32), cache, 48)
    again = encode_dataset(pipe, ImageFolder(folder, 32), cache, 48)
    assert torch.equal(first.latents, again.latents)
    for name, tensor in first.tensors().items():
        assert tensor.stride() == again.tensors()[name].stride(), name
    assert len(list(cache.iterdir())) == 1
    encode_dataset(tiny_pixart_pipeline(1), ImageFolder(folder, 32), cache, 48)
    encode_dataset(pipe, ImageFolder(folder, 32, size=2), cache, 48)
    assert len(list(cache.iterdir())) == 3


def test_bad_folders_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DiffCRError, match="is not a folder"):
        ImageFolder(tmp_path / "nowhere", 32)
    (folder / "1.png").write_bytes(b"not a picture")
    with pytest.raises(DiffCRError, match=r"1\.png is not a readable picture"):
        ImageFolder(folder, 32)[1]
    (folder / "2.png").unlink()
    with pytest.raises(DiffCRError, match=r"2\.png is missing"):
        ImageFolder(folder, 32)
    (folder / "metadata.jsonl").write_text('{"file_name": "0.png"}')
    with pytest.raises(DiffCRError, match="line 1"):
        ImageFolder(folder, 32)
    (folder / "metadata.jsonl").write_text("")
    with pytest.raises(DiffCRError, match="is empty"):
        ImageFolder(folder, 32)
    (folder / "metadata.jsonl").unlink()
    with pytest.raises(DiffCRError, match="is missing"):
        ImageFolder(folder, 32)


def test_encoded_data_is_found_again_with_another_number_of_threads(
    folder: Path, tmp_path: Path
) -> None:
    pipe, threads = tiny_pixart_pipeline(), torch.get_num_threads()
    # Wide enough that sums of its weights are split among threads.
    pipe.text_encoder.register_parameter("wide", torch.nn.Parameter(torch.rand(300_000)))
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            encode_dataset(pipe, ImageFolder(folder, 32), tmp_path / "cache", 48)
    finally:
        torch.set_num_threads(threads)
    assert len(list((tmp_path / "cache").iterdir())) == 1


@pytest.fixture
def two_processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    threads = torch.get_num_threads()
    monkeypatch.setattr("diffcr.training.data.pictures._WORTH_PROCESSES", 1)
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("two_processes")
def test_processes_read_what_one_reads_in_its_order() -> None:
    scenes, state = ScenesDataset("test", size=11), torch.get_rng_state()
    batches = list(read_batches(scenes, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert [len(batch) for batch in batches] == [4, 4, 3]
    for index, item in enumerate(chain(*batches)):
        assert item.caption == scenes[index].caption
        assert item.image.tobytes() == scenes[index].image.tobytes()


@pytest.mark.usefixtures("two_processes")
def test_an_error_of_a_process_keeps_its_one_line(folder: Path) -> None:
    (folder / "1.png").write_bytes(b"not a picture")
    with pytest.raises(DiffCRError, match=r"1\.png is not a readable picture") as raised:
        list(read_batches(ImageFolder(folder, 32), 2))
    assert "\n" not in str(raised.value)


def test_a_picture_replaced_under_its_name_is_encoded_anew(folder: Path, tmp_path: Path) -> None:
    pipe, cache = tiny_pixart_pipeline(), tmp_path / "cache"
    first = encode_dataset(pipe, ImageFolder(folder, 32), cache, 48)
    Image.new("RGB", (32, 64), (255, 255, 255)).save(folder / "1.png")
    again = encode_dataset(pipe, ImageFolder(folder, 32), cache, 48)
    assert torch.equal(first.latents[0], again.latents[0])
    assert not torch.equal(first.latents[1], again.latents[1])


@pytest.mark.parametrize(
    "line", [b'{"file_name": "0.png", "text": null}', b'{"file_name": 3, "text": "a"}', b"\xff\xfe"]
)
def test_metadata_that_is_no_text_is_refused(folder: Path, line: bytes) -> None:
    (folder / "metadata.jsonl").write_bytes(line)
    with pytest.raises(DiffCRError, match=r"metadata\.jsonl"):
        ImageFolder(folder, 32)
