"""Which ids occur twice: compared with a dictionary, and with hashes that collide."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from diffretriever_pyserini.store import docids
from diffretriever_pyserini.store.docids import SeenIds, repeats


def random_ids(seed: int, parts: int) -> list[list[str]]:
    generator = random.Random(seed)
    return [[f"d{generator.randrange(400)}" for _ in range(generator.randrange(30))] for _ in range(parts)]


@pytest.mark.parametrize("bits", [64, 5])
def test_seen_ids_are_those_of_a_set(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first half of a hash may collide: the second half distinguishes the ids."""
    original = docids._hash
    monkeypatch.setattr(docids, "_hash", lambda docid: (original(docid)[0] >> (64 - bits), original(docid)[1]))
    seen, before = SeenIds(), set[str]()
    for ids in random_ids(7, 40):
        hashes = docids.hashes(ids)
        assert seen.known(hashes).tolist() == [docid in before for docid in ids]
        seen.add(hashes)
        before |= set(ids)
    lengths = [run.shape[1] for run in seen._runs]
    assert sum(lengths) == sum(map(len, random_ids(7, 40)))
    assert all(a >= 2 * b for a, b in itertools.pairwise(lengths))


@pytest.mark.parametrize("bits", [64, 5])
def test_repeats_of_a_store(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    original = docids._hash
    monkeypatch.setattr(docids, "_hash", lambda docid: (original(docid)[0] >> (64 - bits), original(docid)[1]))
    parts: list[Any] = [SimpleNamespace(path=Path(f"{i}"), docids=ids) for i, ids in enumerate(random_ids(3, 12))]
    first: dict[str, Any] = {}
    expected = []
    for part in parts:
        for docid in part.docids:
            if docid in first:
                expected.append((docid, first[docid], part))
            first.setdefault(docid, part)
    assert len(expected) > 10
    assert list(repeats(parts)) == expected
    unique: list[Any] = [SimpleNamespace(path=Path("0"), docids=[f"d{i}" for i in range(100)])]
    assert list(repeats(unique)) == []
