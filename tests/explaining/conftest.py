"""A small index with all three signals, of unusual texts and ids, made by a random masked language model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ..model.conftest import save_masked_lm

SCRIPT = "<script>alert('1')</script>&\""
PASSAGES = {
    "p1": "dense retrieval of passages, indexing words",
    "p2": "the index of a query 2026",
    SCRIPT: "a <b>query</b> for retrieval \u202e\u001b[31m and NUL \u0000 dense",
    "عربي-١": "برج query طوكيو",
    "日本": "日本 ☃ é passages",
    "stop": "the of and",
    "empty": "",
    "long": "retrieval words " * 2000,
    **{f"n{i}": f"word {i} of passage number {i}, dense and indexed" for i in range(12)},
}
QUERIES = ["dense retrieval of passages", "query 日本 3", "the of", "", "zebra"]


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a random BERT with H = 32 that stops at special tokens, so that some mask positions are empty."""
    folder = tmp_path_factory.mktemp("explained-bert")
    save_masked_lm(folder)
    return str(folder)


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory, encoder: str) -> Path:
    """A folder with ``corpus.jsonl``, its ``store`` (K = 3, full precision) and the ``INDEX`` of that store."""
    from diffretriever_pyserini import DiffRetriever
    from diffretriever_pyserini.corpora.corpus import Corpus
    from diffretriever_pyserini.encoding.job import EncodeOptions, encode_corpus
    from diffretriever_pyserini.indexes.build import IndexOptions, build_index
    from diffretriever_pyserini.indexes.multivector.build import MultiBuild
    from diffretriever_pyserini.plugin.registry import ensure_registered

    ensure_registered()
    folder = tmp_path_factory.mktemp("explained")
    lines = [json.dumps({"_id": docid, "title": "", "text": text}) for docid, text in PASSAGES.items()]
    (folder / "corpus.jsonl").write_text("\n".join(lines), encoding="utf-8")
    model = DiffRetriever.from_pretrained(encoder, k_passage=3)
    options = EncodeOptions(workers=0, dtype="float32")
    encode_corpus(model, Corpus([folder / "corpus.jsonl"]), folder / "store", options)
    signals = IndexOptions(multi=MultiBuild(bytes_per_vector=8), quiet=True)
    build_index(folder / "store", folder / "INDEX", signals)
    return folder
