"""Backbones that retrievers share: the same weights, precision and device are in memory once per process.

A backbone is freed with the last retriever that uses it. Training changes weights, so it does not use this cache.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import NamedTuple

from ..runtime.waiting import waiting_for
from .backbones.base import Backbone, weight_files
from .backbones.loading import load_backbone
from .config import RetrieverConfig
from .fingerprint import stamps
from .hub import local_folder
from .readouts import has_terms
from .weights import parameter_count


class Weights(NamedTuple):
    """Everything that decides what is loaded, except precision and device."""

    family: str
    files: tuple[tuple[str, tuple[int, ...]], ...]
    mask_position_ids: str
    mask_token_type: int
    head: bool

    @classmethod
    def of(cls, config: RetrieverConfig) -> Weights:
        """The weights of ``config`` as they are on disk now. Raises ModelNotFoundError."""
        head = has_terms(config.readout)
        return cls(config.family, stamps(config), config.mask_position_ids, config.mask_token_type, head)


Key = tuple[Weights, str, str]
"""Weights, dtype, device."""

_backbones: weakref.WeakValueDictionary[Key, Backbone] = weakref.WeakValueDictionary()
lock = threading.RLock()  # held while a model is looked up and loaded


def _new_lock() -> None:
    """Replace the lock in a forked child, where another thread of the parent may have held it."""
    global lock
    lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)


def shared_backbone(config: RetrieverConfig, dtype: str, device: str) -> Backbone:
    """The backbone of ``config``, loaded unless it is in memory; raises ConfigError, ModelNotFoundError."""
    import torch

    with lock:
        key = Weights.of(config), dtype, device
        backbone = _backbones.get(key)
        if backbone is None:
            backbone = _backbones[key] = load_backbone(config, getattr(torch, dtype), device)
        return backbone


def say_what_is_loaded(config: RetrieverConfig) -> Weights:
    """Say that the weights of ``config`` are about to be loaded, unless they are in memory; returns them.

    Call it before torch is imported, which takes longer than loading a small model. Raises ModelNotFoundError.
    """
    weights = Weights.of(config)
    if not loaded(weights):
        count = parameter_count(weight_files(local_folder(config.backbone)))
        size = f"{count / 1e9:.1f} B" if count >= 1e9 else f"{count // 10**6:,} M" if count >= 1e6 else f"{count:,}"
        waiting_for(f"loading {config.name}, {size} parameters")
    return weights


def loaded(weights: Weights) -> list[tuple[str, str]]:
    """(dtype, device) of every backbone with these weights that is in memory, in the order of loading."""
    return [key[1:] for key in list(_backbones) if key[0] == weights]
