"""How much memory is still available to this process, by the machine and by its control groups."""

from __future__ import annotations

from pathlib import Path

from .cgroups import CGROUPS, PROC, folders, lines

# By version: files of limit and use, and the line of memory.stat that counts cached files, which can be freed.
_FILES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}


def available_bytes(proc: Path = PROC, cgroups: Path = CGROUPS) -> int | None:
    """Return the bytes of memory that are available now; None where the system does not say (not Linux)."""
    groups = [_group_bytes(folder, *_FILES[version]) for version, folder in folders("memory", proc, cgroups)]
    limits = [_machine_bytes(proc / "meminfo"), *groups]
    return min((limit for limit in limits if limit is not None), default=None)


def _machine_bytes(meminfo: Path) -> int | None:
    for line in lines(meminfo):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return None


def _group_bytes(folder: Path, limit: str, use: str, cached: str) -> int | None:
    try:
        allowed, used = (int((folder / name).read_text()) for name in (limit, use))
    except (OSError, ValueError):  # no such group, or "max"
        return None
    stat = dict(line.split() for line in lines(folder / "memory.stat") if len(line.split()) == 2)
    return max(0, allowed - used + int(stat.get(cached, 0)))
