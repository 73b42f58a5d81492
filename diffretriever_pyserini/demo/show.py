"""What the demo prints at its end: the first hits of three queries, and one sentence on the measures."""

import textwrap
from collections.abc import Mapping
from pathlib import Path

from ..evaluation.runs import Run
from ..scoring.ranking import ranked
from .collection import WrittenCollection, read_passages

SHOWN_QUERIES = 3
SHOWN_HITS = 3
_WIDTH = 100
_ABOUT_EQUAL = 0.02  # of a measure


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


def verdict(means: Mapping[str, float], measure: str) -> str:
    """Which signal is better, and what fusion adds, from the means of ``measure`` of the demo's runs."""
    weak, strong = sorted(("lexical", "dense"), key=lambda name: means[name])
    if means[strong] - means[weak] < _ABOUT_EQUAL:
        sentence = f"The {strong} and the {weak} signal are about as good on this collection: {measure}"
        sentence += f" {means[strong]:.3f} and {means[weak]:.3f}"
    else:
        sentence = f"The {strong} signal is better on this collection: {measure} {means[strong]:.3f}, "
        sentence += f"against {means[weak]:.3f} of the {weak} signal"
    better = means["hybrid"] >= means[strong]
    sentence += f"; {'together they reach' if better else 'fusing them lowers it to'} {means['hybrid']:.3f}."
    if means["BM25"] > max(means["hybrid"], means[strong]):
        sentence += f" BM25 is better than both: {means['BM25']:.3f}."
    return sentence


def _grade(grades: Mapping[str, int], docid: str) -> str:
    if docid not in grades:
        return "not judged"
    return "relevant" if grades[docid] > 0 else "not relevant"


def _short(text: str) -> str:
    return textwrap.shorten(text, _WIDTH, placeholder=" ...") or "(no text)"
