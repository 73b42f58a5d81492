"""The model card of a checkpoint: its base, training data, recipe and development figures."""

from __future__ import annotations

from typing import Any

import yaml

from ..model.config import RetrieverConfig
from ..model.readouts import has_terms
from .release import Release
from .settings import TrainSettings

_RECIPE = (
    "learning_rate",
    "schedule",
    "warmup_ratio",
    "temperature",
    "lexical_weight",
    "lexical_temperature",
    "fused_weight",
    "prefix_budgets",
    "denoising_weight",
    "diversity_weight",
    "margin_mse_weight",
    "relational_kl_weight",
    "lexical_kl_weight",
    "fused_kl_weight",
    "embedding_weight",
    "embedding_kl_weight",
    "weight_decay",
    "dropout",
    "seed",
)


def model_card(settings: TrainSettings, config: RetrieverConfig, release: Release, figures: dict[str, Any]) -> str:
    """README.md of the checkpoint folder, with the hub's header."""
    base = {"base_model": release.base_name} if release.on_hub else {}  # the hub takes no path
    header = {"license": settings.license or "unknown", **base}
    header |= {"library_name": "diffretriever-pyserini", "pipeline_tag": "feature-extraction"}
    tags = ["retrieval", "diffretriever", *(["lora"] if release.lora else [])]
    adapter = "all weights trained"
    if release.lora:
        upper = f", upper {release.lora.layers} layers" if release.lora.layers else ""
        adapter = f"LoRA, r {release.lora.r}, alpha {release.lora.alpha}{upper}"
    recipe = "\n".join(f"| {name} | {getattr(settings, name)} |" for name in _RECIPE)
    return f"""---
{yaml.safe_dump({**header, "tags": tags}, sort_keys=False).strip()}
---

# {settings.output.rstrip("/").rpartition("/")[2]}

{_what(config, adapter)}

    python -m pyserini.encode ... encoder --encoder diffretriever:<this folder> ...
    DiffRetriever.from_pretrained("<this folder>")

## Data

Sources: {", ".join(f"`{source}`" for source in settings.data)}. {figures["training_rows"]} training rows, \
{figures["bad_rows"]} bad rows left out. Check their licences, and that of the base, before you publish this model.

## Recipe

{figures["steps"]} updates of {figures["queries_per_update"]} queries, {figures["passages_per_query"]} passages each.
Every setting is in `train.yaml`, every logged figure in `log.jsonl`, the curves in `training.png`.

| setting | value |
|---|---|
{recipe}

## Figures

{_figures(figures)}
"""


def _what(config: RetrieverConfig, adapter: str) -> str:
    if not has_terms(config.readout):
        kind = f"{config.family}, {adapter}, read-out {config.readout}"
        return f"A dense retriever ({kind}): one vector per text and\nno lexical weights."
    kind, vectors = ("DiffRetriever", "mask vectors") if config.readout == "mask" else ("PromptReps", "vectors")
    return (
        f"A {kind} checkpoint ({config.family}, {adapter}): {config.k_query} {vectors} per query, {config.k_passage} "
        f"per\npassage, and lexical weights ({config.lexical_terms} terms) from the same forward pass."
    )


def _figures(figures: dict[str, Any]) -> str:
    before, after = figures["development_before"], figures["development_after"]
    if not after:
        return "No development set was given."
    rows = "\n".join(
        f"| {name.removeprefix('eval_')} | {_formatted(before.get(name))} | {_formatted(value)} |"
        for name, value in after.items()
    )
    return f"nDCG@10 on the development rows, before and after:\n\n| mode | before | after |\n|---|---:|---:|\n{rows}"


def _formatted(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
