"""``diffretriever.json`` beside an index: which encoder made its vectors, so that another one is noticed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from diffretriever_pyserini.errors import InputError

FILE_NAME = "diffretriever.json"


@dataclass(frozen=True)
class Provenance:
    """The encoder of an index: its name, fingerprint and passage K, and the size [count, dimension] of the index."""

    encoder: str
    fingerprint: str
    k_passage: int
    dimension: int
    count: int

    def write(self, folder: str | Path) -> None:
        """Write ``diffretriever.json`` into ``folder``."""
        text = json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"
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
        return Provenance(**{field.name: values[field.name] for field in fields(Provenance)})
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged ({type(error).__name__}: {error}); build the index again.") from error
