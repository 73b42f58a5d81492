"""Hours and bytes of an experiment in advance, by the arithmetic of docs/encoding.md."""

from __future__ import annotations

from dataclasses import dataclass

from ..encoding.progress import PEAK_FLOPS
from ..model.config import RetrieverConfig
from ..model.prebuilt import written_values
from .plan import Plan
from .records import Collection

DEVICE, SHARE = "H100", 0.55  # of its peak
_LEXICAL_BYTES = 300  # per passage, in a store
_TAIL = 3  # tokens after the masks
_DENSE_BYTES = {"flat": 4.0, "hnsw": 4.0, "sq8": 1.0, "pq": 0.125, "ivfpq": 0.125}  # per component


@dataclass(frozen=True)
class Cost:
    """What encoding and indexing one corpus takes: ``hours`` on one H100, bytes of the store and of the indexes."""

    corpus: str
    passages: int
    tokens: float
    hours: float
    store: float
    indexes: float


def costs(plan: Plan) -> list[Cost]:
    """The cost of each corpus that is encoded; nothing for one whose numbers are not known.

    A word counts as one token, so the hours are a lower estimate.
    """
    return [
        one
        for step in plan.steps
        if step.kind == "encode" and (one := _cost(plan, step.corpus, plan.collection(step.collection))) is not None
    ]


def _cost(plan: Plan, corpus: str, collection: Collection) -> Cost | None:
    size = plan.experiment.size
    if size is None or collection.passages is None or collection.words is None:
        return None
    k = _masks(plan)
    text = min(collection.words, size.max_length - size.prompt)
    tokens = text + size.prompt + k + _TAIL
    flops = 2 * size.parameters * tokens * collection.passages
    stored = k if plan.vectors == "all" else 1
    signals = plan.indexed_signals(corpus)
    per_passage = {
        "dense": size.dimension * _DENSE_BYTES[plan.options.dense],
        "lexical": _LEXICAL_BYTES,
        "multi": k * (size.dimension // 8),
    }
    return Cost(
        corpus,
        collection.passages,
        tokens,
        flops / (SHARE * PEAK_FLOPS[DEVICE]) / 3600,
        collection.passages * (stored * size.dimension * 2 + _LEXICAL_BYTES),
        collection.passages * sum(per_passage[signal] for signal in signals),
    )


def _masks(plan: Plan) -> int:
    """K of a passage, from the settings as they are written: nothing is loaded or downloaded."""
    values = (written_values(plan.encoder) if plan.config is None else plan.config) or {}
    default = RetrieverConfig.__dataclass_fields__["k_passage"].default
    return int(values.get("k_passage", default))
