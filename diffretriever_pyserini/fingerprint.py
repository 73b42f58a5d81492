"""A digest of everything that decides a representation, so that an index can tell which encoder made it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from .config import RetrieverConfig
from .hub import local_folder
from .prompts import Layout

VERSION = 1  # raised whenever the same weights and settings would give other numbers
_WHOLE = 64 << 20
_SAMPLES = 64
_SAMPLE_BYTES = 64 << 10
# fmt: off
_READOUT = (
    "family", "denoising_steps", "denoising_schedule", "cut_at_stop", "impact_rounding", "lexical_terms",
    "top_terms", "impact_scale", "max_lexical_chars", "mask_position_ids", "mask_token_type",
)
# fmt: on


def fingerprint(config: RetrieverConfig, layouts: Mapping[str, Layout]) -> str:
    """16 hex digits over the weight files, both token layouts (prompts, K, max_length) and the read-out settings."""
    digest = hashlib.sha256()
    settings = {key: getattr(config, key) for key in _READOUT}
    sides = {side: asdict(layout) for side, layout in sorted(layouts.items())}
    digest.update(json.dumps([VERSION, settings, sides], sort_keys=True).encode())
    for source in (config.backbone, config.adapter):
        for path in sorted(local_folder(source).glob("*.safetensors")) if source else ():
            digest.update(path.name.encode() + file_digest(path))
    return digest.hexdigest()[:16]


def file_digest(path: Path) -> bytes:
    """SHA-256 of a file; over 64 MiB of its size and 64 evenly spread blocks (reading 15 GB takes a minute)."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        if size <= _WHOLE:
            digest.update(file.read())
        else:
            for i in range(_SAMPLES):
                file.seek((size - _SAMPLE_BYTES) * i // (_SAMPLES - 1))
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.digest()
