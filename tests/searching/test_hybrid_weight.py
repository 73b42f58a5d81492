"""A model may say how much its dense signal counts in a hybrid search; options override it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from diffretriever_pyserini import ConfigError, open_index, resolve_config
from diffretriever_pyserini.cli import main

from .conftest import TOPICS

pytestmark = pytest.mark.java


@pytest.fixture(scope="module")
def weighted(tmp_path_factory: pytest.TempPathFactory, tiny_dream: Path) -> str:
    """The encoder of the index with ``hybrid_weight`` 0.8."""
    path = tmp_path_factory.mktemp("weighted") / "model.yaml"
    path.write_text(f"backbone: {tiny_dream}\nhybrid_weight: 0.8\n")
    return str(path)


def test_search_uses_it_unless_it_gets_another(folder: Path, weighted: str) -> None:
    with open_index(folder) as plain, open_index(folder, weighted) as index:
        assert plain.encoder.provenance.fingerprint == index.encoder.provenance.fingerprint
        default = index.search(TOPICS, "hybrid")
        assert default == plain.search(TOPICS, "hybrid", alpha=0.2 / 0.8) != plain.search(TOPICS, "hybrid")
        assert index.search(TOPICS, "hybrid", alpha=1) == plain.search(TOPICS, "hybrid")
        assert index.search(TOPICS, "hybrid", weights={"lexical": 1}) == plain.search(TOPICS, "hybrid")
        for options in ({"mode": "dense"}, {"mode": "lexical"}, {"mode": "hybrid", "fusion": "rrf"}):
            assert index.search(TOPICS, **options) == plain.search(TOPICS, **options)  # type: ignore[arg-type]


def test_the_summary_says_the_weights(folder: Path, weighted: str, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "topics.tsv").write_text("q1\tfox and dog\n")
    command = ["search", "--index", str(folder), "--encoder", weighted, "--topics", str(tmp_path / "topics.tsv")]
    assert main([*command, "--output", str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["weights"] == pytest.approx({"dense": 1, "lexical": 0.25})
    assert main([*command, "--output", str(tmp_path / "run")]) == 0
    assert "weights dense 1, lexical 0.25" in capsys.readouterr().out


@pytest.mark.parametrize("value", [0, -0.5, 1.5])
def test_a_share_is_above_zero_and_at_most_one(tiny_dream: Path, value: float) -> None:
    with pytest.raises(ConfigError, match=r"hybrid_weight=.* must be a number above 0 and at most 1"):
        resolve_config(str(tiny_dream), hybrid_weight=value)
