"""Inputs that nobody should be able to break a command with: each has to be refused."""

from __future__ import annotations

import io
import json
import os
import struct
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis.strategies as some
import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from PIL import Image

SEED = 0
Make = Callable[[Path], None]
_SIZE = 96


@dataclass(frozen=True)
class Case:
    """A command that has to be refused.

    Attributes:
        kind: Of input.
        name: Which one.
        arguments: Behind `diffcr`, run in a folder of its own.
        files: In that folder by path: contents, or what makes them.
    """

    kind: str
    name: str
    arguments: tuple[str, ...]
    files: Mapping[str, bytes | Make] = field(default_factory=dict)


def draw(strategy: some.SearchStrategy[Any], number: int) -> list[Any]:
    """Examples of a strategy, the same ones every time."""
    found: list[Any] = []

    @seed(SEED)
    @settings(
        max_examples=4 * number,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        deadline=None,
    )
    @given(strategy)
    def collect(value: Any) -> None:
        if value not in found:
            found.append(value)

    collect()
    return found[:number]


def is_number(text: str) -> bool:
    """Whether Python reads a text as one."""
    try:
        float(text)
    except ValueError:
        return False
    return True


_TEXT = some.text(max_size=500).filter(lambda text: not is_number(text))
WRONG = some.one_of(
    _TEXT,
    some.lists(some.integers(), max_size=5),
    some.dictionaries(some.text(max_size=5), some.integers(), max_size=3),
    some.integers(min_value=10**10, max_value=10**400),
    some.integers(max_value=-1, min_value=-(10**30)),
    some.sampled_from([float("nan"), float("inf"), -float("inf"), 1e300, -0.5]),
)
DEEP = b"[" * 100_000
DEEP_OBJECT = b'{"a":' * 5000 + b"1" + b"}" * 5000
_FIELDS = (
    *("steps", "batch_size", "lora_rank", "ema_decay", "checkpoint_every", "finetune"),
    *("data.resolution", "data.max_sequence_length", "data.size", "method.timestep_regions"),
    *("method.target_compression_ratio", "method.mixing_probability", "method.gate"),
    *("optimizer.learning_rate", "optimizer.algorithm", "ratio_loss.weight", "ratio_loss.ramp"),
    *("mixed_precision", "distillation_weight", "inpainting.part", "gradient_accumulation"),
)


def all_simple_cases() -> Iterator[Case]:
    """Those that need no model to be made."""
    for cases in (recipes, folders, pictures, prompts, options, sources):
        yield from cases()


def recipe(**changes: Any) -> bytes:
    """A recipe file of a run that takes a second."""
    values: dict[str, Any] = {
        "name": "tiny",
        "method": {"method": "diffcr", "target_compression_ratio": 0.3, "timestep_regions": 2},
        "finetune": "lora",
        "lora_rank": 4,
        "steps": 2,
        "batch_size": 2,
        "data": {"source": "scenes", "size": 2, "resolution": 32, "max_sequence_length": 16},
    }
    for path, value in changes.items():
        section, _, key = path.rpartition(".")
        (values.setdefault(section, {}) if section else values)[key] = value
    return json.dumps(values).encode()


def recipes() -> Iterator[Case]:
    """Recipes with a wrong value, and files that are none."""
    drawn = draw(some.tuples(some.sampled_from(_FIELDS), WRONG), 40)
    for index, (path, value) in enumerate(drawn):
        contents = recipe(**{path: value})
        name = "a.json"
        if index % 2:
            loaded = json.loads(contents)
            name, contents = "a.yaml", yaml.safe_dump(loaded).encode("utf-8", "surrogatepass")
        yield Case(
            "recipe", f"{path}-{index}", ("train", name, "--output", "run"), {name: contents}
        )
    texts = {
        "nothing": b"",
        "deep": DEEP,
        "deep-mapping": b"{a: " * 5000,
        "aliases": b"a: &a [1,1]\nb: &b [*a,*a]\nname: [*b,*b]\n",
        "object": b"!!python/object/apply:os.system ['true']\n",
        "name-twice": b"name: a\nname: b\n",
        "list": b"- name\n",
        "number": b"name: 7\nsteps: 0x10000000000000000\n",
        "date": b"name: a\nsteps: 2001-01-01\n",
        "bad-date": b"name: a\nsteps: 2001-99-99\n",
        "binary": b"name: !!binary '%%'\n",
        "long-key": b"name: a\n" + b"k" * 9000 + b": 1\n",
        "utf-16": "name: a\n".encode("utf-16"),
        "large": b"name: a\n#" + b"x" * 200_000,
        "control": b"name: a\x00b\n",
    }
    drawn_bytes = draw(some.binary(min_size=1, max_size=200), 12)
    texts |= {f"bytes-{index}": contents for index, contents in enumerate(drawn_bytes)}
    for name, contents in texts.items():
        yield Case(
            "recipe file", name, ("train", "a.yaml", "--output", "run"), {"a.yaml": contents}
        )
    for name, special in (("pipe", os.mkfifo), ("folder", os.mkdir), ("loop", _link_to_itself)):
        yield Case("recipe file", name, ("train", "a.yaml", "--output", "run"), {"a.yaml": special})


def _link_to_itself(path: Path) -> None:
    path.symlink_to(path)


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
    for name, special in (("pipe", os.mkfifo), ("folder", os.mkdir), ("loop", _link_to_itself)):
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


def prompts() -> Iterator[Case]:
    """Prompts, and files of them."""
    texts = {
        "nothing": b"",
        "blank": b" \n\t\n",
        "bytes": b"a circle\n\xff\xfe",
        "utf-16": "a circle".encode("utf-16"),
        "huge": b"x" * (2**25 + 1),
    }
    commands = (("generate",), ("eval", "--output", "e"), ("calibrate", "--output", "c"))
    for index, (name, contents) in enumerate(texts.items()):
        command = commands[index % len(commands)]
        yield Case("prompts", name, (*command, "--prompts", "p.txt"), {"p.txt": contents})
    for name, special in (("pipe", os.mkfifo), ("folder", os.mkdir), ("loop", _link_to_itself)):
        yield Case("prompts", name, ("generate", "--prompts", "p.txt"), {"p.txt": special})
    for index, prompt in enumerate(("", " ", "a\udcffb", "\u3000\t")):
        yield Case("prompts", f"argument-{index}", ("generate", "a", prompt))
        yield Case("prompts", f"inpainted-{index}", ("inpaint", "--prompt", prompt or "\udcff"))


_NUMBERS = (
    *(("generate", "x", option) for option in ("--steps", "--seed", "--height", "--batch-size")),
    *(("bench", option) for option in ("--pairs", "--batch-size", "--resolution")),
    *(("flops", option) for option in ("--text-tokens", "--resolution", "--compression-ratio")),
    *(("encode", "scenes", "--output", "e", o) for o in ("--resolution", "--largest-ratio")),
    *(("encode", "scenes", "--output", "e", o) for o in ("--shard-items", "--batch-size")),
    ("encode", "scenes", "--output", "e", "--max-sequence-length"),
    *(("eval", option) for option in ("--captions", "--steps", "--guidance-scale")),
    *(("inpaint", option) for option in ("--dilation", "--seed", "--guidance-scale")),
    *(("calibrate", option) for option in ("--target", "--frames")),
    ("train", "scenes-diffcr-lt", "--steps"),
    ("demo", "--steps"),
)


def options() -> Iterator[Case]:
    """Values of options."""
    values = some.one_of(
        some.integers(min_value=10**19, max_value=10**30).map(str),
        some.integers(max_value=-1, min_value=-(10**30)).map(str),
        some.sampled_from(("nan", "inf", "-inf", "1e400", "-1e-3", "", "0x10", "½", "٣" * 40)),
        _TEXT.filter(lambda text: "\0" not in text and not text.startswith("-")),
    )
    for index, (command, value) in enumerate(
        draw(some.tuples(some.sampled_from(_NUMBERS), values), 45)
    ):
        yield Case("option", f"{command[-1]}-{index}", (*command, value))
    methods = ("tome:nan", "tome:0.3:nowhere", "mod:1e999", ":::", "reuse:2", "diffcr:-0.1", "mod:")
    methods += ("pruning:0.99", "tome:0.3:block:x", "at-edm:\udcff", "x" * 5000, "dense:0.1")
    for index, method in enumerate(methods):
        yield Case("option", f"method-{index}", ("flops", "--method", method))
    for index, command in enumerate(
        (
            ("x" * 5000,),
            ("generate", "--" + "y" * 5000),
            ("studio", "--port", "0"),
            ("encode", "nothing"),
            ("generate", "x", "--budget", "nan"),
            ("generate", "x", "--output", "o" * 5000),
        )
    ):
        yield Case("option", f"command-{index}", command)


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
