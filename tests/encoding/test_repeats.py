"""Ids that occur twice within a part, across parts and across shards are refused or skipped, never stored."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from diffretriever_pyserini import DiffRetriever
from diffretriever_pyserini.errors import DiffRetrieverError, InputError
from diffretriever_pyserini.files.atomic import only_writer
from diffretriever_pyserini.store import docids
from diffretriever_pyserini.store.store import Store

from .conftest import passages, write_corpus
from .test_accidents import parts
from .test_job import content, encode


@pytest.fixture
def repeating(tmp_path: Path) -> Path:
    """A corpus of 60 rows with 24 ids; two rows are broken."""
    generator = random.Random(5)
    records = passages(60)
    for record in records:
        record["id"] = f"d{generator.randrange(24)}"
    path = write_corpus(tmp_path / "c.jsonl", records)
    lines = path.read_text().splitlines()
    lines[9] = lines[30] = "{"
    path.write_text("\n".join(lines) + "\n")
    return path


def skipping(model: DiffRetriever, path: Path, output: Path, **options: Any) -> dict[str, Any]:
    return encode(model, path, output, **{"on_error": "skip", "rows_per_part": 8} | options)


def test_an_id_of_an_earlier_part_stops_with_both_lines(model: DiffRetriever, tmp_path: Path) -> None:
    records = passages(20)
    records[17]["id"] = "d2"
    path = write_corpus(tmp_path / "c.jsonl", records)
    with pytest.raises(InputError, match=r"line 18: passage id 'd2' was seen before in .*c\.jsonl, line 3; .*on-error"):
        encode(model, path, tmp_path / "S", rows_per_part=8)
    with pytest.raises(InputError, match="not finished"):
        Store(tmp_path / "S")


def test_the_first_passage_of_each_id_is_kept(model: DiffRetriever, repeating: Path, tmp_path: Path) -> None:
    figures = skipping(model, repeating, tmp_path / "S")
    store = Store(tmp_path / "S")
    ids = list(store.docids())
    assert len(ids) == len(set(ids)) == figures["passages"] == 24
    assert figures["skipped"] == len(list(store.skipped())) == 36
    lines = repeating.read_text().splitlines()
    first: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if line != "{":
            first.setdefault(line.split('"')[3], number)
    assert ids == list(first)
    listed = {int(where.rpartition(" ")[2]) for where, _ in store.skipped()}
    assert listed == set(range(1, 61)) - set(first.values())
    reasons = [reason for _, reason in store.skipped()]
    assert sum("was seen before in an earlier part of the corpus" in reason for reason in reasons) > 10
    assert any("was seen before in" in reason and "c.jsonl, line" in reason.split("before in")[1] for reason in reasons)


def test_neither_shards_nor_missing_parts_change_the_bytes(
    model: DiffRetriever, repeating: Path, tmp_path: Path
) -> None:
    skipping(model, repeating, tmp_path / "whole")
    whole = content(tmp_path / "whole")
    skipping(model, repeating, tmp_path / "workers", workers=1)
    assert content(tmp_path / "workers") == whole
    names = sorted(name for name in whole if name.startswith("parts"))
    for missing in ([2], [0], [1, 5], [7]):
        for number in missing:
            (tmp_path / "whole" / names[number]).unlink()
        skipping(model, repeating, tmp_path / "whole", verify=False)
        assert content(tmp_path / "whole") == whole
    for order in ([0, 1, 2], [2, 1, 0]):
        output = tmp_path / f"sharded{order[0]}"
        figures = [skipping(model, repeating, output, shard=shard, shards=3) for shard in order]
        assert parts(output) == parts(tmp_path / "whole")
        assert [figure["rows"] for figure in figures] == [60] * 3
        notes = [path.read_text() for path in sorted((output / "shards").iterdir())]
        assert len(notes) == 3
        assert len(Store(output)) == 24


def test_an_id_of_another_shard_stops_the_last(model: DiffRetriever, tmp_path: Path) -> None:
    records = passages(20)
    records[17]["id"] = "d9"  # part 2 of shard 0, and part 1 of shard 1
    path = write_corpus(tmp_path / "c.jsonl", records)
    encode(model, path, tmp_path / "S", rows_per_part=8, shard=0, shards=2)
    for _ in range(2):
        with pytest.raises(InputError, match=r"line 18: passage id 'd9' was seen before in .*c\.jsonl, line 10;"):
            encode(model, path, tmp_path / "S", rows_per_part=8, shard=1, shards=2)
        with pytest.raises(InputError, match="not finished"):
            Store(tmp_path / "S")
    skipping(model, path, tmp_path / "S", shard=1, shards=2)
    skipping(model, path, tmp_path / "whole")
    assert parts(tmp_path / "S") == parts(tmp_path / "whole")
    assert (tmp_path / "S/shards/00000-of-00002.json").read_text().count('"passages": 11') == 1


def test_parts_of_a_running_shard_are_not_replaced(model: DiffRetriever, repeating: Path, tmp_path: Path) -> None:
    skipping(model, repeating, tmp_path / "S", shard=0, shards=2)
    with (
        only_writer(tmp_path / "S/locks/00000-of-00002", "x"),
        pytest.raises(DiffRetrieverError, match=r"parts must be encoded again, is being written .*00000-of-00002"),
    ):
        skipping(model, repeating, tmp_path / "S", shard=1, shards=2)
    skipping(model, repeating, tmp_path / "S", shard=1, shards=2)
    assert len(Store(tmp_path / "S")) == 24


@pytest.mark.parametrize("shards", [1, 2])
def test_ids_that_share_half_a_hash_are_distinguished(
    model: DiffRetriever, repeating: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shards: int
) -> None:
    skipping(model, repeating, tmp_path / "S")
    original = docids._hash
    monkeypatch.setattr(docids, "_hash", lambda docid: (len(docid) % 2, original(docid)[1]))
    for shard in range(shards):
        skipping(model, repeating, tmp_path / "same", shard=shard, shards=shards)
    assert parts(tmp_path / "same") == parts(tmp_path / "S")


def test_seen_ids_are_those_that_were_added() -> None:
    generator, seen, known = random.Random(3), docids.SeenIds(), set[str]()
    for _ in range(60):
        ids = [f"d{generator.randrange(3000)}" for _ in range(generator.randrange(80))]
        assert seen.known(docids.hashes(ids)).tolist() == [docid in known for docid in ids]
        seen.add(docids.hashes(ids))
        known.update(ids)
