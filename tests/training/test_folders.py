"""Folders as people have them: pictures of every kind are read right, or refused in one line."""

from __future__ import annotations

import json
import os
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from diffcr.errors import DiffCRError, DiffCRWarning
from diffcr.training.data import ImageFolder, encode_dataset
from tests.pipelines import tiny_pixart_pipeline

SIDE = 32


def _write_metadata(folder: Path, *entries: object) -> None:
    lines = [json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries]
    (folder / "metadata.jsonl").write_text("".join(lines), encoding="utf-8")


def _read(folder: Path, name: str) -> np.ndarray:
    _write_metadata(folder, {"file_name": name, "text": "a"})
    image = ImageFolder(folder, SIDE)[0].image
    assert image.mode == "RGB" and image.size == (SIDE, SIDE)
    return np.asarray(image).astype(int)


def test_a_photograph_is_upright(tmp_path: Path) -> None:
    picture = Image.new("RGB", (96, 96), "black")
    picture.paste("red", (0, 0, 96, 20))
    exif = picture.getexif()
    exif[274] = 6
    picture.save(tmp_path / "a.png", exif=exif)
    pixels = _read(tmp_path, "a.png")
    assert (pixels[SIDE // 2, -2] == (255, 0, 0)).all() and (pixels[1, SIDE // 2] == 0).all()


def test_sixteen_bits_keep_their_greys(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 96 * 96).reshape(96, 96).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    assert abs(_read(tmp_path, "a.png").mean() - 127.5) < 1


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P"])
def test_what_is_transparent_is_white(tmp_path: Path, mode: str) -> None:
    picture = Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 0))
    picture.paste((0, 0, 0, 255), (0, 0, SIDE, SIDE // 2))
    name = "a.tif" if mode == "PA" else "a.png"
    (picture.quantize() if mode == "P" else picture.convert(mode)).save(tmp_path / name)
    pixels = _read(tmp_path, name)
    assert (pixels[2] < 8).all() and (pixels[-2] == 255).all()


def test_other_modes_and_animations(tmp_path: Path) -> None:
    Image.new("CMYK", (SIDE, SIDE), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    red = _read(tmp_path, "a.jpg")[SIDE // 2, SIDE // 2]
    assert red[0] > 200 and red[1:].max() < 60
    Image.new("1", (SIDE, SIDE), 1).save(tmp_path / "a.png")
    assert (_read(tmp_path, "a.png") == 255).all()
    frames = [Image.new("RGB", (SIDE, SIDE), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert (_read(tmp_path, "a.gif")[5, 5] == (255, 0, 0)).all()


def test_a_narrow_picture_is_never_made_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (1, 60_000), "red").save(tmp_path / "a.png")
    sizes, plain = [], Image.Image.resize

    def resize(self: Image.Image, size: tuple[int, int], *more: object, **named: object) -> object:
        sizes.append(size)
        return plain(self, size, *more, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Image.Image, "resize", resize)
    assert (_read(tmp_path, "a.png") == (255, 0, 0)).all()
    assert set(sizes) == {(SIDE, SIDE)}


def _png(width: int, height: int) -> bytes:
    """The beginning of a PNG file that says it is of this size."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    length = struct.pack(">I", len(header) - 4)
    return b"\x89PNG\r\n\x1a\n" + length + header + struct.pack(">I", zlib.crc32(header))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bomb.png", _png(20_000, 20_000)),
        ("bomb.ppm", b"P6 99999 99999 255\n"),
        ("maxval.ppm", b"P6 10 10 0\n" + b"x" * 300),
        ("cut.png", _png(30, 30)),
        ("empty.png", b""),
        ("text.jpg", b"not a picture"),
        ("sizes.ppm", b"P6 -1 10 255\n" + b"x" * 300),
    ],
)
def test_files_that_are_no_pictures_are_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DiffCRError, match="is not a readable picture|is too large") as caught:
        _read(tmp_path, name)
    assert name in str(caught.value) and "\n" not in str(caught.value)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    position=st.integers(0, 2**16),
    value=st.integers(0, 255),
    format=st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "PPM"]),
)
def test_a_damaged_picture_is_read_or_refused(
    tmp_path: Path, position: int, value: int, format: str
) -> None:
    path = tmp_path / f"picture.{format.lower()}"
    Image.linear_gradient("L").convert("RGB").resize((40, 30)).save(path, format=format)
    content = bytearray(path.read_bytes())
    content[position % min(len(content), 64)] = value
    path.write_bytes(content)
    # Whatever else it raises fails the test.
    with suppress(DiffCRError):
        _read(tmp_path, path.name)


def test_nothing_outside_of_the_folder_is_read(tmp_path: Path) -> None:
    folder, outside = tmp_path / "folder", tmp_path / "secret.png"
    (folder / "inner").mkdir(parents=True)
    Image.new("RGB", (SIDE, SIDE)).save(outside)
    Image.new("RGB", (SIDE, SIDE)).save(folder / "inner" / "own.png")
    (folder / "link.png").symlink_to(outside)
    (folder / "linked").symlink_to(tmp_path)
    for name in ("../secret.png", str(outside), "link.png", "linked/secret.png"):
        with pytest.raises(DiffCRError, match="outside of the folder"):
            _read(folder, name)
    (folder / "within.png").symlink_to(folder / "inner" / "own.png")
    for name in ("inner/own.png", "within.png", "inner/../inner/own.png"):
        _read(folder, name)


@pytest.mark.parametrize("store", ["datasets--somebody--photos/blobs", "blobs"])
def test_the_hubs_cache_is_a_folder_and_another_repository_is_outside(
    tmp_path: Path, store: str
) -> None:
    snapshot = tmp_path / "datasets--somebody--photos" / "snapshots" / "abc" / "train"
    for folder in (snapshot, tmp_path / store, tmp_path / "datasets--somebody--else" / "blobs"):
        folder.mkdir(parents=True)
    for blob in (tmp_path / store / "0f", tmp_path / "datasets--somebody--else" / "blobs" / "1e"):
        Image.new("RGB", (SIDE, SIDE)).save(blob, format="PNG")
    (snapshot / "own.png").symlink_to(Path("../../../..") / store / "0f")
    (snapshot / "else.png").symlink_to(blob)
    _read(snapshot, "own.png")
    with pytest.raises(DiffCRError, match="outside of the folder"):
        _read(snapshot, "else.png")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DiffCRError, match=r"pipe\.png is missing"):
        _read(tmp_path, "pipe.png")
    os.mkfifo(tmp_path / "folder.jsonl")
    (tmp_path / "metadata.jsonl").unlink()
    (tmp_path / "folder.jsonl").rename(tmp_path / "metadata.jsonl")
    with pytest.raises(DiffCRError, match=r"metadata\.jsonl is missing"):
        ImageFolder(tmp_path, SIDE)


def test_lines_end_where_json_lines_end(tmp_path: Path) -> None:
    Image.new("RGB", (SIDE, SIDE)).save(tmp_path / "a.png")
    captions = ["one\u2028two", "one\u0085two", "one\x0btwo", "plain"]
    _write_metadata(tmp_path, *({"file_name": "a.png", "text": text} for text in captions))
    read = ImageFolder(tmp_path, SIDE)
    assert [read[index].caption for index in range(len(read))] == captions
    marked = b"\xef\xbb\xbf" + (tmp_path / "metadata.jsonl").read_bytes().replace(b"\n", b"\r\n")
    (tmp_path / "metadata.jsonl").write_bytes(marked)
    assert [caption for _, caption in ImageFolder(tmp_path, SIDE).entries] == captions


@pytest.mark.parametrize(
    "line",
    [
        '{"file_name": "a.png", "text": "\\ud800"}',
        '{"file_name": "a.png", "text": "a", "text": "b"}',
        '{"file_name": "a.png", "text": NaN}',
        "[" * 5000,
        '{"a": ' * 5000,
        '{"file_name": "' + "a" * 5000 + '", "text": "a"}',
        '{"file_name": "a\\u0000.png", "text": "a"}',
        '{"file_name": "", "text": "a"}',
        '{"file_name": "a.png", "text": "' + "a" * 2**20 + '"}',
        "3",
        '"text"',
        "[]",
        "\\x00",
    ],
    ids=lambda line: line[:30],
)
def test_lines_of_a_wrong_kind_are_one_line(tmp_path: Path, line: str) -> None:
    Image.new("RGB", (SIDE, SIDE)).save(tmp_path / "a.png")
    (tmp_path / "metadata.jsonl").write_text(line + "\n")
    with pytest.raises(DiffCRError) as caught:
        ImageFolder(tmp_path, SIDE)
    text = str(caught.value)
    assert str(tmp_path) in text and "\n" not in text and len(text) <= 400


def test_long_captions_are_said_once_and_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    entries = []
    for index in range(6):
        Image.new("RGB", (SIDE, SIDE)).save(tmp_path / f"{index}.png")
        text = f"{index} " + "a detailed description of a photograph " * 40 * (index % 2)
        entries.append({"file_name": f"{index}.png", "text": text})
    _write_metadata(tmp_path, *entries)
    with pytest.warns(DiffCRWarning, match="3 of 7 captions are cut .*48 tokens") as caught:
        encode_dataset(tiny_pixart_pipeline(), ImageFolder(tmp_path, SIDE), tmp_path, 48, 2)
    assert len([w for w in caught if issubclass(w.category, DiffCRWarning)]) == 1
    assert "a detailed" not in "".join(capfd.readouterr())


def test_a_damaged_cache_is_made_anew(tmp_path: Path) -> None:
    Image.new("RGB", (SIDE, SIDE)).save(tmp_path / "a.png")
    _write_metadata(tmp_path, {"file_name": "a.png", "text": "a"})
    pipe, data, cache = tiny_pixart_pipeline(), ImageFolder(tmp_path, SIDE), tmp_path / "cache"
    first = encode_dataset(pipe, data, cache, 48)
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    for damaged in (whole[:500], b"", b"\0" * 100):
        file.write_bytes(damaged)
        with pytest.warns(DiffCRWarning, match="is made anew"):
            again = encode_dataset(pipe, data, cache, 48)
        assert (first.latents == again.latents).all()
        assert file.read_bytes() == whole
