"""The command line in forked processes: nothing is imported anew, all else is as from a shell.

A process of Python that imports what commands use takes ten seconds, most commands less. A fork of
one that has imported it is a process of its own: with signals, limits and a memory of its own.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import torch

from diffcr.cli import main

_TICKS = os.sysconf("SC_CLK_TCK")
_POLL = 0.02


def import_commands() -> None:
    """Import what commands import when they run; forks begin with it."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(1)
    import diffcr.evaluation.evaluate
    import diffcr.evaluation.picture_files
    import diffcr.inpainting
    import diffcr.training.encode_job
    import diffcr.training.job  # noqa: F401
    from diffcr.pretrained import load_default_pipeline

    load_default_pipeline()


@dataclass
class Process:
    """A command that runs.

    Attributes:
        pid: Of the fork.
        errors: File of what it prints to stderr.
        code: Its exit code, that of a signal negative; None while it runs.
        usage: What it used, when it has ended.
        seconds: It ran, by the clock.
    """

    pid: int
    errors: Path
    code: int | None = None
    usage: resource.struct_rusage | None = None
    seconds: float = 0.0
    started: float = field(default_factory=time.monotonic)

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        if self.code is None:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self.code, self.usage = os.waitstatus_to_exitcode(status), usage
                self.seconds = time.monotonic() - self.started
        return self.code is None

    @property
    def processor_seconds(self) -> float:
        """It has used; a clock that a busy machine does not change."""
        if not self.running:
            assert self.usage is not None
            return self.usage.ru_utime + self.usage.ru_stime
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def send(self, number: int) -> None:
        """A signal, where it still runs."""
        if self.running:
            os.kill(self.pid, number)

    def wait(self, seconds: float) -> bool:
        """Until it ends, at most that long; whether it has."""
        deadline = time.monotonic() + seconds
        while self.running and time.monotonic() < deadline:
            time.sleep(_POLL)
        return not self.running


@dataclass(frozen=True)
class Limits:
    """What a command may take.

    Attributes:
        mebibytes: Of address space beyond what is imported.
        processor_seconds: After which the system ends it.
    """

    mebibytes: int
    processor_seconds: int


def start(
    arguments: Sequence[object],
    place: Path,
    log: str = "command",
    processes: int = 1,
    limits: Limits | None = None,
) -> list[Process]:
    """A command as one process, or as torchrun starts several.

    Args:
        arguments: As in the shell, behind `diffcr`.
        place: The working directory; what it prints goes to `log`.out and `log`.err there.
        log: Name of those files, with the process's number where there are several.
        processes: How many.
        limits: None by default.
    """
    port = _free_port() if processes > 1 else 0
    started = []
    for rank in range(processes):
        name = log if processes == 1 else f"{log}-{rank}"
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            _become(arguments, place, name, (rank, processes, port), limits)
        started.append(Process(pid, place / f"{name}.err"))
    return started


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _become(
    arguments: Sequence[object],
    place: Path,
    log: str,
    among: tuple[int, int, int],
    limits: Limits | None,
) -> NoReturn:
    code = 1
    try:
        os.chdir(place)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        for number, opened in enumerate(
            (
                os.open(os.devnull, os.O_RDONLY),
                os.open(f"{log}.out", flags, 0o644),
                os.open(f"{log}.err", flags, 0o644),
            )
        ):
            os.dup2(opened, number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        rank, processes, port = among
        if processes > 1:
            os.environ |= {
                **{"RANK": str(rank), "LOCAL_RANK": str(rank)},
                **{"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)},
                **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
                "GLOO_SOCKET_IFNAME": "lo",
            }
        if limits is not None:
            _limit(limits)
        main([os.fspath(each) if isinstance(each, Path) else str(each) for each in arguments])
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else 0
    except BaseException:
        traceback.print_exc()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _limit(limits: Limits) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    space = pages * resource.getpagesize() + limits.mebibytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (space, space))
    seconds = limits.processor_seconds
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
