"""A digest of everything that decides a representation, so that an index can tell which encoder made it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
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
# What decides a passage's vectors but for max_length, which a host may shorten for one side.
_VECTORS = ("family", "denoising_steps", "denoising_schedule", "cut_at_stop", "mask_position_ids", "mask_token_type")
_PASSAGE_LAYOUT = ("prefix", "suffix", "tail", "k", "mask_id")


def fingerprint(config: RetrieverConfig, layouts: Mapping[str, Layout]) -> str:
    """16 hex digits over the weight files, both token layouts (prompts, K, max_length) and the read-out settings."""
    sides = {side: asdict(layout) for side, layout in sorted(layouts.items())}
    return _digest(config, [VERSION, {key: getattr(config, key) for key in _READOUT}, sides])


def passage_fingerprint(config: RetrieverConfig, layouts: Mapping[str, Layout]) -> str:
    """As :func:`fingerprint`, over what decides passage vectors: a query encoder that shares it may search them.

    Query-side settings, lexical settings and ``max_length`` (a host may shorten queries) are left out.
    """
    layout = {key: getattr(layouts["passage"], key) for key in _PASSAGE_LAYOUT}
    return _digest(config, [VERSION, {key: getattr(config, key) for key in _VECTORS}, layout])


def _digest(config: RetrieverConfig, settings: list[object]) -> str:
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for source in (config.backbone, config.adapter):
        for path in sorted(local_folder(source).glob("*.safetensors")) if source else ():
            stat = path.stat()
            digest.update(path.name.encode() + _known_digest(path, stat.st_size, stat.st_mtime_ns))
    return digest.hexdigest()[:16]


@cache
def _known_digest(path: Path, size: int, changed: int) -> bytes:
    """:func:`file_digest`, once for a file of this size and time in a process."""
    return file_digest(path)


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
