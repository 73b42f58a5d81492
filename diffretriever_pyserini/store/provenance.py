"""``diffretriever.json`` beside an index: which encoder made its vectors, so that another one is noticed and named."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import NamedTuple

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


class Maker(NamedTuple):
    """What a message says of an encoder; None where it is not known. ``fingerprint``: of passages, or the full one."""

    encoder: str | None
    fingerprint: str | None
    k_passage: int | None
    dimension: int | None = None


def refusal(what: str, made: Maker, asked: Maker, remedy: str) -> str:
    """Why ``what`` ("INDEX was made"), which ``made`` has made, is not for the query encoder ``asked``.

    The settings that differ come first, or the names where no known setting does; both fingerprints end it.
    """
    both = ((name, getattr(made, name), getattr(asked, name)) for name in ("k_passage", "dimension"))
    differing = [(name, *values) for name, *values in both if None not in values and values[0] != values[1]]
    if differing:
        theirs, ours = (" and ".join(f"{one[0]}={one[side]}" for one in differing) for side in (1, 2))
        why = f"with {theirs}, but the query encoder has {ours}"
    elif made.encoder != asked.encoder:
        why = f"by {made.encoder!r}, but the query encoder is {asked.encoder!r}"
    else:
        why = f"by another version of {made.encoder!r}, or with other settings"
    maker = "another model" if made.encoder is None else f"{made.encoder!r}, fingerprint {made.fingerprint}"
    return (
        f"{what} {why}: {remedy} (It was made by {maker}; the query encoder is {asked.encoder!r}, "
        f"fingerprint {asked.fingerprint}.)"
    )
