"""The command line."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import typer

from diffcr.cli.commands import app
from diffcr.errors import DiffCRError

__all__ = ["main"]

_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 2 and one line on stderr after a mistake of the caller's, 130
    after Ctrl-C. With `DIFFCR_DEBUG=1` set, mistakes show their traceback.

    Args:
        arguments: Those of the process by default; none show the help.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = app(words or ["--help"], prog_name="diffcr", standalone_mode=False) or 0
    except (DiffCRError, typer.TyperException, OSError) as error:
        if os.environ.get("DIFFCR_DEBUG") == "1":
            raise
        _exit_with(_one_line(error), 2)
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    # typer turns an interruption of a command into this code, without a word.
    if code == _INTERRUPTED:
        _exit_with("interrupted", _INTERRUPTED)
    sys.exit(code)


def _one_line(error: Exception) -> str:
    text = error.format_message() if isinstance(error, typer.TyperException) else str(error)
    if isinstance(error, OSError) and error.filename is not None:
        text = f"{error.filename}: {error.strerror}"
    return " ".join(text.split())


def _exit_with(text: str, code: int) -> NoReturn:
    typer.echo(f"diffcr: error: {text}", err=True)
    sys.exit(code)
