"""The first hits of three queries, which the demo prints at its end."""

import textwrap
from collections.abc import Mapping
from pathlib import Path

from ..evaluation.runs import Run
from ..scoring.ranking import ranked
from .collection import WrittenCollection, read_passages

SHOWN_QUERIES = 3
SHOWN_HITS = 3
_WIDTH = 100


def top_hits(folder: Path, collection: WrittenCollection, run: Run) -> str:
    """The first hits of three queries spread over the topics, each with its grade and the beginning of its text."""
    qids = list(collection.queries)
    chosen = [qids[len(qids) * part // SHOWN_QUERIES] for part in range(min(SHOWN_QUERIES, len(qids)))]
    best = {qid: ranked(run.get(qid, {}))[:SHOWN_HITS] for qid in chosen}
    passages = read_passages(folder, {docid for hits in best.values() for docid, _ in hits})
    lines = []
    for qid in chosen:
        lines.append(f"query {qid}: {_short(collection.queries[qid])}")
        if not best[qid]:
            lines.append("  (no results)")
        for rank, (docid, score) in enumerate(best[qid], start=1):
            lines.append(f"  {rank}. [{_grade(collection.qrels[qid], docid)}] {score:.4f}  {docid}")
            title, text = passages[docid].title, passages[docid].text
            lines.append(f"     {_short(f'{title}: {text}' if title else text)}")
        lines.append("")
    return "\n".join(lines).rstrip()


def _grade(grades: Mapping[str, int], docid: str) -> str:
    if docid not in grades:
        return "not judged"
    return "relevant" if grades[docid] > 0 else "not relevant"


def _short(text: str) -> str:
    return textwrap.shorten(text, _WIDTH, placeholder=" ...") or "(no text)"
