"""The one JSON schema of everything that was measured: what, on what, with which code."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from diffcr.errors import DiffCRError
from diffcr.files import read_json, write_text
from diffcr.hardware import hardware, library_versions
from diffcr.records.provenance import find_revision

SCHEMA = 1
_TYPES: dict[str, tuple[type, ...]] = {
    "schema": (int,),
    "kind": (str,),
    "configuration": (dict,),
    "command": (list,),
    "commit": (str, type(None)),
    "dirty": (bool, type(None)),
    "versions": (dict,),
    "hardware": (dict,),
    "seeds": (dict,),
    "results": (dict,),
    "samples": (dict,),
    "created": (str,),
}


@dataclass(frozen=True)
class Record:
    """A measurement and everything that is needed to repeat it.

    Attributes:
        kind: What was done, for example "evaluation" or "demo".
        configuration: Its settings.
        command: Program and arguments.
        commit: Revision of the source that ran, None outside of a checkout.
        dirty: Whether tracked files differed from that revision, None outside of a checkout.
        versions: Of Python and of libraries, by name.
        hardware: Processor, cores, threads, accelerator.
        seeds: By what they seeded.
        results: What was measured, by name; JSON values.
        samples: Raw samples behind the results, by name: lists of numbers.
        created: UTC, ISO 8601.
        schema: Version of this layout.
    """

    kind: str
    configuration: Mapping[str, Any]
    command: list[str]
    commit: str | None
    dirty: bool | None
    versions: Mapping[str, str]
    hardware: Mapping[str, Any]
    seeds: Mapping[str, int]
    results: Mapping[str, Any]
    samples: Mapping[str, list[float]] = field(default_factory=dict)
    created: str = ""
    schema: int = SCHEMA


def make_record(
    kind: str,
    configuration: Mapping[str, Any],
    results: Mapping[str, Any],
    *,
    seeds: Mapping[str, int],
    samples: Mapping[str, list[float]] | None = None,
) -> Record:
    """A record of what this process measured, with its command, code, libraries and machine."""
    revision = find_revision()
    return Record(
        kind=kind,
        configuration=configuration,
        command=[Path(sys.argv[0]).name, *sys.argv[1:]],
        commit=revision.commit,
        dirty=revision.dirty,
        versions=library_versions(),
        hardware=hardware(),
        seeds=seeds,
        results=results,
        samples=samples or {},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def write_record(record: Record, path: str | Path) -> Path:
    """Write a record; the file appears complete or not at all. Returns its path."""
    target = Path(path)
    write_text(target, _format(asdict(record)) + "\n")
    return target


def _format(value: Any, indent: str = "") -> str:
    """JSON with one line per key, and lists of plain values on one line: maps stay readable."""
    deeper = indent + "  "
    if isinstance(value, dict) and value:
        items = [f"{json.dumps(str(k))}: {_format(v, deeper)}" for k, v in value.items()]
        return "{\n" + deeper + f",\n{deeper}".join(items) + f"\n{indent}}}"
    if isinstance(value, list | tuple) and any(isinstance(v, dict | list | tuple) for v in value):
        items = [_format(v, deeper) for v in value]
        return "[\n" + deeper + f",\n{deeper}".join(items) + f"\n{indent}]"
    return json.dumps(value, allow_nan=False)


def read_record(path: str | Path) -> Record:
    """Read and check a record.

    Raises:
        DiffCRError: The file is missing, damaged, or not a record of this schema.
    """
    source = Path(path)
    values = read_json(source)
    _check(source, values)
    return Record(**values)


def _check(source: Path, values: dict[str, Any]) -> None:
    if values.get("schema") != SCHEMA:
        raise DiffCRError(
            f"{source} has schema {values.get('schema')!r}, this version of diffcr reads {SCHEMA}"
        )
    known = {entry.name for entry in fields(Record)}
    if set(values) != known:
        odd = sorted(set(values) ^ known)
        raise DiffCRError(f"{source} is not a record: {', '.join(odd)} missing or not known")
    for name, types in _TYPES.items():
        if not isinstance(values[name], types):
            raise DiffCRError(f"{source} is not a record: {name} is {values[name]!r}")
    for name, samples in values["samples"].items():
        if not isinstance(samples, list) or not all(
            isinstance(value, int | float) for value in samples
        ):
            raise DiffCRError(f"{source} is not a record: samples {name!r} are no list of numbers")
