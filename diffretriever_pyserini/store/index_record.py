"""``diffretriever.json`` beside an index: which encoder made it, so that another one is noticed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..files.atomic import read_json, write_json
from ..model.provenance import Provenance, read_provenance

FILE_NAME = "diffretriever.json"
FORMAT = 2


@dataclass(frozen=True)
class IndexRecord:
    """The encoder of an index, and its size.

    Attributes
    ----------
    provenance : the encoder that made the vectors or term weights.
    dimension : width of the encoder's vectors.
    count : passages.
    documents : those of them that a Lucene index holds (passages without terms are not in it); None for vectors.
    """

    provenance: Provenance
    dimension: int
    count: int
    documents: int | None = None

    def write(self, folder: str | Path) -> None:
        """Write ``diffretriever.json`` into ``folder``."""
        values = {"format": FORMAT, "provenance": self.provenance.record(), "dimension": self.dimension}
        write_json(Path(folder, FILE_NAME), values | {"count": self.count, "documents": self.documents})


def read_index_record(folder: str | Path) -> IndexRecord | None:
    """The record in ``folder``, or None for an index that does not say who made it.

    Raises
    ------
    InputError
        When the file is damaged, or of another format.
    """
    path = Path(folder, FILE_NAME)
    if not path.is_file():
        return None
    values = read_json(path, "build the index again")
    if values.get("format") != FORMAT:
        raise InputError(f"{path}: format {values.get('format')!r} is not {FORMAT}; build the index again.")
    made = read_provenance(values.get("provenance"), path)
    try:
        documents = values["documents"]
        return IndexRecord(
            made, int(values["dimension"]), int(values["count"]), None if documents is None else int(documents)
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: damaged ({type(error).__name__}: {error}); build the index again.") from error
