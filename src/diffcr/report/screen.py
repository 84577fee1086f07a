"""What a command says in its end: what was done, what it gained, what to do next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import Any

from rich.console import Console

from diffcr.records.record import Record

# Fewer have no 95 % interval.
_FEWEST_PAIRS = 6


@dataclass(frozen=True)
class Screen:
    """At most 25 lines of a terminal of 80 columns.

    Attributes:
        done: What was done, a line each, and where it lies.
        gained: What that gave, of what was measured.
        next_steps: Commands and addresses, to be copied.
    """

    done: Sequence[str]
    gained: Sequence[str]
    next_steps: Sequence[str]


def show_screen(screen: Screen, console: Console) -> None:
    """Print a screen. What is to be copied is on one line, however narrow the terminal."""
    parts = {"Done": screen.done, "Gained": screen.gained}
    for title, lines in parts.items():
        if lines:
            console.print(title, style="bold")
        for line in lines:
            console.print(_indented(line, console.width), highlight=False, markup=False)
    console.print("Next", style="bold")
    for line in screen.next_steps:
        console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)


def _indented(line: str, width: int) -> str:
    indent = "  "
    return fill(
        line,
        width,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def gains(record: Record) -> list[str]:
    """What a record says of a compressed model beside the dense one, a line a section."""
    results = record.results
    return [
        line
        for name, describe in _SECTIONS.items()
        if results.get(name)
        for line in describe(results[name])
    ]


def _compression(section: Mapping[str, Any]) -> Iterator[str]:
    target = f" (target {section['target']:.0%})" if "target" in section else ""
    yield f"tokens: {section['realised_mean']:.1%} bypass a layer on average{target}"


def _flops(section: Mapping[str, Any]) -> Iterator[str]:
    if "compressed" in section:
        share = section["compressed"]["total"] / section["dense"]["total"]
        yield f"operations of the denoiser: {share:.1%} of dense"


def _latency(section: Mapping[str, Any]) -> Iterator[str]:
    for name, values in section.items():
        if not isinstance(values, Mapping):
            continue
        low, high = values["interval"]
        time = f"time, {name}: {values['ratio']:.1%} of dense ({low:.1%} to {high:.1%})"
        control = values["control_interval"]
        if values["pairs"] < _FEWEST_PAIRS:
            yield f"{time}, too few pairs ({values['pairs']}) to tell it from noise"
        elif control is not None and _overlap((low, high), control):
            noise = " to ".join(f"{end:.1%}" for end in control)
            yield f"{time}, not told apart from noise: dense against itself gave {noise}"
        else:
            yield time


def _overlap(first: Sequence[float], second: Sequence[float]) -> bool:
    return first[0] <= second[1] and second[0] <= first[1]


def _quality(section: Mapping[str, Any]) -> Iterator[str]:
    yield _dense_to_compressed(
        "caption accuracy", {name: v["caption_accuracy"] for name, v in section.items()}, ".1%"
    )


def _held_out(section: Mapping[str, Any]) -> Iterator[str]:
    yield _dense_to_compressed(
        "held-out loss", {name: v["mean"] for name, v in section.items()}, ".4f"
    )


def _dense_to_compressed(what: str, values: Mapping[str, float], form: str) -> str:
    return f"{what}: " + ", ".join(f"{name} {value:{form}}" for name, value in values.items())


def _calibration(section: Mapping[str, Any]) -> Iterator[str]:
    chosen = section["chosen"]
    time = chosen["seconds"] / section["dense_seconds"]
    yield f"tokens: {chosen['mean_compression_ratio']:.1%} of a run are skipped"
    yield f"error of the final latents against the dense run: {chosen['error']:.1%}"
    yield f"time: {time:.0%} of the dense run's, one run each, so with this machine's noise"


_SECTIONS = {
    "calibration": _calibration,
    "compression": _compression,
    "flops": _flops,
    "latency": _latency,
    "quality": _quality,
    "held_out_loss": _held_out,
}
