"""Our encoders behind Pyserini's interfaces. Encoders of the same name and settings share the weights.

Pyserini decides by an encoder's *name* which keyword arguments it passes ("clip", "dse", "sentence" … may be part of a
path), so the constructors accept them all; :data:`IGNORED_OPTIONS` lists those that have no effect here.
"""

from __future__ import annotations

import dataclasses
import difflib
import logging
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

import _diffretriever_pyserini_startup as startup

from ..errors import ConfigError, InputError
from ..model.config import FIELDS
from ..model.encoder_names import EncoderName, parse_encoder_name
from ..model.hub import local_folder
from ..model.lexical import LUCENE_CLAUSES, strongest
from ..model.provenance import Provenance
from ..model.readouts import no_terms
from ..model.resolve import resolve_config
from ..runtime import java
from ..runtime.devices import half_precision
from ..store.index_record import IndexRecord
from ..text import join_title

java.prepare()  # before Pyserini is imported, which starts the JVM
startup.ensure()  # likewise: without our plugin, importing Pyserini 2.4.0 downloads five files
from pyserini.encode import DocumentEncoder, QueryEncoder  # noqa: E402

if TYPE_CHECKING:
    from ..model.retriever import DiffRetriever

logger = logging.getLogger(__name__)

# Options that Pyserini may pass, and why they have no effect here.
IGNORED_OPTIONS = {
    "tokenizer_name": "the checkpoint's own tokenizer is used",
    "prefix": "the prompt is part of the model's configuration",
    "pooling": "the K mask vectors are averaged",
    "l2_norm": "each mask vector is normalised, their mean is not",
    "multimodal": "the model reads texts only",
    "instruction_config": "the prompt is part of the model's configuration",
    "explicit_truncate": "texts are always cut to max_length",
    "add_sep": "title and text are joined by one space",
}
# Pyserini passes these by itself; it passes the others only where the user set them, which gives a warning.
_SET_BY_PYSERINI = ("tokenizer_name", "pooling", "l2_norm", "explicit_truncate")

_document_encoders: weakref.WeakSet[DiffRetrieverDocumentEncoder] = weakref.WeakSet()


def any_document_encoder() -> bool:
    """Whether this process has a document encoder of ours."""
    return len(_document_encoders) > 0


def maker_of(vectors: object) -> DiffRetrieverDocumentEncoder | None:
    """The document encoder whose last result is ``vectors``, or None where none of ours made them."""
    return next((encoder for encoder in list(_document_encoders) if encoder.made(vectors)), None)


class _Named:
    """The parts that all our encoders have: a name with its representation, and the shared model."""

    def _setup(self, name: str, device: str | None, fp16: bool, options: dict[str, Any]) -> None:
        self.name: EncoderName = parse_encoder_name(str(name))
        self.device = device
        self._dtype = half_precision(device) if fp16 else None
        self._model: DiffRetriever | None = None
        self._warned: set[str] = set()
        self._overrides = {key: options.pop(key) for key in sorted(FIELDS & options.keys())}
        self._warn_ignored(options)
        max_length = self._overrides.pop("max_length", None)
        # A missing model or base is an error here, before a corpus is read; the model is loaded on first use.
        config = resolve_config(self.name.target, **self._overrides)
        local_folder(config.backbone)
        self.terms_refused = no_terms(str(self.name), config.readout)
        if self.name.lexical and self.terms_refused:
            raise ConfigError(f"{self.terms_refused}.")
        if max_length is not None and max_length < config.max_length:  # Pyserini's length can only shorten the model's
            self._overrides["max_length"] = max_length
        startup.ensure()

    def _warn_ignored(self, options: dict[str, Any]) -> None:
        """Warn once per option that has no effect; refuse a misspelt field of RetrieverConfig."""
        for option in sorted(options.keys() - self._warned):
            self._warned.add(option)
            if option in IGNORED_OPTIONS:
                if options[option] and option not in _SET_BY_PYSERINI:
                    logger.warning("%s: %s has no effect: %s.", self.name, option, IGNORED_OPTIONS[option])
            elif near := difflib.get_close_matches(option, FIELDS, n=1, cutoff=0.8):
                raise ConfigError(f"{self.name}: unknown option {option!r}; did you mean {near[0]}?")
            else:
                logger.warning("%s: the option %s is unknown and has no effect.", self.name, option)

    def __repr__(self) -> str:
        representation = "term weights" if self.name.lexical else "pooled vectors"
        return f"{type(self).__name__}({str(self.name)!r}, {representation}, device={self.device!r})"

    @property
    def model(self) -> DiffRetriever:
        """The loaded model, shared with all other encoders of the same name and settings."""
        if self._model is None:
            from ..model.retriever import load_shared

            self._model = load_shared(self.name.target, device=self.device, dtype=self._dtype, **self._overrides)
        return self._model

    @property
    def dimension(self) -> int:
        """Width H of the dense vectors."""
        return self.model.dimension

    @property
    def provenance(self) -> Provenance:
        """What decides this encoder's representations, under this encoder's name."""
        return dataclasses.replace(self.model.provenance, encoder=str(self.name))


class DiffRetrieverDocumentEncoder(_Named, DocumentEncoder):
    """Encode passages to pooled vectors, or to term weights where the name ends in ``-lexical``.

    Parameters
    ----------
    model_name : prebuilt name, hub id, checkpoint folder or YAML file; see
        :func:`~..model.encoder_names.parse_encoder_name`.
    device : ``cpu``, ``cuda:0`` …; None is the device on which the model is already loaded, else the CPU.
    options : any field of :class:`~diffretriever_pyserini.model.config.RetrieverConfig`, and Pyserini's own
        options, which have no effect here.

    Raises
    ------
    ConfigError, ModelNotFoundError
        When the model cannot be used or does not exist.

    Examples
    --------
    >>> from diffretriever_pyserini import DiffRetrieverDocumentEncoder
    >>> encoder = DiffRetrieverDocumentEncoder("diffretriever")
    >>> encoder.encode(["is in France."], titles=["Paris"]).shape == (1, encoder.dimension)
    True
    """

    def __init__(self, model_name: str, device: str | None = "cpu", fp16: bool = False, **options: Any):
        self._setup(model_name, device, fp16, options)
        self._last: object = None
        _document_encoders.add(self)

    def encode(
        self,
        texts: Sequence[str | None],
        titles: Sequence[str | None] | None = None,
        fp16: bool = False,
        max_length: int | None = None,
        **options: Any,
    ) -> np.ndarray | list[dict[str, int]]:
        """Encode passages: float32 [N, H], or one ``{term: impact}`` per passage for a ``-lexical`` encoder.

        Parameters
        ----------
        texts, titles : N strings each; None is an empty string. Title and text are joined by one space and stripped.
        fp16 : half precision (bfloat16 where the device has it), for this call and all later ones.
        max_length : tokens of prompt and text; it can only shorten the model's own length.

        Raises
        ------
        InputError
            When texts and titles differ in number, or one is not a string.
        """
        self._check_fields(options)
        if fp16 and self._dtype is None:
            self._dtype, self._model = half_precision(self.device), None
        passages = join_titles(texts, titles)
        representations = self.model.encode(
            passages, side="passage", max_length=max_length, batch_size=max(1, len(passages))
        )
        self._last = representations.impacts if self.name.lexical else representations.pooled
        return self._last  # type: ignore[return-value]

    def _check_fields(self, options: dict[str, Any]) -> None:
        """Refuse fields that the model does not read: Pyserini passes every field of ``--fields``, with an s."""
        self._warn_ignored({key: value for key, value in options.items() if key in IGNORED_OPTIONS})
        for option, value in options.items():
            if option not in IGNORED_OPTIONS and value is not None:
                raise InputError(
                    f"{self.name} reads the fields title and text, not {option.removesuffix('s')!r}: "
                    "write `encoder --fields title text`, and add other fields to the text."
                )

    def made(self, vectors: object) -> bool:
        """Whether ``vectors`` is the last result of :meth:`encode`."""
        return vectors is not None and vectors is self._last

    def record(self, count: int) -> IndexRecord:
        """The record of this encoder in an index of ``count`` passages."""
        return IndexRecord(self.provenance, self.dimension, count)


class DiffRetrieverQueryEncoder(_Named, QueryEncoder):
    """Encode queries to pooled vectors, or to term weights where the name ends in ``-lexical``.

    ``.lexical`` is the same model's lexical encoder; both signals of a hybrid search share one forward pass per query.
    Parameters and errors are those of :class:`DiffRetrieverDocumentEncoder`.

    Examples
    --------
    >>> from diffretriever_pyserini import DiffRetrieverQueryEncoder
    >>> encoder = DiffRetrieverQueryEncoder("diffretriever")
    >>> encoder.encode("where is Paris").shape == (encoder.dimension,)
    True
    >>> sorted(encoder.lexical.encode("where is Paris"))
    ['paris']
    """

    def __init__(self, encoder_dir: str, device: str | None = "cpu", fp16: bool = False, **options: Any):
        super().__init__()
        self.has_model = True
        self._setup(encoder_dir, device, fp16, options)

    @property
    def lexical(self) -> LexicalQueryEncoder:
        """The same model's lexical encoder, for ``LuceneImpactSearcher``."""
        return LexicalQueryEncoder(self)

    def encode(self, text: str, **options: Any) -> np.ndarray | dict[str, int]:  # type: ignore[override]
        """Encode one query: float32 [H], or ``{term: impact}`` for a ``-lexical`` encoder (none if empty)."""
        if self.name.lexical:
            return self.lexical.encode(text)
        return self.model.encode_queries_cached([_query_text(text)])[0].vector.copy()

    def encode_batch(self, texts: Sequence[str]) -> np.ndarray | list[dict[str, int]]:
        """Encode N queries together: float32 [N, H], or N ``{term: impact}`` for a ``-lexical`` encoder."""
        if self.name.lexical:
            return [self.lexical.encode(text) for text in texts]
        queries = self.model.encode_queries_cached([_query_text(text) for text in texts])
        return np.stack([query.vector for query in queries]) if queries else np.zeros((0, self.dimension), np.float32)

    def encode_vectors(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The K_q vectors of each of N queries, for MaxSim: float32 [K_q, H]; a zero row is not a vector."""
        return [query.vectors for query in self.model.encode_queries_cached([_query_text(text) for text in texts])]

    def prepare(self, texts: Sequence[str]) -> None:
        """Encode ``texts`` in batches, so that encoding them one by one later reads the cache."""
        self.model.encode_queries_cached([_query_text(text) for text in texts])


class LexicalQueryEncoder(QueryEncoder):
    """The lexical signal of a :class:`DiffRetrieverQueryEncoder`."""

    def __init__(self, dense: DiffRetrieverQueryEncoder):
        super().__init__()
        if dense.terms_refused:
            raise ConfigError(f"{dense.terms_refused}.")
        self.has_model = True
        self.dense = dense
        self.name = EncoderName(dense.name.target, lexical=True)

    @property
    def model(self) -> DiffRetriever:
        """The loaded model."""
        return self.dense.model

    def encode(self, text: str, **options: Any) -> dict[str, int]:  # type: ignore[override]
        """One query as ``{term: impact}`` with ints of at least 1: the strongest 1,024 terms (Lucene's limit)."""
        impacts = self.dense.model.encode_queries_cached([_query_text(text)])[0].impacts
        return strongest(impacts, LUCENE_CLAUSES)

    def prepare(self, texts: Sequence[str]) -> None:
        """See :meth:`DiffRetrieverQueryEncoder.prepare`."""
        self.dense.prepare(texts)


def join_titles(texts: Sequence[str | None], titles: Sequence[str | None] | None) -> list[str]:
    """Passages as the model reads them: title and text joined by one space and stripped; None is empty."""
    if isinstance(texts, str) or isinstance(titles, str):
        raise InputError("encode takes a list of texts (and a list of titles); put a single text in brackets.")
    if titles is None:
        titles = [None] * len(texts)
    if len(texts) != len(titles):
        raise InputError(f"{len(texts)} texts but {len(titles)} titles: give one of each per passage.")
    for i, value in enumerate((*texts, *titles)):
        if value is not None and not isinstance(value, str):
            name = f"text {i}" if i < len(texts) else f"title {i - len(texts)}"
            raise InputError(f"{name} is {type(value).__name__}, not a string: {value!r:.60}.")
    return [join_title(title, text) for text, title in zip(texts, titles, strict=True)]


def _query_text(text: object) -> str:
    if not isinstance(text, str):
        raise InputError(f"a query must be a string, not {type(text).__name__}: {text!r:.60}.")
    return text
