"""A program for torchrun: measure a tiny model in several processes and report which texts each one encoded."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch.distributed as dist

from diffretriever_pyserini.training.data.batches import Collator
from diffretriever_pyserini.training.data.examples import RowFiles
from diffretriever_pyserini.training.develop import development_set, measure
from diffretriever_pyserini.training.model import MaskReader
from diffretriever_pyserini.training.run import retriever_for
from diffretriever_pyserini.training.settings import TrainSettings, read_settings


def parts(settings: TrainSettings) -> tuple[MaskReader, Collator]:
    import torch

    from diffretriever_pyserini.model.backbones.loading import load_tokenizer
    from diffretriever_pyserini.model.layout import build_layout
    from diffretriever_pyserini.training.lora import LoraSettings, trainable_backbone

    config = retriever_for(settings)
    tokenizer = load_tokenizer(config)
    layouts = {side: build_layout(config, tokenizer, side) for side in ("query", "passage")}
    backbone = trainable_backbone(config, torch.float32, LoraSettings(4, 16, 0.0))
    return MaskReader(backbone, layouts), Collator(tokenizer, layouts, backbone.pad_left)


def run(settings: TrainSettings, report: Path, batch_size: int) -> dict[str, float]:
    """The figures; the file ``report`` also has the batches of texts that this process encoded."""
    rows = RowFiles([Path(settings.data[0])], False, "stop", None)
    sets = development_set([rows[i] for i in range(len(rows))])
    model, collator = parts(settings)
    calls: list[list[str]] = []
    side = collator.side

    def recorded(texts: list[str], name: str) -> object:
        calls.append(list(texts))
        return side(texts, name)

    collator.side = recorded  # type: ignore[method-assign,assignment]
    figures = measure(model, collator, sets, batch_size)
    sizes = [len(sets.queries), len(sets.passages)]
    report.write_text(json.dumps({"figures": figures, "calls": calls, "sizes": sizes}))
    return figures


if __name__ == "__main__":
    dist.init_process_group("gloo")
    out = Path(sys.argv[2])
    run(read_settings(Path(sys.argv[1])), out / f"{dist.get_rank()}.json", int(sys.argv[3]))
    dist.destroy_process_group()
