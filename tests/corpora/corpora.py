"""Corpus files of every format that the tests of this folder write and read."""

import gzip
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from diffretriever_pyserini.corpora.corpus import Corpus, Passage, RawRow, parse_row

RECORDS = [{"docid": f"d{i}", "title": f"Title {i}", "text": f"text {i} ü"} for i in range(1000)]
EXPECTED = [Passage(f"d{i}", f"Title {i}", f"text {i} ü") for i in range(1000)]
DATA = "".join(json.dumps(record) + "\n" for record in RECORDS).encode()


def compressed(path: Path, data: bytes) -> bytes:
    if path.suffix == ".gz":
        return gzip.compress(data, 1)
    return pa.compress(data, "zstd", asbytes=True) if path.suffix == ".zst" else data


def write(path: Path, data: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(compressed(path, data.encode() if isinstance(data, str) else data))
    return path


def write_table(path: Path, records: list[dict[str, Any]], rows: int = 300) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(records)
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=rows)
        return path
    make = pa.ipc.new_stream if path.suffix == ".arrow" else pa.ipc.new_file
    with pa.OSFile(str(path), "wb") as sink, make(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return path


def peak_memory(work: Callable[[], object]) -> int:
    """Peak of the bytes that Python objects took during ``work``."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def passages(*sources: str | Path, start: int = 0) -> list[Passage]:
    return [parse_row(row) for row in Corpus(sources).rows(start)]


def rows(text: str | bytes, folder: Path, name: str = "a.jsonl") -> list[RawRow]:
    return list(Corpus([write(folder / name, text)]).rows())
