"""Our encoders behind Pyserini's interfaces. They share the weights, however many encoders ask for them.

Pyserini decides by an encoder's *name* which keyword arguments it sends ("clip", "dse", "sentence" … may be part of a
path), so the constructors take them all; :data:`HOST_OPTIONS` lists those that mean nothing to this method.
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
from ..model.config import FIELDS, resolve_config
from ..model.encoder_names import EncoderName, parse_encoder_name
from ..model.hub import local_folder
from ..model.lexical import LUCENE_CLAUSES, strongest
from ..model.provenance import Provenance
from ..runtime import java
from ..runtime.devices import half_precision
from ..store.index_record import IndexRecord
from ..text import join_title

java.prepare()  # before Pyserini is imported, which starts the JVM
from pyserini.encode import DocumentEncoder, QueryEncoder  # noqa: E402

if TYPE_CHECKING:
    from ..model.retriever import DiffRetriever

logger = logging.getLogger(__name__)

# What Pyserini may send, and why it changes nothing here.
HOST_OPTIONS = {
    "tokenizer_name": "the checkpoint's own tokenizer is used",
    "prefix": "the prompt is part of the model's configuration",
    "pooling": "the K mask vectors are averaged",
    "l2_norm": "each mask vector is normalised, their mean is not",
    "multimodal": "the model reads texts only",
    "instruction_config": "the prompt is part of the model's configuration",
    "explicit_truncate": "texts are always cut to max_length",
    "add_sep": "title and text are joined by one blank",
}
# The host sends these of its own accord; the others only where a person asked, who is told that they do nothing.
_UNASKED = ("tokenizer_name", "pooling", "l2_norm", "explicit_truncate")

_document_encoders: weakref.WeakSet[DiffRetrieverDocumentEncoder] = weakref.WeakSet()


def any_document_encoder() -> bool:
    """Whether a document encoder of ours lives in this process."""
    return len(_document_encoders) > 0


def maker_of(vectors: object) -> DiffRetrieverDocumentEncoder | None:
    """The document encoder that returned ``vectors`` last, or None where that was none of ours."""
    return next((encoder for encoder in list(_document_encoders) if encoder.made(vectors)), None)


class _Named:
    """What all our encoders share: a name, the representation it asks for, and the shared model."""

    def _setup(self, name: str, device: str | None, fp16: bool, options: dict[str, Any]) -> None:
        self.name: EncoderName = parse_encoder_name(str(name))
        self.device = device
        self._dtype = half_precision(device) if fp16 else None
        self._model: DiffRetriever | None = None
        self._told: set[str] = set()
        self._overrides = {key: options.pop(key) for key in sorted(FIELDS & options.keys())}
        self._remark(options)
        asked = self._overrides.pop("max_length", None)
        # Fails here, before a corpus is read, where the model or its base does not exist; it is loaded when first used.
        config = resolve_config(self.name.target, **self._overrides)
        local_folder(config.backbone)
        if asked is not None and asked < config.max_length:  # a host's length can only shorten the model's own
            self._overrides["max_length"] = asked
        startup.ensure()

    def _remark(self, options: dict[str, Any]) -> None:
        """Say once which of the host's ``options`` have no effect; refuse a misspelt field of RetrieverConfig."""
        for option in sorted(options.keys() - self._told):
            self._told.add(option)
            if option in HOST_OPTIONS:
                if options[option] and option not in _UNASKED:
                    logger.warning("%s: %s has no effect: %s.", self.name, option, HOST_OPTIONS[option])
            elif near := difflib.get_close_matches(option, FIELDS, n=1, cutoff=0.8):
                raise ConfigError(f"{self.name}: unknown option {option!r}; did you mean {near[0]}?")
            else:
                logger.warning("%s: the option %s is unknown here and has no effect.", self.name, option)

    def __repr__(self) -> str:
        representation = "term weights" if self.name.lexical else "pooled vectors"
        return f"{type(self).__name__}({str(self.name)!r}, {representation}, device={self.device!r})"

    @property
    def model(self) -> DiffRetriever:
        """The loaded model, shared with every other encoder of the same name and settings."""
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
    """Passages to pooled vectors, or to term weights where the name ends in ``-lexical``.

    Parameters
    ----------
    model_name : prebuilt name, hub id, checkpoint folder or YAML file; see
        :func:`~..model.encoder_names.parse_encoder_name`.
    device : ``cpu``, ``cuda:0`` …; None takes the device where the model was loaded before, else the CPU.
    options : any field of :class:`~diffretriever_pyserini.model.config.RetrieverConfig`, and Pyserini's own
        (:data:`HOST_OPTIONS`).

    Raises
    ------
    ConfigError, ModelNotFoundError
        When the model cannot be used or found.
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
        """Encode passages: float32 [N, H], or one ``{term: impact}`` a passage for a ``-lexical`` encoder.

        Parameters
        ----------
        texts, titles : N strings each; a null is an empty one. Title and text are joined by one blank and stripped.
        fp16 : half precision (bfloat16 where the device has it), for this call and all later ones.
        max_length : tokens of prompt and text; it can only shorten the model's own.

        Raises
        ------
        InputError
            When texts and titles differ in number or hold something else than strings.
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
        """Pyserini sends every field that ``--fields`` names, with an s; one that is not read must not go unnoticed."""
        self._remark({key: value for key, value in options.items() if key in HOST_OPTIONS})
        for option, value in options.items():
            if option not in HOST_OPTIONS and value is not None:
                raise InputError(
                    f"{self.name} reads the fields title and text, not {option.removesuffix('s')!r}: "
                    "write `encoder --fields title text`, and put whatever else is to be read into the text."
                )

    def made(self, vectors: object) -> bool:
        """Whether ``vectors`` is what :meth:`encode` returned last."""
        return vectors is not None and vectors is self._last

    def record(self, count: int) -> IndexRecord:
        """What an index of ``count`` passages says about this encoder."""
        return IndexRecord(self.provenance, self.dimension, count)


class DiffRetrieverQueryEncoder(_Named, QueryEncoder):
    """Queries to pooled vectors, or to term weights where the name ends in ``-lexical``.

    ``.lexical`` is the same model's lexical encoder; both sides of a hybrid search share one forward pass per query.
    Parameters and errors are those of :class:`DiffRetrieverDocumentEncoder`.
    """

    def __init__(self, encoder_dir: str, device: str | None = "cpu", fp16: bool = False, **options: Any):
        super().__init__()
        self.has_model = True
        self._setup(encoder_dir, device, fp16, options)

    @property
    def lexical(self) -> LexicalQueryEncoder:
        """The lexical side: an encoder for ``LuceneImpactSearcher``."""
        return LexicalQueryEncoder(self)

    def encode(self, text: str, **options: Any) -> np.ndarray | dict[str, int]:  # type: ignore[override]
        """One query: float32 [H], or ``{term: impact}`` for a ``-lexical`` encoder. An empty query has no terms."""
        if self.name.lexical:
            return self.lexical.encode(text)
        return self.model.encode_queries_cached([_query_text(text)])[0].vector.copy()

    def encode_batch(self, texts: Sequence[str]) -> np.ndarray | list[dict[str, int]]:
        """N queries in one go: float32 [N, H], or N ``{term: impact}`` for a ``-lexical`` encoder."""
        if self.name.lexical:
            return [self.lexical.encode(text) for text in texts]
        found = self.model.encode_queries_cached([_query_text(text) for text in texts])
        return np.stack([query.vector for query in found]) if found else np.zeros((0, self.dimension), np.float32)

    def encode_vectors(self, texts: Sequence[str]) -> list[np.ndarray]:
        """N queries to their K_q vectors each, for MaxSim: float32 [K_q, H]; zero rows hold nothing."""
        return [query.vectors for query in self.model.encode_queries_cached([_query_text(text) for text in texts])]

    def prepare(self, texts: Sequence[str]) -> None:
        """Compute the representations of ``texts`` in batches, so that encoding them one by one costs nothing."""
        self.model.encode_queries_cached([_query_text(text) for text in texts])


class LexicalQueryEncoder(QueryEncoder):
    """The lexical side of a :class:`DiffRetrieverQueryEncoder`."""

    def __init__(self, dense: DiffRetrieverQueryEncoder):
        super().__init__()
        self.has_model = True
        self.dense = dense
        self.name = EncoderName(dense.name.target, lexical=True)

    @property
    def model(self) -> DiffRetriever:
        """The loaded model."""
        return self.dense.model

    def encode(self, text: str, **options: Any) -> dict[str, int]:  # type: ignore[override]
        """One query as ``{term: impact}``, plain ints of at least 1, the strongest 1,024 terms (Lucene's limit)."""
        impacts = self.dense.model.encode_queries_cached([_query_text(text)])[0].impacts
        return strongest(impacts, LUCENE_CLAUSES)

    def prepare(self, texts: Sequence[str]) -> None:
        """See :meth:`DiffRetrieverQueryEncoder.prepare`."""
        self.dense.prepare(texts)


def join_titles(texts: Sequence[str | None], titles: Sequence[str | None] | None) -> list[str]:
    """Passages as the model reads them: title and text joined by one blank, stripped; null counts as empty."""
    if isinstance(texts, str) or isinstance(titles, str):
        raise InputError("encode takes a list of texts (and a list of titles); put a single one in brackets.")
    if titles is None:
        titles = [None] * len(texts)
    if len(texts) != len(titles):
        raise InputError(f"{len(texts)} texts but {len(titles)} titles: each passage needs one of both.")
    for i, value in enumerate((*texts, *titles)):
        if value is not None and not isinstance(value, str):
            what = f"text {i}" if i < len(texts) else f"title {i - len(texts)}"
            raise InputError(f"{what} is {type(value).__name__}, not a string: {value!r:.60}")
    return [join_title(title, text) for text, title in zip(texts, titles, strict=True)]


def _query_text(text: object) -> str:
    if not isinstance(text, str):
        raise InputError(f"a query must be a string, not {type(text).__name__}: {text!r:.60}")
    return text
