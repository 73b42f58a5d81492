"""Small data and fast settings for runs of the whole trainer."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from diffretriever_pyserini.training.settings import TrainSettings

# Tiny models are fastest on one thread, and runs are compared bit by bit with others in subprocesses.
os.environ["OMP_NUM_THREADS"] = "1"

SUBJECTS = ("plants", "rivers", "towers", "engines", "planets", "birds", "metals", "poems")
FACTS = ("grow in spring", "need clean water", "are very tall", "make loud noise", "move slowly", "shine at night")


def training_rows(negatives: int = 2) -> list[dict[str, object]]:
    """48 rows: the positive has the subject and the fact of the query, the negatives only its subject."""
    rows = []
    for i, subject in enumerate(SUBJECTS):
        for j, fact in enumerate(FACTS):
            wrong = [f"{subject} {FACTS[(j + k) % len(FACTS)]}" for k in range(1, negatives + 1)]
            rows.append(
                {
                    "query_id": f"{i}.{j}",
                    "query": f"which {subject} {fact}",
                    "positive_passages": [{"docid": f"{i}.{j}", "title": subject, "text": f"The {subject} {fact}."}],
                    "negative_passages": [{"docid": text, "title": "", "text": text} for text in wrong],
                }
            )
    return rows


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """As OMP_NUM_THREADS says for subprocesses."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def rows_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "train.jsonl"
    path.write_text("\n".join(map(json.dumps, training_rows())) + "\n")
    return path


@pytest.fixture
def tiny_settings(conformance_dir: Path, rows_file: Path, tmp_path: Path) -> Callable[..., TrainSettings]:
    """Settings of a run of a few steps on a tiny base; keyword arguments change them."""

    def settings(name: str = "tiny-dream", **changes: object) -> TrainSettings:
        values: dict[str, object] = {
            "model": str(conformance_dir / "checkpoints" / name),
            "data": (str(rows_file),),
            "output": str(tmp_path / "out"),
            "k_query": 2,
            "k_passage": 3,
            "max_length": 128,
            "lora_r": 4,
            "lora_alpha": 16,
            "batch_size": 4,
            "negatives": 2,
            "max_steps": 3,
            "learning_rate": 3e-3,
            "warmup_ratio": 0.0,
            "device": "cpu",
            "log_steps": 1,
        }
        return TrainSettings(**(values | changes))  # type: ignore[arg-type]

    return settings
