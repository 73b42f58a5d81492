"""How much memory this process may still take: the machine's, or its control group's where that is less."""

from __future__ import annotations

from pathlib import Path

from .cgroups import CGROUPS, PROC, folders, lines

# By version: files of limit and use, the line of memory.stat that counts cached files, which would make room.
_FILES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}


def available_bytes(proc: Path = PROC, cgroups: Path = CGROUPS) -> int | None:
    """Bytes of memory that can be had now; None where the system does not say (no Linux)."""
    groups = [_group(folder, *_FILES[version]) for version, folder in folders("memory", proc, cgroups)]
    free = [_machine(proc / "meminfo"), *groups]
    return min((one for one in free if one is not None), default=None)


def _machine(meminfo: Path) -> int | None:
    for line in lines(meminfo):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return None


def _group(folder: Path, limit: str, use: str, cached: str) -> int | None:
    try:
        most, used = (int((folder / name).read_text()) for name in (limit, use))
    except (OSError, ValueError):  # no such group, or "max"
        return None
    stat = dict(line.split() for line in lines(folder / "memory.stat") if len(line.split()) == 2)
    return max(0, most - used + int(stat.get(cached, 0)))
