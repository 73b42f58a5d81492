"""The three commands of the multi-vector index on a part of NFCorpus, and their runs compared with exact scores."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from diffretriever_pyserini.cli import main
from diffretriever_pyserini.corpora.beir import open_beir
from diffretriever_pyserini.corpora.corpus import Corpus
from diffretriever_pyserini.corpora.qrels import judged_queries, read_qrels
from diffretriever_pyserini.corpora.topics import read_topics
from diffretriever_pyserini.evaluation.metrics import evaluate
from diffretriever_pyserini.indexes.build import IndexOptions, build_index
from diffretriever_pyserini.searching import open_index

from .. import warm
from .commands import pyserini, read_run

PASSAGES, QUERIES = 360, 25


def ours(arguments: str, folder: Path) -> str:
    """``diffretriever <arguments>`` in ``folder``."""
    done = subprocess.run(
        [warm.python(), "-m", "diffretriever_pyserini", *arguments.split()],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, f"{arguments}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def work(shared_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a part of NFCorpus (the relevant passages of some queries, and other passages), indexed."""
    source = shared_dir / "data" / "nfcorpus"
    if not source.is_dir():
        pytest.skip(f"{source} is missing: NFCorpus in BEIR layout")
    folder = tmp_path_factory.mktemp("nfcorpus")
    beir = open_beir(source)
    qrels = read_qrels(beir.qrels)
    judged = judged_queries(read_topics(beir.queries), qrels, source)
    few = sorted(judged, key=lambda qid: (sum(grade > 0 for grade in qrels[qid].values()), qid))[:QUERIES]
    relevant = {docid for qid in few for docid, grade in qrels[qid].items() if grade > 0}
    passages = list(Corpus(beir.corpus).passages())
    sample = [passage for passage in passages if passage.docid in relevant]
    sample += [passage for passage in passages if passage.docid not in relevant][: PASSAGES - len(sample)]
    lines = (json.dumps({"id": p.docid, "text": p.contents}) for p in sample)
    (folder / "corpus.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "T.tsv").write_text("".join(f"{qid}\t{judged[qid]}\n" for qid in few), encoding="utf-8")
    (folder / "qrels.json").write_text(json.dumps({qid: qrels[qid] for qid in few}))
    ours("encode --corpus corpus.jsonl --output STORE --max-length 64 --quiet", folder)
    assert f"{PASSAGES} passages are too few to say" in ours(
        "index --store STORE --output INDEX --multi --lexical", folder
    )
    return folder


def scores(path: Path) -> dict[str, dict[str, float]]:
    return {qid: dict(hits) for qid, hits in read_run(path).items()}


def test_compressed_ranks_as_exact(work: Path) -> None:
    ours("search --index INDEX --topics T.tsv --mode multi --hits 100 --output run.multi.txt", work)
    with open_index(work / "STORE") as store:
        exact = {qid: dict(hits) for qid, hits in store.search(read_topics(work / "T.tsv"), hits=100).items()}
    compressed = scores(work / "run.multi.txt")
    assert len(exact) == len(compressed) == QUERIES
    top = {qid: set(list(hits)[:10]) for qid, hits in exact.items()}
    assert np.mean([len(top[qid] & set(list(compressed[qid])[:12])) / 10 for qid in exact]) > 0.95
    errors = [abs(compressed[qid][docid] - exact[qid][docid]) for qid in exact for docid in top[qid]]
    assert max(errors) < 0.15  # the largest possible score is four
    qrels = json.loads((work / "qrels.json").read_text())
    ndcg = {
        name: evaluate(run, qrels, ["nDCG@10"]).means["nDCG@10"]
        for name, run in (("compressed", compressed), ("exact", exact))
    }
    assert ndcg["exact"] > 0.3
    assert ndcg["compressed"] > 0.97 * ndcg["exact"]


def test_pyserinis_hybrid_command_equals_our_hybrid_search(work: Path) -> None:
    ours(
        "search --index INDEX --topics T.tsv --mode hybrid --alpha 1 --hits 100 --depth 100 --output run.hybrid.txt",
        work,
    )
    pyserini(
        "search.hybrid",
        "dense --index INDEX/multi --encoder diffretriever sparse --index INDEX/lexical --impact --encoder "
        "diffretriever --min-idf -1 fusion --alpha 1.0 --normalization --hits 100 run --topics T.tsv --hits 100 "
        "--output run.pyserini.txt",
        work,
    )
    mine, theirs = scores(work / "run.hybrid.txt"), scores(work / "run.pyserini.txt")
    assert mine.keys() == theirs.keys()
    for qid, hits in mine.items():
        assert theirs[qid] == pytest.approx(hits, abs=2e-6)


@pytest.fixture(scope="module")
def three(work: Path) -> Path:
    """The index with a dense signal as well."""
    shutil.copytree(work / "INDEX", work / "THREE")
    build_index(work / "STORE", work / "THREE", IndexOptions(lexical=False, quiet=True))  # the other two signals stay
    return work / "THREE"


@pytest.mark.parametrize("mode", ["hybrid", "dense,lexical", "dense,multi,lexical"])
def test_a_short_run_is_the_head_of_a_long_one(work: Path, three: Path, mode: str) -> None:
    runs = []
    for hits in (10, 1000):
        run = work / f"run.{hits}.txt"
        assert (
            main(f"search --index {three} --topics {work}/T.tsv --mode {mode} --hits {hits} --output {run}".split())
            == 0
        )
        runs.append(run.read_text().splitlines())
    short, long = runs
    assert len(short) == 10 * QUERIES < len(long)
    assert short == [line for line in long if int(line.split()[3]) <= 10]


def test_three_signals_and_weights(work: Path, three: Path) -> None:
    topics = read_topics(work / "T.tsv")
    with open_index(three) as index:
        fused = index.search(topics, "dense,multi,lexical", alpha=1.0, weights={"multi": 2.0})
        alone = {signal: index.search(topics, signal) for signal in ("dense", "multi", "lexical")}
    weights = {"dense": 0.25, "multi": 0.5, "lexical": 0.25}
    for qid, fused_hits in fused.items():
        expected: dict[str, float] = {}
        for signal, weight in weights.items():
            hits = dict(alone[signal][qid])
            low = 0.0 if signal == "lexical" and len(hits) < PASSAGES else min(hits.values())
            span = max(max(hits.values(), default=low) - low, 1e-9)
            for docid, score in hits.items():
                expected[docid] = expected.get(docid, 0.0) + weight * (score - low) / span
        assert dict(fused_hits) == pytest.approx(expected, abs=1e-6)
