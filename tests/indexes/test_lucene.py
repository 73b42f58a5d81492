"""Our Lucene index compared with the one that Pyserini's command builds from the same weights."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from diffretriever_pyserini import DiffRetriever, DiffRetrieverQueryEncoder
from diffretriever_pyserini.cli import main
from diffretriever_pyserini.corpora.corpus import Corpus
from diffretriever_pyserini.encoding.job import EncodeOptions, encode_corpus
from diffretriever_pyserini.errors import InputError, ModelNotFoundError
from diffretriever_pyserini.indexes.build import IndexOptions, build_index
from diffretriever_pyserini.indexes.lucene import DELIMITER, encoder_terms
from diffretriever_pyserini.model.lexical import TermNames
from diffretriever_pyserini.pyserini_api.encoders import LexicalQueryEncoder
from diffretriever_pyserini.store.index_record import read_index_record
from diffretriever_pyserini.store.store import Store

from .. import warm
from ..encoding.conftest import passages, write_corpus
from .conftest import made_up_store

LEXICAL = IndexOptions(dense=None, lexical=True)
# Strings that a vocabulary may hold and that a delimiter, tokenizer or encoding may break.
HARD = ["|", "a|3", "||", "5", "x^2", "##ing", "Ġthe", "Ċ", "a b", "\u2028", "\x01", "a\x0112", "\x00", "\ufeffbom"]
HARD += ["☃", "𝛼", "\ud800", "\u00a0", "\u200b", "é", "a" * 255, "a" * 256, "日本", '"', "\\", "{", "\u3000x", "|7"]


class Vocabulary:
    """A tokenizer whose vocabulary is HARD and twelve plain strings."""

    strings = (*HARD, *(f"plain{i}" for i in range(12)))

    def __len__(self) -> int:
        return len(self.strings)

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [self.strings[i] for i in ids]


NAMES = TermNames(Vocabulary(), len(Vocabulary.strings))


def pyserini_index(folder: Path, records: Iterator[tuple[str, dict[str, int]]]) -> str:
    """Build an index of records (docid, {term: impact}) with Pyserini's command, in another process."""
    write_vectors(folder / "json", records)
    command = ["-m", "pyserini.index.lucene", "--collection", "JsonVectorCollection", "--input", folder / "json"]
    command += ["--index", folder / "L", "--generator", "DefaultLuceneDocumentGenerator", "--threads", "1"]
    done = subprocess.run(
        [warm.python(), *command, "--impact", "--pretokenized"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return str(folder / "L")


def write_vectors(folder: Path, records: Iterator[tuple[str, dict[str, int]]]) -> None:
    folder.mkdir(parents=True)
    with (folder / "part.jsonl").open("w", encoding="utf-8") as file:
        for docid, vector in records:
            file.write(json.dumps({"id": docid, "contents": "", "vector": vector}) + "\n")


def records(store: Store, names: TermNames) -> Iterator[tuple[str, dict[str, int]]]:
    for part in store.parts:
        for docid, row in zip(part.docids, part.weights, strict=True):
            yield docid, {names.name(t): int(w) for t, w in zip(row.indices, row.data, strict=True)}


class FixedQueries:
    """An encoder that parses each query as JSON."""

    def encode(self, text: str) -> dict[str, int]:
        return json.loads(text)


def searcher(folder: str | Path, encoder: Any = None) -> Any:
    from pyserini.search.lucene import LuceneImpactSearcher

    return LuceneImpactSearcher(str(folder), encoder or FixedQueries(), min_idf=-1)


def ranking(hits: Any) -> list[tuple[str, float]]:
    return [(hit.docid, float(hit.score)) for hit in hits]


@pytest.fixture(scope="module")
def hard_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store of 400 passages over the hard vocabulary; impacts of 1 to 5 give many ties; every 50th is empty."""
    return made_up_store(tmp_path_factory.mktemp("hard") / "S", count=400, terms=len(Vocabulary.strings))


@pytest.fixture(scope="module")
def pair(hard_store: Store, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """(our index, Pyserini's index) of that store."""
    folder = tmp_path_factory.mktemp("pair")
    build_index(hard_store, folder / "I", LEXICAL, NAMES)
    return folder / "I" / "lexical", pyserini_index(folder, records(hard_store, NAMES))


@pytest.mark.java
def test_rankings_and_scores_are_those_of_pyserinis_index(pair: tuple[Path, str], hard_store: Store) -> None:
    ours, theirs = searcher(pair[0]), searcher(pair[1])
    assert ours.idf == theirs.idf and len(ours.idf) == len(Vocabulary.strings)
    generator = np.random.default_rng(2)
    queries = [{NAMES.name(row): 1} for row in range(len(Vocabulary.strings))]
    for size in (2, 5, 20):
        chosen = (generator.choice(len(Vocabulary.strings), size, replace=False).tolist() for _ in range(15))
        queries += [{NAMES.name(row): int(generator.integers(1, 90)) for row in rows} for rows in chosen]
    queries += [{}, {"unknown": 3}]
    tied = 0
    for query in queries:
        for k in (1, 10, 1000):
            expected = ranking(theirs.search(json.dumps(query), k))
            assert ranking(ours.search(json.dumps(query), k)) == expected
        scores = [round(score) for _, score in expected]
        tied += len(scores) - len(set(scores))
    assert tied > 100


@pytest.mark.java
def test_rankings_on_real_text(model: DiffRetriever, tmp_path: Path) -> None:
    """Paragraphs of the documentation, some of them twice and some empty; every paragraph's first line is a query."""
    from pyserini.pyclass import autoclass

    pages = sorted((Path(__file__).parents[2] / "docs").glob("*.md"))
    texts = [text for page in pages for text in page.read_text(encoding="utf-8").split("\n\n")][:300]
    texts += texts[:60] + [""] * 5
    corpus = write_corpus(tmp_path / "corpus.jsonl", [{"id": f"d{i}", "text": text} for i, text in enumerate(texts)])
    encode_corpus(model, Corpus([corpus]), tmp_path / "S", EncodeOptions(workers=0, rows_per_part=128))
    store = Store(tmp_path / "S")
    build_index(store, tmp_path / "I", LEXICAL)
    write_vectors(tmp_path / "json", records(store, model.term_names))
    options = ["-generator", "DefaultLuceneDocumentGenerator", "-threads", "1", "-impact", "-pretokenized"]
    autoclass("io.anserini.index.IndexCollection").main(
        [
            "-collection",
            "JsonVectorCollection",
            "-input",
            str(tmp_path / "json"),
            "-index",
            str(tmp_path / "L"),
            *options,
        ]
    )
    ours, theirs = searcher(tmp_path / "I" / "lexical"), searcher(tmp_path / "L")
    queries = [json.dumps(impacts) for impacts in model.encode([t[:80] for t in texts[:100]], side="query").impacts]
    rare = [json.dumps({term: 1}) for term in sorted(ours.idf, key=lambda term: -ours.idf[term])[:3]]
    lengths = set()
    for query in queries + rare:
        expected = ranking(theirs.search(query, 50))
        assert ranking(ours.search(query, 50)) == expected
        lengths.add(len(expected))
    assert {1, 50} <= lengths or {2, 50} <= lengths, "a term of one passage (or of its copy too), and a full list"


@pytest.mark.java
def test_scores_are_dot_products(pair: tuple[Path, str], hard_store: Store) -> None:
    import scipy.sparse

    ours, docids = searcher(pair[0]), list(hard_store.docids())
    weights = scipy.sparse.vstack([part.weights for part in hard_store.parts]).toarray()
    for row, name in enumerate(map(NAMES.name, range(len(Vocabulary.strings)))):
        scores = {docid: round(score) for docid, score in ranking(ours.search(json.dumps({name: 7}), 1000))}
        assert scores == {docids[i]: 7 * int(weights[i, row]) for i in np.flatnonzero(weights[:, row])}


@pytest.mark.java
def test_passages_without_terms_count(pair: tuple[Path, str], hard_store: Store) -> None:
    record = read_index_record(pair[0])
    assert record is not None and record.count == 400 and record.documents is not None and record.documents < 400
    assert record.provenance == hard_store.spec.provenance
    assert searcher(pair[0]).num_docs == 400
    assert searcher(pair[1]).num_docs == record.documents, "Pyserini's index does not count them"


@pytest.mark.java
def test_the_index_is_built_like_anserinis(pair: tuple[Path, str]) -> None:
    from pyserini.pyclass import autoclass

    def describe(folder: str | Path) -> tuple[list[tuple], list[str]]:
        path = autoclass("java.nio.file.Paths").get(str(folder))
        reader = autoclass("org.apache.lucene.index.DirectoryReader").open(
            autoclass("org.apache.lucene.store.FSDirectory").open(path)
        )
        assert reader.leaves().size() == 1
        infos = autoclass("org.apache.lucene.index.FieldInfos").getMergedFieldInfos(reader)
        fields = []
        for name in ("id", "contents"):
            info = infos.fieldInfo(name)
            facts = (info.getIndexOptions(), info.getDocValuesType())
            flags = (info.hasNorms(), info.omitsNorms(), info.hasPayloads(), info.hasTermVectors())
            fields.append((name, *(fact.toString() for fact in facts), *flags))
        stored = reader.storedFields().document(0).getFields()
        return fields, [stored.get(i).name() for i in range(stored.size())]

    assert describe(pair[0]) == describe(pair[1])


def test_the_delimiter_is_in_no_term() -> None:
    assert len({NAMES.name(row) for row in range(len(Vocabulary.strings))}) == len(Vocabulary.strings)
    assert not any(DELIMITER in NAMES.name(row) or not NAMES.name(row) for row in range(len(Vocabulary.strings)))
    assert max(len(NAMES.name(row)) for row in range(len(Vocabulary.strings))) == 255


@pytest.mark.java
def test_scores_of_a_real_model_are_dot_products(
    store: Store, model: DiffRetriever, encoder: str, tmp_path: Path
) -> None:
    facts = build_index(store, tmp_path / "I", LEXICAL)
    assert facts["provenance"]["fingerprint"] == model.fingerprint and facts["dense"] is None
    name = f"diffretriever:{encoder}"
    lexical_encoder = DiffRetrieverQueryEncoder(name, device=None, k_passage=3).lexical
    lexical = searcher(tmp_path / "I" / "lexical", lexical_encoder)
    assert lexical.num_docs == len(store) > facts["lexical"]["documents"] > 0
    queries = ["dense retrieval", "index of vectors", "text", "", "zzz"]
    reps = model.encode(queries, side="query")
    import scipy.sparse

    weights = scipy.sparse.vstack([part.weights for part in store.parts])
    expected = (reps.weights @ weights.T).toarray()
    docids = np.array(list(store.docids()))
    for query, row in zip(queries, expected, strict=True):
        hits = {docid: round(score) for docid, score in ranking(lexical.search(query, 1000))}
        assert hits == {docids[i]: int(row[i]) for i in np.flatnonzero(row)}


@pytest.mark.java
def test_the_wrong_encoder_is_refused(store: Store, model: DiffRetriever, encoder: str, tmp_path: Path) -> None:
    build_index(store, tmp_path / "I", LEXICAL)
    other = DiffRetrieverQueryEncoder(f"diffretriever:{encoder}", device=None, k_passage=4).lexical
    assert isinstance(other, LexicalQueryEncoder)
    with pytest.raises(InputError, match="holds term weights of another encoder: k_passage is 4, was 3: ") as error:
        searcher(tmp_path / "I" / "lexical", other)
    assert store.spec.provenance.fingerprint in str(error.value) and other.model.fingerprint in str(error.value)
    (tmp_path / "I" / "lexical" / "diffretriever.json").unlink()
    searcher(tmp_path / "I" / "lexical", other)  # as with an index that Pyserini built, which has no record


@pytest.mark.java
def test_both_searchers_have_the_same_size(store: Store, encoder: str, tmp_path: Path) -> None:
    from pyserini.search.faiss import FaissSearcher
    from pyserini.search.hybrid import HybridSearcher

    facts = build_index(store, tmp_path / "I", IndexOptions(quiet=True))
    query_encoder = DiffRetrieverQueryEncoder(f"diffretriever:{encoder}", device=None, k_passage=3)
    searchers = (
        FaissSearcher(str(tmp_path / "I" / "dense"), query_encoder),
        searcher(tmp_path / "I" / "lexical", query_encoder),
    )
    assert searchers[0].num_docs == searchers[1].num_docs == facts["passages"]
    fused = HybridSearcher(*searchers).search("dense retrieval of text", 1000, 1000, 1.0, True)
    assert len(fused) == len(store)
    assert all(0 <= hit.score <= 1 for hit in fused)


@pytest.mark.java
def test_a_list_of_all_indexed_passages_is_still_incomplete(store: Store, encoder: str, tmp_path: Path) -> None:
    """Passages without terms score 0 (docs/method.md §5), so all others must stay above 0 when fused."""
    from pyserini.search.hybrid import HybridSearcher

    class EveryTerm(LexicalQueryEncoder):
        def encode(self, text: str, **options: Any) -> dict[str, int]:  # type: ignore[override]
            return {self.model.term_names.name(row): 1 for row in range(self.model.vocab_size)}

    facts = build_index(store, tmp_path / "I", LEXICAL)
    query_encoder = EveryTerm(DiffRetrieverQueryEncoder(f"diffretriever:{encoder}", device=None, k_passage=3))
    lexical = searcher(tmp_path / "I" / "lexical", query_encoder)
    hybrid = HybridSearcher(SimpleNamespace(search=lambda query, k: []), lexical)
    fused = hybrid.search("anything", 1000, 1000, 1.0, True)
    assert len(fused) == facts["lexical"]["documents"] and min(hit.score for hit in fused) > 0
    lexical.num_docs = facts["lexical"]["documents"]  # as Lucene counts: the lowest score would become 0
    assert min(hit.score for hit in hybrid.search("anything", 1000, 1000, 1.0, True)) == 0


def test_another_encoder_cannot_name_the_terms(store: Store, encoder: str, tmp_path: Path) -> None:
    from ..model.conftest import save_masked_lm

    assert encoder_terms(store.spec).name(0) == encoder_terms(store.spec, encoder).name(0) == "[PAD]"
    save_masked_lm(tmp_path, initializer_range=0.2)
    with pytest.raises(InputError, match="the store holds passages of another encoder: other weights: name the one"):
        encoder_terms(store.spec, str(tmp_path))
    with pytest.raises(ModelNotFoundError, match="name its location with --encoder"):
        build_index(store, tmp_path / "I", IndexOptions(dense=None, encoder=str(tmp_path / "nowhere")))


@pytest.mark.java
def test_the_command_builds_both_and_pyserini_reads_them(
    model: DiffRetriever, encoder: str, tmp_path: Path, hook_installed: None
) -> None:
    plain = DiffRetriever.from_pretrained(encoder)
    corpus = write_corpus(tmp_path / "corpus.jsonl", passages(40))
    encode_corpus(plain, Corpus([corpus]), tmp_path / "S", EncodeOptions(workers=0))
    start = [warm.python(), "-m"]
    command = [*start, "diffretriever_pyserini", "index", "--store", "S", "--output", "I"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "40 passages indexed" in done.stdout and done.stderr == ""
    (tmp_path / "topics.tsv").write_text("q1\tdense retrieval\nq2\ttext of a query\n")
    name = f"diffretriever:{encoder}"
    shared = ["--topics", "topics.tsv", "--encoder", name, "--hits", "5", "--output"]
    for search in (
        ["pyserini.search.faiss", "--index", "I/dense", *shared, "dense.txt"],
        ["pyserini.search.lucene", "--impact", "--index", "I/lexical", *shared, "lexical.txt", "--min-idf", "-1"],
    ):
        done = subprocess.run([*start, *search], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
    for run in ("dense.txt", "lexical.txt"):
        assert len((tmp_path / run).read_text().splitlines()) == 10


@pytest.mark.java
def test_only_the_command_bounds_the_heap(encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that builds an index may then search it, which needs more memory than writing."""
    corpus = write_corpus(tmp_path / "corpus.jsonl", passages(20))
    plain = DiffRetriever.from_pretrained(encoder)
    encode_corpus(plain, Corpus([corpus]), tmp_path / "S", EncodeOptions(workers=0))
    bounds: list[int] = []
    monkeypatch.setattr("diffretriever_pyserini.runtime.java.bound_heap", bounds.append)
    build_index(tmp_path / "S", tmp_path / "I", IndexOptions(dense=None, quiet=True))
    assert bounds == []
    assert main(["index", "--store", str(tmp_path / "S"), "--output", str(tmp_path / "J"), "--lexical", "--quiet"]) == 0
    assert bounds == [192]
