"""The shipped example, cut to 12 of its 30 steps, runs on the CPU, and its model retrieves better than the base."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from diffretriever_pyserini import DiffRetriever
from diffretriever_pyserini.training.run import train
from diffretriever_pyserini.training.settings import read_settings

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "train" / "quick.yaml"


@pytest.mark.slow
def test_the_example_learns_to_retrieve(tmp_path: Path) -> None:
    settings = dataclasses.replace(read_settings(EXAMPLE), output=str(tmp_path / "out"), max_steps=12, eval_steps=12)
    figures = train(settings, say=print)
    before, after = figures["development_before"], figures["development_after"]
    assert after["eval_dense"] > before["eval_dense"] + 0.2
    assert after["eval_hybrid"] > before["eval_hybrid"]
    model = DiffRetriever.from_pretrained(str(tmp_path / "out"))
    assert (model.config.k_query, model.config.k_passage) == (settings.k_query, settings.k_passage)
    query = model.encode(["how rivers shape valleys"], "query").pooled
    passages = model.encode(["Water cuts into rock and makes valleys.", "A market sets the price of labour."]).pooled
    assert np.argmax(query @ passages.T) == 0
