"""The most memory that a call takes, and what is free, where the machine can tell."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

_PROCESS = Path("/proc/self")
_MEMORY = Path("/proc/meminfo")
_RESET_PEAK = "5"
_KIB = 1024
# Both figures are read from a running process: they may differ by a few pages.
_LARGEST_REMAINDER = 4 * 2**20


@dataclass(frozen=True)
class PeakMemory:
    """Memory around one call.

    Attributes:
        peak: The most that was held within the call, weights and everything else included; bytes.
        before: What was held when it began, bytes.
        source: "cuda allocator" (tensors alone), or "resident set" (the whole process).
    """

    peak: int
    before: int
    source: str

    @property
    def rise(self) -> int:
        """What the call itself takes at most, bytes."""
        return self.peak - self.before

    def to_json_dict(self) -> dict[str, Any]:
        """Values by name, in bytes."""
        return {**asdict(self), "rise": self.rise}


def peak_memory(call: Callable[[], Any], device: torch.device) -> PeakMemory | None:
    """Run a call and watch its memory.

    On a CPU it is the resident set, whose peak Linux resets on request (proc_pid_clear_refs(5)).

    Returns:
        None where it cannot be measured.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        torch.cuda.synchronize(device)
        return PeakMemory(torch.cuda.max_memory_allocated(device), before, "cuda allocator")
    if device.type != "cpu" or not (_PROCESS / "clear_refs").exists():
        return None
    # What the allocator keeps of earlier calls would count as held before this one.
    _give_back_freed()
    held = _reset_resident_peak()
    if held is None:
        return None
    call()
    peak = _status_bytes("VmHWM")
    return None if peak is None else PeakMemory(peak, held, "resident set")


def free_memory(device: torch.device) -> int | None:
    """Bytes that can still be had on a device; None where it cannot be told."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu" or not _MEMORY.exists():
        return None
    lines = _MEMORY.read_text().splitlines()
    return next((int(n.split()[1]) * _KIB for n in lines if n.startswith("MemAvailable:")), None)


def _reset_resident_peak() -> int | None:
    """Resident bytes; None where the peak cannot be reset to them."""
    try:
        (_PROCESS / "clear_refs").write_text(_RESET_PEAK)
    except OSError:
        return None
    held, peak = _status_bytes("VmRSS"), _status_bytes("VmHWM")
    if held is None or peak is None or peak - held > _LARGEST_REMAINDER:
        return None
    return held


def _status_bytes(name: str) -> int | None:
    try:
        lines = (_PROCESS / "status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * _KIB for line in lines if line.startswith(name)), None)


def _give_back_freed() -> None:
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
