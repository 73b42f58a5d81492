"""Paths to write: where they lead, whether they can be replaced, and what may not be written as it is read."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ..errors import DiffRetrieverError, InputError

Paths = str | Path | Iterable[str | Path] | None
_WORK_NAMES = ("", ".partial", ".unfinished", ".replaced")  # what is written beside an output, too


def real_target(path: str | Path) -> Path:
    """Where ``path`` leads, all links followed; DiffRetrieverError for a name that cannot be."""
    name = os.fspath(path)
    if not name or "\0" in name:
        raise DiffRetrieverError(f"{name!r} is no name of a file or folder to write; name another.")
    target = Path(os.path.realpath(Path(name).expanduser()))
    if target.is_symlink():
        raise DiffRetrieverError(f"{path}: a symbolic link that leads to itself; name another.")
    return target


def refuse_unmovable(given: Path, target: Path) -> None:
    """DiffRetrieverError for a folder that cannot be replaced whole; found now, not after hours of work."""
    if target == Path.cwd() or target in Path.cwd().parents:
        what = "the current directory, or one above it"
    elif os.path.ismount(target):
        what = "a mount point"
    else:
        return
    raise DiffRetrieverError(f"{given} is {what}, and cannot be replaced whole: name a new folder inside it.")


def exchanged(one: Path, other: Path) -> bool:
    """Whether the two, which both exist, have changed names in one step; False where the system cannot."""
    library = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(one), os.fsencode(other)
    if hasattr(library, "renameat2"):
        here = -100  # AT_FDCWD: the names are absolute
        return library.renameat2(here, names[0], here, names[1], 2) == 0  # RENAME_EXCHANGE
    if hasattr(library, "renamex_np"):
        return library.renamex_np(*names, 2) == 0  # RENAME_SWAP
    return False


def refuse_inputs(outputs: Mapping[str, Paths], inputs: Mapping[str, Paths]) -> None:
    """Refuse outputs that would write over what is read, or over each other; all by the option that names them.

    An output may neither be an input, nor lie in a folder that is read, nor be a folder that an input lies in. Devices
    and pipes may be named as often as one likes, and so may a hub id, which is no path.

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
            raise InputError(f"{written[target]} and {option} are one file ({path}): give each a name of its own.")
        written[target] = option
        for other, source in _flat(inputs):
            if source.exists() and (how := _collision(target, Path(os.path.realpath(source)))):
                raise InputError(f"{option} {path} {how} {other} {source}: name another path for what is written.")


def _flat(named: Mapping[str, Paths]) -> Iterator[tuple[str, Path]]:
    for option, paths in named.items():
        for path in [paths] if isinstance(paths, str | Path) else paths or ():
            yield option, Path(path).expanduser()


def _collision(target: Path, source: Path) -> str:
    """What an output would do to an input, in words that go before the input; empty where it is nothing."""
    if any(source == Path(f"{target}{end}") for end in _WORK_NAMES):
        return "would overwrite"
    if target.is_relative_to(source):
        return "would lie in"
    return "would replace the folder of" if source.is_relative_to(target) else ""
