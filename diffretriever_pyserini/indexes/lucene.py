"""Writes Lucene indexes directly: of impacts, and of texts for BM25.

The fields are those of Anserini's own indexes: ``id`` (a stored string, and doc values for breaking ties), ``contents``
(documents, frequencies and norms) and, for texts, ``raw`` (the stored passage as JSON). Anserini's own writer of single
documents takes 2 GB as a buffer, and logs the errors that it should raise.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

from ..errors import DiffRetrieverError, InputError, ModelNotFoundError
from ..model.lexical import TermNames
from ..model.provenance import require_same_encoder
from ..runtime import java
from ..store.index_record import IndexRecord
from ..store.part import Part
from ..store.spec import StoreSpec
from ..text import clean_text
from .texts import StoreTexts

# Between a term and its impact: names of terms have no control characters, and Java does not split at this one.
DELIMITER = "\x01"
HEAP_MEGABYTES = 192  # of a JVM that writes an index of any size, and searches none
_BUFFER_MEGABYTES = 16.0
_LONGEST = 300  # of a term (255), delimiter and impact
_FIELD = "(Ljava/lang/String;L{};Lorg/apache/lucene/index/IndexableFieldType;)V"
_TOKEN_FIELD = _FIELD.format("org/apache/lucene/analysis/TokenStream")
_TEXT_FIELD = _FIELD.format("java/lang/CharSequence")
_STORED_FIELD = "(Ljava/lang/String;Ljava/lang/String;)V"


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


class _Writer:
    """Writes a Lucene index into ``folder`` in bounded memory; one document object serves all passages."""

    def __init__(self, folder: Path, config: Any, *fields: Any):
        folder.mkdir(parents=True)
        config.setRAMBufferSizeMB(_BUFFER_MEGABYTES)
        config.setUseCompoundFile(False)
        config.setMergeScheduler(_lucene("index.SerialMergeScheduler")())  # the same segments in every run
        # Not memory-mapped: pages that merging reads would count as memory of this process.
        directory = _lucene("store.NIOFSDirectory")(_class("java.nio.file.Paths").get(str(folder)))
        self._writer = _lucene("index.IndexWriter")(directory, config)
        self._id = _lucene("document.StringField")("id", "", _lucene("document.Field$Store").YES)
        self._tie = _lucene("document.BinaryDocValuesField")("id", _lucene("util.BytesRef")(b""))
        self._document = _lucene("document.Document")()
        for field in (self._id, self._tie, *fields):
            self._document.add(field)
        self._folder, self._documents = folder, 0

    def _write(self, docid: str) -> None:
        """Append the document with the current values of its other fields."""
        self._id.setStringValue(docid)
        self._tie.setBytesValue(docid.encode())
        self._writer.addDocument(self._document)
        self._documents += 1

    def _finish(self) -> None:
        """Merge everything into one segment and close."""
        with java.calls:
            self._writer.forceMerge(1)
            self._writer.commit()
            self._writer.close()

    def abandon(self) -> None:
        """Release the files of an index that will not be finished."""
        with java.calls:
            self._writer.rollback()


class LuceneWriter(_Writer):
    """Writes an impact index, where each term of a passage occurs once, with its impact as the term frequency.

    It lacks the passages that have no terms, as Anserini's does.
    """

    def __init__(self, folder: Path, spec: StoreSpec, names: TermNames):
        java.check_process()
        java.prepare()
        with java.calls:
            self._spec, self._count = spec, 0
            self._prefixes = [names.name(row) + DELIMITER for row in range(spec.vocab_size)]
            config = _lucene("index.IndexWriterConfig")()
            config.setSimilarity(_class("io.anserini.search.similarity.ImpactSimilarity")())
            self._tokenizer = _lucene("analysis.core.WhitespaceTokenizer")(_LONGEST)
            delimited = _lucene("analysis.miscellaneous.DelimitedTermFrequencyTokenFilter")
            frequencies = delimited(self._tokenizer, DELIMITER)
            self._reader = _class("java.io.StringReader")
            contents = _lucene("document.Field")("contents", frequencies, _field_type(), signature=_TOKEN_FIELD)
            super().__init__(folder, config, contents)

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
                    self._tokenizer.setReader(self._reader(text))
                    self._write(docid)
        self._count += len(docids)

    def close(self) -> dict[str, Any]:
        """Merge everything into one segment and close; returns the entry in ``index.json``."""
        self._finish()
        spec = self._spec
        IndexRecord(spec.provenance, spec.dimension, self._count, self._documents).write(self._folder)
        return {"documents": self._documents, "terms": spec.vocab_size}


class TextWriter(_Writer):
    """Writes an index of texts: BM25 of what a model encodes, with Anserini's analyzer, and title and text as JSON."""

    def __init__(self, folder: Path, texts: StoreTexts):
        java.check_process()
        java.prepare()
        self._texts = texts
        with java.calls:
            config = _lucene("index.IndexWriterConfig")(_class("io.anserini.index.IndexCollection").DEFAULT_ANALYZER)
            self._contents = _lucene("document.Field")("contents", "", _field_type(), signature=_TEXT_FIELD)
            self._raw = _lucene("document.StoredField")("raw", "", signature=_STORED_FIELD)
            super().__init__(folder, config, self._contents, self._raw)

    def add(self, part: Part, docids: list[str]) -> None:
        """Append a part.

        Raises
        ------
        InputError
            Where the corpus is not the one that was encoded.
        DiffRetrieverError
            For a passage that Lucene cannot index.
        """
        from jnius import JavaException

        for passage in self._texts.passages(part, docids):
            try:
                with java.calls:
                    # The blank: pyjnius takes some characters at the start of a string for a byte order mark.
                    self._contents.setStringValue(f" {clean_text(passage.contents)}")
                    self._raw.setStringValue(json.dumps(passage.record))
                    self._write(passage.docid)
            except JavaException as error:
                raise DiffRetrieverError(
                    f"passage {passage.docid!r}: Lucene cannot index its text ({java.said(error)})."
                ) from error

    def close(self) -> dict[str, Any]:
        """Merge everything into one segment and close; returns the entry in ``index.json``."""
        self._finish()
        return {"documents": self._documents}


def _class(name: str) -> Any:
    from pyserini.pyclass import autoclass

    return autoclass(name)


def _lucene(name: str) -> Any:
    return _class(f"org.apache.lucene.{name}")


def _field_type() -> Any:
    """The type of the field ``contents``: documents, frequencies and norms."""
    field_type = _lucene("document.FieldType")()
    field_type.setIndexOptions(_lucene("index.IndexOptions").DOCS_AND_FREQS)
    return field_type
