"""The picture of differences: the file type follows the name, for any number of queries and runs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from diffretriever_pyserini.errors import DiffRetrieverError
from diffretriever_pyserini.evaluation.comparison import Comparison
from diffretriever_pyserini.evaluation.plots import plot_deltas


def comparison(run: str, measure: str, deltas: list[float]) -> Comparison:
    return Comparison(run, measure, {f"q{i}": delta for i, delta in enumerate(deltas)}, None, 1.0)


def test_every_panel_is_labelled(tmp_path: Path) -> None:
    comparisons = [
        comparison(run, measure, [0.5, -0.25, 0.0, 0.125])
        for run in ("a/long/path/to/some/folder/run.hybrid.txt", "b.txt")
        for measure in ("nDCG@10", "R@100")
    ]
    plot_deltas(tmp_path / "deltas.svg", comparisons, "base.txt")
    svg = (tmp_path / "deltas.svg").read_text()
    for text in (
        "difference in nDCG@10",
        "difference in R@100",
        "queries, sorted (2 won, 1 tied, 1 lost)",
        "against the baseline base.txt",
        "b.txt",
        "mean +0.0938",
    ):
        assert f"<!-- {text} -->" in svg or f"<!-- per query, {text} -->" in svg, text
    assert svg.count("queries, sorted") == 4


def test_thousands_of_queries_are_a_png(tmp_path: Path) -> None:
    deltas = [((i * 7919) % 1000) / 500 - 1 for i in range(7000)]
    plot_deltas(tmp_path / "deltas.png", [comparison("x", "RR@10", deltas)], "base.txt")
    assert (tmp_path / "deltas.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none/deltas.png", "none/deltas.png: cannot be written"),
        ("deltas.xyz", "deltas.xyz: a plot cannot be written as 'xyz'; name a .png file"),
        ("deltas", "deltas: a plot cannot be written as 'a file without suffix'; name a .png file"),
    ],
)
def test_a_plot_that_cannot_be_written_is_named(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(DiffRetrieverError, match=message):
        plot_deltas(tmp_path / name, [comparison("x", "RR@10", [0.1])], "base.txt")


def test_without_matplotlib_the_package_to_install_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.figure", raising=False)
    with pytest.raises(DiffRetrieverError, match=r"deltas.png: a plot needs matplotlib; run `pip .*\[plots\]'`"):
        plot_deltas(tmp_path / "deltas.png", [comparison("x", "RR@10", [0.5])], "base.txt")
