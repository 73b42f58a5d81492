"""Whole runs whose rows come through loader processes, or from a BEIR collection with a development split."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from diffretriever_pyserini import DiffRetriever
from diffretriever_pyserini.cli import main
from diffretriever_pyserini.training.log import read_log
from diffretriever_pyserini.training.run import train
from diffretriever_pyserini.training.settings import TrainSettings
from diffretriever_pyserini.training.trainer import RetrieverTrainer, arguments

from ..conftest import FACTS, SUBJECTS

Settings = Callable[..., TrainSettings]


def test_loader_processes_change_nothing(
    tiny_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same rows, order and weights, also in a second epoch, where negatives are drawn anew."""
    seen: dict[str, list[Any]] = {}
    compute_loss = RetrieverTrainer.compute_loss

    def recorded(self: RetrieverTrainer, model: Any, inputs: dict[str, Any], *more: Any, **named: Any) -> Any:
        texts = [inputs[side]["input_ids"].tolist() for side in ("query", "passage")]
        seen.setdefault(str(self.args.output_dir), []).append(texts)
        return compute_loss(self, model, inputs, *more, **named)

    monkeypatch.setattr(RetrieverTrainer, "compute_loss", recorded)
    for workers in (0, 2):
        output = str(tmp_path / str(workers))
        train(
            tiny_settings(output=output, workers=workers, batch_size=12, negatives=1, max_steps=6),
            say=lambda _: None,
        )
    plain, loaded = seen.values()
    assert len(plain) == 6, "four batches per epoch"
    assert loaded == plain
    one, two = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("0", "2"))
    assert all(torch.equal(tensor, two[key]) for key, tensor in one.items())
    first, again = ({str(text) for batch in part for text in batch[1]} for part in (plain[:4], plain[4:]))
    assert again - first, "the second epoch draws other negatives than the first"


@pytest.mark.parametrize(("workers", "context"), [(0, None), (2, "fork")])
def test_loader_processes_never_import_the_users_script(
    tiny_settings: Settings, workers: int, context: str | None
) -> None:
    """They would where Python's default start method is ``spawn`` or ``forkserver``."""
    args = arguments(tiny_settings(workers=workers))
    assert (args.dataloader_num_workers, args.dataloader_multiprocessing_context) == (workers, context)


def beir(folder: Path) -> Path:
    """48 passages; 40 queries judged in qrels/train.tsv and 8 in qrels/dev.tsv, one of them with two positives."""
    (folder / "qrels").mkdir(parents=True)
    names = [(subject, fact) for subject in SUBJECTS for fact in FACTS]
    with (folder / "corpus.jsonl").open("w") as corpus, (folder / "queries.jsonl").open("w") as queries:
        for i, (subject, fact) in enumerate(names):
            corpus.write(json.dumps({"_id": f"d{i}", "title": subject, "text": f"The {subject} {fact}."}) + "\n")
            queries.write(json.dumps({"_id": f"q{i}", "text": f"which {subject} {fact}"}) + "\n")
    for split, numbers in (("train", range(40)), ("dev", range(40, 48))):
        lines = [f"q{i}\td{i}\t1" for i in numbers]
        lines.append(f"q{numbers[0]}\td{numbers[1]}\t2")
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *lines]) + "\n")
    return folder


def test_a_run_on_a_beir_collection(conformance_dir: Path, tmp_path: Path) -> None:
    """`diffretriever train` on its train split, measured on its dev split; the folder it writes encodes."""
    collection, output = beir(tmp_path / "collection"), tmp_path / "out"
    flags = {
        "model": conformance_dir / "checkpoints" / "tiny-dream",
        "data": collection,
        "dev": collection,
        "output": output,
        "device": "cpu",
        "negatives": 0,
        "batch-size": 8,
        "max-steps": 3,
        "eval-steps": 3,
        "max-length": 128,
        "k-query": 2,
        "k-passage": 3,
        "learning-rate": "3e-3",
        "log-steps": 1,
    }
    assert main(["train", *(str(word) for name, value in flags.items() for word in (f"--{name}", value))]) == 0
    figures = json.loads((output / "figures.json").read_text())
    assert (figures["training_rows"], figures["bad_rows"], figures["steps"]) == (40, 0, 3)
    assert all(0 < figures["development_after"][f"eval_{mode}"] <= 1 for mode in ("dense", "multi", "lexical"))
    assert len([record for record in read_log(output / "log.jsonl") if "eval_dense" in record]) == 2
    rows = [json.loads(line) for line in next((output / "data").glob("collection-train-*.jsonl")).open()]
    assert [row["query_id"] for row in rows] == [f"q{i}" for i in range(40)]
    assert [one["docid"] for one in rows[0]["positive_passages"]] == ["d0", "d1"]
    assert [one["docid"] for one in rows[1]["positive_passages"]] == ["d1"]

    model = DiffRetriever.from_pretrained(str(output))
    base = DiffRetriever.from_pretrained(str(conformance_dir / "checkpoints" / "tiny-dream"), k_query=2, k_passage=3)
    reps = model.encode(["plants grow in spring", "rivers need clean water"])
    assert reps.vectors.shape == (2, 3, model.dimension) and np.isfinite(reps.vectors).all()
    assert all(reps.impacts)
    assert np.abs(reps.vectors - base.encode(["plants grow in spring", "rivers need clean water"]).vectors).max() > 1e-3
