"""Encoding into shards, reading them, training on them."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffcr.errors import DiffCRError
from diffcr.hosts.pipelines.prompt import Prompt
from diffcr.training.data.encoding import encode_dataset
from diffcr.training.data.pictures import ImageFolder
from diffcr.training.data.sharding import begin_shards
from diffcr.training.data.shards import (
    ShardContents,
    ShardedDataset,
    write_empty_caption,
    write_index,
    write_shard,
)
from diffcr.training.data.sizes import PictureSize, sizes_of_area
from diffcr.training.data.sources import open_source
from tests.pipelines import tiny_pixart_pipeline
from tests.training.shards import PICTURES, SQUARE, WIDE, all_of, encode


def files(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def test_shards_hold_what_is_encoded_in_memory(folder: Path, tmp_path: Path) -> None:
    data = encode(folder, tmp_path / "shards", replace(SQUARE, shard_items=PICTURES))
    memory = encode_dataset(
        tiny_pixart_pipeline(), ImageFolder(folder, 32), tmp_path / "memory", 48, batch_size=2
    )
    own, other = all_of(data), all_of(memory)
    assert len(data) == len(memory) == PICTURES
    assert torch.equal(own.latents, other.latents)
    assert torch.equal(own.prompts.mask, other.prompts.mask)
    masked = other.prompts.embeds * other.prompts.mask.unsqueeze(-1)
    assert torch.allclose(own.prompts.embeds, masked, atol=1e-6)
    dropped = data.batch(torch.tensor([3, 4]), torch.tensor([True, False]))
    assert int(dropped.prompts.mask[0].sum()) < int(dropped.prompts.mask[1].sum())
    assert torch.equal(dropped.prompts.embeds[1], own.prompts.embeds[4])


@pytest.mark.parametrize(
    "embeds", [torch.randn(2, 3, 4, 5), torch.arange(1, 7).view(2, 3)], ids=["layers", "tokens"]
)
def test_prompts_of_layers_and_of_tokens_are_kept(embeds: Tensor, tmp_path: Path) -> None:
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    captions, latents = torch.tensor([1, 0]), torch.randn(2, 4, 2, 2)
    contents = ShardContents.of(latents, Prompt(embeds, mask), captions)
    shard = write_shard(tmp_path, "000000.safetensors", contents)
    write_empty_caption(tmp_path, Prompt(embeds[:1, :1], mask[:1, :1]))
    write_index(tmp_path, {}, [shard])
    prompts = all_of(ShardedDataset(tmp_path), 2).prompts
    assert prompts.embeds.dtype == embeds.dtype
    assert torch.equal(prompts.mask, mask[captions])
    assert torch.equal(prompts.embeds[0], embeds[1])
    assert torch.equal(prompts.embeds[1, :2], embeds[0, :2])
    assert not prompts.embeds[1, 2].any()


def test_shards_do_not_depend_on_the_number_of_processes(folder: Path, tmp_path: Path) -> None:
    encode(folder, tmp_path / "one")
    encode(folder, tmp_path / "two", processes=2)
    encode(folder, tmp_path / "five", processes=5)
    assert len(list((tmp_path / "one" / "shards").iterdir())) == 3
    assert files(tmp_path / "one") == files(tmp_path / "two") == files(tmp_path / "five")


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_what_was_interrupted_goes_on_without_hole_or_duplicate(
    folder: Path, tmp_path: Path, lost: int
) -> None:
    encode(folder, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    killed = tmp_path / "killed"
    for name in ("dataset.json", "skipped.jsonl", "empty-caption.safetensors"):
        (killed / name).unlink()
    (killed / "parts" / f"{lost:06d}-00000.json").unlink()
    with pytest.raises(DiffCRError, match="is not complete"):
        ShardedDataset(killed)
    encode(folder, killed)
    assert files(killed) == files(tmp_path / "whole")


def test_other_settings_do_not_go_on(folder: Path, tmp_path: Path) -> None:
    encode(folder, tmp_path)
    with pytest.raises(DiffCRError, match="holds shards with source"):
        begin_shards(tmp_path, {"source": "another"})


def test_broken_pictures_are_passed_over_and_listed(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "pictures"
    shutil.copytree(folder, broken)
    (broken / "2.png").write_bytes((folder / "2.png").read_bytes()[:100])
    (broken / "5.png").unlink()
    with (broken / "metadata.jsonl").open("a") as metadata:
        metadata.write('\n\n{"file_name": 3}\n')
    data = encode(broken, tmp_path / "shards")
    assert len(data) == PICTURES - 2 and data.skipped == 3
    listed = (tmp_path / "shards" / "skipped.jsonl").read_text().splitlines()
    assert [json.loads(line)["name"] for line in listed] == [
        "2.png",
        "5.png",
        "metadata.jsonl, line 13",
    ]
    for path in broken.glob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(DiffCRError, match="none of the 12 pictures"):
        encode(broken, tmp_path / "none")


def _write_tar(folder: Path, path: Path, indices: range, caption: str = "txt") -> None:
    captions = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    with tarfile.open(path, "w") as tar:
        for index in indices:
            text = captions[index]["text"]
            described = text if caption == "txt" else json.dumps({"caption": text})
            contents = {
                "png": (folder / f"{index}.png").read_bytes(),
                caption: described.encode(),
            }
            for ending, content in contents.items():
                info = tarfile.TarInfo(f"{index:04d}.{ending}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def test_tars_hold_what_folders_hold(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    tars = tmp_path / "tars"
    tars.mkdir()
    _write_tar(folder, tars / "a.tar", range(9))
    _write_tar(folder, tars / "b.tar", range(9, PICTURES), "json")
    data = encode(tars, tmp_path / "shards")
    # Two tars, the first in three parts: an interrupted one goes on inside of its tar.
    parts = tmp_path / "shards" / "parts"
    assert len(list(parts.iterdir())) == 4
    own, other = all_of(data), all_of(encode(folder, tmp_path / "folder"))
    assert torch.allclose(own.latents, other.latents, atol=1e-5)
    assert torch.equal(own.prompts.mask, other.prompts.mask)
    before = files(tmp_path / "shards")
    (parts / "000000-00002.json").unlink()
    encode(tars, tmp_path / "shards")
    assert files(tmp_path / "shards") == before


def test_a_tar_that_ends_early_gives_what_it_holds(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    _write_tar(folder, tmp_path / "a.tar", range(9))
    content = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(content[: len(content) // 2])
    data = encode(tmp_path / "a.tar", tmp_path / "shards")
    assert 2 <= len(data) <= 5 and data.skipped == 1
    assert "a.tar is damaged" in (tmp_path / "shards" / "skipped.jsonl").read_text()


def test_streamed_data_sets_hold_what_folders_hold(folder: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    stored = tmp_path / "stored"
    stored.mkdir()
    captions = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    for part, indices in enumerate((range(6), range(6, PICTURES))):
        rows = {
            "image": [{"bytes": (folder / f"{i}.png").read_bytes(), "path": None} for i in indices],
            "caption": [captions[i]["text"] for i in indices],
        }
        features = datasets.Features(
            {"image": datasets.Image(), "caption": datasets.Value("string")}
        )
        table = datasets.Dataset.from_dict(rows, features=features)
        table.to_parquet(stored / f"train-{part:05d}-of-00002.parquet")
    data = encode(f"datasets:{stored}", tmp_path / "shards")
    own, other = all_of(data), all_of(encode(folder, tmp_path / "folder"))
    assert torch.allclose(own.latents, other.latents, atol=1e-5)
    assert torch.equal(own.prompts.mask, other.prompts.mask)
    with pytest.raises(DiffCRError, match="cannot be opened"):
        open_source(f"datasets:{stored}:nowhere", 32, 4)


def test_a_source_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(DiffCRError, match="neither a folder of pictures nor a tar"):
        open_source(str(tmp_path / "nowhere"), 32, 4)
    with pytest.raises(DiffCRError, match=r"metadata\.jsonl cannot be read"):
        open_source(str(tmp_path), 32, 4)


def test_pictures_keep_the_nearest_aspect_ratio(folder: Path, tmp_path: Path) -> None:
    data = encode(folder, tmp_path, WIDE)
    shapes = {shard.latent_shape for shard in data.shards}
    assert shapes == {(4, 8, 8), (4, 16, 4), (4, 4, 16)}
    order = data.order(0)
    met = set()
    for batch in range(12):
        drawn = order.draw(batch, 2, torch.Generator())
        got = data.batch(drawn.indices, torch.zeros(2, dtype=torch.bool))
        assert got.latents.shape == (2, *drawn.latent_shape)
        met |= set(drawn.indices.tolist())
    assert met == set(range(PICTURES))


def test_sizes_have_the_area_of_the_square() -> None:
    sizes = sizes_of_area(512, 16, 2.0)
    assert PictureSize(512, 512) in sizes and len(sizes) > 5
    for size in sizes:
        assert size.height % 16 == size.width % 16 == 0
        assert 0.85 < size.height * size.width / 512**2 <= 1
        assert 0.5 <= size.height / size.width <= 2
    assert sizes_of_area(96, 16, 1.0) == (PictureSize(96, 96),)
