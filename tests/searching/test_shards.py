"""An index in shards gives the results of one index, and is refused where its shards do not belong together."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from diffretriever_pyserini import DiffRetriever, IndexOptions, Store, build_index, open_index
from diffretriever_pyserini.cli import main
from diffretriever_pyserini.corpora.corpus import Corpus
from diffretriever_pyserini.encoding.job import EncodeOptions, encode_corpus
from diffretriever_pyserini.errors import DiffRetrieverError, InputError
from diffretriever_pyserini.explaining.explain import explain
from diffretriever_pyserini.indexes import MultiBuild
from diffretriever_pyserini.scoring.ranking import ranked
from diffretriever_pyserini.searching import SearchIndex
from diffretriever_pyserini.searching.shards import Requests, best_of_lists, merged

pytestmark = pytest.mark.java
TOPICS = {"q": "dense retrieval of passages", "other": "word 3 of passage number 3", "n7": "word 7", "none": "the of"}
MULTI = MultiBuild(bytes_per_vector=16)
SHARDS = 3


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, tiny_dream: Path) -> Path:
    """``store`` of eight parts, with copies of one text in each, and its indexes in one and in three shards."""
    folder = tmp_path_factory.mktemp("shards")
    lines = [
        json.dumps({"_id": f"n{i}", "text": TOPICS["q"] if i % 4 == 0 else f"word {i} of passage number {i % 9}"})
        for i in range(157)
    ]
    (folder / "corpus.jsonl").write_text("\n".join(lines), encoding="utf-8")
    model = DiffRetriever.from_pretrained(str(tiny_dream), k_passage=2)
    encode_corpus(
        model, Corpus([folder / "corpus.jsonl"]), folder / "store", EncodeOptions(workers=0, rows_per_part=20)
    )
    for shards in (1, SHARDS):
        build_index(folder / "store", folder / f"I{shards}", IndexOptions(shards=shards, multi=MULTI, quiet=True))
    return folder


@pytest.fixture(scope="module")
def indexes(work: Path) -> Iterator[tuple[SearchIndex, SearchIndex]]:
    with open_index(work / "I1") as one, open_index(work / f"I{SHARDS}") as many:
        yield one, many


@pytest.mark.parametrize("hits", [1, 7, 1000])
@pytest.mark.parametrize("mode", ["lexical", "multi", "dense", "hybrid", "dense,multi,lexical"])
def test_shards_give_the_run_of_one_index(indexes: tuple[SearchIndex, SearchIndex], mode: str, hits: int) -> None:
    """Ties included, as vectors of equal texts are equal and the product of one width has one order of summation."""
    one, many = (index.search(TOPICS, mode, hits, remove_query=True) for index in indexes)
    assert one == many
    assert mode == "lexical" or len(one["q"]) == min(hits, 157)


@pytest.mark.parametrize("kind", ["sq8", "pq", "ivfpq"])
def test_shards_share_their_quantisers(work: Path, tmp_path: Path, kind: Any) -> None:
    for shards in (1, SHARDS):
        build_index(work / "store", tmp_path / str(shards), IndexOptions(kind, False, shards=shards, quiet=True))
    with open_index(tmp_path / "1") as one, open_index(tmp_path / str(SHARDS)) as many:
        assert one.search(TOPICS) == many.search(TOPICS)


def test_the_index_says_what_it_consists_of(work: Path) -> None:
    one, many = (json.loads((work / name / "index.json").read_text()) for name in ("I1", f"I{SHARDS}"))
    shards = many.pop("shards")
    assert [shard["passages"] for shard in shards] == [40, 60, 57]
    assert set(one.pop("files")) == {"dense", "lexical", "multi"}  # the sizes of shards are in their own records
    assert sorted(path.name for path in (work / f"I{SHARDS}").iterdir()) == ["index.json", "shards"]
    for record in (one, many):
        assert record["multi"].pop("recall")["top10_in_top100"] == 1
    assert one == many


def test_a_shard_is_an_index(work: Path, indexes: tuple[SearchIndex, SearchIndex]) -> None:
    with open_index(work / f"I{SHARDS}" / "shards" / "00001") as shard:
        hits = shard.search(TOPICS)["q"]
    assert {docid for docid, _ in hits} == {f"n{i}" for i in range(40, 100)}


def test_explain_finds_the_shard(indexes: tuple[SearchIndex, SearchIndex]) -> None:
    for docid in ("n0", "n156"):
        one, many = (explain(index, TOPICS["other"], [docid])[0] for index in indexes)
        assert one.result == many.result and one.dense == many.dense
        assert one.indexed_vectors is not None and many.indexed_vectors is not None
        assert one.indexed_vectors.score == many.indexed_vectors.score
        assert one.indexed_terms == many.indexed_terms


def test_existing_signals_stay(work: Path, tmp_path: Path) -> None:
    first = IndexOptions(lexical=False, shards=2, quiet=True)
    build_index(work / "store", tmp_path / "I", first)
    build_index(work / "store", tmp_path / "I", IndexOptions(dense=None, lexical=True, shards=2, quiet=True))
    with open_index(tmp_path / "I") as index:
        assert index.folder.modes == ("dense", "lexical", "hybrid")
    with pytest.raises(DiffRetrieverError, match=r"holds a dense index in 2 shards, .*: add --dense, name another"):
        build_index(work / "store", tmp_path / "I", IndexOptions(dense=None, lexical=True, quiet=True))
    build_index(work / "store", tmp_path / "I", IndexOptions(quiet=True))
    with open_index(tmp_path / "I") as index:
        assert not index.folder.shards


def test_too_many_shards(work: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has 8 parts with passages, too few for 9 shards: use fewer shards, or"):
        build_index(work / "store", tmp_path / "I", IndexOptions(shards=9, quiet=True))


def test_portions_of_a_store(work: Path) -> None:
    store = Store(work / "store")
    portions = store.portions(SHARDS)
    assert [docid for portion in portions for docid in portion.docids()] == list(store.docids())
    assert [len(portion) for portion in portions] == [portion.rows for portion in portions]
    assert len({portion.digest for portion in (store, *portions)}) == 1 + SHARDS


def test_shards_of_different_builds_are_refused(work: Path, tmp_path: Path) -> None:
    shutil.copytree(work / f"I{SHARDS}", tmp_path / "I")
    shards = tmp_path / "I" / "shards"
    shutil.rmtree(shards / "00001")
    with pytest.raises(InputError, match=r"shards/00001/index\.json: cannot be read .*; build the index again"):
        open_index(tmp_path / "I")
    shutil.copytree(shards / "00000", shards / "00001")
    with pytest.raises(InputError, match=r"shards/00001 is not the shard that .*index\.json names; build the index"):
        open_index(tmp_path / "I")


def test_lists_are_read_no_longer_than_needed() -> None:
    """Shard 0 holds all of the best for query 0; the two queries tie at the cut in different ways."""
    scores = [
        [{f"a{i:03}": 1000.0 - i for i in range(500)}, {f"a{i:03}": 5.0 for i in range(500)}],
        [{f"b{i:03}": 400.0 - i for i in range(500)}, {f"b{i:03}": 5.0 for i in range(500)}],
        [{}, {"c": 7.0}],
        [{f"d{i:03}": 300.0 - i for i in range(30)}, {f"d{i:03}": 5.0 for i in range(500)}],
    ]
    asked: list[tuple[int, int, int]] = []

    def ask(requests: Requests, length: int) -> list[list[dict[str, float]]]:
        asked.extend((shard, number, length) for shard, numbers in requests.items() for number in numbers)
        return [
            [dict(ranked(scores[shard][number])[:length]) for number in numbers] for shard, numbers in requests.items()
        ]

    for depth in (1, 20, 200, 5000):
        asked.clear()
        whole = [
            dict(ranked({k: v for shard in scores for k, v in shard[number].items()})[:depth]) for number in (0, 1)
        ]
        best = best_of_lists(ask, 4, 2, depth)
        assert [list(one.items()) for one in best] == [list(one.items()) for one in whole]
        if depth == 200:
            assert (0, 0, 200) in asked and (1, 0, 200) not in asked, "only the shard that may hold more is asked again"


def test_one_document_in_two_shards_is_an_error() -> None:
    assert merged([[{"a": 2.0, "c": 1.0}], [{"b": 2.0}]], 2) == [{"b": 2.0, "a": 2.0}]
    with pytest.raises(InputError, match="two shards hold the passage 'a'"):
        merged([[{"a": 2.0}], [{"a": 1.0}]], 2)


def test_pyserini_is_pointed_to_a_shard(work: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from diffretriever_pyserini.searching.folder import check_part

    with pytest.raises(InputError, match=r"index in 3 shards, and Pyserini's commands read one .*shards/00000/dense"):
        check_part(work / f"I{SHARDS}", "dense")


def test_the_command(work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "topics.tsv").write_text("".join(f"{qid}\t{text}\n" for qid, text in TOPICS.items()))
    command = ["index", "--store", str(work / "store"), "--output", str(tmp_path / "I"), "--shards", "2", "--lexical"]
    assert main(command) == 0
    assert f"{tmp_path / 'I'}: 2 shards" in capsys.readouterr().out
    for index, run in ((work / "I1", "one"), (tmp_path / "I", "two")):
        search = ["search", "--index", str(index), "--topics", str(tmp_path / "topics.tsv"), "--mode", "lexical"]
        assert main([*search, "--output", str(tmp_path / run)]) == 0
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
