"""The control groups that this process is in (Linux): containers and batch systems set their limits there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")


def folders(controller: str, proc: Path = PROC, cgroups: Path = CGROUPS) -> Iterator[tuple[int, Path]]:
    """(version, folder) of each group with this controller, innermost first; limits of outer groups hold as well."""
    for line in lines(proc / "self" / "cgroup"):
        number, controllers, path = line.split(":", 2)
        if number == "0":
            version, top = 2, cgroups
        elif controller in controllers.split(","):
            version, top = 1, cgroups / controller
        else:
            continue
        folder = top / path.lstrip("/")
        # Inside a container the path may be the machine's, which is not there; the container's own limits are on top.
        yield from ((version, one) for one in (folder, *folder.parents) if one.is_relative_to(top))


def lines(path: Path) -> list[str]:
    """The lines of a file; none where it cannot be read."""
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
