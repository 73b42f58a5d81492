"""Writing a collection in the form that Pyserini's commands read."""

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
    """What stands in the work folder: corpus/corpus.jsonl, topics.json and qrels.txt."""

    name: str
    passages: int
    queries: dict[str, str]
    qrels: Qrels
    note: str = ""


def write_collection(folder: Path, dataset: str | Path | None, limit: int | None) -> WrittenCollection:
    """Write the collection into `folder`: a BEIR folder, or without one the interpreter's own documentation.

    `limit` is the greatest number of passages. Of a BEIR folder the judged passages are kept first, then a seeded
    draw of the others; such a pool is easier than the whole collection, and the note says so.

    Raises
    ------
    InputError
        For a defect in the collection, or a limit too small for the judged passages.
    """
    if limit is not None and limit < 1:
        raise InputError(f"--limit {limit}: the limit must be at least 1 passage.")
    if dataset is None:
        made = interpreter_documentation(passages=limit or DEFAULT_PASSAGES)
        queries, qrels = made.queries, made.qrels
        name, note, passages = "the documentation inside this Python", "", iter(made.passages)
    else:
        found = open_beir(dataset)
        qrels = read_qrels(found.qrels)
        queries = judged_queries(read_topics(found.queries), qrels, found.qrels)
        qrels = {qid: qrels[qid] for qid in queries}
        corpus = Corpus(found.corpus)
        kept, note = _pool(corpus, qrels, limit) if limit else (None, "")
        passages = (passage for passage in corpus.passages() if kept is None or passage.docid in kept)
        name = found.name
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
    drawn = random.Random(_SEED).sample(others, limit - len(judged))
    note = f"a pool of {limit} out of {len(docids)} passages: easier than the whole, not comparable with it"
    return judged | set(drawn), note


def read_passages(folder: Path, docids: set[str]) -> dict[str, Passage]:
    """Look up some passages of a written collection."""
    return Corpus(folder / CORPUS).find(docids)[0]
