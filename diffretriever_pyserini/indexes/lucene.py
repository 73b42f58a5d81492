"""Writes the Lucene impact index directly: each term of a passage once, with its impact as the term frequency.

The fields are those of Anserini's own impact index: ``id`` (a stored string, and doc values for breaking ties) and
``contents`` (documents and frequencies, norms of Anserini's ImpactSimilarity).
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from ..errors import InputError, ModelNotFoundError
from ..model.lexical import TermNames
from ..model.provenance import require_same_encoder
from ..runtime import java
from ..store.index_record import IndexRecord
from ..store.part import Part
from ..store.spec import StoreSpec

# Between a term and its impact: names of terms have no control characters, and Java does not split at this one.
DELIMITER = "\x01"
HEAP_MEGABYTES = 192  # of a JVM that writes an index of any size, and searches none
_BUFFER_MEGABYTES = 16.0
_LONGEST = 300  # of a term (255), delimiter and impact
_TOKEN_FIELD = (
    "(Ljava/lang/String;Lorg/apache/lucene/analysis/TokenStream;Lorg/apache/lucene/index/IndexableFieldType;)V"
)


def encoder_terms(spec: StoreSpec, encoder: str | None = None) -> TermNames:
    """Return Lucene's names of the store's terms, from the encoder's tokenizer, without loading its weights.

    Parameters
    ----------
    encoder : name or folder of the encoder, if it is no longer available under the name in the store.

    Raises
    ------
    InputError
        When that encoder is not the one that made the store; the message says what differs.
    ModelNotFoundError
        When there is no such encoder.
    """
    from ..model.fingerprint import provenance_of
    from ..model.resolve import resolve_config
    from ..model.tokenization import Preparer

    try:
        config = resolve_config(encoder or spec.encoder, k_passage=spec.k_passage)
        prepare = Preparer(config)
    except ModelNotFoundError as error:
        raise ModelNotFoundError(
            f"the terms of the store cannot be named without the tokenizer of its encoder {spec.encoder!r}, and there "
            f"is none at {encoder or spec.encoder!r}: name its location with --encoder. ({error})"
        ) from error
    remedy = "name the one that made them with --encoder, or encode again"
    require_same_encoder(spec.provenance, provenance_of(config, prepare), "the store holds passages", remedy)
    return TermNames(prepare.tokenizer, spec.vocab_size)


class LuceneWriter:
    """Writes a Lucene index into ``folder``, without the passages that have no terms, as Anserini does."""

    def __init__(self, folder: Path, spec: StoreSpec, names: TermNames):
        java.check_process()
        java.prepare()
        from pyserini.pyclass import autoclass

        def lucene(name: str) -> Any:
            return autoclass(f"org.apache.lucene.{name}")

        with java.calls:
            self._folder, self._spec = folder, spec
            self._prefixes = [names.name(row) + DELIMITER for row in range(spec.vocab_size)]
            self._count = self._documents = 0
            folder.mkdir(parents=True)
            config = lucene("index.IndexWriterConfig")()
            config.setSimilarity(autoclass("io.anserini.search.similarity.ImpactSimilarity")())
            config.setRAMBufferSizeMB(_BUFFER_MEGABYTES)
            config.setUseCompoundFile(False)
            config.setMergeScheduler(lucene("index.SerialMergeScheduler")())  # the same segments in every run
            # Not memory-mapped: pages that merging reads would count as memory of this process.
            directory = lucene("store.NIOFSDirectory")(autoclass("java.nio.file.Paths").get(str(folder)))
            self._writer = lucene("index.IndexWriter")(directory, config)
            self._tokenizer = lucene("analysis.core.WhitespaceTokenizer")(_LONGEST)
            frequencies = lucene("analysis.miscellaneous.DelimitedTermFrequencyTokenFilter")(self._tokenizer, DELIMITER)
            field_type = lucene("document.FieldType")()
            field_type.setIndexOptions(lucene("index.IndexOptions").DOCS_AND_FREQS)
            self._reader = autoclass("java.io.StringReader")
            self._id = lucene("document.StringField")("id", "", lucene("document.Field$Store").YES)
            self._tie = lucene("document.BinaryDocValuesField")("id", lucene("util.BytesRef")(b""))
            self._document = lucene("document.Document")()  # one for all passages, with new values each time
            for field in (
                self._id,
                self._tie,
                lucene("document.Field")("contents", frequencies, field_type, signature=_TOKEN_FIELD),
            ):
                self._document.add(field)

    def add(self, part: Part, docids: list[str]) -> None:
        """Append a part."""
        weights = part.weights
        prefixes = self._prefixes
        if weights.nnz and int(weights.indices.max()) >= len(prefixes):
            raise InputError(
                f"{part.path}: a term id is beyond the vocabulary of {len(prefixes)}; encode the corpus again."
            )
        bounds = weights.indptr.tolist()
        with java.calls:
            for docid, (start, stop) in zip(docids, itertools.pairwise(bounds), strict=True):
                terms, impacts = weights.indices[start:stop].tolist(), weights.data[start:stop].tolist()
                text = " ".join([f"{prefixes[t]}{w}" for t, w in zip(terms, impacts, strict=True) if w > 0])
                if text:
                    self._id.setStringValue(docid)
                    self._tie.setBytesValue(docid.encode())
                    self._tokenizer.setReader(self._reader(text))
                    self._writer.addDocument(self._document)
                    self._documents += 1
        self._count += len(docids)

    def close(self) -> dict[str, Any]:
        """Merge everything into one segment and close; returns the entry in ``index.json``."""
        with java.calls:
            self._writer.forceMerge(1)
            self._writer.commit()
            self._writer.close()
        spec = self._spec
        IndexRecord(spec.provenance, spec.dimension, self._count, self._documents).write(self._folder)
        return {"documents": self._documents, "terms": spec.vocab_size}

    def abandon(self) -> None:
        """Release the files of an index that will not be finished."""
        with java.calls:
            self._writer.rollback()
