"""Corpora of every layout come as the same stream of rows, and every defect is named with file and line."""

import gzip
import json
import os
import pickle
import random
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diffretriever_pyserini.collections.corpus import Corpus, CorpusPassage, RawRow, parse_row
from diffretriever_pyserini.collections.jsonl import LINE_LIMIT
from diffretriever_pyserini.errors import InputError

RECORDS = [{"docid": f"d{i}", "title": f"Title {i}", "text": f"text {i} ü"} for i in range(1000)]
EXPECTED = [CorpusPassage(f"d{i}", f"Title {i} text {i} ü") for i in range(1000)]
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
    """Bytes that Python objects took at most during ``work``."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def passages(*sources: str | Path, start: int = 0) -> list[CorpusPassage]:
    return [parse_row(row) for row in Corpus(sources).rows(start)]


def rows(text: str | bytes, folder: Path, name: str = "a.jsonl") -> list[RawRow]:
    return list(Corpus([write(folder / name, text)]).rows())


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


def test_skipping_goes_on_in_the_next_file(tmp_path: Path) -> None:
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
    with pytest.raises(InputError, match="a.jsonl and 3 more: ends after 3,002 rows, where 3,003 were to be skipped"):
        list(corpus.rows(3003))


def test_skipping_does_not_parse(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"cut\n\xff\n{"id": "a", "text": ""}\n'.encode("latin-1"))
    assert [parse_row(row) for row in Corpus([path]).rows(2)] == [CorpusPassage("a", "")]


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
    ("record", "passage"),
    [
        ({"id": "a", "contents": " Title\nbody  text "}, CorpusPassage("a", "Title\nbody  text")),
        ({"id": "a", "contents": "whole", "title": "not this"}, CorpusPassage("a", "whole")),
        ({"id": "a", "title": "T", "text": "x", "contents": "T\nx"}, CorpusPassage("a", "T x")),
        ({"_id": "a", "title": "", "text": "x", "metadata": {"url": 1}}, CorpusPassage("a", "x")),
        ({"docid": "a", "title": None, "text": None}, CorpusPassage("a", "")),
        ({"id": 7, "text": "x"}, CorpusPassage("7", "x")),
        ({"id": "ü\U0001f600", "text": ""}, CorpusPassage("ü\U0001f600", "")),
        ({"id": "a", "text": "x \x00 \ud800 y\u2028z\x85"}, CorpusPassage("a", "x \x00 \ud800 y\u2028z")),
    ],
)
def test_fields_of_a_record(tmp_path: Path, record: dict[str, Any], passage: CorpusPassage) -> None:
    assert [parse_row(row) for row in rows(json.dumps(record), tmp_path)] == [passage]
    assert parse_row(RawRow("record", "here", record)) == passage


def test_tsv_of_ms_marco(tmp_path: Path) -> None:
    text = (
        '0\tA "quoted" passage, ü\r\n1\t\r\nD2\thttps://x.org/a b\tThe title\tand body\r\nD3\t\tNo URL\t\n4\tNUL \x00'
    )
    assert [parse_row(row) for row in rows(text, tmp_path, "collection.tsv")] == [
        CorpusPassage("0", 'A "quoted" passage, ü'),
        CorpusPassage("1", ""),
        CorpusPassage("D2", "The title and body"),
        CorpusPassage("D3", "No URL"),
        CorpusPassage("4", "NUL \x00"),
    ]


def test_line_ends_blank_lines_and_byte_order_mark(tmp_path: Path) -> None:
    text = b'\xef\xbb\xbf\r\n\n{"id": "a", "text": "x"}\r\n \t\r\n\n{"id": "b", "text": "y"}'
    for name in ("a.jsonl", "a.jsonl.gz", "a.jsonl.zst"):
        found = rows(text, tmp_path, name)
        assert [row.where.rpartition(" ")[2] for row in found] == ["3", "6"]
        assert [parse_row(row).docid for row in found] == ["a", "b"]
    bom_first = rows(b"\xef\xbb\xbfa\tx\n\xef\xbb\xbfb\ty\n", tmp_path, "a.tsv")
    assert [parse_row(row).docid for row in bom_first] == ["a", "\ufeffb"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"id": "a", "text": "\xff"}', r"line 2: not valid UTF-8 \(byte 22"),
        ('{"id": "a", "text": "é"}'.encode("utf-16"), "line 2: not valid UTF-8"),
        (b'{"id": "a", "text": "x', "line 2: broken JSON at column .* cut in half"),
        (b'{"id": "a", "text": "\x00"}', "line 2: broken JSON .* control character"),
        (b"\x00" * 100, "line 2: broken JSON"),
        (b'{"id": ' + b"9" * 5000 + b', "text": ""}', "line 2: JSON that cannot be read"),
        (b"[" * 100_000, "line 2: JSON nested too deeply"),
        (b'{"id": "d", "text": ' + b'{"a": ' * 300 + b"1", "line 2: JSON nested too deeply"),
        (b'["a", "x"]', "line 2: expected a JSON object, found list"),
        (b'{"text": "x"}', "line 2: the passage has no id"),
        (b'{"id": "", "text": "x"}', "line 2: the passage has no id"),
        (b'{"id": null, "text": "x"}', "line 2: the passage has no id"),
        (b'{"id": "a b", "text": "x"}', "line 2: the passage id 'a b' holds white space"),
        (b'{"id": "a\\n", "text": "x"}', "line 2: .* holds white space"),
        (b'{"id": "a\\u0000", "text": "x"}', "line 2: .* holds a NUL character"),
        (b'{"id": "a\\ud800", "text": "x"}', "line 2: .* holds a lone surrogate"),
        (b'{"id": 1.5, "text": "x"}', "line 2: the passage id must be a string, found float"),
        (b'{"id": ["a"], "text": "x"}', "line 2: the passage id must be a string, found list"),
        (b'{"id": "a", "text": 7}', "line 2: field 'text' must be a string, found int"),
        (b'{"id": "a", "title": ["x"], "text": "x"}', "line 2: field 'title' must be a string, found list"),
        (b'{"id": "a", "contents": {}}', "line 2: field 'contents' must be a string, found dict"),
        (
            b'{"id": "a", "title": "x", "body": ""}',
            "line 2: .* no field 'text' or 'contents'; found 'id', 'title', 'body'",
        ),
    ],
)
def test_a_bad_line_is_named_and_the_others_are_read(tmp_path: Path, line: bytes, message: str) -> None:
    good = b'{"id": "%d", "text": "x"}\n'
    first, bad, last = rows(good % 1 + line.replace(b"\n", b" ") + b"\n" + good % 3, tmp_path)
    with pytest.raises(InputError, match=f"a.jsonl, {message}"):
        parse_row(bad)
    assert [parse_row(row).docid for row in (first, last)] == ["1", "3"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("no tab", "line 2: the passage id 'no tab' holds white space"),
        ("notab", "line 2: 1 columns; expected id and text, or"),
        ("\ttext", "line 2: the passage has no id"),
        ("a\x00\ttext", "line 2: .* holds a NUL character"),
        ("a\tb\tc", "line 2: 3 columns"),
        ("a\tb\tc\td\te", "line 2: 5 columns"),
        ("q1\t0\td7\t1", "line 2: 4 columns with '0' as the second; expected .* URL"),
    ],
)
def test_a_bad_tsv_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    _, bad = rows(f"1\tx\n{line}\n", tmp_path, "a.tsv")
    with pytest.raises(InputError, match=f"a.tsv, {message}"):
        parse_row(bad)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"])
def test_an_endless_line_is_named_and_not_held(tmp_path: Path, name: str) -> None:
    path, good = tmp_path / name, b'{"id": "a", "text": "x"}\n'
    with write(path, good).open("r+b") as file:
        file.seek(3 * LINE_LIMIT if path.suffix == ".jsonl" else 0, os.SEEK_END)  # a hole: NUL, and takes no room
        for _ in range(3 * (LINE_LIMIT >> 20) if path.suffix != ".jsonl" else 0):
            file.write(compressed(path, b" " * (1 << 20)))  # frames are read as if they were one
        file.write(compressed(path, b"x\n" + good))
    read: list[RawRow] = []
    peak = peak_memory(lambda: read.extend(Corpus([path]).rows()))
    assert peak < 2.5 * LINE_LIMIT  # the pieces of one line, and the line
    first, bad, last = read
    with pytest.raises(InputError, match=rf"{name}, line 2: longer than 67,108,864 bytes"):
        parse_row(bad)
    assert parse_row(first) == parse_row(last) and last.where.endswith("line 3")
    assert list(Corpus([path]).rows(2)) == [last]


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *(
            (f"a.jsonl{end}", damage)
            for end in (".gz", ".zst")
            for damage in ("cut", "plain", "empty", "rubbish after")
        ),
        ("a.jsonl.gz", "flipped"),  # pyarrow writes zstd without a checksum, so that not all damage can be seen
    ],
)
def test_a_damaged_file_is_named_with_its_last_good_line(tmp_path: Path, name: str, damage: str) -> None:
    noise = random.Random(0)
    data = "".join(f'{{"id": "{i}", "text": "{noise.randbytes(200).hex()}"}}\n' for i in range(5000)).encode()
    good = write(tmp_path / name, data).read_bytes()
    middle = len(good) // 2
    (tmp_path / name).write_bytes(
        {
            "cut": good[:-100],
            "flipped": good[:middle] + bytes(255 - byte for byte in good[middle : middle + 64]) + good[middle + 64 :],
            "plain": data[:1000],
            "empty": b"",
            "rubbish after": good + b"rubbish",
        }[damage]
    )
    read: list[RawRow] = []
    with pytest.raises(InputError) as caught:
        for row in Corpus([tmp_path / name]).rows():
            read.append(row)
    kind = "gzip" if name.endswith("gz") else "zstd"
    assert re.search(rf"{name}, after line \d+: damaged {kind} file", str(caught.value))
    if damage in ("cut", "rubbish after"):
        assert [parse_row(row).docid for row in read] == [str(i) for i in range(len(read))]
        assert 4000 < len(read) <= 5000
        assert f"after line {len(read)}:" in str(caught.value)


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


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.jsonl", "notes.txt"], "notes.txt: unknown kind of corpus file"),
        (["a.jsonl", "b.parquet.gz"], "b.parquet.gz: unknown kind"),
        (["a.jsonl", "more/b.jsonl"], "more: a folder inside a corpus folder"),
        (["a.jsonl", "qrels/test.tsv"], "qrels: a folder inside a corpus folder"),
        (["collection.tsv", "queries.dev.tsv"], "queries.dev.tsv: queries or judgements, by the name"),
        (["corpus.jsonl", "qgen-queries.jsonl"], "qgen-queries.jsonl: queries or judgements"),
        (["collection.tsv", "qrels.dev.small.tsv"], "qrels.dev.small.tsv: queries or judgements"),
        (["a.jsonl", "a.jsonl.gz"], "a.jsonl.gz: also here as a.jsonl; which is meant?"),
        (["README.md"], "no corpus files in this folder"),
    ],
)
def test_a_folder_that_cannot_be_meant_is_refused_at_once(tmp_path: Path, names: list[str], message: str) -> None:
    for name in names:
        write(tmp_path / name, "1\tx\n")
    with pytest.raises(InputError, match=message):
        Corpus([tmp_path])


def test_sources_that_are_not_there(tmp_path: Path) -> None:
    fifo = tmp_path / "pipe.jsonl"
    os.mkfifo(fifo)
    for source, message in {
        tmp_path / "none.jsonl": "none.jsonl: no such file or folder",
        "data/none.jsonl": "data/none.jsonl: no such file",
        "./owner/name": "no such file",
        "owner/name:a:b:c": "no such file",
        "owner/name:train[:10]": "comes the name of a split",
        fifo: "no regular file",
    }.items():
        with pytest.raises(InputError, match=message):
            Corpus([source])
    with pytest.raises(InputError, match="No corpus is named"):
        Corpus([])
    for name in ("a.jsonl", "a.tsv.gz"):
        with pytest.raises(InputError, match=f"{name}: no passages"):
            list(Corpus([write(tmp_path / name, "\n \n")]).rows())


def test_the_same_file_twice_is_refused_and_the_same_name_is_not(tmp_path: Path) -> None:
    a, b = (write(tmp_path / folder / "docs.jsonl", f'{{"id": "{folder}", "text": ""}}\n') for folder in "ab")
    (tmp_path / "link.jsonl").symlink_to(a)
    assert [passage.docid for passage in passages(b, a)] == ["b", "a"]
    for again in (a, a.parent, tmp_path / "link.jsonl", tmp_path / "b" / ".." / "a"):
        with pytest.raises(InputError, match="listed twice"):
            Corpus([a, b, again])
    with pytest.raises(InputError, match="owner/name:train: listed twice"):
        Corpus(["owner/name", "owner/name:train"])


def test_identity_knows_names_sizes_and_order_but_not_folders(tmp_path: Path) -> None:
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


def test_tables_that_hold_no_corpus(tmp_path: Path) -> None:
    for name in ("a.parquet", "a.arrow"):
        no_id = write_table(tmp_path / name, [{"key": "a", "text": "x"}])
        with pytest.raises(InputError, match=f"{name}: no column for the id .*'docid'.*; found 'key', 'text'"):
            passages(no_id)
        no_text = write_table(tmp_path / name, [{"id": "a", "title": "x"}])
        with pytest.raises(InputError, match=f"{name}: no column for the text .*; found 'id', 'title'"):
            passages(no_text)
        with pytest.raises(InputError, match=rf"{name}, after row 0: damaged, or no (parquet|arrow) file"):
            passages(write(tmp_path / name, DATA))
        with pytest.raises(InputError, match=f"{name}, after row 0: damaged"):
            passages(write(tmp_path / name, b""))


def test_bad_rows_of_a_table_are_named_and_the_others_are_read(tmp_path: Path) -> None:
    text = pa.array([b"one", b"\xff", b"three", None, b"five"]).view(pa.binary()).cast(pa.binary())
    latin = pa.Array.from_buffers(pa.string(), 5, text.buffers())
    table = pa.table({"id": ["a", "b", None, "d", "e f"], "text": latin, "vector": [[0.5]] * 5})
    path = tmp_path / "a.parquet"
    pq.write_table(table, path)
    found = list(Corpus([path]).rows())
    assert [parse_row(found[i]) for i in (0, 3)] == [CorpusPassage("a", "one"), CorpusPassage("d", "")]
    for i, message in {1: "row 2: not valid UTF-8", 2: "row 3: .* no id", 4: "row 5: .* white space"}.items():
        with pytest.raises(InputError, match=f"a.parquet, {message}"):
            parse_row(found[i])
    assert found[0].payload == {"id": "a", "text": "one"}  # other columns are not even read


def test_a_data_set_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    file, asked, load = write(tmp_path / "x.jsonl", DATA), [], datasets.load_dataset

    def local(*name: str, **options: Any) -> Any:
        asked.append((*name, options))
        return load("json", data_files={"dev": str(file)}, split="dev", streaming=options["streaming"])

    monkeypatch.setattr(datasets, "load_dataset", local)
    corpus = Corpus(["owner/name:corpus:dev", write(tmp_path / "last.tsv", "z\tlast\n")])
    everything = list(corpus.rows())
    assert [parse_row(row) for row in everything] == [*EXPECTED, CorpusPassage("z", "last")]
    assert asked == [("owner/name", "corpus", {"split": "dev", "streaming": True})]
    assert everything[2].where == "owner/name:corpus:dev, row 3"
    for start in (10, 256, 999, 1000):
        assert list(corpus.rows(start)) == everything[start:]
    assert Corpus(["owner/name"]).files == ("owner/name:train",)
    file.write_bytes(b'{"id": "a", "body": "x"}\n')
    with pytest.raises(InputError, match=r"owner/name:train: no column for the text .*; found 'id', 'body'"):
        passages("owner/name")


def test_a_data_set_out_of_reach_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def offline(*_: object, **__: object) -> None:
        raise ConnectionError("Couldn't reach 'owner/name' on the Hub (OfflineModeIsEnabled)")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(
        InputError,
        match="owner/name:train.*OfflineModeIsEnabled.* no file or folder 'owner/name' is here.*hf download",
    ):
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
def test_a_table_is_never_held_whole(tmp_path: Path, name: str) -> None:
    records = [{"id": i, "text": f"{i} " * 400, "vector": [0.5] * 64} for i in range(20_000)]
    path = write_table(tmp_path / name, records, rows=500 if name != "a.parquet" else len(records))
    del records
    before = pa.total_allocated_bytes()
    peak = max(pa.total_allocated_bytes() - before for _ in Corpus([path]).rows())
    assert peak < 12_000_000  # the texts are 44 MB


def test_the_real_default_is_offline_here() -> None:
    if os.environ.get("HF_HUB_OFFLINE") != "1":
        pytest.skip("HF_HUB_OFFLINE is not set to 1")
    with pytest.raises(InputError, match="data set 'nobody/no-such-corpus:train': cannot be read"):
        passages("nobody/no-such-corpus")


def test_rows_of_no_known_kind_are_refused() -> None:
    with pytest.raises(InputError, match="here: a row of kind 'jsonl' cannot hold dict"):
        parse_row(RawRow("jsonl", "here", {}))


def test_brackets_inside_a_text_do_not_nest() -> None:
    text = "[{" * 1000 + ' "quoted" \\ [[['
    line = json.dumps({"id": "d", "text": text}).encode()
    assert parse_row(RawRow("jsonl", "c, line 1", line)).text == text
