"""Programs of the tests in processes of their own, as torchrun starts them.

They are forked from a process that has imported the library once: starting Python for each of them
would take most of their time.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import diffcr

ROOT = Path(__file__).parents[2]
_FORKING = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload(
    ["tests.training.worker", "diffcr.training.encode_job", "diffcr.cli.generating"]
)
_ENVIRONMENT = {
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(diffcr.__file__).parents[1])]),
    "OMP_NUM_THREADS": "1",
    # Nothing else on the machine is met.
    "GLOO_SOCKET_IFNAME": "lo",
}


class Program:
    """A module that runs as `python -m MODULE ARGUMENTS`, in one process or several.

    Attributes:
        file: That it prints its errors to.
    """

    def __init__(self, module: str, *arguments: object, processes: int = 1) -> None:
        handle, name = tempfile.mkstemp(suffix=".stderr")
        os.close(handle)
        self.file = Path(name)
        given = [str(argument) for argument in arguments]
        places = _places(processes)
        with _environment(_ENVIRONMENT):
            self._processes = [
                _FORKING.Process(
                    target=_run, args=(module, given, place, str(self.file)), daemon=True
                )
                for place in places
            ]
            for process in self._processes:
                process.start()

    @property
    def printed(self) -> str:
        """As errors, by all processes, so far."""
        return self.file.read_text(errors="replace")

    @property
    def running(self) -> bool:
        """Whether any process does."""
        return any(process.is_alive() for process in self._processes)

    def send(self, number: signal.Signals) -> None:
        """A signal to all processes."""
        for process in self._processes:
            if process.is_alive() and process.pid is not None:
                os.kill(process.pid, number)

    def wait(self, seconds: float = 600.0) -> int:
        """The exit code; negative for a signal. Where one process fails the others are ended."""
        deadline = time.monotonic() + seconds
        while self.running and not any(process.exitcode for process in self._processes):
            assert time.monotonic() < deadline, f"it runs still\n{self.printed}"
            time.sleep(0.02)
        failed = [process.exitcode for process in self._processes if process.exitcode]
        for process in self._processes:
            if failed:
                process.kill()
            process.join()
        return failed[0] or 0 if failed else 0


def finish(module: str, *arguments: object, processes: int = 1) -> str:
    """Run to its end, which has to be a good one; what was printed as an error."""
    program = Program(module, *arguments, processes=processes)
    code = program.wait()
    assert code == 0, program.printed
    return program.printed


def _places(processes: int) -> list[dict[str, str]]:
    """What torchrun tells each of several processes by their environment."""
    if processes == 1:
        return [{}]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    counts = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    return [
        {**shared, **counts, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        for rank in range(processes)
    ]


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _run(module: str, arguments: list[str], place: dict[str, str], file: str) -> None:
    os.chdir(ROOT)
    os.environ.update(_ENVIRONMENT | place)
    for descriptor, path in ((1, os.devnull), (2, file)):
        opened = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def torchrun(*arguments: object) -> str:
    """Run Python with these arguments in two processes of torchrun itself to a good end; what was
    printed as an error."""
    launcher = ("-m", "torch.distributed.run", "--nproc_per_node", 2)
    # A free port and the loopback interface.
    alone = ("--standalone", "--local-addr", "127.0.0.1")
    finished = subprocess.run(
        [sys.executable, *map(str, (*launcher, *alone, *arguments))],
        cwd=ROOT,
        env=os.environ | _ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stderr
