"""How much memory this process may still take: the machine's, or its control group's where that is less."""

from __future__ import annotations

from pathlib import Path

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")
# (files of limit and use, the line of memory.stat that counts cached files that would make room), by version
_V2 = ("memory.max", "memory.current", "inactive_file")
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def available_bytes(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> int | None:
    """Bytes of memory that can be had now; None where the system does not say (no Linux)."""
    found = [_machine(proc / "meminfo"), *_groups(proc / "self" / "cgroup", cgroups)]
    return min((room for room in found if room is not None), default=None)


def _machine(meminfo: Path) -> int | None:
    for line in _lines(meminfo):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return None


def _groups(own: Path, cgroups: Path) -> list[int]:
    """Room in every control group that this process is in; a limit above it in the tree holds as well."""
    rooms: list[int | None] = []
    for line in _lines(own):
        number, controllers, path = line.split(":", 2)
        if number == "0":
            top, names = cgroups, _V2
        elif "memory" in controllers.split(","):
            top, names = cgroups / "memory", _V1
        else:
            continue
        folder = top / path.lstrip("/")
        # Inside a container the path may be the host's, which is not there; the container's own limits are at the top.
        rooms += [_room(place, *names) for place in (folder, *folder.parents) if place.is_relative_to(top)]
    return [room for room in rooms if room is not None]


def _room(folder: Path, limit: str, use: str, cached: str) -> int | None:
    try:
        most, used = (int((folder / name).read_text()) for name in (limit, use))
    except (OSError, ValueError):  # no such group, or "max"
        return None
    stat = dict(line.split() for line in _lines(folder / "memory.stat") if len(line.split()) == 2)
    return max(0, most - used + int(stat.get(cached, 0)))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
