"""Directories that `diffcr` and diffusers wrote, each with one thing wrong in it."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as some
import torch
from claim import RESULTS
from malformed_inputs import DEEP, DEEP_OBJECT, WRONG, Case, Make, draw, recipe
from safetensors.torch import load_file, save_file

from diffcr.pretrained import default_checkpoint_path, default_pipeline_path

Change = Callable[[Any], None]
_CONFIG, _STATE = "diffcr_config.json", "diffcr.safetensors"
_LARGE_JSON = b'{"a": "' + b"x" * 2**26 + b'"}'
_TEXTS = {
    "nothing": b"",
    "deep": DEEP,
    "deep-object": DEEP_OBJECT,
    "list": b"[]",
    "empty": b"{}",
    "nan": b'{"format": NaN}',
    "twice": b'{"format": 1, "format": 1}',
    "bytes": b"\xff\xfe\x00",
    "large": _LARGE_JSON,
}
_HEADERS = {
    "nothing": b"",
    "long-header": struct.pack("<Q", 2**60) + b"{}",
    "no-json": struct.pack("<Q", 4) + b"abcd",
    "deep-header": struct.pack("<Q", len(DEEP)) + DEEP,
    "outside": struct.pack("<Q", 58)
    + b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,99999]}}',
}


def changed_json(source: Path, change: Change) -> Make:
    """A copy of a JSON file with a change."""

    def make(path: Path) -> None:
        values = json.loads(source.read_text())
        change(values)
        path.write_text(json.dumps(values))

    return make


def set_to(path: str, value: Any) -> Change:
    """Sets what is at a dotted path."""

    def change(values: Any) -> None:
        *sections, last = path.split(".")
        for section in sections:
            values = values[int(section) if section.isdigit() else section]
        values[last] = value

    return change


def _checkpoint(changes: dict[str, bytes | Make], listed: bool = True) -> Make:
    """A copy of the embedded checkpoint without weights of the host, with other files."""

    def make(path: Path) -> None:
        path.mkdir()
        values = json.loads((default_checkpoint_path() / _CONFIG).read_text())
        shutil.copy(default_checkpoint_path() / _STATE, path)
        (path / _CONFIG).write_text(json.dumps(values))
        for name, contents in changes.items():
            (path / name).parent.mkdir(exist_ok=True)
            if isinstance(contents, bytes):
                (path / name).write_bytes(contents)
            else:
                contents(path / name)
        if listed:
            written = json.loads((path / _CONFIG).read_text())
            files = (f for f in path.rglob("*") if f.is_file() and f.name not in (_CONFIG,))
            written["files"] = {
                f.relative_to(path).as_posix(): hashlib.sha256(f.read_bytes()).hexdigest()
                for f in files
            }
            (path / _CONFIG).write_text(json.dumps(written))

    return make


def _tensors(change: Change) -> Make:
    def make(path: Path) -> None:
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path)

    return make


def checkpoints() -> Iterator[Case]:
    """Checkpoints: the configuration, tensors whose digests are right, adapters."""
    command = ("generate", "x", "--steps", "1", "--checkpoint", "ck")

    def case(name: str, changes: dict[str, bytes | Make], listed: bool = True) -> Case:
        return Case("checkpoint", name, command, {"ck": _checkpoint(changes, listed)})

    for name, text in _TEXTS.items():
        yield case(f"config-{name}", {_CONFIG: text}, listed=False)
    for name, text in _HEADERS.items():
        yield case(f"tensors-{name}", {_STATE: text})
    places = ("config", "config.method", "config.timestep_regions", "base_model", "format")
    places += ("config.target_compression_ratio", "config.gate", "base_model.config_hash")
    for index, (place, value) in enumerate(draw(some.tuples(some.sampled_from(places), WRONG), 14)):
        changes: dict[str, bytes | Make] = {
            _CONFIG: changed_json(default_checkpoint_path() / _CONFIG, set_to(place, value))
        }
        yield case(f"{place}-{index}", changes)
    for name, value in {"files": 7, "beneath": 7, "transformer_class": [1] * 10**5}.items():
        changed = changed_json(default_checkpoint_path() / _CONFIG, set_to(name, value))
        yield case(name, {_CONFIG: changed}, listed=name != "files")
    many = [{"method": "diffcr"}] * 10**5
    changed = changed_json(default_checkpoint_path() / _CONFIG, set_to("beneath", many))
    yield case("beneath-many", {_CONFIG: changed})
    for name, change in _TENSOR_CHANGES.items():
        yield case(f"tensors-{name}", {_STATE: _tensors(change)})
    for name, adapter in _ADAPTERS.items():
        changes = {"adapter/adapter_config.json": json.dumps(adapter).encode()}
        changes["adapter/adapter_model.safetensors"] = lambda path: save_file(
            {"base_model.model.x.lora_A.weight": torch.zeros(2, 2)}, path
        )
        yield case(f"adapter-{name}", changes)


def _without(part: str) -> Change:
    def change(tensors: dict[str, Any]) -> None:
        for name in [name for name in tensors if part in name]:
            del tensors[name]

    return change


def _each(part: str, change: Callable[[Any], Any]) -> Change:
    def apply(tensors: dict[str, Any]) -> None:
        tensors |= {n: change(t).contiguous() for n, t in tensors.items() if part in n}

    return apply


_TENSOR_CHANGES: dict[str, Change] = {
    "no-ratios": _without("ratio"),
    "no-routers": _without("router"),
    "no-base": _without("base_weights"),
    "nan-ratios": _each("ratio", lambda t: t.float() * float("nan")),
    "ratios-of-9": _each("ratio", lambda t: t.float() * 0 + 9),
    "negative-ratios": _each("ratio", lambda t: t.float() * 0 - 1),
    "integer-ratios": _each("ratio", lambda t: t.int()),
    "wide-ratios": _each("ratio", lambda t: t.repeat(3, 3)),
    "infinite-routers": _each("router", lambda t: t.float() + float("inf")),
    "flat-routers": _each("router", lambda t: t.flatten()[:1]),
    "short-base": _each("base_weights", lambda t: t[:3]),
    "integer-base": _each("base_weights", lambda t: t.int()),
    "another-base": _each("base_weights", lambda t: t + 1),
    "one-more": lambda tensors: tensors.update(more=torch.zeros(3)),
}
_LORA = {"peft_type": "LORA", "r": 4, "lora_alpha": 4, "target_modules": ["to_q"]}
_ADAPTERS: dict[str, Any] = {
    "nothing": {},
    "list": [],
    "another-kind": {**_LORA, "peft_type": "IA3"},
    "no-kind": {**_LORA, "peft_type": 7},
    "no-rank": {**_LORA, "r": 0},
    "huge-rank": {**_LORA, "r": 10**9},
    "rank-of-text": {**_LORA, "r": "4"},
    "broken-pattern": {**_LORA, "target_modules": "(("},
    "slow-pattern": {**_LORA, "target_modules": "(([a-z_.0-9]+)+)+!"},
    "another-start": {**_LORA, "init_lora_weights": "pissa"},
    "unknown-key": {**_LORA, "unknown": 1},
    "nothing-fits": {**_LORA, "target_modules": ["nowhere"]},
}


def models() -> Iterator[Case]:
    """Pipelines whose configurations are wrong."""
    index = default_pipeline_path() / "model_index.json"
    transformer = default_pipeline_path() / "transformer" / "config.json"

    def pipeline(changes: dict[str, bytes | Make]) -> Make:
        def make(path: Path) -> None:
            shutil.copytree(default_pipeline_path(), path)
            for name, contents in changes.items():
                if isinstance(contents, bytes):
                    (path / name).write_bytes(contents)
                else:
                    contents(path / name)

        return make

    commands = (
        ("generate", "x", "--dense", "--steps", "1", "--model", "m"),
        ("flops", "--method", "mod:0.3", "--model", "m"),
        ("bench", "--method", "mod:0.3", "--pairs", "1", "--model", "m"),
    )
    changes: dict[str, dict[str, bytes | Make]] = {
        "index-nothing": {"model_index.json": b""},
        "index-list": {"model_index.json": b"[]"},
        "index-deep": {"model_index.json": DEEP},
        "index-class": {
            "model_index.json": changed_json(index, set_to("_class_name", "os.system"))
        },
        "index-part": {"model_index.json": changed_json(index, set_to("transformer", 7))},
        "weights": {"transformer/diffusion_pytorch_model.safetensors": b"x" * 100},
        "config-nothing": {"transformer/config.json": b""},
        "config-deep": {"transformer/config.json": DEEP_OBJECT},
    }
    numbers = (
        ("patch_size", 0),
        ("num_layers", -1),
        ("attention_head_dim", "x"),
        ("in_channels", 10**9),
    )
    numbers += (("num_attention_heads", 0), ("sample_size", None), ("_class_name", "Nothing"))
    for name, value in numbers:
        changed = changed_json(transformer, set_to(name, value))
        changes[f"{name}-{value}"] = {"transformer/config.json": changed}
    for number, (name, files) in enumerate(changes.items()):
        command = commands[number % len(commands)]
        if name == "weights" or name.startswith("index"):
            command = commands[0]
        yield Case("model", name, command, {"m": pipeline(files)})


def records() -> Iterator[Case]:
    """Directories of records for `report`."""
    whole = RESULTS / "methods-embedded.json"
    timing = RESULTS / "forward-pixart-sigma-xl-512.json"
    contents: dict[str, bytes | Make] = dict(_TEXTS)
    places = ("results", "samples", "versions", "hardware", "seeds", "command", "schema", "created")
    for index, (place, value) in enumerate(
        draw(some.tuples(some.sampled_from(places), some.one_of(some.text(), some.none())), 6)
    ):
        if (place, value) != ("created", str(value)):
            contents[f"{place}-{index}"] = changed_json(timing, set_to(place, value))
    contents["no-number"] = changed_json(whole, _texts_for_numbers)
    contents["no-timing"] = changed_json(timing, _texts_for_numbers)
    for name, text in contents.items():
        yield Case("record", name, ("report", "r"), {"r/a.json": text})


def _texts_for_numbers(record: Any) -> None:
    record["results"] = _with_texts(record["results"])


def _with_texts(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_texts(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_with_texts(each) for each in value]
    return "x" if isinstance(value, int | float) and not isinstance(value, bool) else value


def runs(run: Path) -> Iterator[Case]:
    """Directories of a run that is to go on; `run` is one of two steps."""
    command = ("train", "a.json", "--steps", "4", "--output", "run")

    def copied(changes: dict[str, bytes | Make]) -> Make:
        def make(path: Path) -> None:
            shutil.copytree(run, path)
            for pattern, contents in changes.items():
                for found in sorted(path.glob(pattern)):
                    if isinstance(contents, bytes):
                        found.write_bytes(contents)
                    else:
                        contents(found)

        return make

    cases: dict[str, dict[str, bytes | Make]] = {
        f"identity-{name}": {"run.json": text} for name, text in _TEXTS.items()
    }
    for name in ("settings", "values", "bases", "captions"):
        cases[f"identity-{name}"] = {"run.json": changed_json(run / "run.json", set_to(name, 7))}
    cases |= {
        "history-text": {"history.jsonl": b"x\n"},
        "history-deep": {"history.jsonl": DEEP + b"\n"},
        "history-step": {"history.jsonl": b'{"step": "x"}\n'},
        "progress-empty": {"checkpoints/*/progress.json": b"[]"},
        "progress-step": {"checkpoints/*/progress.json": b'{"step": -1}'},
        "progress-more": {"checkpoints/*/progress.json": b'{"step": 99}'},
        "state-cut": {"checkpoints/*/state.safetensors": b"x" * 40},
        "final-other": {"final/diffcr_config.json": b"mine", "final/README.md": b"mine"},
    }
    for name, changes in cases.items():
        files: dict[str, bytes | Make] = {"a.json": recipe(), "run": copied(changes)}
        yield Case("run", name, command, files)
