"""Which process may write into a directory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from diffcr.errors import DiffCRError
from diffcr.files import clear_left_overs


@contextmanager
def locked_directory(directory: Path) -> Iterator[None]:
    """Within the context no other process or thread is in the same context for the directory,
    which is made where it is missing.

    Raises:
        DiffCRError: Another one is.
    """
    from filelock import FileLock, Timeout

    directory.mkdir(parents=True, exist_ok=True)
    lock = FileLock(directory / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise DiffCRError(
            f"{directory} is being written by another run: wait for it, or give another directory"
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def own_directory(
    directory: Path, folders: Sequence[str] = (), first: bool = True
) -> Iterator[None]:
    """Within the context the processes of one command alone write into a directory; what killed
    ones left half-written in it is removed.

    Args:
        directory: Made where it is missing.
        folders: In it, that are written into, too.
        first: Whether this process locks it for all of the command's.

    Raises:
        DiffCRError: Another command is writing into it.
    """
    with locked_directory(directory) if first else nullcontext():
        for folder in ("", *folders) if first else ():
            clear_left_overs(directory / folder)
        yield
