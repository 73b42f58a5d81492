"""Parsing of names after ``--encoder``: which model, and which of its two representations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError
from .prebuilt import DEFAULT_NAME

WORD = "diffretriever"
LEXICAL_SUFFIX = "-lexical"
_MODEL_FILES = ("retriever_config.json", "adapter_config.json", "config.json")


@dataclass(frozen=True)
class EncoderName:
    """``target`` is a name for ``resolve_config``; ``lexical`` selects the term weights."""

    target: str
    lexical: bool = False

    def __str__(self) -> str:
        """The name of this encoder for Pyserini's ``--encoder``."""
        suffix = LEXICAL_SUFFIX if self.lexical else ""
        if WORD in self.target.lower():
            return self.target + suffix
        return f"{WORD}{suffix}:{self.target}"


def is_ours(name: str) -> bool:
    """Whether Pyserini, which looks for a word inside the lower-cased name, uses our encoder for this name."""
    return WORD in name.lower()


def is_model_path(name: str) -> bool:
    """Whether ``name`` is a YAML file or a checkpoint folder on disk (an output folder of that name is neither)."""
    path = Path(name).expanduser()
    if path.is_file():
        return path.suffix in (".yaml", ".yml")
    return any((path / file).is_file() for file in _MODEL_FILES)


def parse_encoder_name(name: str, is_model: Callable[[str], bool] = is_model_path) -> EncoderName:
    """Split an encoder name into model and representation.

    ``NAME`` is a prebuilt name, a hub id, a checkpoint folder or a YAML file; ``diffretriever:NAME`` is the same for a
    name without the word ``diffretriever``. ``NAME-lexical`` and ``diffretriever-lexical:NAME`` select the lexical
    representation, unless all of ``NAME-lexical`` is a model on disk. Plain ``diffretriever`` is the default model.

    Parameters
    ----------
    is_model : whether a name is a model on disk.

    Raises
    ------
    ConfigError
        When the name contains no model.
    """
    target, lexical = name.strip(), False
    head, colon, rest = target.partition(":")
    if colon and head.lower() in (WORD, WORD + LEXICAL_SUFFIX):
        target, lexical = rest.strip(), head.lower() != WORD
    if not lexical and target.lower().endswith(LEXICAL_SUFFIX) and not is_model(target):
        target, lexical = target[: -len(LEXICAL_SUFFIX)], True
    if not target or (colon and not rest.strip()):
        raise ConfigError(f"encoder {name!r} names no model: write diffretriever or diffretriever:<folder or hub id>.")
    if target.lower() == WORD:
        target = DEFAULT_NAME
    return EncoderName(target, lexical)
