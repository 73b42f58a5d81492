"""One collection from several: judged BEIR folders, then paragraphs of text files until it is large enough.

    python benchmarks/multivector_collection.py --judged nfcorpus cranfield cacm --text pretrain-text/*.txt.gz \\
        --passages 100000 --output FOLDER

Writes FOLDER/corpus.jsonl, FOLDER/queries.tsv and FOLDER/qrels.tsv; ids begin with the collection's name and a slash.
Paragraphs are taken from the text files in turn, one from each, so that a smaller collection is a sample of a larger
one; those under eight words and repeated ones are left out.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

from diffretriever_pyserini.corpora.beir import open_beir
from diffretriever_pyserini.corpora.corpus import Corpus
from diffretriever_pyserini.corpora.qrels import judged_queries, read_qrels
from diffretriever_pyserini.corpora.topics import read_topics

_LEAST_WORDS = 8


def main() -> None:
    """Write the collection."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judged", type=Path, nargs="+", required=True, help="folders in BEIR layout")
    parser.add_argument(
        "--text", type=Path, nargs="+", required=True, help="text files, one paragraph per line; .gz too"
    )
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    count = write_judged(options.judged, options.output)
    with (options.output / "corpus.jsonl").open("a", encoding="utf-8") as corpus:
        for docid, text in itertools.islice(paragraphs(options.text), max(0, options.passages - count)):
            corpus.write(json.dumps({"id": docid, "text": text}) + "\n")
            count += 1
    print(f"{count:,} passages: {options.output / 'corpus.jsonl'}")


def write_judged(folders: list[Path], output: Path) -> int:
    """Write passages, queries and judgements of ``folders``; returns the number of passages."""
    count = 0
    with (
        (output / "corpus.jsonl").open("w", encoding="utf-8") as corpus,
        (output / "queries.tsv").open("w", encoding="utf-8") as queries,
        (output / "qrels.tsv").open("w", encoding="utf-8") as qrels,
    ):
        for folder in folders:
            name, source = folder.name, open_beir(folder)
            for passage in Corpus(source.corpus).passages():
                text = passage.contents
                corpus.write(json.dumps({"id": f"{name}/{passage.docid}", "text": text}) + "\n")
                count += 1
            judged = read_qrels(source.qrels)
            for qid, text in judged_queries(read_topics(source.queries), judged, source.folder).items():
                queries.write(f"{name}/{qid}\t{' '.join(text.split())}\n")
                for docid, grade in judged[qid].items():
                    qrels.write(f"{name}/{qid} 0 {name}/{docid} {grade}\n")
    return count


def paragraphs(paths: list[Path]) -> Iterator[tuple[str, str]]:
    """(id, text) of paragraphs from ``paths`` in turn."""
    seen: set[int] = set()

    def lines(path: Path) -> Iterator[tuple[str, str]]:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                text = line.strip()
                if len(text.split()) >= _LEAST_WORDS and hash(text) not in seen:
                    seen.add(hash(text))
                    yield f"{path.name.split('.')[0]}/{number}", text

    for row in itertools.zip_longest(*map(lines, sorted(paths))):
        yield from (one for one in row if one is not None)


if __name__ == "__main__":
    main()
