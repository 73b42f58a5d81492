"""The Pyserini commands of the demo, in order and literally. Paths are relative to the demo's folder.

Relative paths also avoid two guesses of Pyserini: it reads topic files whose path contains "beir" or "cacm" in another
format, and its sub-command splitter removes arguments that equal dense, sparse, fusion, run, input or output.
"""

import shlex
from pathlib import Path

from ..model.encoder_names import EncoderName
from ..runtime.commands import Step

RUNS = {
    "BM25": "run.bm25.txt",
    "dense": "run.dense.txt",
    "lexical": "run.lexical.txt",
    "hybrid": "run.hybrid.txt",
}

# title | arguments after `python -m` | the file or folder that the command must create
_COMMANDS = """
encode the passages, dense signal, into a FAISS index
| pyserini.encode input --corpus corpus --fields title text output --embeddings index.dense --to-faiss
  encoder --encoder {encoder} --fields title text --dimension {dimension} --device {device}
| index.dense/index

encode the passages, lexical signal
| pyserini.encode input --corpus corpus --fields title text output --embeddings vectors.lexical
  encoder --encoder {lexical_encoder} --fields title text --device {device}
| vectors.lexical/embeddings.jsonl

index the lexical signal in Lucene
| pyserini.index.lucene --collection JsonVectorCollection --input vectors.lexical --index index.lexical
  --generator DefaultLuceneDocumentGenerator --threads {threads} --impact --pretokenized
| index.lexical

index the texts in Lucene, for BM25 and to show them
| pyserini.index.lucene --collection JsonCollection --input corpus --index index.bm25
  --generator DefaultLuceneDocumentGenerator --threads {threads} --storeRaw
| index.bm25

search: BM25
| pyserini.search.lucene --index index.bm25 --bm25 --topics topics.json --output run.bm25.txt
| run.bm25.txt

search: dense
| pyserini.search.faiss --index index.dense --encoder {encoder} --device {device}
  --topics topics.json --output run.dense.txt --batch-size 16 --threads {threads}
| run.dense.txt

search: lexical
| pyserini.search.lucene --index index.lexical --impact --encoder {encoder}
  --topics topics.json --output run.lexical.txt --batch-size 16 --threads {threads}
| run.lexical.txt

search: hybrid
| pyserini.search.hybrid dense --index index.dense --encoder {encoder} --device {device}
  sparse --index index.lexical --impact --encoder {encoder} fusion --alpha {alpha:.4g} --normalization
  run --topics topics.json --output run.hybrid.txt --batch-size 16 --threads {threads}
| run.hybrid.txt
"""


def question(output: Path, query: str) -> str:
    """Return the command that asks ``query`` of the demo's indexes in the folder ``output``."""
    indexes = {"--dense-index": "index.dense", "--lexical-index": "index.lexical", "--text-index": "index.bm25"}
    words = [word for option, name in indexes.items() for word in (option, str(output / name))]
    return shlex.join(["diffretriever", "search", *words, "--query", query])


def pyserini_steps(
    encoder: str, dimension: int, alpha: float = 1.0, device: str = "cpu", threads: int = 2
) -> list[Step]:
    """Return encode, index and search commands for BM25, the dense and the lexical signal, and their fusion.

    ``alpha`` is the weight of the lexical list against 1 for the dense one.
    """
    values = {
        "encoder": str(EncoderName(encoder)),
        "lexical_encoder": str(EncoderName(encoder, lexical=True)),
        "dimension": dimension,
        "alpha": alpha,
        "device": device,
        "threads": threads,
    }
    steps = []
    for block in _COMMANDS.strip().split("\n\n"):
        title, command, produces = (part.strip() for part in block.split("|"))
        # Split before the values are filled in, because a path may have blanks.
        steps.append(Step(title, [word.format(**values) for word in command.split()], produces))
    return steps
