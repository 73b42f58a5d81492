"""StoreSpec: what all parts of a store have in common, written once as ``store.json``."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from ..errors import DiffRetrieverError, InputError
from ..files.atomic import only_writer, read_json, write_json
from ..model.provenance import Provenance, read_provenance, require_same_encoder
from ..settings import Count, record_from

FORMAT = 3
SPEC = "store.json"
LOCKS = "locks"
FINISH_LOCK = "finish"
DTYPES = ("float16", "float32", "int8")
VECTORS = ("all", "pooled")
_REMEDY = "continue with the same encoder, or name another folder"
_AGAIN = "encode the corpus again into another folder"


@dataclass(frozen=True, slots=True)
class StoreSpec:
    """The encoder, the corpus and the format of a store.

    Attributes
    ----------
    provenance : the encoder.
    dimension, vocab_size : the encoder's sizes.
    max_length : tokens of prompt and text; an option may have shortened the encoder's value.
    precision : the type in which the model computed.
    vectors : ``all`` K vectors per passage, or only the ``pooled`` one.
    dtype : of the stored vectors: float16, float32, or int8 with one scale per vector.
    rows_per_part : corpus rows per part, skipped rows included.
    corpus, files : digest of the names and sizes of the corpus files, and where they are.
    """

    provenance: Provenance
    dimension: Count
    vocab_size: Count
    max_length: Count
    precision: str
    vectors: str
    dtype: str
    rows_per_part: Count
    corpus: str
    files: tuple[str, ...]
    format: int = FORMAT

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES or self.vectors not in VECTORS:
            raise InputError(
                f"vectors={self.vectors!r} in {self.dtype!r}: known are {', '.join(VECTORS)} in {', '.join(DTYPES)}."
            )

    @property
    def encoder(self) -> str:
        """The name of the encoder."""
        return self.provenance.encoder

    @property
    def k_passage(self) -> int:
        """The number of vectors that the encoder makes per passage."""
        return self.provenance.k_passage

    @property
    def impact_scale(self) -> int:
        """The factor of the encoder's term weights."""
        return int(self.provenance.readout["impact_scale"])

    @property
    def stored_k(self) -> int:
        """The number of vectors stored per passage."""
        return self.k_passage if self.vectors == "all" else 1

    @property
    def digest(self) -> str:
        """Digest of the fields that determine the contents of a part: 32 hexadecimal digits."""
        values = asdict(self) | {"provenance": self.provenance.fingerprint, "files": None}  # file names do not matter
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:32]

    def write(self, folder: Path) -> None:
        """Write ``store.json``, or check that an existing one is equal.

        Raises
        ------
        DiffRetrieverError
            If ``folder`` holds another store or other files; the message names the first difference.
        """
        check_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with only_writer(folder / LOCKS / "spec", str(folder), wait=True):  # shards may start at the same time
            if not (folder / SPEC).is_file():
                write_json(folder / SPEC, asdict(self) | {"provenance": self.provenance.record()})
        existing = read_spec(folder)
        require_same_encoder(existing.provenance, self.provenance, f"{folder} was begun with passages", _REMEDY)
        for field in fields(self):
            if field.name in ("provenance", "files"):
                continue
            old, new = getattr(existing, field.name), getattr(self, field.name)
            if old != new:
                hint = " (names or sizes of the files differ)" if field.name == "corpus" else ""
                raise DiffRetrieverError(
                    f"{folder} was begun with {field.name} = {_short(old)}, this run has {_short(new)}{hint}: continue "
                    "with the same encoder, corpus and options, or name another folder."
                )


def check_folder(folder: Path) -> None:
    """Raise DiffRetrieverError if ``folder`` holds anything other than a store."""
    if folder.exists() and not folder.is_dir():
        raise DiffRetrieverError(f"{folder} is no folder, but a store must be one; give another path.")
    if not (folder / SPEC).is_file() and folder.exists():
        others = {path.name for path in folder.iterdir()} - {LOCKS, f"{SPEC}.partial"}
        if others and not (folder / SPEC).is_file():  # another shard may have begun the store at this moment
            raise DiffRetrieverError(f"{folder} holds {min(others)} and is no store; name another folder.")


def read_spec(folder: Path) -> StoreSpec:
    """Return the spec of the store in ``folder``; InputError if there is none, or it has another format."""
    if not (folder / SPEC).is_file():
        raise InputError(f"{folder}: no store here ({SPEC} is missing); make one with `diffretriever encode`.")
    values = read_json(folder / SPEC, _AGAIN)
    if values.get("format") != FORMAT:
        raise InputError(
            f"{folder / SPEC}: a store of format {values.get('format')!r}, but this version reads format {FORMAT}; "
            f"{_AGAIN}."
        )
    provenance = read_provenance(values.get("provenance"), folder / SPEC, _AGAIN)
    return record_from(StoreSpec, values | {"provenance": provenance}, folder / SPEC, _AGAIN)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
