"""Damage as files suffer it: cut short, edited by hand, converted, mixed up. The same seed does the same damage."""

from __future__ import annotations

import copy
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

ODD_VALUES: list[Any] = [
    None, True, "", " ", "x", "NaN", 0, 1, -1, 3, 0.5, -0.0, 1e308, float("nan"), float("inf"), 2**31, 2**63, 10**30,
    [], {}, [None], {"a": 1}, ["x", 2], [[[]]], "\ud800", "\x00", "/etc/passwd", "../..", "a\tb", "é東🚀", "a" * 5000,
]  # fmt: skip
ODD_WORDS = [b"", b"NaN", b"-1", b"0", b"1e999", b"99999999999999999999", b"x", b'"', b"{", b"\t", b"\xff\xfe", b"\x00"]
ODD_WORDS += [
    "\u2028".encode(),
    "\u00a0".encode(),
    "\ufeff".encode(),
    "é東🚀".encode(),
    b"\r",
    b"\n\n",
    b" ",
    b"\x0b",
    b"\x85",
]
Damage = Callable[[bytes, random.Random], bytes]


def damage_file(path: Path, draw: random.Random) -> str:
    """Damage one file of a checkpoint, store, index or collection; returns in a few words what was done."""
    if draw.random() < 0.08:
        return _replace(path, draw)
    data = path.read_bytes()
    ways = [cut, flip, splice, insert]
    if data[8:9] == b"{" and not _text(data):  # safetensors
        ways += 4 * [header]
    elif _text(data):
        ways += [lines, words, words, encodings]
        if data.lstrip()[:1] in (b"{", b"["):
            ways += 6 * [values]
    way = draw.choice(ways)
    changed = way(data, draw)
    path.unlink()  # another file, not other content in a file that is shared with undamaged copies
    path.write_bytes(changed)
    return f"{path.name}: {way.__name__}"


def _replace(path: Path, draw: random.Random) -> str:
    """Something else in the place of the file."""
    what = draw.choice(("gone", "empty", "folder", "loop", "pointer", "link to nowhere"))
    path.unlink()
    match what:
        case "empty":
            path.touch()
        case "folder":
            path.mkdir()
        case "loop":
            path.symlink_to(path.name)
        case "link to nowhere":
            path.symlink_to("nowhere")
        case "pointer":
            path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n")
    return f"{path.name}: {what}"


def _text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return b"\x00" not in data


def cut(data: bytes, draw: random.Random) -> bytes:
    """As an interrupted copy leaves it."""
    return data[: draw.randrange(len(data) + 1)]


def flip(data: bytes, draw: random.Random) -> bytes:
    """Some bytes are others."""
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 3, 20))):
        if changed:
            changed[draw.randrange(len(changed))] = draw.randrange(256)
    return bytes(changed)


def splice(data: bytes, draw: random.Random) -> bytes:
    """A piece is missing, comes twice, or stands elsewhere."""
    i, j = sorted(draw.randrange(len(data) + 1) for _ in range(2))
    j = min(j, i + draw.choice((1, 10, 1000)))
    k = draw.randrange(len(data) + 1)
    return draw.choice((data[:i] + data[j:], data[:j] + data[i:], data[:k] + data[i:j] + data[k:]))


def insert(data: bytes, draw: random.Random) -> bytes:
    """Odd bytes somewhere."""
    i = draw.randrange(len(data) + 1)
    return data[:i] + draw.choice(ODD_WORDS) * draw.choice((1, 1, 50)) + data[i:]


def lines(data: bytes, draw: random.Random) -> bytes:
    """Lines dropped, doubled, exchanged, joined, blank."""
    kept = data.split(b"\n")
    i, j = draw.randrange(len(kept)), draw.randrange(len(kept))
    match draw.randrange(5):
        case 0:
            del kept[i]
        case 1:
            kept.insert(j, kept[i])
        case 2:
            kept[i], kept[j] = kept[j], kept[i]
        case 3:
            kept[i : i + 2] = [b"".join(kept[i : i + 2])]
        case 4:
            kept[i] = draw.choice((b"", b"   ", b"\t", b"\r", b"#", b"\xef\xbb\xbf"))
    return b"\n".join(kept)


def words(data: bytes, draw: random.Random) -> bytes:
    """A word or number in a line is another, is gone, or comes twice; or the sign between them is another."""
    kept = data.split(b"\n")
    i = draw.randrange(len(kept))
    sign = draw.choice((b" ", b"\t", b","))
    parts = kept[i].split(sign)
    j = draw.randrange(len(parts))
    parts[j : j + 1] = draw.choice(([draw.choice(ODD_WORDS)], [], [parts[j]] * 2))
    kept[i] = draw.choice((sign, sign, b"\t", b"  ")).join(parts)
    return b"\n".join(kept)


def encodings(data: bytes, draw: random.Random) -> bytes:
    """As another program saves it."""
    text = data.decode()
    match draw.randrange(5):
        case 0:
            return text.encode("utf-16")
        case 1:
            return text.encode("latin-1", "replace")
        case 2:
            return text.encode("utf-8-sig")
        case 3:
            return data.replace(b"\n", b"\r\n")
        case _:
            return data.replace(b"\n", b"\r")


def values(data: bytes, draw: random.Random) -> bytes:
    """JSON, whole or by lines, in which a value or key is another."""
    try:
        return json.dumps(_changed(json.loads(data), draw)).encode()
    except ValueError:
        kept = data.split(b"\n")
        i = draw.randrange(len(kept))
        try:
            kept[i] = json.dumps(_changed(json.loads(kept[i]), draw)).encode()
        except ValueError:
            return cut(data, draw)
        return b"\n".join(kept)


def _changed(tree: Any, draw: random.Random) -> Any:
    """``tree`` with one place changed; places near the root are as likely as the many leaves."""
    tree = copy.deepcopy(tree)
    at, holder, key = tree, None, None
    while isinstance(at, dict | list) and at and (holder is None or draw.random() < 0.7):
        key = draw.choice(list(at) if isinstance(at, dict) else range(len(at)))
        holder, at = at, at[key]
    if holder is None:
        return draw.choice(ODD_VALUES)
    match draw.randrange(8):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[draw.choice(("x", "text", "", str(key).upper()))] = holder.pop(key)
        case 2 if isinstance(holder, dict):
            holder[draw.choice(("x", "extra"))] = draw.choice(ODD_VALUES)
        case 3 if isinstance(at, int | float):
            holder[key] = draw.choice((at + 1, at - 1, -at, at * 2, float(at), str(at)))
        case 4 if isinstance(holder, list):
            holder.insert(key, at)
        case _:
            holder[key] = draw.choice(ODD_VALUES)
    return tree


def header(data: bytes, draw: random.Random) -> bytes:
    """A safetensors file whose header says something else, or has another length."""
    size = int.from_bytes(data[:8], "little")
    if draw.random() < 0.2:
        return draw.choice((0, size - 1, size + 1, 2**40, 2**63)).to_bytes(8, "little") + data[8:]
    changed = json.dumps(_changed(json.loads(data[8 : 8 + size]), draw)).encode()
    return len(changed).to_bytes(8, "little") + changed + data[8 + size :]


def copied(source: Path, target: Path) -> Path:
    """A copy that shares the content of its files until one of them is damaged."""
    if source.is_dir():
        shutil.copytree(source, target, copy_function=_linked)
    else:
        _linked(str(source), str(target))
    return target


def _linked(source: str, target: str) -> None:
    try:
        Path(target).hardlink_to(source)
    except OSError:  # another disk
        shutil.copy2(source, target)
