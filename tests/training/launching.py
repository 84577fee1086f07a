"""Programs of the tests in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import diffcr

ROOT = Path(__file__).parents[2]
# A free port and the loopback interface: nothing else on the machine is met.
TWO_PROCESSES = (
    *("-m", "torch.distributed.run", "--nproc_per_node", 2),
    *("--standalone", "--local-addr", "127.0.0.1"),
)


def start(*arguments: object) -> subprocess.Popen[bytes]:
    """Python with these arguments, with the package that the tests run on."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(diffcr.__file__).parents[1])]),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def finish(*arguments: object) -> str:
    """Run to its end, which has to be a good one; what was printed as an error."""
    process = start(*arguments)
    printed = process.communicate(timeout=600)[1].decode()
    assert process.returncode == 0, printed
    return printed
