"""The query encoder of an index: the one that made it, or an equal one that a person names."""

from __future__ import annotations

from typing import Any

from ..errors import InputError, ModelNotFoundError
from ..model.encoder_names import EncoderName, parse_encoder_name
from ..model.provenance import require_same_encoder
from ..pyserini_api.encoders import DiffRetrieverQueryEncoder
from ..store.index_record import read_index_record
from .folder import FILE_NAME, IndexFolder


class SearchEncoder(DiffRetrieverQueryEncoder):
    """A query encoder in any precision; None is the device's own.

    ``own_query_side`` is false where a query setting was overridden, so that the whole encoder is no longer the one
    that made the index, though what it makes of passages is the same.
    """

    def __init__(self, name: str, device: str | None = None, dtype: str | None = None, **options: Any):
        self.own_query_side = not {"k_query", "max_length"} & options.keys()
        super().__init__(name, device=device, **options)
        self._dtype = dtype


def _recorded(folder: IndexFolder) -> str | None:
    """The encoder that the record beside an index of Pyserini's own commands names."""
    records = (read_index_record(side) for side in (folder.dense, folder.lexical) if side is not None)
    return next((record.provenance.encoder for record in records if record is not None), None)


def encoder_of(
    folder: IndexFolder, name: str | None, device: str | None, dtype: str | None, **overrides: Any
) -> SearchEncoder:
    """The encoder ``name``, or the one that ``folder`` names, checked against the one that made the index.

    Raises
    ------
    InputError
        When nobody names an encoder, or the index was made by another one; the message says what differs.
    ModelNotFoundError
        When the encoder that the index names is not there any more.
    """
    made = folder.made
    asked = name or (made.encoder if made else _recorded(folder))
    if asked is None:
        raise InputError(f"{folder.name} does not say which encoder made it: name it with --encoder.")
    target = str(EncoderName(parse_encoder_name(asked).target))
    # An index may have been encoded with another number of masks than the model's own.
    given = {key: value for key, value in overrides.items() if value is not None}
    if made is not None:
        given["k_passage"] = made.k_passage
    try:
        encoder = SearchEncoder(target, device=device, dtype=dtype, **given)
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
