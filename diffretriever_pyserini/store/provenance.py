"""``diffretriever.json`` beside an index: which encoder made its vectors, so that another one is noticed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from ..errors import InputError

FILE_NAME = "diffretriever.json"


@dataclass(frozen=True)
class Provenance:
    """The encoder of an index, and its size.

    Attributes
    ----------
    encoder, k_passage, dimension : name, passage K and width of the encoder.
    fingerprint : of passage vectors beside a FAISS index, the full one beside a Lucene index.
    count : passages.
    documents : those of them that a Lucene index holds (passages without terms are not in it); None for FAISS.
    """

    encoder: str
    fingerprint: str
    k_passage: int
    dimension: int
    count: int
    documents: int | None = None

    def write(self, folder: str | Path) -> None:
        """Write ``diffretriever.json`` into ``folder``."""
        values = {name: value for name, value in asdict(self).items() if value is not None}
        text = json.dumps(values, indent=2, sort_keys=True) + "\n"
        Path(folder, FILE_NAME).write_text(text, encoding="utf-8")


def read_provenance(folder: str | Path) -> Provenance | None:
    """The provenance in ``folder``, or None for an index that does not say who made it.

    Raises
    ------
    InputError
        When the file is damaged.
    """
    path = Path(folder, FILE_NAME)
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        wanted = {field.name: values[field.name] for field in fields(Provenance) if field.name != "documents"}
        return Provenance(**wanted, documents=values.get("documents"))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged ({type(error).__name__}: {error}); build the index again.") from error
