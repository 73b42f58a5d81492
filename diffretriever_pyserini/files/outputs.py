"""Checks of output paths: where their links lead, whether they can be replaced, and that no input is overwritten."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ..errors import DiffRetrieverError, InputError

Paths = str | Path | Iterable[str | Path] | None
_WORK_SUFFIXES = ("", ".partial", ".unfinished", ".replaced")  # of an output, and of the work files beside it


def real_target(path: str | Path) -> Path:
    """Return ``path`` with all links followed; DiffRetrieverError for an invalid name or a link to itself."""
    name = os.fspath(path)
    if not name or "\0" in name:
        raise DiffRetrieverError(f"{name!r} is no name of a file or folder to write; give another path.")
    target = Path(os.path.realpath(Path(name).expanduser()))
    if target.is_symlink():
        raise DiffRetrieverError(f"{path}: a symbolic link that leads to itself; give another path.")
    return target


def refuse_unmovable(given: Path, target: Path) -> None:
    """Raise DiffRetrieverError for a folder that cannot be replaced: now, not after hours of work."""
    if target == Path.cwd() or target in Path.cwd().parents:
        what = "the current directory, or one above it"
    elif os.path.ismount(target):
        what = "a mount point"
    else:
        return
    raise DiffRetrieverError(f"{given} is {what}, so it cannot be replaced as a whole: name a new folder inside it.")


def exchanged(one: Path, other: Path) -> bool:
    """Exchange the names of two existing folders in one step; returns False where the system cannot."""
    library = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(one), os.fsencode(other)
    if hasattr(library, "renameat2"):
        directory = -100  # AT_FDCWD: the names are absolute
        return library.renameat2(directory, names[0], directory, names[1], 2) == 0  # RENAME_EXCHANGE
    if hasattr(library, "renamex_np"):
        return library.renamex_np(*names, 2) == 0  # RENAME_SWAP
    return False


def refuse_inputs(outputs: Mapping[str, Paths], inputs: Mapping[str, Paths]) -> None:
    """Refuse outputs that would overwrite an input or each other.

    An output may not be an input, be inside a folder that is read, or contain an input. Devices and pipes may be named
    any number of times, and so may a hub id, which is no path.

    Parameters
    ----------
    outputs, inputs : paths by the option that names them.

    Raises
    ------
    InputError
        Naming both options.
    """
    written: dict[Path, str] = {}
    for option, path in _flat(outputs):
        if path.exists() and not path.is_file() and not path.is_dir():
            continue
        target = Path(os.path.realpath(path))
        if target in written:
            raise InputError(f"{written[target]} and {option} are one file ({path}): give each a different path.")
        written[target] = option
        for other, source in _flat(inputs):
            if source.exists() and (how := _collision(target, Path(os.path.realpath(source)))):
                raise InputError(f"{option} {path} {how} {other} {source}: give another output path.")


def _flat(named: Mapping[str, Paths]) -> Iterator[tuple[str, Path]]:
    for option, paths in named.items():
        for path in [paths] if isinstance(paths, str | Path) else paths or ():
            yield option, Path(path).expanduser()


def _collision(target: Path, source: Path) -> str:
    """What an output would do to an input, as words before its name; empty if nothing."""
    if any(source == Path(f"{target}{suffix}") for suffix in _WORK_SUFFIXES):
        return "would overwrite"
    if target.is_relative_to(source):
        return "would be inside"
    return "would replace the folder of" if source.is_relative_to(target) else ""
