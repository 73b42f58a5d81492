"""Digests of the tensors in safetensors files: the content of a checkpoint, however it is split into files.

The whole content is read, because a fine-tune may change a few rows only. To avoid reading 15 GB at every start, the
digests of a large file are cached in memory and below ``$XDG_CACHE_HOME`` (else ``~/.cache``) until its path, size,
inode or times of change differ.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import ConfigError, reason

CACHED_FROM = 64 << 20  # bytes of a file; reading a smaller one is fast enough
_SETTLED = 2_000_000_000  # ns; two changes within one tick of the file system's clock look the same
_BLOCK = 1 << 20
_LONGEST_HEADER = 100 << 20  # the limit of safetensors itself
_DAMAGED = (ValueError, TypeError, KeyError, AttributeError)

Digests = dict[str, str]
"""Tensor name → SHA-256 of its dtype, shape and content."""
_known: dict[tuple[Path, tuple[int, ...]], Digests] = {}


def tensor_digests(files: Iterable[Path]) -> Digests:
    """The digests of all tensors in ``files``.

    Raises
    ------
    ConfigError
        For a file that is missing, damaged, or written at the same time.
    """
    digests: Digests = {}
    for path in files:
        try:
            digests |= _file_digests(path.resolve(strict=True))
        except OSError as error:
            raise ConfigError(f"{path}: the weights cannot be read ({error.strerror or error}).") from error
    return digests


def parameter_count(files: Iterable[Path]) -> int:
    """The number of values of all tensors in ``files``, by their headers; a damaged file counts as empty."""
    count = 0
    for path in files:
        with contextlib.suppress(OSError, *_DAMAGED), path.open("rb") as file:
            count += sum(math.prod(entry["shape"]) for _, entry in _tensors(file)[1])
    return count


def stamp(path: Path) -> tuple[int, ...]:
    """Values that differ after any change of a file: size, inode and both times in ns."""
    stat = path.stat()
    return stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns


def cache_folder() -> Path:
    """The folder in which the digests of large files are cached between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "diffretriever" / "weights"


def _file_digests(path: Path) -> Digests:
    before, now = stamp(path), time.time_ns()
    cached = before[0] >= CACHED_FROM
    if cached and (known := _known.get((path, before)) or _read_cache(path, before)):
        _known[path, before] = known
        return known
    digests = _read(path)
    if stamp(path) != before:
        raise ConfigError(f"{path} changed while it was read; wait until it is written, then try again.")
    if cached and now - before[3] > _SETTLED:  # the time of change, which no program can set
        _known[path, before] = digests
        _write_cache(path, before, digests)
    return digests


def _read(path: Path) -> Digests:
    """The digests, from the file's bytes; one block is in memory at a time."""
    digests: Digests = {}
    with path.open("rb") as file:
        try:
            start, tensors = _tensors(file)
            for name, entry in tensors:
                begin, end = entry["data_offsets"]
                digest = hashlib.sha256(json.dumps([entry["dtype"], entry["shape"]]).encode())
                file.seek(start + begin)
                for offset in range(begin, end, _BLOCK):
                    size = min(_BLOCK, end - offset)
                    block = file.read(size)
                    if len(block) < size:
                        raise ValueError(f"{name!r} ends too early")
                    digest.update(block)
                digests[name] = digest.hexdigest()
        except _DAMAGED as error:
            raise ConfigError(f"{path}: damaged, or not safetensors ({reason(error)}).") from error
    return digests


def _tensors(file: BinaryIO) -> tuple[int, list[tuple[str, dict[str, Any]]]]:
    """Where the content begins in ``file``, and the names and entries of its tensors, in the order of their content."""
    length = int.from_bytes(file.read(8), "little")
    if length > _LONGEST_HEADER:
        raise ValueError(f"a header of {length} bytes")
    header: dict[str, Any] = json.loads(file.read(length))
    tensors = [(name, header[name]) for name in header if name != "__metadata__"]
    return 8 + length, sorted(tensors, key=lambda tensor: tensor[1]["data_offsets"])


def _cache_file(path: Path) -> Path:
    return cache_folder() / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:32]}.json"


def _read_cache(path: Path, now: tuple[int, ...]) -> Digests | None:
    """The digests that an earlier run cached for ``path``; None if there are none or the file is damaged."""
    with contextlib.suppress(OSError, ValueError, RuntimeError):  # RuntimeError: no home folder
        entry: Any = json.loads(_cache_file(path).read_text(encoding="utf-8"))
        if isinstance(entry, dict) and (entry.get("path"), entry.get("stamp")) == (str(path), list(now)):
            return dict(entry["tensors"])
    return None


def _write_cache(path: Path, now: tuple[int, ...], digests: Digests) -> None:
    """Cache ``digests`` for later runs, if possible."""
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
