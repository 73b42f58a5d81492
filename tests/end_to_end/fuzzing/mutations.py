"""Realistic damage to files: truncated, edited by hand, converted, mixed up. The same seed gives the same damage."""

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
    """Damage one file of a checkpoint, store, index or collection, and return a short description."""
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
    path.unlink()  # the file is hard-linked to undamaged copies, so its content must not change
    path.write_bytes(changed)
    return f"{path.name}: {way.__name__}"


def _replace(path: Path, draw: random.Random) -> str:
    """Replace the file by something else."""
    replacement = draw.choice(("gone", "empty", "folder", "loop", "pointer", "link to nowhere"))
    path.unlink()
    match replacement:
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
    return f"{path.name}: {replacement}"


def _text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return b"\x00" not in data


def cut(data: bytes, draw: random.Random) -> bytes:
    """As after an interrupted copy."""
    return data[: draw.randrange(len(data) + 1)]


def flip(data: bytes, draw: random.Random) -> bytes:
    """Change some bytes."""
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 3, 20))):
        if changed:
            changed[draw.randrange(len(changed))] = draw.randrange(256)
    return bytes(changed)


def splice(data: bytes, draw: random.Random) -> bytes:
    """Remove, repeat or move a piece."""
    i, j = sorted(draw.randrange(len(data) + 1) for _ in range(2))
    j = min(j, i + draw.choice((1, 10, 1000)))
    k = draw.randrange(len(data) + 1)
    return draw.choice((data[:i] + data[j:], data[:j] + data[i:], data[:k] + data[i:j] + data[k:]))


def insert(data: bytes, draw: random.Random) -> bytes:
    """Insert unusual bytes."""
    i = draw.randrange(len(data) + 1)
    return data[:i] + draw.choice(ODD_WORDS) * draw.choice((1, 1, 50)) + data[i:]


def lines(data: bytes, draw: random.Random) -> bytes:
    """Drop, repeat, exchange, join or blank lines."""
    rows = data.split(b"\n")
    i, j = draw.randrange(len(rows)), draw.randrange(len(rows))
    match draw.randrange(5):
        case 0:
            del rows[i]
        case 1:
            rows.insert(j, rows[i])
        case 2:
            rows[i], rows[j] = rows[j], rows[i]
        case 3:
            rows[i : i + 2] = [b"".join(rows[i : i + 2])]
        case 4:
            rows[i] = draw.choice((b"", b"   ", b"\t", b"\r", b"#", b"\xef\xbb\xbf"))
    return b"\n".join(rows)


def words(data: bytes, draw: random.Random) -> bytes:
    """Change, drop or repeat a word or number in a line, or change the separator."""
    rows = data.split(b"\n")
    i = draw.randrange(len(rows))
    separator = draw.choice((b" ", b"\t", b","))
    parts = rows[i].split(separator)
    j = draw.randrange(len(parts))
    parts[j : j + 1] = draw.choice(([draw.choice(ODD_WORDS)], [], [parts[j]] * 2))
    rows[i] = draw.choice((separator, separator, b"\t", b"  ")).join(parts)
    return b"\n".join(rows)


def encodings(data: bytes, draw: random.Random) -> bytes:
    """As saved by another program."""
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
    """Change a value or key of a JSON file or of a JSON line."""
    try:
        return json.dumps(_changed(json.loads(data), draw)).encode()
    except ValueError:
        rows = data.split(b"\n")
        i = draw.randrange(len(rows))
        try:
            rows[i] = json.dumps(_changed(json.loads(rows[i]), draw)).encode()
        except ValueError:
            return cut(data, draw)
        return b"\n".join(rows)


def _changed(tree: Any, draw: random.Random) -> Any:
    """``tree`` with one node changed; nodes near the root are as likely as the many leaves."""
    tree = copy.deepcopy(tree)
    node, parent, key = tree, None, None
    while isinstance(node, dict | list) and node and (parent is None or draw.random() < 0.7):
        key = draw.choice(list(node) if isinstance(node, dict) else range(len(node)))
        parent, node = node, node[key]
    if parent is None:
        return draw.choice(ODD_VALUES)
    match draw.randrange(8):
        case 0:
            del parent[key]
        case 1 if isinstance(parent, dict):
            parent[draw.choice(("x", "text", "", str(key).upper()))] = parent.pop(key)
        case 2 if isinstance(parent, dict):
            parent[draw.choice(("x", "extra"))] = draw.choice(ODD_VALUES)
        case 3 if isinstance(node, int | float):
            parent[key] = draw.choice((node + 1, node - 1, -node, node * 2, float(node), str(node)))
        case 4 if isinstance(parent, list):
            parent.insert(key, node)
        case _:
            parent[key] = draw.choice(ODD_VALUES)
    return tree


def header(data: bytes, draw: random.Random) -> bytes:
    """Change the header of a safetensors file, or its length."""
    size = int.from_bytes(data[:8], "little")
    if draw.random() < 0.2:
        return draw.choice((0, size - 1, size + 1, 2**40, 2**63)).to_bytes(8, "little") + data[8:]
    changed = json.dumps(_changed(json.loads(data[8 : 8 + size]), draw)).encode()
    return len(changed).to_bytes(8, "little") + changed + data[8 + size :]


def copied(source: Path, target: Path) -> Path:
    """A copy with hard links, until a file is damaged."""
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
