"""Inputs that nobody should be able to break a command with: each has to be refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis.strategies as some
import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings

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
    # What hypothesis takes from this file may be a whole recipe.
    nameless = some.binary(min_size=1, max_size=200).filter(
        lambda contents: b"name" not in contents
    )
    drawn_bytes = draw(nameless, 12)
    texts |= {f"bytes-{index}": contents for index, contents in enumerate(drawn_bytes)}
    for name, contents in texts.items():
        yield Case(
            "recipe file", name, ("train", "a.yaml", "--output", "run"), {"a.yaml": contents}
        )
    for name, special in (("pipe", os.mkfifo), ("folder", os.mkdir), ("loop", link_to_itself)):
        yield Case("recipe file", name, ("train", "a.yaml", "--output", "run"), {"a.yaml": special})


def link_to_itself(path: Path) -> None:
    """Make a link that leads nowhere."""
    path.symlink_to(path)


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
    for name, special in (("pipe", os.mkfifo), ("folder", os.mkdir), ("loop", link_to_itself)):
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
