"""Malformed inputs, and what commands say of them: `python benchmarks/malformed.py`.

Every command runs in a process of its own, which may take 2 GiB beyond what is imported. Wanted:
exit code 2, one line of at most a few hundred characters, no traceback, at most 10 s of processor
time, and nothing written that is a result.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from claim import RESULTS
from forked import Limits, import_commands, start
from malformed_directories import checkpoints, models, records, runs
from malformed_inputs import SEED, Case, options, prompts, recipe, recipes
from malformed_pictures import folders, pictures, sources

from diffcr.records.record import make_record, write_record

_MEBIBYTES, _SECONDS = 2048, 10
_LONGEST_LINE = 420
_LONGEST_BY_THE_CLOCK = 300.0
_RESULTS = ("*.png", "final", "*.html", "index.json", "report.json")
_PREFIX = "diffcr: error: "


@dataclass(frozen=True)
class Outcome:
    """What a command made of an input.

    Attributes:
        case: The input.
        seconds: Of processor time.
        mebibytes: Largest resident memory, imports included.
        said: The last line that it printed as an error.
        faults: What was not as wanted; none if nothing.
    """

    case: Case
    seconds: float
    mebibytes: float
    said: str
    faults: tuple[str, ...]


def try_case(case: Case, place: Path) -> Outcome:
    """Run one command in an empty folder."""
    for name, contents in case.files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(contents, bytes):
            path.write_bytes(contents)
        else:
            contents(path)
    before = _results(place)
    (process,) = start(case.arguments, place, limits=Limits(_MEBIBYTES, _SECONDS))
    finished = process.wait(_LONGEST_BY_THE_CLOCK)
    if not finished:
        process.send(signal.SIGKILL)
        process.wait(_LONGEST_BY_THE_CLOCK)
    assert process.usage is not None
    errors = process.errors.read_bytes().decode("utf-8", "replace")
    lines = [line for line in errors.replace("\r", "\n").split("\n") if line.strip()]
    said = [line for line in lines if line.startswith(_PREFIX)]
    faults = []
    if process.code != 2:
        faults.append(f"exit code {process.code}")
    if len(said) != 1 or lines[-1:] != said:
        faults.append(f"{len(said)} lines of error")
    if "Traceback" in errors:
        faults.append("a traceback")
    longest = max(map(len, said), default=0)
    if longest > _LONGEST_LINE:
        faults.append(f"a line of {longest} characters")
    if not finished:
        faults.append(f"not done after {_LONGEST_BY_THE_CLOCK:.0f} s")
    if process.processor_seconds > _SECONDS:
        faults.append(f"{process.processor_seconds:.1f} s")
    if written := sorted(path.name for path in _results(place) - before):
        faults.append(f"written: {', '.join(written[:3])}")
    mebibytes = process.usage.ru_maxrss / 1024
    last = " ".join((lines[-1:] or [""])[0].split())[:_LONGEST_LINE]
    return Outcome(case, process.processor_seconds, mebibytes, last, tuple(faults))


def _results(place: Path) -> set[Path]:
    return {path for pattern in _RESULTS for path in place.rglob(pattern)}


def all_cases(place: Path) -> Iterator[Case]:
    """Every kind of input; some are made from a run of two steps."""
    of_files = (recipes, folders, pictures, prompts, options, sources)
    for cases in (*of_files, checkpoints, models, records):
        yield from cases()
    (place / "a.json").write_bytes(recipe(checkpoint_every=1))
    (trained,) = start(("train", "a.json", "--output", "run"), place)
    trained.wait(_LONGEST_BY_THE_CLOCK)
    if trained.code != 0:
        raise RuntimeError(trained.errors.read_text())
    yield from runs(place / "run")


def write(outcomes: list[Outcome]) -> None:
    """The record."""
    worst = max(outcomes, key=lambda outcome: outcome.seconds)
    largest = max(outcomes, key=lambda outcome: outcome.mebibytes)
    results: dict[str, Any] = {
        "inputs": dict(Counter(outcome.case.kind for outcome in outcomes)),
        "refused_in_one_line": sum(not outcome.faults for outcome in outcomes),
        "longest_processor_seconds": {_name(worst): round(worst.seconds, 2)},
        "largest_resident_mebibytes": {_name(largest): round(largest.mebibytes, 1)},
        "faults": {_name(each): list(each.faults) for each in outcomes if each.faults},
    }
    configuration = {"mebibytes": _MEBIBYTES, "processor_seconds": _SECONDS}
    record = make_record("malformed", configuration, results, seeds={"inputs": SEED})
    write_record(record, RESULTS / "malformed.json")


def _name(outcome: Outcome) -> str:
    return f"{outcome.case.kind}: {outcome.case.name}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="Kinds with this in them; no record.")
    parser.add_argument("--name", default="", help="Cases with this in their name; no record.")
    arguments = parser.parse_args()
    import_commands()
    outcomes = []
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "made").mkdir()
        for case in all_cases(Path(folder) / "made"):
            if arguments.only not in case.kind or arguments.name not in case.name:
                continue
            place = Path(folder) / "case"
            place.mkdir()
            outcomes.append(try_case(case, place))
            one = outcomes[-1]
            print(f"{_name(one)!a} {one.seconds:.1f} s {one.mebibytes:.0f} MiB", flush=True)
            print(
                f"  {'FAULT ' + '; '.join(one.faults) if one.faults else ''} {one.said!a}",
                flush=True,
            )
            shutil.rmtree(place)
    print(len(outcomes), "inputs,", sum(bool(each.faults) for each in outcomes), "with faults")
    if not arguments.only and not arguments.name:
        write(outcomes)


if __name__ == "__main__":
    main()
