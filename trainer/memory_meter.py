"""How much memory a device has left, and how much this process has used at most.

On a CPU that is the resident size of the process, on CUDA what torch's allocator has reserved.
"""

import resource
import sys
from pathlib import Path

import torch

_CGROUP = Path("/sys/fs/cgroup")


class MemoryMeter:
    """Peaks of the memory of this process, from one restart to the next.

    Args:
        device: whose memory.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def restart(self) -> None:
        """Forget the peak so far. Without Linux's `clear_refs` a CPU's stays."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            return
        try:
            Path("/proc/self/clear_refs").write_text("5")  # 5 resets the peak resident size
        except OSError:
            return

    def peak(self) -> int:
        """Bytes at most since the last restart."""
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_reserved(self._device))
        status = Path("/proc/self/status")
        if status.exists():
            return _field(status.read_text(encoding="ascii"), "VmHWM:")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def available(device: torch.device) -> int | None:
    """Bytes that could still be taken on a device; None where the system does not say.

    On a CPU the smaller of what the machine and what the container (cgroup v2) has left.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return None
    left = _field(meminfo.read_text(encoding="ascii"), "MemAvailable:")
    return min(left, container) if (container := _left_in_container()) is not None else left


def taken_by_others(device: torch.device) -> int:
    """Bytes of a CUDA device that other processes hold, and the context of this one; 0 elsewhere.

    To be asked before this process has put anything there.
    """
    if device.type != "cuda":
        return 0
    free, total = torch.cuda.mem_get_info(device)
    return int(total - free)


def _left_in_container() -> int | None:
    try:
        limit = (_CGROUP / "memory.max").read_text(encoding="ascii").strip()
        used = int((_CGROUP / "memory.current").read_text(encoding="ascii"))
        stat = (_CGROUP / "memory.stat").read_text(encoding="ascii")
    except (OSError, ValueError):
        return None
    if limit == "max":
        return None
    # Cached files make room for whoever needs it.
    cached = next(
        (int(line.split()[1]) for line in stat.splitlines() if "inactive_file" in line), 0
    )
    return max(0, int(limit) - used + cached)


def _field(text: str, name: str) -> int:
    """A field of a file in /proc, given there in kB."""
    line = next(line for line in text.splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024
