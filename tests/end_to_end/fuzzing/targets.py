"""The files to damage, the command that reads them, and a check of the result if the command accepts them.

Each check reads the damaged file in a simple way of its own: a command must not accept only a part of a file.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import pytrec_eval
import yaml

from diffretriever_pyserini.cli import main
from diffretriever_pyserini.store.store import Store

PASSAGES = {
    "p1": "plants use sunlight to grow",
    "p2": "the tower of tokyo is tall",
    "007": "a naïve moon landing, 1969",
    "a/b": "rivers carry water to the sea",
    "p5": "",
    "東": "the tower and the moon",
}
TOPICS = {"1": "moon landing", "q2": "tower height", "07": "water of rivers"}
GRADES = {"1": {"007": 1, "東": 0}, "q2": {"p2": 2, "東": 1}, "07": {"a/b": 1}}


@dataclass(frozen=True)
class Target:
    """``command`` reads ``files`` of a case's folder and writes to ``out``.

    If it accepts them, ``check(case, undamaged)`` must pass. Targets are drawn in proportion to their ``weight``.
    """

    name: str
    files: tuple[str, ...]
    command: str
    check: Callable[[Path, Path], None]
    weight: int = 10


def prepare(folder: Path, checkpoints: Path) -> None:
    """Write the undamaged files, and the output of the searches on them."""
    for source, name in (("tiny-dream", "tiny-dream"), ("tiny-dream-adapter", "adapter")):
        shutil.copytree(checkpoints / source, folder / name)  # a link would change the file's times for other tests
    _write_collection(folder)
    for model, store in (("tiny-dream", "store"), ("adapter", "adapted")):
        _run(f"encode --encoder {model} --corpus {folder}/corpus.jsonl --output {folder}/{store} --quiet", folder)
    _run(
        f"index --store {folder}/store --output {folder}/INDEX --dense flat --lexical --multi "
        "--bytes-per-vector 90 --quiet",
        folder,
    )
    _run(f"index --store {folder}/adapted --output {folder}/ADAPTED --dense flat --quiet", folder)
    for target in TARGETS:
        if target.command.startswith("search"):
            _run(target.command, folder)
            (folder / "out").rename(folder / f"{target.name}.out")


def _write_collection(folder: Path) -> None:
    def lines(name: str, rows: list[Any]) -> None:
        text = "".join(f"{row if isinstance(row, str) else json.dumps(row, ensure_ascii=False)}\n" for row in rows)
        (folder / name).write_text(text, encoding="utf-8")

    lines("corpus.jsonl", [{"_id": docid, "title": "", "text": text} for docid, text in PASSAGES.items()])
    lines("pyserini.jsonl", [{"id": docid, "contents": text} for docid, text in PASSAGES.items()])
    lines("corpus.tsv", [f"{docid}\t{text}" for docid, text in PASSAGES.items()])
    pyarrow.parquet.write_table(
        pa.table({"docid": list(PASSAGES), "text": list(PASSAGES.values())}), folder / "corpus.parquet"
    )
    lines("topics.tsv", [f"{qid}\t{text}" for qid, text in TOPICS.items()])
    lines("topics.jsonl", [{"qid": qid, "title": text} for qid, text in TOPICS.items()])
    (folder / "topics.json").write_text(json.dumps({qid: {"title": text} for qid, text in TOPICS.items()}, indent=1))
    judged = [(qid, docid, grade) for qid, grades in GRADES.items() for docid, grade in grades.items()]
    lines("qrels.txt", [f"{qid} 0 {docid} {grade}" for qid, docid, grade in judged])
    lines("qrels.tsv", ["query-id\tcorpus-id\tscore", *(f"{qid}\t{docid}\t{grade}" for qid, docid, grade in judged)])
    lines("run.txt", [f"{qid} Q0 {docid} {i} {9.5 - i} t" for qid in TOPICS for i, docid in enumerate(PASSAGES, 1)])
    lines(
        "pairs.jsonl",
        [
            {"query_id": qid, "query": text, "positive_passages": [passage], "negative_passages": [other]}
            for (qid, text), (passage, other) in zip(
                TOPICS.items(),
                [({"docid": d, "title": "t", "text": f"{d} is it"}, {"docid": f"n{d}", "text": "no"}) for d in "abc"],
                strict=True,
            )
        ],
    )
    lines("pairs.tsv", [f"{text}\t{PASSAGES['p1']} {i}\tnot this {i}" for i, text in enumerate(TOPICS.values())])
    settings = {
        "model": "tiny-dream", "data": "pairs.jsonl", "output": "out", "batch_size": 2, "negatives": 1, "max_steps": 1,
        "max_length": 32, "lora_r": 2, "learning_rate": 1e-3, "k_query": 2, "k_passage": 2, "device": "cpu",
        "prompt": "few", "temperature": 0.05, "seed": 1,
    }  # fmt: skip
    (folder / "train.yaml").write_text(yaml.safe_dump(settings))


def _run(command: str, folder: Path) -> None:
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        assert main(command.split()) == 0, command


def _nothing(case: Path, prepared: Path) -> None:
    """Every result is accepted."""


def _values(text: str) -> Iterator[Any]:
    """Consecutive JSON values."""
    decoder, text = json.JSONDecoder(), text.removeprefix("\ufeff").lstrip()
    while text:
        value, end = decoder.raw_decode(text)
        yield value
        text = text[end:].lstrip()


def _stored(case: Path) -> list[str]:
    return list(Store(case / "out").docids())


def _rows_of_json(name: str) -> Callable[[Path, Path], None]:
    def check(case: Path, prepared: Path) -> None:
        rows = list(_values((case / name).read_text(encoding="utf-8")))
        assert _stored(case) == [_first(row, "_id", "id", "docid") for row in rows]

    return check


def _first(row: dict[str, Any], *keys: str) -> str:
    return str(next(row[key] for key in keys if row.get(key) is not None))


def _rows_of_tsv(case: Path, prepared: Path) -> None:
    text = (case / "corpus.tsv").read_bytes().decode("utf-8-sig")
    assert _stored(case) == [line.split("\t")[0].strip() for line in text.split("\n") if line.strip()]


def _rows_of_parquet(case: Path, prepared: Path) -> None:
    table = pyarrow.parquet.read_table(case / "corpus.parquet")
    assert len(_stored(case)) == table.num_rows


def _answered(case: Path) -> list[str]:
    """The queries of the run in their order."""
    lines = (case / "out").read_text(encoding="utf-8").splitlines()
    assert all(len(line.split(" ")) == 6 for line in lines)
    return list(dict.fromkeys(line.split(" ")[0] for line in lines))


def _topics_of(name: str) -> Callable[[Path, Path], None]:
    def check(case: Path, prepared: Path) -> None:
        text = (case / name).read_bytes().decode("utf-8-sig")
        if name.endswith(".tsv"):
            rows = [line.split("\t")[0].strip() for line in text.replace("\r", "\n").split("\n") if line.strip()]
        elif name.endswith(".jsonl"):
            rows = [_first(row, "qid", "_id", "id") for row in _values(text)]
        else:
            rows = [key for key, _ in json.loads(text, object_pairs_hook=tuple)]
        assert _answered(case) == rows

    return check


def _measures(case: Path, prepared: Path) -> None:
    """The measures equal pytrec_eval's on both files."""
    judged: dict[str, dict[str, int]] = {}
    (name,) = (path.name for path in case.glob("qrels.*"))
    for row in _columns(case / name):
        if row[0] not in ("query-id", "qid", "query_id"):
            judged.setdefault(row[0], {})[row[-2]] = int(row[-1])
    judged = {qid: grades for qid, grades in judged.items() if max(grades.values()) > 0}
    run: dict[str, dict[str, float]] = {}
    for qid, _, docid, _, score, _ in _columns(case / "run.txt"):
        run.setdefault(qid, {})[docid] = float(score)
    theirs = pytrec_eval.RelevanceEvaluator(judged, {"ndcg_cut_10", "recip_rank"}).evaluate(run)
    lines = [line.split("\t") for line in (case / "out").read_text(encoding="utf-8").splitlines()]
    measured = {(qid, measure): float(value) for _, qid, measure, value in lines}
    assert {qid for qid, _ in measured} == set(judged)
    for (qid, measure), value in measured.items():
        expected = theirs.get(qid, {}).get({"nDCG@10": "ndcg_cut_10", "RR": "recip_rank"}[measure], 0.0)
        assert value == pytest.approx(expected, abs=2e-6), (qid, measure)


def _columns(path: Path) -> Iterator[list[str]]:
    text = path.read_bytes().decode("utf-8-sig")
    return (line.split() for line in text.split("\n") if line.strip())


def _same_model(model: str, store: str) -> Callable[[Path, Path], None]:
    """An accepted encoder encodes the passages as in the store; query settings may differ."""

    def check(case: Path, prepared: Path) -> None:
        from diffretriever_pyserini import DiffRetriever

        (part,) = Store(prepared / store).parts
        texts = [PASSAGES[docid] for docid in part.docids]
        encoder = DiffRetriever.from_pretrained(str(case / model), k_passage=part.spec.k_passage)  # as in a search
        vectors = encoder.encode(texts).vectors
        np.testing.assert_allclose(vectors, part.vectors(), atol=2e-3)  # the store has float16
        assert _answered(case) == list(TOPICS)

    return check


def _scores(path: Path) -> dict[tuple[str, str], float]:
    rows = (line.split(" ") for line in path.read_text(encoding="utf-8").splitlines())
    return {(row[0], row[2]): float(row[4]) for row in rows}


def _as_many(name: str) -> Callable[[Path, Path], None]:
    """The run has as many lines as that of the undamaged files, with finite scores."""

    def check(case: Path, prepared: Path) -> None:
        scores, undamaged = _scores(case / "out"), _scores(prepared / f"{name}.out")
        assert len(scores) == len(undamaged)
        assert all(abs(score) < float("inf") for score in scores.values())

    return check


def _indexed(case: Path, prepared: Path) -> None:
    from diffretriever_pyserini.searching import open_index

    with open_index(case / "out", str(case / "tiny-dream")) as index:
        hits = index.search({"q": "moon"}, mode="dense")["q"]
    assert len(hits) == len(PASSAGES)


def _corpus(name: str, check: Callable[[Path, Path], None], weight: int = 10) -> Target:
    command = f"encode --encoder tiny-dream --corpus {name} --output out --workers 0 --quiet"
    return Target(f"encode {name}", (name,), command, check, weight)


def _topic_file(name: str) -> Target:
    command = f"search --index INDEX --encoder tiny-dream --mode dense --topics {name} --output out"
    return Target(f"topics {name}", (name,), command, _topics_of(name))


def _searched(name: str, files: tuple[str, ...], command: str, check: Any = None, weight: int = 10) -> Target:
    command = f"search --topics topics.tsv --output out {command}"
    return Target(name, files, command, check or _as_many(name), weight)


def _evaluated(name: str, *files: str) -> Target:
    command = f"evaluate --qrels {name} --run run.txt --measures nDCG@10 RR --per-query out"
    return Target(f"evaluate {' '.join(files)}", files, command, _measures)


TARGETS = (
    _corpus("corpus.jsonl", _rows_of_json("corpus.jsonl")),
    _corpus("pyserini.jsonl", _rows_of_json("pyserini.jsonl")),
    _corpus("corpus.tsv", _rows_of_tsv),
    _corpus("corpus.parquet", _rows_of_parquet, 5),
    *(_topic_file(name) for name in ("topics.tsv", "topics.jsonl", "topics.json")),
    _evaluated("qrels.txt", "qrels.txt"),
    _evaluated("qrels.txt", "run.txt"),
    _evaluated("qrels.tsv", "qrels.tsv"),
    _searched(
        "model",
        ("tiny-dream/*",),
        "--index INDEX --encoder tiny-dream --mode dense",
        _same_model("tiny-dream", "store"),
        25,
    ),
    _searched(
        "adapted",
        ("adapter/*",),
        "--index ADAPTED --encoder adapter --mode dense",
        _same_model("adapter", "adapted"),
        25,
    ),
    _searched("dense", ("INDEX/dense/*", "INDEX/*.json"), "--index INDEX --mode dense"),
    _searched("multi", ("INDEX/multi/*",), "--index INDEX --mode multi"),
    _searched("lexical", ("INDEX/lexical/*",), "--index INDEX --mode lexical", _nothing, 6),
    _searched("exact", ("store/*", "store/*/*"), "--index store --mode multi"),
    Target("index", ("store/*", "store/*/*"), "index --store store --output out --dense flat --quiet", _indexed),
    Target(
        "explain",
        ("INDEX/*", "INDEX/dense/*", "corpus.jsonl"),
        "explain --index INDEX --query moon --docid 007 --corpus corpus.jsonl --html out.html",
        _nothing,
        4,
    ),
    Target("plan", ("train.yaml",), "train --config train.yaml --plan", _nothing),
    Target("train", ("train.yaml", "pairs.jsonl"), "train --config train.yaml", _nothing, 3),
    Target("train tsv", ("pairs.tsv",), "train --config train.yaml --data pairs.tsv", _nothing, 2),
    Target(
        "mine", ("pairs.jsonl",), "mine-negatives --pairs pairs.jsonl --corpus corpus.jsonl --output out", _nothing, 2
    ),
)


def drawn(draw: random.Random) -> Target:
    """A random target of TARGETS by weight."""
    return draw.choices(TARGETS, [target.weight for target in TARGETS])[0]
