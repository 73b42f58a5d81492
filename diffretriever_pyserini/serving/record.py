"""What a collection's metadata says: the encoder, the layout, and which upload is not finished."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from ..errors import DiffRetrieverError, InputError
from ..model.provenance import Provenance, read_provenance, require_same_encoder
from ..settings import Count, CountFrom0, record_from
from ..store.spec import StoreSpec
from ..store.store import Store
from .engine import DENSE, LEXICAL, MULTI, Engine
from .options import Datatype, ExportOptions, Quantization

FORMAT = 1
_MOST_COMPONENTS = 65_535  # of a vector in Qdrant
_MOST_NUMBERS = 1 << 20  # of all vectors of a point under one name
_AGAIN = "export the store again with --rebuild"


@dataclass(frozen=True)
class Layout:
    """The vectors of every point.

    Attributes
    ----------
    dimension : components of each vector.
    k : vectors for MaxSim, without the zero vector; 0 where the store has pooled vectors only.
    datatype, quantization : see ExportOptions.
    """

    dimension: Count
    k: CountFrom0
    datatype: Datatype = "float32"
    quantization: Quantization | None = None

    @classmethod
    def of(cls, spec: StoreSpec, options: ExportOptions) -> Layout:
        """The layout of a new collection for the store of ``spec``; InputError where Qdrant cannot hold it."""
        k = spec.stored_k if spec.vectors == "all" else 0
        numbers = (k + 1) * spec.dimension
        if spec.dimension > _MOST_COMPONENTS or numbers > _MOST_NUMBERS:
            raise InputError(
                f"Qdrant holds vectors of at most {_MOST_COMPONENTS:,} components, and {_MOST_NUMBERS:,} numbers per "
                f"passage: the store has {k} vectors of {spec.dimension:,}, and one of zeros is added."
            )
        return cls(spec.dimension, k, options.datatype or "float32", options.quantization)

    @property
    def signals(self) -> tuple[str, ...]:
        """The signals that can be searched."""
        return (DENSE, MULTI, LEXICAL) if self.k else (DENSE, LEXICAL)


@dataclass(frozen=True)
class Upload:
    """An upload that is not finished: the first ``done`` of the ``passages`` of ``store`` are in the collection.

    Attributes
    ----------
    digest : of the contents of the store.
    texts : whether the texts of the passages are uploaded, too.
    """

    store: str
    digest: str
    passages: CountFrom0
    done: CountFrom0 = 0
    texts: bool = False

    @classmethod
    def of(cls, store: Store, texts: bool) -> Upload:
        """The upload of ``store`` before it begins."""
        return cls(str(store.folder), store.digest, len(store), texts=texts)

    def __str__(self) -> str:
        return f"{self.done:,} of {self.passages:,} passages of {self.store} are uploaded"


@dataclass(frozen=True)
class CollectionRecord:
    """The record of a collection; ``complete`` once a first upload was finished, ``texts`` once one with texts was."""

    provenance: Provenance
    layout: Layout
    complete: bool = False
    upload: Upload | None = None
    texts: bool = False

    def write(self, engine: Engine) -> None:
        """Write it into the metadata of the collection."""
        engine.write_record(self.values())

    def values(self) -> dict[str, Any]:
        """All values for JSON."""
        return asdict(self) | {"format": FORMAT, "provenance": self.provenance.record()}

    def require(self, store: Store, options: ExportOptions, name: str) -> None:
        """Raise InputError unless ``store`` can be added to the collection ``name`` with these ``options``."""
        remedy = "add a store of the same encoder, or name another collection"
        require_same_encoder(self.provenance, store.spec.provenance, f"{name} holds passages", remedy)
        wanted = Layout.of(store.spec, options)
        if options.datatype is None:
            wanted = replace(wanted, datatype=self.layout.datatype)
        if options.quantization is None:
            wanted = replace(wanted, quantization=self.layout.quantization)
        if wanted != self.layout:
            old, new = asdict(self.layout), asdict(wanted)
            first = next(field for field in old if old[field] != new[field])
            raise InputError(
                f"{name} was created with {first} = {old[first]!r}, and this export has {new[first]!r}: leave the "
                "option out, name another collection, or create it again with --rebuild."
            )
        if self.upload is not None and self.upload.digest != store.digest:
            raise InputError(
                f"{name}: another upload is not finished ({self.upload}): finish it first with --store "
                f"{self.upload.store}, or begin again with --rebuild."
            )
        if self.upload is not None and self.upload.texts != bool(options.texts):
            begun, now = ("with", "without") if self.upload.texts else ("without", "with")
            raise InputError(
                f"{name}: this upload was begun {begun} --texts and cannot go on {now} it: continue as it was "
                "begun, or begin again with --rebuild."
            )
        if self.texts and not options.texts:
            raise InputError(
                f"{name} has the texts of its passages, and this export would remove those of the passages that it "
                "replaces: give --texts CORPUS, name another collection, or create it again with --rebuild."
            )

    def finished(self) -> CollectionRecord:
        """The record after :attr:`upload`."""
        texts = self.texts or (self.upload is not None and self.upload.texts)
        return replace(self, complete=True, upload=None, texts=texts)

    def require_complete(self, name: str) -> None:
        """Raise InputError where the first upload was interrupted."""
        if not self.complete:
            raise InputError(
                f"{name} is not complete ({self.upload}): run `diffretriever export qdrant` again, which continues it."
            )


def read_record(engine: Engine) -> CollectionRecord | None:
    """The record of a collection; None where there is no collection.

    Raises
    ------
    InputError
        For a collection that this package did not make, and a damaged record.
    """
    values = engine.read_record()
    if values is None:
        return None
    if values.get("format") != FORMAT:
        raise InputError(
            f"{engine.name}: format {values.get('format')!r}, but this version reads format {FORMAT}; {_AGAIN}."
        )
    provenance = read_provenance(values.get("provenance"), engine.name, _AGAIN)
    del values["format"]
    return record_from(CollectionRecord, values | {"provenance": provenance}, engine.name, _AGAIN)


def existing_record(engine: Engine) -> CollectionRecord:
    """As :func:`read_record`, but InputError where there is no collection."""
    record = read_record(engine)
    if record is None:
        names = engine.collections()
        there = f" (there are: {', '.join(names)})" if names else ""
        raise InputError(f"{engine.name} does not exist{there}; make it with `diffretriever export qdrant`.")
    return record


def no_record(name: str) -> DiffRetrieverError:
    """The error for a collection of another program."""
    return InputError(f"{name} was not made by `diffretriever export qdrant`; name another collection.")
