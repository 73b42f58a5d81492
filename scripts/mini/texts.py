"""Training pairs and development sets of the default model, read from the two training folders."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

PAIR_FILES = {
    "squad": "squad-sentences.jsonl.gz",
    "medquad": "medquad.jsonl.gz",
    "debian": "debian-descriptions.jsonl.gz",
    "foldoc": "foldoc.jsonl.gz",
    "openstax": "openstax-sections.jsonl.gz",
    "wordnet": "wordnet-glosses.jsonl.gz",
}
# Paragraphs from which one sentence is taken as the query: long queries, which the pair files lack.
CLOZE_FILES = {
    "cloze-openstax": "openstax.txt.gz",
    "cloze-medquad": "medquad-answers.txt.gz",
    "cloze-peps": "peps.txt.gz",
    "cloze-debian": "debian-descriptions.txt.gz",
    "cloze-novels": "novels.txt.gz",
    "cloze-foldoc": "foldoc.txt.gz",
}
# Maximum number of pairs per source; low for WordNet, whose glosses are short and ambiguous.
LIMITS = {
    "squad": 21000,
    "medquad": 16000,
    "debian": 22000,
    "foldoc": 9000,
    "openstax": 4000,
    "wordnet": 5000,
    "cloze-openstax": 12000,
    "cloze-medquad": 9000,
    "cloze-peps": 5000,
    "cloze-debian": 6000,
    "cloze-novels": 3000,
    "cloze-foldoc": 3000,
}
DEVELOPMENT_SOURCES = ("squad", "medquad", "debian", "openstax", "cloze-openstax", "cloze-medquad")
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9])")


@dataclass
class PairSet:
    """Pairs of one source, and the development queries split off it."""

    name: str
    queries: list[str] = field(default_factory=list)
    passages: list[str] = field(default_factory=list)
    dev_queries: list[str] = field(default_factory=list)
    dev_passages: list[str] = field(default_factory=list)  # the first len(dev_queries) are the relevant ones, in order


def read_pairs(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (query, passage) of a pair file; title and text are joined by one blank, as docs/method.md §2 says."""
    with gzip.open(path, "rt", encoding="utf-8") as handle:
        for line in handle:
            row = json.loads(line)
            passage = f"{row.get('title') or ''} {row['positive']}".strip()
            if row["query"].strip() and passage:
                yield row["query"].strip(), passage


def read_cloze(path: Path, rng: np.random.Generator) -> Iterator[tuple[str, str]]:
    """Yield (sentence, rest of its paragraph) for every paragraph of at least three sentences."""
    with gzip.open(path, "rt", encoding="utf-8") as handle:
        for line in handle:
            sentences = SENTENCE_END.split(line.strip()[:2000])
            if len(sentences) < 3:
                continue
            chosen = int(rng.integers(len(sentences)))
            query = sentences[chosen]
            if not 6 <= len(query.split()) <= 50:
                continue
            # One in five passages keeps its sentence, so that exact overlap is still rewarded.
            rest = sentences if rng.random() < 0.2 else sentences[:chosen] + sentences[chosen + 1 :]
            yield query, " ".join(rest)


def load_sources(
    data: Path, seed: int, dev_queries: int = 120, dev_distractors: int = 1000, scale: float = 1.0
) -> list[PairSet]:
    """Read every source, drop repeated queries and passages, and split off development pairs.

    ``data`` holds the folders ``train-pairs`` and ``pretrain-text``. ``scale`` shortens every source, for a quick try.
    """
    sources: list[PairSet] = []
    for name, file in {**PAIR_FILES, **CLOZE_FILES}.items():
        rng = np.random.default_rng([seed, len(sources)])
        folder = data / ("pretrain-text" if name in CLOZE_FILES else "train-pairs")
        rows = read_cloze(folder / file, rng) if name in CLOZE_FILES else read_pairs(folder / file)
        sources.append(_split(name, list(rows), rng, dev_queries, dev_distractors, int(LIMITS[name] * scale)))
    held_out = {text for source in sources for text in source.dev_passages[: len(source.dev_queries)]}
    for source in sources:
        pairs = [pair for pair in zip(source.queries, source.passages, strict=True) if pair[1] not in held_out]
        source.queries, source.passages = [q for q, _ in pairs], [p for _, p in pairs]
    return sources


def _split(
    name: str,
    rows: list[tuple[str, str]],
    rng: np.random.Generator,
    dev_queries: int,
    dev_distractors: int,
    limit: int,
) -> PairSet:
    seen_queries: set[str] = set()
    seen_passages: set[str] = set()
    unique = []
    for index in rng.permutation(len(rows)):
        query, passage = rows[index]
        if query.lower() in seen_queries or passage.lower() in seen_passages:
            continue
        seen_queries.add(query.lower())
        seen_passages.add(passage.lower())
        unique.append((query, passage))
    dev = dev_queries if name in DEVELOPMENT_SOURCES else 0
    result = PairSet(name)
    result.dev_queries = [query for query, _ in unique[:dev]]
    train = unique[dev : dev + limit]
    # Distractors may be training passages; only the relevant ones must be unseen.
    result.dev_passages = [passage for _, passage in unique[: dev + dev_distractors]] if dev else []
    result.queries = [query for query, _ in train]
    result.passages = [passage for _, passage in train]
    return result
