"""Training rows: every layout, messages for bad rows, draws that depend only on row and epoch, constant memory."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from diffretriever_pyserini.errors import InputError
from diffretriever_pyserini.training.data.examples import RowFiles, TrainingRows, draw, split_rows
from diffretriever_pyserini.training.data.rows import Row, ScoredPassage, parse_line, parse_record, to_record
from diffretriever_pyserini.training.data.sources import row_files


def tevatron(i: int, negatives: int = 3, **more: object) -> str:
    record = {
        "query_id": f"q{i}",
        "query": f"query {i}",
        "positive_passages": [{"docid": f"p{i}", "title": "T", "text": f"positive {i}"}],
        "negative_passages": [
            {"docid": f"n{i}.{j}", "title": "", "text": f"negative {i} {j}"} for j in range(negatives)
        ],
    }
    return json.dumps(record | more)


def rows_of(path: Path, tmp_path: Path, **arguments: object) -> RowFiles:
    options = {"need_negatives": False, "on_error": "stop", "report": tmp_path / "bad"} | arguments
    return RowFiles([path], **options)  # type: ignore[arg-type]


def test_the_three_line_layouts() -> None:
    row = parse_line(tevatron(1, 2), "f, line 1")
    assert row.positives == (ScoredPassage("p1", "T", "positive 1"),)
    assert [one.docid for one in row.negatives] == ["n1.0", "n1.1"]
    assert parse_record(to_record(row), "f") == row
    pair = parse_line('{"query": "a b", "title": "T", "positive": "x"}', "f")
    assert pair == Row("a b", (ScoredPassage("", "T", "x"),), ())
    assert parse_line("a b\tx\n", "f", tabs=True) == Row("a b", (ScoredPassage("", "", "x"),), ())


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"query": "a", "positive', "cut in half"),
        ("[1]", "expected a JSON object"),
        ('{"query": " ", "positive": "x"}', "the query is empty"),
        ('{"query": "a", "answer": "x"}', "neither positive_passages"),
        ('{"query": "a", "positive_passages": []}', "no positive passage"),
        ('{"query": "a", "positive_passages": [{"text": ""}]}', "empty positive passage"),
        ('{"query": "a", "positive_passages": {"text": "x"}}', "must be a list"),
        ('{"query": "a", "positive_passages": [3]}', "not an object"),
        ('{"query": 3, "positive": "x"}', "must be a string"),
        ('{"query": "a", "positive_passages": [{"text": "x", "score": "high"}]}', "not a number"),
        ('{"query": "a", "positive_passages": [{"text": "x", "score": NaN}]}', "not a number"),
        ('{"query": "a", "positive_passages": ["x"], "negative_passages": ["y", "x"]}', "both positive and negative"),
    ],
)
def test_a_bad_row_says_what_is_wrong_and_where(line: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{tevatron(0)}\n\n{line}\n", encoding="utf-8")
    with pytest.raises(InputError, match=problem) as caught:
        rows_of(path, tmp_path)
    assert f"{path}, line 3" in str(caught.value)


def test_skipped_rows_are_listed_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join([tevatron(0).encode(), b'{"query": "caf\xe9"}', b"{", tevatron(3).encode()]))
    rows = rows_of(path, tmp_path, on_error="skip")
    assert [row.query for row in (rows[0], rows[1])] == ["query 0", "query 3"]
    assert (len(rows), rows.bad.count) == (2, 2)
    listed = (tmp_path / "bad").read_text().splitlines()
    assert [line.partition(":")[0] for line in listed] == [f"{path}, line 2", f"{path}, line 3"]
    assert "2 bad rows left out" in rows.bad.summary()


def test_rows_without_negatives_where_some_are_needed(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(tevatron(0, negatives=0))
    with pytest.raises(InputError, match="mine-negatives"):
        rows_of(path, tmp_path, need_negatives=True)
    with pytest.raises(InputError, match="no usable training row"):
        rows_of(path, tmp_path, need_negatives=True, on_error="skip")


def test_several_files_compressed_and_plain(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.jsonl").write_text("\ufeff" + tevatron(0) + "\n" + tevatron(1), encoding="utf-8")
    (tmp_path / "data" / "b.tsv.gz").write_bytes(gzip.compress(b"c d\tx y\n"))
    files = row_files([str(tmp_path / "data")], tmp_path / "work")
    rows = RowFiles(files, need_negatives=False, on_error="stop", report=tmp_path / "bad")
    assert [rows[i].query for i in range(3)] == ["query 0", "query 1", "c d"]
    (tmp_path / "data" / "b.tsv.gz").write_bytes(gzip.compress(b"e f\tx y\ng h\tz\n"))
    again = row_files([str(tmp_path / "data")], tmp_path / "work")
    assert again[1] != files[1], "a changed source must not be read from the old copy"


def test_unpacking_keeps_every_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also blank lines, so that messages count the source's lines, and lines that are too long to be read."""
    monkeypatch.setattr("diffretriever_pyserini.files.jsonl.LINE_LIMIT", 10)
    content = b"a\tb\n\n \n" + b"c" * 50 + b"\nd\te"
    path = tmp_path / "rows.tsv.gz"
    path.write_bytes(gzip.compress(content))
    [plain] = row_files([str(path)], tmp_path / "work")
    assert plain.read_bytes() == content
    path.write_bytes(gzip.compress(content)[:-9])
    with pytest.raises(InputError, match=r"rows\.tsv\.gz: damaged gzip file"):
        row_files([str(path)], tmp_path / "work")


def test_parquet_goes_through_datasets(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    path = tmp_path / "rows.parquet"
    datasets.Dataset.from_list([json.loads(tevatron(i)) for i in range(3)]).to_parquet(path)
    rows = RowFiles(row_files([str(path)], tmp_path / "work"), True, "stop", tmp_path / "bad")
    assert [rows[i].positives[0].contents for i in range(3)] == [f"T positive {i}" for i in range(3)]


def beir(folder: Path, judged: str = "q1\td1\t1\nq1\td2\t1\nq2\td3\t0\n") -> Path:
    (folder / "qrels").mkdir(parents=True)
    texts = [{"_id": f"d{i}", "title": "T", "text": f"text {i}"} for i in range(4)]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, texts)))
    (folder / "queries.jsonl").write_text("\n".join(json.dumps({"_id": f"q{i}", "text": f"ask {i}"}) for i in (1, 2)))
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
    return folder


def test_beir_folders(tmp_path: Path) -> None:
    files = row_files([str(beir(tmp_path / "c"))], tmp_path / "work")
    rows = RowFiles(files, need_negatives=False, on_error="stop", report=tmp_path / "bad")
    assert len(rows) == 1
    assert rows[0] == Row("ask 1", (ScoredPassage("d1", "T", "text 1"), ScoredPassage("d2", "T", "text 2")), (), "q1")


def test_beir_rows_follow_the_first_positive_judgement(tmp_path: Path) -> None:
    folder = beir(tmp_path / "c", "q1\td1\t0\nq2\td3\t1\nq1\td2\t1\n")
    rows = RowFiles(row_files([str(folder)], tmp_path / "work"), False, "stop", tmp_path / "bad")
    assert [rows[i].query for i in range(len(rows))] == ["ask 2", "ask 1"]


def test_a_split_without_judgements(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no qrels/dev\.tsv"):
        row_files([str(beir(tmp_path / "c"))], tmp_path / "work", split="dev")


def test_beir_ids_that_occur_twice(tmp_path: Path) -> None:
    folder = beir(tmp_path / "c")
    with (folder / "corpus.jsonl").open("a") as file:
        file.write('\n{"_id": "d1", "text": "again"}')
    with pytest.raises(InputError, match=r"corpus\.jsonl, line 5: passage id 'd1' occurs twice"):
        row_files([str(folder)], tmp_path / "work")


def test_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n")
    with pytest.raises(InputError, match=r"no usable training row in .*rows\.jsonl"):
        rows_of(path, tmp_path)


@pytest.mark.parametrize("judged", ["q1\td9\t1\n", "q9\td1\t1\n", "q1\td1\thigh\n"])
def test_beir_folders_that_do_not_fit_together(judged: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"d9|q9|line 2"):
        row_files([str(beir(tmp_path / "c", judged))], tmp_path / "work")


def test_unknown_sources(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        row_files([str(tmp_path / "missing.jsonl")], tmp_path)
    (tmp_path / "notes.docx").write_text("x")
    with pytest.raises(InputError, match=r"\.jsonl"):
        row_files([str(tmp_path / "notes.docx")], tmp_path)


def test_draws_depend_on_row_and_epoch_alone(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(tevatron(i, negatives=20) for i in range(4)))
    rows = rows_of(path, tmp_path)
    data = TrainingRows(rows, np.arange(4), negatives=3, seed=7)
    first = [data[i] for i in range(4)]
    assert [data[i] for i in (3, 2, 1, 0)] == first[::-1]
    assert all(len(set(one.passages)) == 4 for one in first)
    data.set_epoch(1)
    assert [data[i] for i in range(4)] != first
    half = TrainingRows(rows, np.array([1, 3]), negatives=3, seed=7)
    assert [half[0], half[1]] == [first[1], first[3]]


def test_few_negatives_are_drawn_again_and_scores_need_all() -> None:
    negatives = (ScoredPassage("", "", "n0", score=0.5), ScoredPassage("", "", "n1"))
    example = draw(Row("q", (ScoredPassage("", "", "p", score=1.0),), negatives), 5, np.random.default_rng(0))
    assert example.passages[0] == "p"
    assert set(example.passages[1:]) == {"n0", "n1"} and len(example.passages) == 6
    assert example.scores is None
    scored = draw(Row("q", (ScoredPassage("", "", "p", score=1.0),), negatives[:1]), 1, np.random.default_rng(0))
    assert scored.scores == (1.0, 0.5)


def rows_with(queries: list[str], tmp_path: Path) -> RowFiles:
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(f"{query}\tpassage {i}\n" for i, query in enumerate(queries)), encoding="utf-8")
    return rows_of(path, tmp_path)


def test_held_out_rows(tmp_path: Path) -> None:
    rows = rows_with([f"query {i}" for i in range(10)], tmp_path)
    train, dev = split_rows(rows, 3, seed=1)
    assert sorted([*train, *dev]) == list(range(10)) and len(dev) == 3
    assert dev.tolist() == np.sort(np.random.default_rng(1).choice(10, 3, replace=False)).tolist()
    assert all(np.array_equal(a, b) for a, b in zip(split_rows(rows, 3, seed=1), (train, dev), strict=True))
    assert [len(one) for one in split_rows(rows, 0, seed=1)] == [10, 0]
    with pytest.raises(InputError, match="dev_rows"):
        split_rows(rows, 10, seed=1)


def test_a_query_is_held_out_with_all_its_rows(tmp_path: Path) -> None:
    """Whatever their number, order, case and white space; as many rows as fit, never more than requested."""
    rows = rows_with(["Tall  Towers", *["tall towers"] * 17, *[f"query {i // 2}" for i in range(20)], "one"], tmp_path)
    for seed in range(8):
        for held_out in (1, 2, 5, 20, 38):
            train, dev = split_rows(rows, held_out, seed)
            assert sorted([*train, *dev]) == list(range(39))
            assert len(dev) in (held_out, held_out - 1) or held_out == 38
            parts = [{rows[int(i)].query.lower().replace("  ", " ") for i in part} for part in (train, dev)]
            assert not parts[0] & parts[1]
    with pytest.raises(InputError, match="every query has more rows"):
        split_rows(rows_with(["a", "b"] * 4, tmp_path), 3, seed=1)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        path = tmp_path / f"{count}.jsonl"
        with path.open("w") as file:
            for i in range(count):
                file.write(tevatron(i, filler="x" * 2000) + "\n")
        tracemalloc.start()
        try:
            rows = rows_of(path, tmp_path)
            data = TrainingRows(rows, np.arange(len(rows)), 1, seed=0)
            assert data[count - 1].query == f"query {count - 1}"
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    small, large = peak(100), peak(3000)
    assert large - small < 200_000, "2,900 more rows are 7 MB of text; only their offsets may be kept"


def test_an_id_may_be_the_number_0() -> None:
    record = {"query_id": 0, "query": "towers", "positive_passages": [{"docid": 0, "text": "tall"}, {"text": "high"}]}
    row = parse_record(record, "rows.jsonl, line 1")
    assert (row.query_id, [one.docid for one in row.positives]) == ("0", ["0", ""])
