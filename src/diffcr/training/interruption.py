"""Signals that ask a run to end: it saves first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn


@dataclass
class StopRequest:
    """What was asked for while a run runs.

    Attributes:
        signal: Number of the signal that came; 0 for none.
    """

    signal: int = 0

    def leave(self) -> NoReturn:
        """End the program as the signal would have: with KeyboardInterrupt, or exit code 143."""
        if self.signal == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt


@contextmanager
def noticing_signals() -> Iterator[StopRequest]:
    """Within the context SIGINT and SIGTERM are noted instead of acted upon; a second one acts.

    In another thread than the main one, where signals do not arrive, none is.
    """
    request = StopRequest()
    previous: dict[int, Any] = {}

    def restore() -> None:
        while previous:
            signal.signal(*previous.popitem())

    def note(number: int, _: Any) -> None:
        request.signal = number
        restore()

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            # What was started to ignore them, as in a shell's background, goes on doing so.
            if handler not in (None, signal.SIG_IGN):
                previous[number] = handler
                signal.signal(number, note)
    try:
        yield request
    finally:
        restore()
