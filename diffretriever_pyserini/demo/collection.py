"""Writing a collection in the layout that Pyserini's commands read."""

import random
from dataclasses import dataclass
from pathlib import Path

from ..corpora.beir import open_beir
from ..corpora.corpus import Corpus, Passage, write_corpus
from ..corpora.qrels import Qrels, judged_queries, read_qrels, write_qrels
from ..corpora.topics import read_topics, write_topics
from ..errors import InputError
from .python_docs import interpreter_documentation

CORPUS = "corpus/corpus.jsonl"
DEFAULT_PASSAGES = 1000
_SEED = 20260507


@dataclass(frozen=True)
class WrittenCollection:
    """The collection in the work folder: corpus/corpus.jsonl, topics.json and qrels.txt."""

    name: str
    passages: int
    queries: dict[str, str]
    qrels: Qrels
    note: str = ""


def write_collection(folder: Path, dataset: str | Path | None, limit: int | None) -> WrittenCollection:
    """Write the collection into `folder`: a BEIR folder, or by default the interpreter's own documentation.

    `limit` is the maximum number of passages. Of a BEIR folder it keeps all judged passages and a seeded random sample
    of the others. Such a pool is easier than the whole collection, and the note says so.

    Raises
    ------
    InputError
        For a defect in the collection, or a limit too small for the judged passages.
    """
    if limit is not None and limit < 1:
        raise InputError(f"--limit {limit}: the limit must be at least 1 passage.")
    if dataset is None:
        collection = interpreter_documentation(passages=limit or DEFAULT_PASSAGES)
        queries, qrels = collection.queries, collection.qrels
        name, note, passages = "the documentation inside this Python", "", iter(collection.passages)
    else:
        beir = open_beir(dataset)
        qrels = read_qrels(beir.qrels)
        queries = judged_queries(read_topics(beir.queries), qrels, beir.qrels)
        qrels = {qid: qrels[qid] for qid in queries}
        corpus = Corpus(beir.corpus)
        pool, note = _pool(corpus, qrels, limit) if limit else (None, "")
        passages = (passage for passage in corpus.passages() if pool is None or passage.docid in pool)
        name = beir.name
    (folder / "corpus").mkdir()
    count = write_corpus(folder / CORPUS, passages)
    write_topics(folder / "topics.json", queries)
    write_qrels(folder / "qrels.txt", qrels)
    return WrittenCollection(name, count, queries, qrels, note)


def _pool(corpus: Corpus, qrels: Qrels, limit: int) -> tuple[set[str], str]:
    docids = [passage.docid for passage in corpus.passages()]
    judged = {docid for grades in qrels.values() for docid in grades} & set(docids)
    if limit >= len(docids):
        return set(docids), ""
    if limit < len(judged):
        raise InputError(f"--limit {limit} is less than the {len(judged)} judged passages; raise it or leave it out.")
    others = sorted(set(docids) - judged)
    sampled = random.Random(_SEED).sample(others, limit - len(judged))
    note = f"a pool of {limit} out of {len(docids)} passages: easier than the whole collection and not comparable to it"
    return judged | set(sampled), note


def read_passages(folder: Path, docids: set[str]) -> dict[str, Passage]:
    """The passages `docids` of a written collection."""
    return Corpus(folder / CORPUS).find(docids)[0]
