"""The query encoder of an index: the one that made it, or an equal one that a person names."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..errors import InputError, ModelNotFoundError
from ..model.config import resolve_config
from ..model.encoder_names import EncoderName, parse_encoder_name
from ..model.provenance import Provenance, require_same_encoder
from ..store.index_record import read_index_record
from .folder import FILE_NAME, IndexFolder

if TYPE_CHECKING:
    from ..model.retriever import DiffRetriever


@dataclass(frozen=True)
class QueryEncoder:
    """A model that encodes queries.

    Attributes
    ----------
    name : what it was asked for by.
    model : shared with whoever else asks for it.
    own_query_side : false where a query setting was overridden, so that the whole encoder is no longer the one that
        made the index, though what it makes of passages is the same.
    """

    name: EncoderName
    model: DiffRetriever
    own_query_side: bool = True

    @cached_property
    def provenance(self) -> Provenance:
        """What decides this encoder's representations, under its name."""
        return replace(self.model.provenance, encoder=str(self.name))


def open_encoder(folder: IndexFolder, name: str | None = None, **options: Any) -> QueryEncoder:
    """The encoder ``name``, or the one that ``folder`` names, checked against the one that made the index.

    ``options`` are ``device``, ``dtype`` and fields of RetrieverConfig; ``max_length`` can only shorten.

    Raises
    ------
    InputError
        When nobody names an encoder, or the index was made by another one; the message says what differs.
    ModelNotFoundError
        When the encoder that the index names is not there any more.
    """
    from ..model.retriever import load_shared

    made = folder.made
    asked = name or (made.encoder if made else _recorded(folder))
    if asked is None:
        raise InputError(f"{folder.name} does not say which encoder made it: name it with --encoder.")
    target = EncoderName(parse_encoder_name(asked).target)
    given = {key: value for key, value in options.items() if value is not None}
    own_query_side = not {"k_query", "max_length"} & given.keys()
    if made is not None:  # it may have been encoded with another number of masks than the model's own
        given["k_passage"] = made.k_passage
    try:
        if "max_length" in given:
            given["max_length"] = min(given["max_length"], resolve_config(target.target).max_length)
        encoder = QueryEncoder(target, load_shared(target.target, **given), own_query_side)
    except ModelNotFoundError as error:
        if name is not None:
            raise
        raise ModelNotFoundError(
            f"{folder.name}/{FILE_NAME} names the encoder {asked!r}, which is not found from here: "
            f"say where it lies now with --encoder. ({error})"
        ) from error
    if made is not None:
        require_same_encoder(made, encoder.provenance, f"{folder.name} holds passages", needed="vectors")
    return encoder


def _recorded(folder: IndexFolder) -> str | None:
    """The encoder that the record beside an index of Pyserini's own commands names."""
    records = (read_index_record(one) for one in (folder.dense, folder.lexical) if one is not None)
    return next((record.provenance.encoder for record in records if record is not None), None)
