"""StoreSpec: what every part of a store has in common, written once as ``store.json``."""

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
_REMEDY = "go on with the same encoder, or name another folder"
_AGAIN = "encode the corpus again into another folder"


@dataclass(frozen=True, slots=True)
class StoreSpec:
    """The encoder, the corpus and the form of a store.

    Attributes
    ----------
    provenance : the encoder.
    dimension, vocab_size : its sizes.
    max_length : tokens of prompt and text; a run may have shortened the encoder's own.
    precision : what the model computed in.
    vectors : ``all`` K vectors of a passage, or only the ``pooled`` one.
    dtype : of the stored vectors: float16, float32, or int8 with one scale a vector.
    rows_per_part : corpus rows that one part covers; skipped rows count.
    corpus, files : digest and names of what was read.
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
        """Name of the encoder."""
        return self.provenance.encoder

    @property
    def k_passage(self) -> int:
        """Vectors that the encoder makes of a passage."""
        return self.provenance.k_passage

    @property
    def impact_scale(self) -> int:
        """Factor of the encoder's term weights."""
        return int(self.provenance.readout["impact_scale"])

    @property
    def stored_k(self) -> int:
        """Vectors kept for a passage."""
        return self.k_passage if self.vectors == "all" else 1

    @property
    def digest(self) -> str:
        """Of the fields that decide what is in a part: 32 hexadecimal digits."""
        values = asdict(self) | {"provenance": self.provenance.fingerprint, "files": None}  # names decide nothing
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:32]

    def write(self, folder: Path) -> None:
        """Write ``store.json``, or check that the one there says the same.

        Raises
        ------
        DiffRetrieverError
            When ``folder`` holds something else; the message names the first difference.
        """
        check_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with only_writer(folder / LOCKS / "spec", str(folder), wait=True):  # shards may start at the same time
            if not (folder / SPEC).is_file():
                write_json(folder / SPEC, asdict(self) | {"provenance": self.provenance.record()})
        there = read_spec(folder)
        require_same_encoder(there.provenance, self.provenance, f"{folder} was begun with passages", _REMEDY)
        for field in fields(self):
            if field.name in ("provenance", "files"):
                continue
            old, new = getattr(there, field.name), getattr(self, field.name)
            if old != new:
                what = " (names or sizes of the files differ)" if field.name == "corpus" else ""
                raise DiffRetrieverError(
                    f"{folder} was begun with {field.name} = {_short(old)}, this run has {_short(new)}{what}: go on "
                    "with the same encoder, corpus and options, or name another folder."
                )


def check_folder(folder: Path) -> None:
    """Raise DiffRetrieverError where ``folder`` holds something else than a store."""
    if folder.exists() and not folder.is_dir():
        raise DiffRetrieverError(f"{folder} is no folder, and a store is one; name another.")
    if not (folder / SPEC).is_file() and folder.exists():
        strange = {path.name for path in folder.iterdir()} - {LOCKS, f"{SPEC}.partial"}
        if strange and not (folder / SPEC).is_file():  # another shard may have begun the store in this moment
            raise DiffRetrieverError(f"{folder} holds {min(strange)} and is no store; name another folder.")


def read_spec(folder: Path) -> StoreSpec:
    """The spec of the store in ``folder``; InputError where there is none, or one of another format."""
    if not (folder / SPEC).is_file():
        raise InputError(f"{folder}: no store here ({SPEC} is missing); make one with `diffretriever encode`.")
    values = read_json(folder / SPEC, _AGAIN)
    if values.get("format") != FORMAT:
        raise InputError(
            f"{folder / SPEC}: a store of format {values.get('format')!r}, and this version reads format {FORMAT}: "
            f"{_AGAIN}."
        )
    made = read_provenance(values.get("provenance"), folder / SPEC, _AGAIN)
    return record_from(StoreSpec, values | {"provenance": made}, folder / SPEC, _AGAIN)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
