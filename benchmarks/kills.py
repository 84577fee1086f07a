"""Kills at random moments, and what the same command then makes of it.

Every command is run once to its end. Then it is killed, somewhere in the processor time that this
took, or as soon as something is half-written, and run again. What it leaves has to be, byte for
byte, what the uninterrupted one left.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from claim import RESULTS
from forked import Process, import_commands, start
from killed_commands import PICTURES, PROMPTS, SIDE, STEPS, Work, all_work

from diffcr.files import write_json
from diffcr.records.record import make_record, write_record
from diffcr.training.progress import saved_steps
from diffcr.training.run_directory import read_history

_SEED = 0
# torchrun ends the other processes of one that died: SIGTERM, and SIGKILL after this many seconds.
_GRACE = 30.0
_LONGEST = 600.0
_TIMES = ("progress.json", "training_record.json", "history.jsonl")
_WHOLE = (".png", ".safetensors")


@dataclass(frozen=True)
class Whole:
    """What an uninterrupted run left, and took."""

    contents: dict[str, bytes]
    processor_seconds: float


def run_whole(work: Work, place: Path) -> Whole:
    """Run it to its end; one process that writes the cache of encoded pictures before others."""
    directory = place / "whole"
    processes = start([*work.arguments, directory], place, "whole", work.processes)
    _finish(processes)
    return Whole(contents_of(directory), processes[0].processor_seconds)


def _finish(processes: list[Process]) -> str:
    """Wait for a good end; what the first process printed as an error."""
    for process in processes:
        if not process.wait(_LONGEST):
            process.send(signal.SIGKILL)
        if process.code != 0:
            raise RuntimeError(f"exit code {process.code}: {process.errors.read_text()[-2000:]}")
    return processes[0].errors.read_text()


def contents_of(directory: Path) -> dict[str, bytes]:
    """The files of a directory by name, without the seconds that they tell."""
    return {
        path.relative_to(directory).as_posix(): _timeless(path)
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def _timeless(path: Path) -> bytes:
    if path.name not in _TIMES:
        return path.read_bytes()
    lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    return json.dumps([_without_seconds(json.loads(line)) for line in lines]).encode()


def _without_seconds(values: dict[str, Any]) -> dict[str, Any]:
    last = values.get("last_history_line")
    kept = {k: v for k, v in values.items() if k not in ("seconds", "last_history_line")}
    return kept if last is None else {**kept, "last": _without_seconds(json.loads(last))}


@dataclass(frozen=True)
class Kill:
    """A kill and what came of it.

    Attributes:
        work: Name of what was killed.
        sent: Name of the signal.
        moment: Share of an uninterrupted run's processor time that it came after.
        codes: Exit codes of the processes.
        half_written: Temporary names that it left.
        lost: Files that were whole before the kill, or said to be, and are not afterwards.
        exact: Whether the resumed run left what the uninterrupted one did, and nothing else.
        wrong: What else was not as promised; empty if nothing.
    """

    work: str
    sent: str
    moment: float
    codes: tuple[int | None, ...]
    half_written: int
    lost: int
    exact: bool
    wrong: str


def kill_once(work: Work, place: Path, name: str, whole: Whole, drawn: random.Random) -> Kill:
    """Kill a run at a moment that is drawn, and run it again to its end."""
    sent = signal.SIGTERM if drawn.random() < 0.5 else signal.SIGKILL
    victim = drawn.randrange(work.processes)
    directory = place / name
    while True:
        shutil.rmtree(directory, ignore_errors=True)
        processes = start([*work.arguments, directory], place, "killed", work.processes)
        if _wait_for_moment(work, processes, directory, whole, drawn):
            break
    moment = processes[0].processor_seconds / whole.processor_seconds
    wrong = _kill(processes, sent, victim)
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    half_written = sum(1 for path in directory.rglob(".*.partial"))
    lost = _half_written_under_their_names(before, directory, whole)
    lost += _lost_steps(directory, work.checkpoint_every)
    resumed = start([*work.arguments, directory], place, "resumed", work.processes)
    try:
        printed = _finish(resumed)
        lost += printed.count("is passed over")
        after = contents_of(directory)
    except RuntimeError as error:
        wrong, after = f"{wrong} the resumed run: {error}".strip(), {}
    differing = sorted(
        n for n in {*whole.contents, *after} if whole.contents.get(n) != after.get(n)
    )
    if differing:
        wrong = f"{wrong} differing: {', '.join(differing[:5])}".strip()
    codes = tuple(process.code for process in processes)
    moment = round(moment, 3)
    return Kill(work.name, sent.name, moment, codes, half_written, lost, not differing, wrong)


def _wait_for_moment(
    work: Work, processes: list[Process], directory: Path, whole: Whole, drawn: random.Random
) -> bool:
    """Whether the moment came before the end."""
    share, which, delay = drawn.random(), drawn.randrange(4), drawn.random() * 0.02
    met: set[str] = set()
    while all(process.running for process in processes):
        if work.saving:
            met |= {str(path) for path in directory.rglob(".*.partial")}
            if len(met) > which:
                time.sleep(delay)
                return True
            time.sleep(0.001)
        elif processes[0].processor_seconds >= share * whole.processor_seconds:
            return True
        else:
            time.sleep(0.01)
    for process in processes:
        process.wait(_LONGEST)
    return False


def _kill(processes: list[Process], sent: signal.Signals, victim: int) -> str:
    """As torchrun does: a terminated launcher terminates all processes, one that dies all others;
    what went wrong."""
    if sent == signal.SIGKILL:
        processes[victim].send(sent)
        processes[victim].wait(_LONGEST)
    for process in processes:
        process.send(signal.SIGTERM)
    wrong = []
    for rank, process in enumerate(processes):
        if not process.wait(_GRACE):
            process.send(signal.SIGKILL)
            process.wait(_LONGEST)
            if sent == signal.SIGTERM:
                wrong.append(f"process {rank} did not end within {_GRACE:.0f} s of SIGTERM")
        # 0: the signal came in what was left of a run that was done.
        # -15: it came before the command had begun.
        if sent == signal.SIGTERM and process.code not in (143, 0, -signal.SIGTERM):
            wrong.append(f"process {rank} ended with {process.code} after SIGTERM")
            wrong.append(" ".join(process.errors.read_text().split())[-300:])
    return "; ".join(wrong)


def _half_written_under_their_names(
    before: dict[Path, bytes], directory: Path, whole: Whole
) -> int:
    """Files with their final name and another content than an uninterrupted run's."""
    names = {path.relative_to(directory).as_posix(): path for path in before}
    return sum(
        1
        for name, path in names.items()
        if path.suffix in _WHOLE and whole.contents.get(name, before[path]) != before[path]
    )


def _lost_steps(directory: Path, checkpoint_every: int) -> int:
    """1 where a training's checkpoint is missing that its history says was written."""
    if not checkpoint_every:
        return 0
    logged = len(read_history(directory / "history.jsonl"))
    # A step is logged before it is saved.
    promised = max(0, logged - 1) // checkpoint_every * checkpoint_every
    saved = saved_steps(directory / "checkpoints")
    reached = int(saved[-1].name.removeprefix("step-")) if saved else 0
    return int(reached < promised)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="Commands with this in their name.")
    parser.add_argument(
        "--kept", type=Path, default=Path("runs/kills"), help="Folder of the kills of each command."
    )
    arguments = parser.parse_args()
    import_commands()
    arguments.kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        everything = all_work(Path(folder))
        for number, work in enumerate(everything):
            file = arguments.kept / f"{work.name}.json"
            if arguments.only in work.name and not file.exists():
                write_json(file, [vars(kill) for kill in kill_all(work, Path(folder), number)])
        files = [arguments.kept / f"{work.name}.json" for work in everything]
    if all(file.exists() for file in files):
        write([kill for file in files for kill in json.loads(file.read_text())])


def kill_all(work: Work, folder: Path, number: int) -> list[Kill]:
    """All kills of one command."""
    place, drawn = folder / work.name, random.Random(f"{_SEED}-{number}")
    place.mkdir()
    whole = run_whole(work, place)
    kills = []
    for each in range(work.kills):
        kills.append(kill_once(work, place, f"killed-{each}", whole, drawn))
        print(json.dumps(vars(kills[-1])), flush=True)
        shutil.rmtree(place / f"killed-{each}", ignore_errors=True)
    return kills


def write(kills: list[dict[str, Any]]) -> None:
    """The record; `kills` are the attributes of `Kill`."""
    results = {
        "kills": len(kills),
        "exact_resumes": sum(kill["exact"] for kill in kills),
        "files_lost": sum(kill["lost"] for kill in kills),
        "met_something_half_written": sum(kill["half_written"] > 0 for kill in kills),
        "wrong_otherwise": sum(bool(kill["wrong"]) for kill in kills),
        "signals": dict(Counter(kill["sent"] for kill in kills)),
        "exit_codes": dict(Counter(str(code) for kill in kills for code in kill["codes"])),
        "each": kills,
    }
    configuration = {"steps": STEPS, "pictures": PICTURES, "prompts": PROMPTS, "side": SIDE}
    record = make_record("kills", configuration, results, seeds={"moments": _SEED})
    write_record(record, RESULTS / "kills.json")


if __name__ == "__main__":
    main()
