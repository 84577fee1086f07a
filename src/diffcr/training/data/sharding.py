"""Pictures and captions encoded once, into shards, by any number of processes.

A unit of the source is encoded by one process, `shard_items` pictures at a time. Each such part is
one shard per size of its pictures and then a file in `parts/`, which says that it is done: what a
killed run left without one is encoded again. Shards depend on the source and the settings alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from diffcr.errors import DiffCRError
from diffcr.files import read_json, replacing_file, write_json
from diffcr.training.data.encoding import encode_captions, encoders
from diffcr.training.data.part_encoder import PartEncoder, ShardSettings, SkippedPicture
from diffcr.training.data.shards import BEGUN_FILE, Shard, write_empty_caption, write_index
from diffcr.training.data.sources.item import PictureSource

_SKIPPED_FILE = "skipped.jsonl"
_PARTS_DIRECTORY = "parts"


@dataclass(frozen=True)
class _Part:
    """What became of some items of a unit.

    Attributes:
        items: Of the source.
        last: Whether the unit ends here.
        shards: That were written.
        skipped: Pictures that were passed over.
    """

    items: int
    last: bool
    shards: tuple[Shard, ...]
    skipped: tuple[SkippedPicture, ...]

    @classmethod
    def read(cls, path: Path) -> _Part:
        values = read_json(path)
        return cls(
            int(values["items"]),
            bool(values["last"]),
            tuple(map(Shard.from_json_dict, values["shards"])),
            tuple(SkippedPicture(**entry) for entry in values["skipped"]),
        )


def begin_shards(directory: Path, identity: dict[str, Any]) -> None:
    """Say what is encoded into a directory; one process does before any encodes.

    Args:
        directory: Made where it is missing.
        identity: Source, models and settings, for JSON.

    Raises:
        DiffCRError: Something else was begun there.
    """
    file = directory / BEGUN_FILE
    wanted = json.loads(json.dumps(identity))
    if not file.exists():
        write_json(file, wanted)
        return
    present = read_json(file)
    for name in sorted({*present, *wanted}):
        if present.get(name) != wanted.get(name):
            raise DiffCRError(
                f"{directory} holds shards with {name} {present.get(name)!r}, not "
                f"{wanted.get(name)!r}: give another directory, or the same again"
            )


def encode_shards(
    pipe: Any,
    source: PictureSource,
    directory: Path,
    settings: ShardSettings,
    process: int = 0,
    processes: int = 1,
) -> None:
    """Encode the units of one of several processes, without those that are done.

    Args:
        pipe: A pipeline with `vae`, `text_encoder` and `encode_prompt`.
        source: Of the pictures.
        directory: Where `begin_shards` was called.
        settings: How.
        process: Number of this one, from 0; it encodes the units that leave it as remainder.
        processes: How many there are.
    """
    units = range(process, source.units, processes)
    bar = tqdm(desc="encoding", unit="picture", mininterval=1, disable=process > 0)
    with ThreadPoolExecutor() as readers, bar:
        for unit in units:
            for part in _encode_unit(pipe, source, unit, directory, settings, readers):
                bar.update(part.items)


def finish_shards(
    pipe: Any, directory: Path, units: int, settings: ShardSettings, described: dict[str, Any]
) -> int:
    """Make a data set of what all processes encoded; one process does.

    Args:
        pipe: The pipeline.
        directory: Where the units were encoded to.
        units: Of the source.
        settings: As they were encoded with.
        described: What the data set says of itself.

    Returns:
        Pictures that were passed over; `skipped.jsonl` lists them.

    Raises:
        DiffCRError: No picture could be read.
    """
    shards: list[Shard] = []
    skipped = 0
    with replacing_file(directory / _SKIPPED_FILE) as temporary, temporary.open("w") as file:
        for part in (part for unit in range(units) for part in _parts_of(directory, unit)):
            shards += part.shards
            skipped += len(part.skipped)
            file.writelines(json.dumps(asdict(entry)) + "\n" for entry in part.skipped)
    if not shards:
        raise DiffCRError(
            f"none of the {skipped} pictures could be read: {directory / _SKIPPED_FILE} says why"
        )
    empty = encode_captions(pipe, [""], settings.max_sequence_length, 1)
    write_empty_caption(directory, empty.to("cpu", encoders(pipe)[-1].dtype))
    write_index(directory, described, shards, skipped)
    return skipped


def _part_file(directory: Path, unit: int, number: int) -> Path:
    return directory / _PARTS_DIRECTORY / f"{unit:06d}-{number:05d}.json"


def _parts_of(directory: Path, unit: int) -> Iterator[_Part]:
    """The parts of a unit that are done, in order."""
    for number in count():
        file = _part_file(directory, unit, number)
        if not file.exists():
            return
        yield _Part.read(file)


def _encode_unit(
    pipe: Any,
    source: PictureSource,
    unit: int,
    directory: Path,
    settings: ShardSettings,
    readers: ThreadPoolExecutor,
) -> Iterator[_Part]:
    done = list(_parts_of(directory, unit))
    if done and done[-1].last:
        return
    items = source.items(unit, sum(part.items for part in done))
    following = next(items, None)
    for number in count(len(done)):
        chunk = [] if following is None else [following]
        chunk += islice(items, settings.shard_items - len(chunk))
        following = next(items, None)
        name = f"{unit:06d}-{number:05d}"
        encoder = PartEncoder(pipe, settings, readers)
        shards = encoder.encode(chunk, directory, name)
        part = _Part(len(chunk), following is None, shards, tuple(encoder.skipped))
        write_json(_part_file(directory, unit, number), asdict(part))
        yield part
        if part.last:
            return
