"""Reading with one clear error, writing whole or not at all."""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffcr.errors import DiffCRError

if TYPE_CHECKING:
    from torch import Tensor

# linux/fcntl.h, linux/fs.h
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@contextmanager
def replacing_directory(target: Path) -> Iterator[Path]:
    """A directory to write into that takes the place of `target` when the context ends well.

    Files are on the disk before the exchange, so that a kill or a power cut leaves the previous
    directory or the complete one. Where the system cannot exchange directories in one step, a kill
    between its two steps leaves both beside the target, and the next write takes the new one.
    """
    _clear_left_overs(target)
    workplace = _workplace(target)
    written = workplace / "written"
    written.mkdir(parents=True)
    try:
        yield written
        for path in written.rglob("*"):
            if path.is_file():
                _flush(path)
        if not (target.exists() and _exchange(written, target)):
            if target.exists():
                os.replace(target, workplace / "previous")
            os.replace(written, target)
        if os.name == "posix":
            _flush(target.parent)
    finally:
        shutil.rmtree(workplace, ignore_errors=True)


@contextmanager
def replacing_file(target: Path) -> Iterator[Path]:
    """A name to write a file under that takes the place of `target` when the context ends well."""
    _clear_left_overs(target)
    temporary = _workplace(target)
    temporary.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _workplace(target: Path) -> Path:
    """Where this process makes what is to become `target`."""
    return target.with_name(f".{target.name}.{os.getpid()}.partial")


def _clear_left_overs(target: Path) -> None:
    """Remove what killed processes left of earlier writes to `target`."""
    pattern = re.compile(re.escape(f".{target.name}.") + r"(\d+)\.partial")
    for path in target.parent.glob(".*.partial"):
        found = pattern.fullmatch(path.name)
        if found is None or _is_running(int(found[1])):
            continue
        if path.is_file():
            path.unlink(missing_ok=True)
            continue
        if (path / "previous").exists() and (path / "written").exists() and not target.exists():
            os.replace(path / "written", target)
        shutil.rmtree(path, ignore_errors=True)


def _is_running(process: int) -> bool:
    """Whether it may still be writing; this process itself is not, it is about to begin."""
    if process == os.getpid():
        return False
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _exchange(first: Path, second: Path) -> bool:
    """Swap two directories in one step, where the system can (Linux); whether it was done."""
    if sys.platform != "linux":
        return False
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    paths = (os.fsencode(first), os.fsencode(second))
    swapped: int = renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE)
    return swapped == 0


def write_text(path: Path, text: str) -> None:
    """Write a file whole."""
    with replacing_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, values: Any) -> None:
    """Write a JSON file whole."""
    write_text(path, json.dumps(values, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        DiffCRError: The file is missing or damaged.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DiffCRError(f"{path} cannot be read: {error.strerror}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DiffCRError(f"{path} is damaged ({error}): copy it again") from error
    if not isinstance(values, dict):
        raise DiffCRError(f"{path} is damaged (no JSON object): copy it again")
    return values


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        DiffCRError: The file is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise DiffCRError(f"{path} is missing: its directory is not complete")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise DiffCRError(f"{path} is damaged ({error}): copy it again") from error


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a safetensors file whole."""
    from safetensors.torch import save_file

    with replacing_file(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
