"""The experiments that ship with the package agree with their sources, and a broken file is named with its row."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest
import yaml

from diffretriever_pyserini.errors import ConfigError, InputError
from diffretriever_pyserini.experiments.reading import (
    known_collections,
    list_experiments,
    read_experiment,
    selected,
    with_folders,
)
from diffretriever_pyserini.experiments.records import BM25
from diffretriever_pyserini.model.prebuilt import list_prebuilt


def package_folder(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{name} is not installed")
    return Path(next(iter(spec.submodule_search_locations)))


def test_every_experiment_names_a_prebuilt_model() -> None:
    experiments = list_experiments()
    assert len(experiments) >= 10
    assert {one.model for one in experiments.values() if one.model} <= set(list_prebuilt())


def test_a_published_score_has_a_source() -> None:
    rows = [(one, row) for one in list_experiments().values() for row in one.rows if row.published is not None]
    assert len(rows) > 60
    assert all(row.source or one.source for one, row in rows)


def test_bm25_scores_are_those_that_pyserini_publishes() -> None:
    folder = package_folder("pyserini") / "2cr"
    published: dict[tuple[str, str], float] = {}
    flat = next(
        one for one in yaml.safe_load((folder / "beir.yaml").read_text())["conditions"] if one["name"] == "bm25-flat"
    )
    for entry in flat["datasets"]:
        published |= {(entry["dataset"], measure): value for measure, value in entry["scores"][0].items()}
    msmarco = yaml.safe_load((folder / "msmarco-v1-passage.yaml").read_text())["conditions"]
    names = {"msmarco-v1-passage.dev": "msmarco-dev", "dl19-passage": "dl19", "dl20-passage": "dl20"}
    ours = {"MRR@10": "RR@10", "MAP": "AP", "R@1K": "R@1000"}
    for entry in next(one for one in msmarco if one["name"] == "bm25-default")["topics"]:
        scores = entry["scores"][0].items()
        published |= {(names[entry["topic_key"]], ours.get(name, name)): value for name, value in scores}
    experiment = read_experiment("bm25")
    assert all(published[row.collection, str(row.measure)] == row.published for row in experiment.rows)


def test_collections_are_known_to_pyserini_and_counted_as_ir_datasets_does() -> None:
    text = (package_folder("pyserini") / "search" / "_base.py").read_text()
    known = set(re.findall(r"^    '([\w.-]+)':", text, re.M))
    counts = json.loads((package_folder("ir_datasets") / "etc" / "metadata.json").read_text())
    named = {name: one for name, one in known_collections().items() if one.corpus is not None}
    assert len(named) == 11
    for one in named.values():
        assert {one.topics, one.qrels} <= known
        corpus, judged = str(one.corpus).removeprefix("irds:"), str(one.irds).removeprefix("irds:")
        assert counts[corpus]["docs"]["count"] == one.passages
        assert counts[judged]["queries"]["count"] == one.queries
    assert {name for name, one in named.items() if one.remove_query} == {"arguana", "quora"}
    assert {name for name, one in named.items() if one.relevance == 2} == {"dl19", "dl20"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": []}, "rows is missing"),
        ({"rows": [{"collection": "scifact"}]}, "row 1: mode is missing"),
        ({"rows": [{"collection": "scifact", "mode": "dens"}]}, "row 1: mode='dens' must be bm25, hybrid"),
        ({"rows": [{"collection": "scifakt", "mode": "dense"}]}, "did you mean scifact"),
        ({"rows": [{"collection": "scifact", "mode": "dense", "published": 73}]}, "published=73 must be a number"),
        ({"rows": [{"collection": "beir-7", "mode": "dense"}]}, "the mean needs a row of trec-covid in mode dense"),
        ({"modle": "diffretriever"}, "did you mean model"),
        ({"model": None}, "give either model"),
        ({"config": {"k_passages": 4}, "model": None}, "did you mean k_passage"),
        ({"collections": {"mine": {"folders": "x"}}}, "collection mine: unknown setting 'folders'"),
        ({"description": None}, "description"),
    ],
)
def test_a_broken_file_is_an_error_with_its_name(tmp_path: Path, changes: dict, message: str) -> None:
    good = {"description": "x", "model": "diffretriever", "rows": [{"collection": "scifact", "mode": "dense"}]}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(good))
    assert read_experiment(str(path)).rows[0].mode == "dense"
    path.write_text(yaml.safe_dump({**good, **changes}))
    with pytest.raises(ConfigError, match=re.escape(message)) as error:
        read_experiment(str(path))
    assert str(path) in str(error.value)


def test_unknown_names() -> None:
    with pytest.raises(InputError, match="did you mean bm25"):
        read_experiment("bm26")
    with pytest.raises(InputError, match="no such file"):
        read_experiment("nowhere/mine.yaml")
    mini = read_experiment("diffretriever-mini")
    with pytest.raises(InputError, match="--collections scifact: .* has no such collection"):
        selected(mini, ["scifact"])
    with pytest.raises(InputError, match="--modes hybrid: .* no such row"):
        selected(mini, modes=["hybrid"])
    with pytest.raises(InputError, match="--folder scifact"):
        with_folders(mini, {"scifact": Path("x")})


def test_selecting_a_mean_selects_its_members() -> None:
    rows = selected(read_experiment("diffretriever-mini"), ["small-3"], [BM25])
    assert [row.collection for row in rows] == ["nfcorpus", "cranfield", "cacm", "small-3"]
