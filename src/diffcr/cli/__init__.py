"""The command line."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NoReturn

import typer

from diffcr.cli.commands import app
from diffcr.cli.quiet import quiet_libraries
from diffcr.errors import DiffCRError, DiffCRWarning, first_line, in_one_line

__all__ = ["main"]

# torch on a CPU, on a GPU, and cuBLAS.
_OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "ALLOC_FAILED")
_INTERRUPTED, _TERMINATED = 130, 128 + signal.SIGTERM


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 2 and one line on stderr after a mistake of the caller's, 130
    after Ctrl-C, 143 after SIGTERM. With `DIFFCR_DEBUG=1` set, mistakes show their traceback,
    and libraries say what they say.

    Args:
        arguments: Those of the process by default; none show the help.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with _in_lines_of_our_own(), _quiet():
            code = app(words or ["--help"], prog_name="diffcr", standalone_mode=False) or 0
    except (DiffCRError, typer.TyperException, OSError, MemoryError, RuntimeError) as error:
        if os.environ.get("DIFFCR_DEBUG") == "1" or not (text := _one_line(error)):
            raise
        _exit_with(text, 2)
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    except SystemExit as left:
        code = left.code
    # typer turns an interruption of a command into this code, without a word.
    if code in (_INTERRUPTED, _TERMINATED):
        _exit_with("interrupted" if code == _INTERRUPTED else "terminated", code)
    sys.exit(code)


def _quiet() -> AbstractContextManager[None]:
    return nullcontext() if os.environ.get("DIFFCR_DEBUG") == "1" else quiet_libraries()


@contextmanager
def _in_lines_of_our_own() -> Iterator[None]:
    """Within the context warnings are one line each, and SIGTERM ends a command as Ctrl-C does:
    nothing is left half-written."""
    with warnings.catch_warnings():
        shown = warnings.showwarning
        said: set[str] = set()

        def show(message: Any, category: type[Warning], *where: Any) -> None:
            if issubclass(category, DiffCRWarning):
                text = in_one_line(str(message))
                if text not in said:
                    typer.echo(f"diffcr: warning: {text}", err=True)
                said.add(text)
            else:
                shown(message, category, *where)

        warnings.showwarning = show  # type: ignore[assignment]
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = signal.signal(signal.SIGTERM, _leave)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, previous)


def _leave(*_: Any) -> NoReturn:
    raise SystemExit(_TERMINATED)


def _one_line(error: Exception) -> str:
    """What to say of an error; nothing for one that is no mistake of the caller's."""
    if isinstance(error, typer.TyperException):
        return in_one_line(error.format_message())
    if isinstance(error, OSError) and error.filename is not None:
        return in_one_line(f"{error.filename}: {error.strerror}")
    if isinstance(error, DiffCRError | OSError):
        return in_one_line(str(error))
    spent = isinstance(error, MemoryError) or any(sign in str(error) for sign in _OUT_OF_MEMORY)
    said = f"out of memory: give smaller sizes ({first_line(error)})"
    return in_one_line(said) if spent else ""


def _exit_with(text: str, code: int) -> NoReturn:
    typer.echo(f"diffcr: error: {text}", err=True)
    sys.exit(code)
