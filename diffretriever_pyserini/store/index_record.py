"""``diffretriever.json`` beside an index: which encoder made it, so that a search with another encoder is an error."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import BUILD_AGAIN, InputError
from ..files.atomic import read_json, write_json
from ..model.provenance import Provenance, read_provenance
from ..settings import Count, CountFrom0, record_from

FILE_NAME = "diffretriever.json"
FORMAT = 2


@dataclass(frozen=True)
class IndexRecord:
    """The encoder of an index, and its size.

    Attributes
    ----------
    provenance : the encoder that made the vectors or term weights.
    dimension : width of the encoder's vectors.
    count : number of passages.
    documents : how many of them a Lucene index holds (it lacks passages without terms); None for vectors.
    """

    provenance: Provenance
    dimension: Count
    count: CountFrom0
    documents: CountFrom0 | None = None

    def write(self, folder: str | Path) -> None:
        """Write ``diffretriever.json`` into ``folder``."""
        values = {"format": FORMAT, "provenance": self.provenance.record(), "dimension": self.dimension}
        write_json(Path(folder, FILE_NAME), values | {"count": self.count, "documents": self.documents})


def read_index_record(folder: str | Path) -> IndexRecord | None:
    """Return the record in ``folder``, or None for an index without one.

    Raises
    ------
    InputError
        If the file is damaged, or has another format.
    """
    path = Path(folder, FILE_NAME)
    if not path.is_file():
        return None
    values = read_json(path, BUILD_AGAIN)
    if values.get("format") != FORMAT:
        raise InputError(f"{path}: format {values.get('format')!r} is not {FORMAT}; {BUILD_AGAIN}.")
    provenance = read_provenance(values.get("provenance"), path)
    if "documents" not in values:  # null stands for an index that is not Lucene's
        raise InputError(f"{path}: damaged (documents is missing); {BUILD_AGAIN}.")
    del values["format"]
    return record_from(IndexRecord, values | {"provenance": provenance}, path, BUILD_AGAIN)
