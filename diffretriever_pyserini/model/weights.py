"""Digests of the tensors in safetensors files: what a checkpoint holds, whatever file a tensor lies in.

The whole content is read, since a fine-tune may change a few rows only. So that 15 GB are not read at every start, the
digests of a large file are kept in memory and below ``$XDG_CACHE_HOME`` (else ``~/.cache``), for as long as its path,
size, inode and times of change stay as they are.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import ConfigError, reason

CACHED_FROM = 64 << 20  # bytes of a file; less is read faster than it is worth remembering
_SETTLED = 2_000_000_000  # ns; a file changed twice within one tick of the file system's clock would look the same
_BLOCK = 1 << 20
_LONGEST_HEADER = 100 << 20  # the limit of safetensors itself

Digests = dict[str, str]
"""Tensor name → SHA-256 of its dtype, shape and content."""
_known: dict[tuple[Path, tuple[int, ...]], Digests] = {}


def tensor_digests(files: Iterable[Path]) -> Digests:
    """The digests of all tensors in ``files``.

    Raises
    ------
    ConfigError
        For a file that is missing, damaged, or written to at the same time.
    """
    found: Digests = {}
    for path in files:
        try:
            found |= _of_file(path.resolve(strict=True))
        except OSError as error:
            raise ConfigError(f"{path}: the weights cannot be read ({error.strerror or error})") from error
    return found


def stamp(path: Path) -> tuple[int, ...]:
    """What changes with every change of a file: size, inode and both times, in ns."""
    stat = path.stat()
    return stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns


def cache_folder() -> Path:
    """Where the digests of large files are kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "diffretriever" / "weights"


def _of_file(path: Path) -> Digests:
    before, now = stamp(path), time.time_ns()
    keep = before[0] >= CACHED_FROM
    if keep and (known := _known.get((path, before)) or _read_cache(path, before)):
        _known[path, before] = known
        return known
    found = _read(path)
    if stamp(path) != before:
        raise ConfigError(f"{path} changed while it was read: wait until it is written, then try again")
    if keep and now - before[3] > _SETTLED:  # the time of change, which nobody can set
        _known[path, before] = found
        _write_cache(path, before, found)
    return found


def _read(path: Path) -> Digests:
    """The digests, from the file's own bytes; a block of them is in memory at a time."""
    found: Digests = {}
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            if length > _LONGEST_HEADER:
                raise ValueError(f"a header of {length} bytes")
            header: dict[str, Any] = json.loads(file.read(length))
            tensors = [(header[name], name) for name in header if name != "__metadata__"]
            tensors.sort(key=lambda one: one[0]["data_offsets"])
            for about, name in tensors:
                begin, end = about["data_offsets"]
                digest = hashlib.sha256(json.dumps([about["dtype"], about["shape"]]).encode())
                file.seek(8 + length + begin)
                for at in range(begin, end, _BLOCK):
                    wanted = min(_BLOCK, end - at)
                    block = file.read(wanted)
                    if len(block) < wanted:
                        raise ValueError(f"{name!r} ends too early")
                    digest.update(block)
                found[name] = digest.hexdigest()
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigError(f"{path}: damaged, or not safetensors ({reason(error)})") from error
    return found


def _cache_file(path: Path) -> Path:
    return cache_folder() / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:32]}.json"


def _read_cache(path: Path, now: tuple[int, ...]) -> Digests | None:
    """What an earlier run kept for ``path``, or None; a damaged file is as good as none."""
    with contextlib.suppress(OSError, ValueError, RuntimeError):  # RuntimeError: no home folder
        kept: Any = json.loads(_cache_file(path).read_text(encoding="utf-8"))
        if isinstance(kept, dict) and (kept.get("path"), kept.get("stamp")) == (str(path), list(now)):
            return dict(kept["tensors"])
    return None


def _write_cache(path: Path, now: tuple[int, ...], digests: Digests) -> None:
    """Keep ``digests`` for later runs, where that is possible."""
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        target = _cache_file(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"path": str(path), "stamp": now, "tensors": digests})
        with tempfile.NamedTemporaryFile("w", dir=target.parent, suffix=".partial", delete=False) as file:
            try:
                file.write(text)
                file.close()
                Path(file.name).replace(target)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
