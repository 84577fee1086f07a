"""Pictures, folders and archives that nobody should be able to break a command with."""

from __future__ import annotations

import io
import json
import os
import struct
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import hypothesis.strategies as some
from malformed_inputs import DEEP, WRONG, Case, Make, draw, link_to_itself, recipe
from PIL import Image

_SIZE = 96


def _link_out(path: Path) -> None:
    path.symlink_to("/etc/hostname")


def on_folder(kind: str, name: str, files: Mapping[str, bytes | Make]) -> Case:
    """Training on a folder `d`."""
    arguments = ("train", "a.json", "--data", "d", "--output", "run")
    return Case(kind, name, arguments, {"a.json": recipe(), **files})


def folders() -> Iterator[Case]:
    """Folders whose metadata.jsonl is wrong."""
    lines = {
        "no-json": b"a.png a caption",
        "array": b"[1, 2]",
        "no-text": b'{"file_name": "a.png"}',
        "number": b'{"file_name": "a.png", "text": 7}',
        "null": b'{"file_name": null, "text": "x"}',
        "twice": b'{"file_name": "a.png", "text": "x", "text": "y"}',
        "nan": b'{"file_name": "a.png", "text": "x", "weight": NaN}',
        "surrogate": b'{"file_name": "a.png", "text": "\\ud83d x"}',
        "deep": b'{"file_name": "a.png", "text": ' + DEEP,
        "utf-16": '{"file_name": "a.png", "text": "x"}'.encode("utf-16"),
        "long-line": b'{"file_name": "a.png", "text": "' + b"x" * 2**21 + b'"}',
        "empty": b"",
        "bytes": bytes(range(128, 200)),
    }
    names = ("", ".", "..", "/etc/hostname", "../x.png", "a\0b.png", "x" * 5000, "\ud800.png")
    for index, name in enumerate(names):
        lines[f"name-{index}"] = json.dumps({"file_name": name, "text": "x"}).encode()
    entry = some.fixed_dictionaries({}, optional={"file_name": WRONG, "text": WRONG})
    for index, value in enumerate(draw(entry, 10)):
        lines[f"drawn-{index}"] = json.dumps(value).encode()
    for name, line in lines.items():
        yield on_folder("metadata", name, {"d/metadata.jsonl": line})
    for name, special in (("pipe", os.mkfifo), ("folder", os.mkdir), ("loop", link_to_itself)):
        yield on_folder("metadata", name, {"d/metadata.jsonl": special})
        files = {"d/metadata.jsonl": b'{"file_name": "a.png", "text": "x"}', "d/a.png": special}
        yield on_folder("metadata", f"picture-{name}", files)
    files = {"d/metadata.jsonl": b'{"file_name": "a.png", "text": "x"}', "d/a.png": _link_out}
    yield on_folder("metadata", "link-out", files)


def encoded(form: str, **options: Any) -> bytes:
    """A picture file."""
    buffer = io.BytesIO()
    image = Image.radial_gradient("L").convert("RGB").resize((_SIZE, _SIZE))
    image.save(buffer, form, **options)
    return buffer.getvalue()


def pictures() -> Iterator[Case]:
    """Files that are called pictures."""
    png = encoded("PNG")
    files = {
        "nothing.png": b"",
        "text.png": b"no picture",
        "header.gif": b"GIF89a\xff\xff\xff\xff",
        "bomb.ppm": b"P6 99999 99999 255\n" + b"x" * 300,
        "maxval.ppm": b"P6 10 10 0\n" + b"x" * 300,
        "negative.bmp": encoded("BMP")[:18] + struct.pack("<ii", -5, -5) + encoded("BMP")[26:],
        "large.png": png[:16] + struct.pack(">II", 60000, 60000) + png[24:],
        "offset.tif": b"II*\0" + struct.pack("<I", 2**31),
        "program.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "zip.png": b"PK\3\4" + b"\0" * 200,
    }
    for form in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"):
        whole = encoded(form)
        shares = draw(some.floats(0.05, 0.6), 2)
        for share in shares:
            files[f"cut-{share:.2f}.{form.lower()}"] = whole[: int(share * len(whole))]
    mask = io.BytesIO()
    Image.new("L", (_SIZE, _SIZE), 255).save(mask, "PNG")
    for index, (name, contents) in enumerate(files.items()):
        if index % 2:
            line = json.dumps({"file_name": name, "text": "x"}).encode()
            yield on_folder("picture", name, {"d/metadata.jsonl": line, f"d/{name}": contents})
            continue
        arguments = ("inpaint", "--image", name, "--mask", "m.png", "--prompt", "x", "--steps", "1")
        yield Case("picture", name, arguments, {name: contents, "m.png": mask.getvalue()})


def sources() -> Iterator[Case]:
    """What `encode` cannot read."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, contents in (("a.png", b"no picture"), ("a.txt", b"x")):
            entry = tarfile.TarInfo(name)
            entry.size = len(contents)
            tar.addfile(entry, io.BytesIO(contents))
    archives = {
        "nothing.tar": b"",
        "text.tar": b"no archive" * 100,
        "unreadable.tar": buffer.getvalue(),
        "cut.tar": buffer.getvalue()[:700],
    }
    for name, contents in archives.items():
        arguments = ("encode", name, "--output", "e", "--resolution", "32")
        yield Case("source", name, arguments, {name: contents})
    for index, name in enumerate(
        ("datasets:", "datasets:/nowhere", "nowhere.tar", "", ".", "x" * 5000)
    ):
        yield Case(
            "source", f"name-{index}", ("encode", name, "--output", "e", "--resolution", "32")
        )
