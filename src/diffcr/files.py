"""Reading with one clear error, writing whole or not at all."""

from __future__ import annotations

import ctypes
import glob
import json
import os
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from warnings import warn

from diffcr.errors import DiffCRError, DiffCRWarning, in_one_line

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

# linux/fcntl.h, linux/fs.h
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
# Longer than any write takes. Whether a writer lives cannot be asked of another machine.
_DEAD_AFTER = 24 * 3600.0
# Hexadecimal digits in a temporary name.
_DRAWN = 12


@contextmanager
def replacing_directory(target: Path) -> Iterator[Path]:
    """A directory to write into that takes the place of `target` when the context ends well.

    Files are on the disk before the exchange, so that a kill or a power cut leaves the previous
    directory or the complete one. Where the system cannot exchange directories in one step, a kill
    between its two steps leaves both beside the target: `clear_left_overs` takes the new one.
    """
    clear_left_overs(target.parent, target.name, _DEAD_AFTER)
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
    clear_left_overs(target.parent, target.name, _DEAD_AFTER)
    temporary = _workplace(target)
    temporary.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _workplace(target: Path) -> Path:
    """Where this write makes what is to become `target`; no other write has it."""
    return target.with_name(f".{target.name}.{secrets.token_hex(_DRAWN // 2)}.partial")


def clear_left_overs(folder: Path, name: str | None = None, older_than: float = 0.0) -> None:
    """Remove what killed processes left of writes into a folder.

    Args:
        folder: Where they wrote; it may be missing.
        name: Of the file or directory that they wrote; all by default.
        older_than: Age in seconds from which on it is taken for dead; 0 is for a folder that
            nothing else writes into.
    """
    written = "*" if name is None else glob.escape(name)
    for path in folder.glob(f".{written}.{'[0-9a-f]' * _DRAWN}.partial"):
        # Another process may be clearing, too.
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime >= older_than:
                _clear(path)


def _clear(left_over: Path) -> None:
    if left_over.is_file():
        left_over.unlink()
        return
    target = left_over.with_name(left_over.name[1:].rsplit(".", 2)[0])
    previous, written = left_over / "previous", left_over / "written"
    if previous.exists() and written.exists() and not target.exists():
        os.replace(written, target)
    shutil.rmtree(left_over, ignore_errors=True)


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
    write_text(path, json.dumps(values, indent=2, allow_nan=False) + "\n")


def read_text(path: Path, largest: int = 2**25) -> str:
    """A text file in UTF-8 of at most `largest` bytes.

    Raises:
        DiffCRError: It is missing, is no file (a pipe would be waited for), is larger, or is no
            UTF-8.
    """
    try:
        if path.exists() and not path.is_file():
            raise DiffCRError(f"{path} cannot be read: it is not an ordinary file")
        if path.stat().st_size > largest:
            raise DiffCRError(f"{path} cannot be read: it is larger than {largest >> 10} KiB")
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise DiffCRError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DiffCRError(f"{path} cannot be read as UTF-8: {error}") from error


def parse_json(text: str) -> Any:
    """JSON as its standard has it: no NaN, and no key twice in an object.

    Raises:
        ValueError: It is none, is nested too deeply, or holds half of a character.
    """
    try:
        values = json.loads(text, object_pairs_hook=unique_keys, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if "\\ud" in text.lower():
        require_characters(values)
    return values


def require_characters(values: Any) -> None:
    """Raises ValueError where a text among JSON-like values holds half of a character (a lone
    surrogate), which no file and no tokenizer takes."""
    json.dumps(values, ensure_ascii=False, skipkeys=True, default=str).encode("utf-8")


def unique_keys(items: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """Keys and values as a dictionary.

    Raises:
        ValueError: A key is there twice.
    """
    values: dict[Any, Any] = {}
    for key, value in items:
        if key in values:
            raise ValueError(f"the key {key!r} is there twice")
        values[key] = value
    return values


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        DiffCRError: The file is missing or damaged.
    """
    try:
        values = parse_json(read_text(path))
    except DiffCRError:
        raise
    except ValueError as error:
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


def read_cache(path: Path, make: Callable[..., T]) -> T | None:
    """What `make` makes of a file's tensors, by their names; None where there is none, or, with a
    warning, where it is damaged: what it holds can be made again."""
    if not path.exists():
        return None
    try:
        return make(**read_tensors(path))
    except (DiffCRError, TypeError) as error:
        message = in_one_line(f"{path} is made anew: {error}")
        warn(message, DiffCRWarning, stacklevel=2)
        return None


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file inside of a directory that is being made.

    Raises:
        DiffCRError: The system refuses it, such as a full disk.
    """
    import safetensors.torch
    from safetensors import SafetensorError

    prepared = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        safetensors.torch.save_file(prepared, path)
    except SafetensorError as error:
        raise DiffCRError(f"{path} cannot be written: {error}") from error


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file whole.

    Raises:
        DiffCRError: As `save_tensors` raises it.
    """
    with replacing_file(path) as temporary:
        save_tensors(temporary, tensors)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
