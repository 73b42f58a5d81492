"""The query encoder of an index: the one that made it, or an equal one that the caller names."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..errors import InputError, ModelNotFoundError
from ..model.encoder_names import EncoderName, parse_encoder_name
from ..model.provenance import Provenance, require_same_encoder
from ..model.resolve import resolve_config
from ..store.index_record import read_index_record
from .folder import IndexFolder

if TYPE_CHECKING:
    from ..model.retriever import DiffRetriever


@dataclass(frozen=True)
class EncoderIdentity:
    """What an index is compared with before it is searched: what decides the encoder's vectors, and their width.

    ``own_query_side`` is False where a query setting was overridden. The encoder as a whole is then another one than
    that of the index, though its passage representations are the same.
    """

    provenance: Provenance
    dimension: int
    own_query_side: bool = True


@dataclass(frozen=True)
class QueryEncoder:
    """A model that encodes queries.

    Attributes
    ----------
    name : the name that it was loaded by.
    model : shared with all other users of the same name and settings.
    own_query_side : False where a query setting was overridden, see :class:`EncoderIdentity`.
    """

    name: EncoderName
    model: DiffRetriever
    own_query_side: bool = True

    @cached_property
    def provenance(self) -> Provenance:
        """What decides this encoder's representations, under its name."""
        return replace(self.model.provenance, encoder=str(self.name))

    @property
    def identity(self) -> EncoderIdentity:
        """What an index is compared with."""
        return EncoderIdentity(self.provenance, self.model.dimension, self.own_query_side)


def open_encoder(folder: IndexFolder, name: str | None = None, **options: Any) -> QueryEncoder:
    """Load the encoder ``name``, or the one that ``folder`` names, and check it against the one that made the index.

    ``options`` are ``device``, ``dtype`` and fields of RetrieverConfig; ``max_length`` can only shorten.

    Raises
    ------
    InputError
        When neither names an encoder, or the index was made by another one; the message says what differs.
    ModelNotFoundError
        When the encoder that the index names no longer exists.
    """
    from ..model.retriever import load_shared

    recorded = folder.provenance
    encoder_name = name or (recorded.encoder if recorded else _recorded_name(folder))
    if encoder_name is None:
        raise InputError(f"{folder.name} does not say which encoder made it: name it with --encoder.")
    target = EncoderName(parse_encoder_name(encoder_name).target)
    overrides = {key: value for key, value in options.items() if value is not None}
    own_query_side = not {"k_query", "max_length"} & overrides.keys()
    if recorded is not None:  # the index may have another number of masks than the model's default
        overrides["k_passage"] = recorded.k_passage
    try:
        if "max_length" in overrides:
            overrides["max_length"] = min(overrides["max_length"], resolve_config(target.target).max_length)
        encoder = QueryEncoder(target, load_shared(target.target, **overrides), own_query_side)
    except ModelNotFoundError as error:
        if name is not None:
            raise
        raise ModelNotFoundError(
            f"{folder.record_name} names the encoder {encoder_name!r}, which was not found: "
            f"give its new path or name with --encoder. ({error})"
        ) from error
    if recorded is not None:
        require_same_encoder(recorded, encoder.provenance, f"{folder.name} holds passages", needed="vectors")
    return encoder


def _recorded_name(folder: IndexFolder) -> str | None:
    """The encoder that the record beside an index of Pyserini's own commands names."""
    records = (read_index_record(path) for signal in ("dense", "lexical") for path in folder.folders(signal))
    return next((record.provenance.encoder for record in records if record is not None), None)
