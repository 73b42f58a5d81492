"""The texts of a store are those of its corpus, row by row, or an error says which row differs."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from diffretriever_pyserini.corpora.corpus import Corpus
from diffretriever_pyserini.errors import InputError
from diffretriever_pyserini.indexes.options import IndexOptions
from diffretriever_pyserini.indexes.texts import StoreTexts

ROWS = [
    '{"id": "a", "title": "A", "text": "first"}',
    '{"id": "b", "tex',
    '{"id": "c", "text": "third"}',
    '{"id": "a", "text": "another with the id of the first"}',
    '{"_id": "d", "title": "D", "text": ""}',
]


def write(path: Path, rows: list[str]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(rows) + "\n")
    return path


def store_of(corpus: Path) -> Any:
    whole = Corpus(corpus)
    spec = SimpleNamespace(files=whole.locations, corpus=whole.identity(), rows_per_part=3)
    return SimpleNamespace(folder=corpus.with_name("S"), spec=spec)


def part(number: int, rows: int, *skipped: int, digest: str = "") -> Any:
    left_out = [(f"/old/corpus.jsonl, line {line}", "why") for line in skipped]
    header = {"part": number, "rows": rows, "skipped": left_out, "corpus": digest}
    made_from = lambda digest: header["corpus"] in ("", digest)  # noqa: E731
    return SimpleNamespace(path=f"part-{number}", header=header, made_from=made_from)


def test_skipped_rows_are_left_out_in_each_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "here" / "corpus.jsonl", ROWS)
    monkeypatch.chdir(tmp_path / "here")
    store = store_of(Path("corpus.jsonl"))
    monkeypatch.chdir(tmp_path)  # the store names its corpus by an absolute path
    texts = StoreTexts(store)
    assert [passage.record for passage in texts.passages(part(0, 3, 2), ["a", "c"])] == [
        {"id": "a", "title": "A", "text": "first", "contents": "A first"},
        {"id": "c", "title": "", "text": "third", "contents": "third"},
    ]
    assert [passage.contents for passage in texts.passages(part(1, 2, 4), ["d"])] == ["D"]
    # A continued upload begins at a later part.
    assert [passage.contents for passage in StoreTexts(store).passages(part(1, 2, 4), ["d"])] == ["D"]


def test_a_corpus_that_has_moved_is_named_by_the_caller(tmp_path: Path) -> None:
    corpus = write(tmp_path / "old" / "corpus.jsonl", ROWS)
    store = store_of(corpus)
    (tmp_path / "old").rename(tmp_path / "new")
    with pytest.raises(InputError, match="is not where it was encoded: name its files or its folder with --corpus"):
        StoreTexts(store)
    texts = StoreTexts(store, [str(tmp_path / "new")])
    assert next(texts.passages(part(0, 3, 2), ["a", "c"])).text == "first"
    other = write(tmp_path / "other" / "corpus.jsonl", ROWS[:1])
    with pytest.raises(InputError, match="is not the corpus of .*S .names or sizes of the files differ"):
        StoreTexts(store, [str(other)])


def test_a_corpus_that_has_changed_is_refused_at_its_row(tmp_path: Path) -> None:
    corpus = write(tmp_path / "c" / "corpus.jsonl", ROWS)
    store = store_of(corpus)
    write(corpus, [*ROWS[:2], ROWS[2].replace("c", "x", 1), *ROWS[3:]])
    with pytest.raises(InputError, match="corpus.jsonl, line 3 holds passage 'x', not 'c', so the corpus has changed"):
        list(StoreTexts(store).passages(part(0, 3, 2), ["a", "c"]))
    write(corpus, [ROWS[0].ljust(len("\n".join(ROWS)))])  # as many bytes
    with pytest.raises(InputError, match="corpus.jsonl ends before passage 'c'"):
        list(StoreTexts(store).passages(part(0, 3, 2), ["a", "c"]))


def test_a_text_that_has_changed_under_its_id_is_refused(tmp_path: Path) -> None:
    """Else BM25 would search, and an answer show, texts that the vectors are not of."""
    corpus = write(tmp_path / "corpus.jsonl", ROWS)
    encoded = part(0, 3, 2, digest=hashlib.sha256("".join(f"{row}\n" for row in ROWS[:3]).encode()).hexdigest())
    store = store_of(corpus)
    assert len(list(StoreTexts(store).passages(encoded, ["a", "c"]))) == 2
    write(corpus, [*ROWS[:2], ROWS[2].replace("third", "THIRD"), *ROWS[3:]])
    with pytest.raises(InputError, match="rows 1 to 3 of the corpus are not those of part-0, so the corpus has chang"):
        list(StoreTexts(store).passages(encoded, ["a", "c"]))


def test_options_that_contradict_each_other() -> None:
    with pytest.raises(InputError, match="not built in shards, because BM25 needs the statistics of the whole"):
        IndexOptions(text=True, shards=2)
    with pytest.raises(InputError, match="choose this index .--text. too"):
        IndexOptions(corpus=("corpus.jsonl",))
    assert IndexOptions(dense=None, lexical=False, text=True).signals == ("text",)
