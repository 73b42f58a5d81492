"""An index of texts: BM25 with Pyserini's scores, alone and fused, and the texts of a question's passages."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from diffretriever_pyserini import Corpus, DiffRetriever, EncodeOptions, IndexOptions, build_index, encode_corpus
from diffretriever_pyserini.cli import main
from diffretriever_pyserini.corpora.corpus import Passage, write_corpus
from diffretriever_pyserini.errors import InputError
from diffretriever_pyserini.explaining.passage_texts import find_texts
from diffretriever_pyserini.scoring.ranking import ranked
from diffretriever_pyserini.searching import SearchIndex, open_index, separate_folders
from diffretriever_pyserini.searching import encoder as query_encoder
from diffretriever_pyserini.searching.folder import read_index, with_texts

pytestmark = pytest.mark.java

TIED = 150  # more than the hundred equal scores that Anserini can tell from the next lower score
PASSAGES = [
    Passage("p2", "Tokyo Tower", "The tower in Tokyo is 333 metres high and was built in 1958."),
    Passage("007", "", "Two towers stand beside the river.\n\tNothing else does."),
    Passage("p1", "Photosynthesis", "Plants turn sunlight into sugar."),
    Passage("empty", "", ""),
    Passage("bom", "", "\ufffeswapped bytes and a lone \ud800 surrogate"),
    *(Passage(f"t{number}", "", "equal words in equal passages") for number in range(TIED)),
]
TOPICS = {
    "q1": "how high is the tower in Tokyo",
    "q2": "sugar from sunlight",
    "q3": "equal words",
    "q4": "of the",
    "": "x",
}
TEXT = IndexOptions(dense=None, lexical=False, text=True, quiet=True)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, tiny_dream: Path) -> Path:
    """A folder with ``corpus``, a store ``S`` of it, and an index ``I`` with the signals dense, lexical and bm25."""
    folder = tmp_path_factory.mktemp("texts")
    (folder / "corpus").mkdir()
    write_corpus(folder / "corpus" / "corpus.jsonl", PASSAGES)
    with (folder / "corpus" / "corpus.jsonl").open("a") as file:
        file.write('{"id": "cut", "te\n' + json.dumps({"id": "p2", "text": "another passage of this id"}) + "\n")
    model = DiffRetriever.from_pretrained(str(tiny_dream))
    with contextlib.chdir(folder):
        options = EncodeOptions(rows_per_part=64, workers=0, on_error="skip")
        encode_corpus(model, Corpus("corpus"), "S", options)
    build_index(folder / "S", folder / "I", IndexOptions(quiet=True))
    facts = build_index(folder / "S", folder / "I", TEXT)
    assert facts["dense"] and facts["lexical"] and facts["text"] == {"documents": len(PASSAGES)}
    return folder


@pytest.fixture(scope="module")
def index(work: Path) -> Iterator[SearchIndex]:
    with open_index(work / "I") as index:
        yield index


def test_scores_are_those_of_pyserinis_own_index(work: Path, index: SearchIndex) -> None:
    from pyserini.pyclass import autoclass
    from pyserini.search.lucene import LuceneSearcher

    whole = [passage for passage in PASSAGES if passage.docid != "bom"]
    (work / "theirs").mkdir()
    write_corpus(work / "theirs" / "corpus.jsonl", [*whole, Passage("bom", "", PASSAGES[4].text[1:])])
    options = ["-collection", "JsonCollection", "-generator", "DefaultLuceneDocumentGenerator", "-threads", "1"]
    paths = ["-input", str(work / "theirs"), "-index", str(work / "L"), "-storeRaw"]
    autoclass("io.anserini.index.IndexCollection").main([*options, *paths])
    theirs = LuceneSearcher(str(work / "L"))
    ours = index.search(TOPICS, mode="bm25", hits=20)
    for qid, query in TOPICS.items():
        expected = [float(hit.score) for hit in theirs.search(query, 20)]
        assert [score for _, score in ours[qid]] == pytest.approx(expected, abs=2e-4)
    assert [docid for docid, _ in ours["q1"][:2]] == ["p2", "007"] and not ours["q4"]
    with open_index(separate_folders(text=work / "L"), mode="bm25") as searched:
        assert searched.search({"q": TOPICS["q1"]}) == index.search({"q": TOPICS["q1"]}, mode="bm25")
        assert searched.search(TOPICS["q1"]).hits == index.search(TOPICS["q1"], mode="bm25").hits


def test_ties_are_in_trec_evals_order(index: SearchIndex) -> None:
    (tied,) = index.search({"q": "equal words"}, mode="bm25").values()
    assert len(tied) == TIED and len({score for _, score in tied}) == 1
    assert tied == ranked(dict(tied))
    assert index.search({"q": "equal words"}, mode="bm25", hits=7)["q"] == tied[:7]


@pytest.mark.parametrize(
    ("mode", "options", "weights"),
    [
        ("dense,bm25", {}, (1, 1)),
        ("dense,lexical,bm25", {"alpha": 0.5, "weights": {"bm25": 2}}, (1, 0.5, 2)),
    ],
)
def test_fusions_are_the_equations(
    index: SearchIndex, mode: str, options: dict[str, Any], weights: tuple[float, ...]
) -> None:
    topics = {qid: text for qid, text in TOPICS.items() if qid != "q3"}
    lists = [index.search(topics, mode=signal) for signal in mode.split(",")]
    fused = index.search(topics, mode=mode, **options)
    for qid in topics:
        expected = dict.fromkeys(dict(lists[0][qid]), 0.0)
        for signal, listed, weight in zip(mode.split(","), lists, weights, strict=True):
            scores = dict(listed[qid])
            low = min(scores.values(), default=0) if signal == "dense" else 0.0  # all others score 0
            high = max(scores.values(), default=1)
            for docid, score in scores.items():
                expected[docid] += weight / sum(weights) * (score - low) / (high - low)
        assert dict(fused[qid]) == pytest.approx(expected, abs=1e-6)


def test_the_default_stays_the_papers_two_signals(work: Path, index: SearchIndex) -> None:
    assert index.folder.modes == ("dense", "lexical", "bm25", "hybrid")
    assert index.search(TOPICS) == index.search(TOPICS, mode="dense,lexical")
    dense_and_text = separate_folders(dense=work / "I" / "dense", text=work / "I" / "text")
    assert dense_and_text.mode(None) == "dense" and dense_and_text.modes == ("dense", "bm25")
    assert separate_folders(text=work / "I" / "text").mode(None) == "bm25"


def test_bm25_alone_loads_no_model(work: Path, index: SearchIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query_encoder, "resolve_config", None)
    with open_index(work / "I", mode="bm25") as opened:
        assert opened.search(TOPICS) == index.search(TOPICS, mode="bm25")
        with pytest.raises(InputError, match="opened for bm25 alone, without its encoder"):
            opened.search(TOPICS, mode="dense")


def test_a_question_shows_titles_and_marks_words(index: SearchIndex) -> None:
    answer = index.search("how high is the TOWER in Tokyo", mode="bm25")
    assert repr(answer).splitlines() == [
        f"1.  {answer.hits[0].score:.4f}  p2  Tokyo Tower",
        "    The *tower* in *Tokyo* is 333 metres *high* and was built in 1958.",
        f"2.  {answer.hits[1].score:.4f}  007",
        "    Two *towers* stand beside the river. Nothing else does.",
    ]
    assert [(hit.docid, hit.score) for hit in answer.hits] == index.search(TOPICS, mode="bm25")["q1"]
    assert len(index.search("equal words").hits) == 5 and len(index.search("equal words", hits=7).hits) == 7
    assert {hit.docid: hit.snippet for hit in index.search("x", mode="dense", hits=1000).hits}["empty"] == ""
    with pytest.raises(InputError, match="the query is empty"):
        index.search(" ")
    with pytest.raises(InputError, match="has no id, so remove_query has no effect"):
        index.search("x", remove_query=True)


def test_explain_reads_the_texts_of_the_index(work: Path) -> None:
    texts, notes = find_texts(work / "I", None, ["p2", "nobody"])
    assert texts == {"p2": "Tokyo Tower The tower in Tokyo is 333 metres high and was built in 1958."} and not notes


def test_without_texts_a_note_says_how_to_get_them(work: Path, tmp_path: Path) -> None:
    build_index(work / "S", tmp_path / "I", IndexOptions(quiet=True))
    with open_index(tmp_path / "I") as index:
        answer = index.search("sugar", hits=2)
        assert [hit.snippet for hit in answer.hits] == [None, None]
        assert repr(answer).splitlines()[-1] == (
            "Titles and texts are not shown, as there is no index of them: build one with "
            f"`diffretriever index --store STORE --output {tmp_path / 'I'} --text`."
        )
        with pytest.raises(InputError, match="no bm25 signal.*`diffretriever index --text`.*--text-index"):
            index.search("sugar", mode="bm25")


def test_an_unchanged_index_of_texts_is_kept(work: Path, tmp_path: Path) -> None:
    def segments() -> set[int]:
        return {path.stat().st_ino for path in (tmp_path / "I" / "text").iterdir()}

    build_index(work / "S", tmp_path / "I", TEXT)
    before = segments()
    build_index(work / "S", tmp_path / "I", TEXT)
    assert segments() == before
    for path in (tmp_path / "I" / "text").iterdir():
        path.unlink()
    (tmp_path / "I" / "text").rmdir()
    build_index(work / "S", tmp_path / "I", TEXT)
    with open_index(tmp_path / "I") as index:
        assert index.search("sugar").hits[0].docid == "p1"


def test_an_index_in_shards_takes_texts_beside_it(work: Path, tmp_path: Path, index: SearchIndex) -> None:
    build_index(work / "S", tmp_path / "I", IndexOptions(shards=2, quiet=True))
    folder = with_texts(read_index(tmp_path / "I"), work / "I" / "text")
    with open_index(folder) as sharded:
        for mode in ("bm25", "dense,bm25"):
            assert sharded.search(TOPICS, mode=mode) == index.search(TOPICS, mode=mode)
        assert sharded.search("high tower", mode="bm25").hits == index.search("high tower", mode="bm25").hits
    with pytest.raises(InputError, match="holds a model's term weights, not texts"):
        with_texts(folder, work / "I" / "lexical")


def test_the_command_prints_passages(work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    query = ["search", "--index", str(work / "I"), "--query", "how high is the tower", "--mode", "bm25"]
    assert main(query) == 0
    assert "The *tower* in Tokyo is 333 metres *high* and" in capsys.readouterr().out
    assert main([*query, "--json", "--hits", "1"]) == 0
    record = json.loads(capsys.readouterr().out)
    (hit,) = record["hits"]
    assert (hit["rank"], hit["docid"], hit["title"]) == (1, "p2", "Tokyo Tower")
    assert [hit["snippet"][start:end] for start, end in hit["marks"]] == ["tower", "high"]
    topics = tmp_path / "topics.tsv"
    topics.write_text("q1\tsugar\n")
    for more in ([*query, "--output", str(tmp_path / "run.txt")], [*query[:3], "--topics", str(topics)]):
        assert main(more) == 2
        assert "--topics needs --output RUN" in capsys.readouterr().err
    assert main([*query, "--depth", "3"]) == 2
    assert "depth=3 must be a whole number of at least hits=5" in capsys.readouterr().err
    for more, message in (
        (["--mode", "bm25", "--encoder", "diffretriever"], "--encoder has no effect: mode bm25 searches bm25"),
        (["--mode", "bm25", "--alpha", "2"], "--alpha has no effect: mode bm25 searches bm25"),
        (["--mode", "dense,bm25", "--alpha", "2"], "--alpha has no effect: mode dense,bm25 searches dense and bm25"),
    ):
        assert main([*query, *more]) == 0
        assert f"note: {message}\n" in capsys.readouterr().err
    run = ["--output", str(tmp_path / "run.txt"), "--mode", "dense,bm25", "--weights", "bm25=3", "--json"]
    assert main([*query[:3], "--topics", str(topics), *run]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["weights"] == {"dense": 1.0, "bm25": 3.0} and "bm25" in summary["seconds"]


def test_on_a_terminal_marked_words_are_in_colour(
    work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "50")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert main(["search", "--index", str(work / "I"), "--query", "high tower", "--mode", "bm25", "--hits", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "Tokyo Tower" in lines[0] and "\x1b[1;33mtower\x1b[0m" in lines[1]
    assert len(lines) == 3 and lines[2].startswith("    ")  # wrapped, and indented


def test_the_index_command_names_the_texts(work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["index", "--store", str(work / "S"), "--output", str(tmp_path / "I"), "--text"]
    assert main(command) == 0
    assert f"{tmp_path / 'I' / 'text'}: {len(PASSAGES)} texts, " in capsys.readouterr().out
    assert main(command) == 0
    assert f"{tmp_path / 'I' / 'text'}: kept, {len(PASSAGES)} texts, " in capsys.readouterr().out
    assert main([*command, "--shards", "2"]) == 2
    assert "a text index is not built in shards" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "I").iterdir()) == ["index.json", "text"]
