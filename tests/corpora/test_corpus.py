"""Corpora of every layout give the same stream of rows."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diffretriever_pyserini.corpora.corpus import Corpus, Passage, RawRow, parse_row
from diffretriever_pyserini.errors import InputError

from .corpora import DATA, EXPECTED, RECORDS, passages, peak_memory, rows, write, write_table

ODD = "x \x00 \ud800 y\u2028z"


@pytest.mark.parametrize(
    "name",
    ["c.jsonl", "c.json", "C.JSONL", "c.jsonl.gz", "c.json.zst", "c.parquet", "c.arrow", "c.feather", "c.ipc"],
)
def test_every_format_gives_the_same_passages_from_any_start(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if path.suffix in (".parquet", ".arrow", ".feather", ".ipc"):
        write_table(path, RECORDS)
    else:
        write(path, DATA)
    everything = list(Corpus([path]).rows())
    assert [parse_row(row) for row in everything] == EXPECTED
    unit = "line" if "js" in name.lower() else "row"
    assert everything[12].where == f"{path}, {unit} 13"
    for start in (1, 255, 256, 300, 599, 600, 999, 1000):
        assert list(Corpus([path]).rows(start)) == everything[start:]
    assert pickle.loads(pickle.dumps(everything[0])) == everything[0]


def test_skipping_continues_in_the_next_file(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", DATA)
    write_table(tmp_path / "b.parquet", RECORDS)
    write_table(tmp_path / "c.arrow", RECORDS)
    write(tmp_path / "d.tsv.zst", "x\tone\n\ny\ttwo\n")
    corpus = Corpus([tmp_path])
    assert [Path(file).name for file in corpus.files] == ["a.jsonl", "b.parquet", "c.arrow", "d.tsv.zst"]
    everything = [row.where for row in corpus.rows()]
    assert len(everything) == 3002 and everything[-1].endswith("d.tsv.zst, line 3")
    for start in (999, 1000, 1001, 1300, 2000, 2500, 3001, 3002):
        assert [row.where for row in corpus.rows(start)] == everything[start:]
    with pytest.raises(InputError, match="a.jsonl and 3 more: ends after 3,002 rows, but 3,003 should be skipped"):
        list(corpus.rows(3003))


def test_skipping_does_not_parse(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"cut\n\xff\n{"id": "a", "text": ""}\n'.encode("latin-1"))
    assert [parse_row(row) for row in Corpus([path]).rows(2)] == [Passage("a", "", "")]


def test_skipped_row_groups_are_not_read(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.parquet", RECORDS, rows=500)
    group = pq.ParquetFile(path).metadata.row_group(0)
    with path.open("r+b") as file:  # damage in the first group alone
        file.seek(group.column(2).data_page_offset)
        file.write(b"\xff" * 64)
    assert passages(path, start=500) == EXPECTED[500:]
    with pytest.raises(InputError, match=r"a.parquet, after row \d+: damaged"):
        passages(path)


@pytest.mark.parametrize(
    ("record", "passage", "contents"),
    [
        ({"id": "a", "contents": " Title\nbody  text "}, Passage("a", "", " Title\nbody  text "), "Title\nbody  text"),
        ({"id": "a", "contents": "whole", "title": "not this"}, Passage("a", "", "whole"), "whole"),
        ({"id": "a", "title": "T", "text": "x", "contents": "T\nx"}, Passage("a", "T", "x"), "T x"),
        ({"_id": "a", "title": "", "text": "x", "metadata": {"url": 1}}, Passage("a", "", "x"), "x"),
        ({"_id": "a", "id": 7, "text": "x"}, Passage("a", "", "x"), "x"),
        ({"_id": None, "id": "a", "text": "x"}, Passage("a", "", "x"), "x"),
        ({"_id": "a", "title": "T"}, Passage("a", "T", ""), "T"),
        ({"_id": "a", "title": "T", "contents": None}, Passage("a", "T", ""), "T"),
        ({"docid": "a", "title": None, "text": None}, Passage("a", "", ""), ""),
        ({"id": "a", "text": None, "contents": "x"}, Passage("a", "", "x"), "x"),  # tables have all their columns
        ({"id": "a", "text": "", "contents": "x"}, Passage("a", "", ""), ""),
        ({"id": 7, "text": "x"}, Passage("7", "", "x"), "x"),
        ({"id": "ü\U0001f600", "text": ""}, Passage("ü\U0001f600", "", ""), ""),
        ({"id": "a", "text": ODD + "\x85"}, Passage("a", "", ODD + "\x85"), ODD),
    ],
)
def test_fields_of_a_record(tmp_path: Path, record: dict[str, Any], passage: Passage, contents: str) -> None:
    assert [parse_row(row) for row in rows(json.dumps(record), tmp_path)] == [passage]
    assert parse_row(RawRow("record", "a.jsonl, line 1", record)) == passage
    assert passage.contents == contents


def test_tsv_of_ms_marco(tmp_path: Path) -> None:
    text = (
        '0\tA "quoted" passage, ü\r\n1\t\r\nD2\thttps://x.org/a b\tThe title\tand body\r\nD3\t\tNo URL\t\n4\tNUL \x00'
    )
    assert [parse_row(row) for row in rows(text, tmp_path, "collection.tsv")] == [
        Passage("0", "", 'A "quoted" passage, ü'),
        Passage("1", "", ""),
        Passage("D2", "The title", "and body"),
        Passage("D3", "No URL", ""),
        Passage("4", "", "NUL \x00"),
    ]


def test_line_ends_blank_lines_and_byte_order_mark(tmp_path: Path) -> None:
    text = b'\xef\xbb\xbf\r\n\n{"id": "a", "text": "x"}\r\n \t\r\n\n{"id": "b", "text": "y"}'
    for name in ("a.jsonl", "a.jsonl.gz", "a.jsonl.zst"):
        non_blank = rows(text, tmp_path, name)
        assert [row.where.rpartition(" ")[2] for row in non_blank] == ["3", "6"]
        assert [parse_row(row).docid for row in non_blank] == ["a", "b"]
    bom_first, joined = rows(b"\xef\xbb\xbfa\tx\n\xef\xbb\xbfb\ty\n", tmp_path, "a.tsv")
    assert parse_row(bom_first).docid == "a"
    with pytest.raises(InputError, match=r"a\.tsv, line 2: the passage id .* begins with a byte order mark; remove it"):
        parse_row(joined)


def test_layouts_of_folders(tmp_path: Path) -> None:
    line = '{"id": "%s", "text": "x"}\n'
    for name in ("docs10.jsonl", "docs2.json", ".hidden", "README.md", "README"):
        write(tmp_path / "pyserini" / name, line % name)
    for name in ("corpus.jsonl.gz", "queries.jsonl", "qrels/test.tsv"):
        write(tmp_path / "beir" / name, line % name)
    write_table(tmp_path / "saved" / "data-00000-of-00001.arrow", RECORDS[:1])
    for name in ("state.json", "dataset_info.json"):
        write(tmp_path / "saved" / name, "{}")
    corpus = Corpus([tmp_path / name for name in ("saved", "pyserini", "beir")])
    assert [parse_row(row).docid for row in corpus.rows()] == ["d0", "docs10.jsonl", "docs2.json", "corpus.jsonl.gz"]


def test_identity_depends_on_names_sizes_and_order_but_not_on_folders(tmp_path: Path) -> None:
    a, b = write(tmp_path / "one/a.jsonl", DATA), write(tmp_path / "one/b.tsv", "1\tx\n")
    identity = Corpus([a, b]).identity()
    assert int(identity, 16) >= 0 and Corpus([tmp_path / "one"]).identity() == identity
    (tmp_path / "one").rename(tmp_path / "two")
    a, b = tmp_path / "two/a.jsonl", tmp_path / "two/b.tsv"
    assert Corpus([a, b]).identity() == identity
    others = {Corpus([b, a]).identity(), Corpus([a]).identity(), Corpus([a, b, "owner/name"]).identity()}
    others |= {Corpus(["owner/name"]).identity(), Corpus(["owner/name"], split="test").identity()}
    others.add(Corpus([a, write(b, "1\txy\n")]).identity())
    others.add(Corpus([a, b.rename(b.with_name("c.tsv"))]).identity())
    assert len(others | {identity}) == 8


def test_a_data_set_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    file, calls, load = write(tmp_path / "x.jsonl", DATA), [], datasets.load_dataset

    def local(*name: str, **options: Any) -> Any:
        calls.append((*name, options))
        return load("json", data_files={"dev": str(file)}, split="dev", streaming=options["streaming"])

    monkeypatch.setattr(datasets, "load_dataset", local)
    corpus = Corpus(["owner/name:corpus:dev", write(tmp_path / "last.tsv", "z\tlast\n")])
    everything = list(corpus.rows())
    assert [parse_row(row) for row in everything] == [*EXPECTED, Passage("z", "", "last")]
    assert calls == [("owner/name", "corpus", {"split": "dev", "streaming": True})]
    assert everything[2].where == "owner/name:corpus:dev, row 3"
    for start in (10, 256, 999, 1000):
        assert list(corpus.rows(start)) == everything[start:]
    assert Corpus(["owner/name"]).files == ("owner/name:train",)
    file.write_bytes(b'{"id": "a", "body": "x"}\n')
    with pytest.raises(InputError, match=r"owner/name:train: no column for the text .*; found 'id', 'body'"):
        passages("owner/name")


def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    def peak(path: Path) -> int:
        return peak_memory(lambda: [None for row in Corpus([path]).rows() if not parse_row(row).docid])

    builders: dict[str, Callable[[Path, int], Path]] = {
        "a.jsonl": lambda path, n: write(path, DATA * n),
        "a.jsonl.gz": lambda path, n: write(path, DATA * n),
        "a.parquet": lambda path, n: write_table(path, RECORDS * n, rows=1_000_000),
        "a.arrow": lambda path, n: write_table(path, RECORDS * n),
    }
    for name, build in builders.items():
        build(tmp_path / name, 1)
        peak(tmp_path / name)  # imports
        small = peak(tmp_path / name)
        assert peak(build(tmp_path / name, 20)) < small + 300_000, name  # the corpus itself is above 1 MB


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.ipc"])
def test_a_table_is_never_whole_in_memory(tmp_path: Path, name: str) -> None:
    records = [{"id": i, "text": f"{i} " * 400, "vector": [0.5] * 64} for i in range(20_000)]
    path = write_table(tmp_path / name, records, rows=500 if name != "a.parquet" else len(records))
    del records
    before = pa.total_allocated_bytes()
    peak = max(pa.total_allocated_bytes() - before for _ in Corpus([path]).rows())
    assert peak < 12_000_000  # the texts are 44 MB


def test_the_hub_is_offline_in_tests() -> None:
    if os.environ.get("HF_HUB_OFFLINE") != "1":
        pytest.skip("HF_HUB_OFFLINE is not set to 1")
    with pytest.raises(InputError, match="data set 'nobody/no-such-corpus:train': cannot be read"):
        passages("nobody/no-such-corpus")


def test_brackets_inside_a_text_do_not_nest() -> None:
    text = "[{" * 1000 + ' "quoted" \\ [[['
    line = json.dumps({"id": "d", "text": text}).encode()
    assert parse_row(RawRow("jsonl", "c, line 1", line)).text == text
