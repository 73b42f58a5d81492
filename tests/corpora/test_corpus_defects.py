"""Every defect of a corpus is named with file and line, and the intact rows around it are read."""

import os
import random
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diffretriever_pyserini.corpora.corpus import Corpus, Passage, RawRow, parse_row
from diffretriever_pyserini.errors import InputError
from diffretriever_pyserini.files.jsonl import LINE_LIMIT

from .corpora import DATA, compressed, passages, peak_memory, rows, write, write_table


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
        ("q1\t0\td7\t1", "line 2: 4 columns, and the second is '0'; expected .* URL"),
    ],
)
def test_a_bad_tsv_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    _, bad = rows(f"1\tx\n{line}\n", tmp_path, "a.tsv")
    with pytest.raises(InputError, match=f"a.tsv, {message}"):
        parse_row(bad)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"])
def test_a_line_that_is_too_long_is_named_and_not_kept_in_memory(tmp_path: Path, name: str) -> None:
    path, good = tmp_path / name, b'{"id": "a", "text": "x"}\n'
    with write(path, good).open("r+b") as file:
        file.seek(
            3 * LINE_LIMIT if path.suffix == ".jsonl" else 0, os.SEEK_END
        )  # a hole of NUL bytes, which takes no disk space
        for _ in range(3 * (LINE_LIMIT >> 20) if path.suffix != ".jsonl" else 0):
            file.write(compressed(path, b" " * (1 << 20)))  # concatenated frames read as one
        file.write(compressed(path, b"x\n" + good))
    read: list[RawRow] = []
    peak = peak_memory(lambda: read.extend(Corpus([path]).rows()))
    assert peak < 2.5 * LINE_LIMIT  # one line, and the pieces that it is made of
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
        ("a.jsonl.gz", "flipped"),  # pyarrow writes zstd without a checksum, so some damage cannot be detected
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


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.jsonl", "notes.txt"], "notes.txt: unknown kind of corpus file"),
        (["a.jsonl", "b.parquet.gz"], "b.parquet.gz: unknown kind"),
        (["a.jsonl", "more/b.jsonl"], "more: a folder inside a corpus folder"),
        (["a.jsonl", "qrels/test.tsv"], "qrels: a folder inside a corpus folder"),
        (["collection.tsv", "queries.dev.tsv"], "queries.dev.tsv: the name says queries or judgements"),
        (["corpus.jsonl", "qgen-queries.jsonl"], "qgen-queries.jsonl: the name says queries"),
        (["collection.tsv", "qrels.dev.small.tsv"], "qrels.dev.small.tsv: the name says queries"),
        (["a.jsonl", "a.jsonl.gz"], "a.jsonl.gz: the folder also has a.jsonl. Name the file"),
        (["README.md"], "no corpus files in this folder"),
    ],
)
def test_a_folder_with_other_files_is_refused_at_once(tmp_path: Path, names: list[str], message: str) -> None:
    for name in names:
        write(tmp_path / name, "1\tx\n")
    with pytest.raises(InputError, match=message):
        Corpus([tmp_path])


def test_missing_or_unusable_sources_are_refused(tmp_path: Path) -> None:
    fifo = tmp_path / "pipe.jsonl"
    os.mkfifo(fifo)
    for source, message in {
        tmp_path / "none.jsonl": "none.jsonl: no such file or folder",
        "data/none.jsonl": "data/none.jsonl: no such file",
        "./owner/name": "no such file",
        "owner/name:a:b:c": "no such file",
        "owner/name:train[:10]": "give a split or config:split",
        fifo: "not a regular file",
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


def test_tables_that_hold_no_corpus(tmp_path: Path) -> None:
    for name in ("a.parquet", "a.arrow"):
        no_id = write_table(tmp_path / name, [{"key": "a", "text": "x"}])
        with pytest.raises(InputError, match=f"{name}: no column for the id .*'docid'.*; found 'key', 'text'"):
            passages(no_id)
        no_text = write_table(tmp_path / name, [{"id": "a", "title": "x"}])
        with pytest.raises(InputError, match=f"{name}: no column for the text .*; found 'id', 'title'"):
            passages(no_text)
        with pytest.raises(InputError, match=rf"{name}, after row 0: damaged, or not a file of kind (parquet|arrow)"):
            passages(write(tmp_path / name, DATA))
        with pytest.raises(InputError, match=f"{name}, after row 0: damaged"):
            passages(write(tmp_path / name, b""))


def test_bad_rows_of_a_table_are_named_and_the_others_are_read(tmp_path: Path) -> None:
    text = pa.array([b"one", b"\xff", b"three", None, b"five"]).view(pa.binary()).cast(pa.binary())
    latin = pa.Array.from_buffers(pa.string(), 5, text.buffers())
    table = pa.table({"id": ["a", "b", None, "d", "e f"], "text": latin, "vector": [[0.5]] * 5})
    path = tmp_path / "a.parquet"
    pq.write_table(table, path)
    table_rows = list(Corpus([path]).rows())
    assert [parse_row(table_rows[i]) for i in (0, 3)] == [Passage("a", "", "one"), Passage("d", "", "")]
    for i, message in {1: "row 2: not valid UTF-8", 2: "row 3: .* no id", 4: "row 5: .* white space"}.items():
        with pytest.raises(InputError, match=f"a.parquet, {message}"):
            parse_row(table_rows[i])
    assert table_rows[0].payload == {"id": "a", "text": "one"}  # other columns are not read


def test_a_data_set_out_of_reach_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def offline(*_: object, **__: object) -> None:
        raise ConnectionError("Couldn't reach 'owner/name' on the Hub (OfflineModeIsEnabled)")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(
        InputError,
        match="owner/name:train.*OfflineModeIsEnabled.* there is no file or folder 'owner/name'.*hf download",
    ):
        passages("owner/name")


def test_rows_of_an_unknown_kind_are_refused() -> None:
    with pytest.raises(InputError, match="a.jsonl, line 1: a row of kind 'jsonl' cannot hold dict"):
        parse_row(RawRow("jsonl", "a.jsonl, line 1", {}))
