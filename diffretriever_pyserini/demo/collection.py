"""Writing a collection in the form that Pyserini's commands read."""

import json
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..corpora.beir import BeirFolder, Passage, Qrels, judged_queries, open_beir, read_corpus, read_qrels, read_queries
from ..corpora.topics import write_topics
from ..errors import InputError
from .python_docs import interpreter_documentation

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
        name, note, count = "the documentation inside this Python", "", _write_corpus(folder, made.passages)
    else:
        found = open_beir(dataset)
        qrels = read_qrels(found.qrels)
        queries = judged_queries(read_queries(found.queries), qrels, found.qrels)
        qrels = {qid: qrels[qid] for qid in queries}
        kept, note = _pool(found, qrels, limit) if limit else (None, "")
        passages = (passage for passage in read_corpus(found.corpus) if kept is None or passage.docid in kept)
        name, count = found.name, _write_corpus(folder, passages)
    write_topics(folder / "topics.json", queries)
    _write_qrels(folder / "qrels.txt", qrels)
    return WrittenCollection(name, count, queries, qrels, note)


def _pool(found: BeirFolder, qrels: Qrels, limit: int) -> tuple[set[str], str]:
    docids = [passage.docid for passage in read_corpus(found.corpus)]
    judged = {docid for grades in qrels.values() for docid in grades} & set(docids)
    if limit >= len(docids):
        return set(docids), ""
    if limit < len(judged):
        raise InputError(f"--limit {limit} is less than the {len(judged)} judged passages; raise it or leave it out.")
    others = sorted(set(docids) - judged)
    drawn = random.Random(_SEED).sample(others, limit - len(judged))
    note = f"a pool of {limit} out of {len(docids)} passages: easier than the whole, not comparable with it"
    return judged | set(drawn), note


def _write_corpus(folder: Path, passages: Iterable[Passage]) -> int:
    """Write passages as Pyserini's JSON lines; `contents` is what BM25 indexes, title and text what models encode."""
    (folder / "corpus").mkdir()
    count = 0
    with (folder / "corpus" / "corpus.jsonl").open("w", encoding="utf-8") as file:
        for passage in passages:
            count += 1
            contents = f"{passage.title} {passage.text}".strip()
            record = {"id": passage.docid, "title": passage.title, "text": passage.text, "contents": contents}
            file.write(json.dumps(record) + "\n")
    return count


def _write_qrels(path: Path, qrels: Qrels) -> None:
    with path.open("w", encoding="utf-8") as file:
        for qid, grades in qrels.items():
            file.writelines(f"{qid} 0 {docid} {grade}\n" for docid, grade in grades.items())


def read_passages(folder: Path, docids: set[str]) -> dict[str, Passage]:
    """Look up some passages of a written collection."""
    found = (passage for passage in read_corpus(folder / "corpus" / "corpus.jsonl") if passage.docid in docids)
    return {passage.docid: passage for passage in found}
