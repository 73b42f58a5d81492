"""In a notebook progress is shown as a bar of the notebook, not as text for a terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import made_up_store

nbformat = pytest.importorskip("nbformat", reason="install the test extra to run notebooks")
nbclient = pytest.importorskip("nbclient", reason="install the test extra to run notebooks")

CELL = """\
from diffretriever_pyserini import IndexOptions, build_index
facts = build_index("S", "I", IndexOptions(lexical=False, threads=1))
facts["passages"]"""


def test_a_notebook_shows_its_own_bar(tmp_path: Path) -> None:
    made_up_store(tmp_path / "S", count=30)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3", resources=resources).execute()
    shown = [output["data"] for output in notebook.cells[0].outputs if "data" in output]
    assert shown[-1]["text/plain"] == "30"
    (bar,) = (data for data in shown if "application/vnd.jupyter.widget-view+json" in data)
    assert bar["text/plain"].startswith("Indexing: ")
    assert [output for output in notebook.cells[0].outputs if output.get("name") == "stderr"] == []
