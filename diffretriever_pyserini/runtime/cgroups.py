"""The control groups of this process (Linux), where containers and batch systems set their limits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")


def folders(controller: str, proc: Path = PROC, cgroups: Path = CGROUPS) -> Iterator[tuple[int, Path]]:
    """Yield (version, folder) of each group with this controller, innermost first; limits of outer groups apply too."""
    for line in lines(proc / "self" / "cgroup"):
        number, controllers, path = line.split(":", 2)
        if number == "0":
            version, top = 2, cgroups
        elif controller in controllers.split(","):
            version, top = 1, cgroups / controller
        else:
            continue
        folder = top / path.lstrip("/")
        # Inside a container the path may be the machine's and not exist; the container's own limits are in ``top``.
        yield from ((version, group) for group in (folder, *folder.parents) if group.is_relative_to(top))


def lines(path: Path) -> list[str]:
    """Return the lines of a file; none if it cannot be read."""
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
