"""DiffRetriever: from a text to K vectors and K vocabulary distributions in one bidirectional forward pass.

The method itself is in method.py. Here a loaded model encodes texts: they are prepared (tokenization.py), run in
batches (inference.py) and put back into order.
"""

from __future__ import annotations

import threading
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, KeysView, Mapping, Sequence, Set
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigError, InputError, NumericalError
from ..runtime.devices import device_name, dtype_name
from ..settings import Count, parsed
from . import model_cache
from .config import RetrieverConfig
from .fingerprint import provenance_of, stamps
from .inference import Batch, Inference
from .layout import Layout, stop_ids
from .lexical import TermNames, unknown_ids
from .method import pool
from .provenance import Provenance
from .representations import MaskOutputs, QueryRepresentation, Representations
from .resolve import resolve_config
from .tokenization import Prepared, Preparer

if TYPE_CHECKING:
    import torch

_CACHED_QUERIES = 4096
_SIDE_LEFT_OUT = (
    "encode() was not given a side, so the texts are encoded as passages; queries may have another prompt and K. "
    "Use encode_query or encode_document, or pass side."
)


class DiffRetriever:
    """One loaded model, made by :meth:`from_pretrained`; it is safe to share between threads.

    Retrievers with the same weights, precision and device share the weights, whatever their other settings are.

    Examples
    --------
    >>> from diffretriever_pyserini import DiffRetriever
    >>> model = DiffRetriever.from_pretrained("diffretriever")
    >>> queries = model.encode_query(["where is Paris"])
    >>> documents = model.encode_document(["Paris is in France.", "Masks follow the text."])
    >>> documents.vectors.shape == (2, model.config.k_passage, model.dimension)
    True
    >>> bool(queries.pooled @ documents.pooled[0] > queries.pooled @ documents.pooled[1])
    True
    """

    def __init__(self, config: RetrieverConfig, device: str = "cpu", dtype: str | None = None):
        self.config = config
        device = device_name(device)
        precision = dtype_name(dtype, device)
        self.prepare = Preparer(config)
        self.tokenizer = self.prepare.tokenizer
        self._layouts = self.prepare.layouts
        self._files = stamps(config)
        self._backbone = model_cache.shared_backbone(config, precision, device)
        self._check_fit()
        layout = self._layouts["query"]
        excluded = unknown_ids(self.tokenizer) | {*layout.masks}
        self.reader = Inference(self._backbone, config, excluded, stop_ids(self.tokenizer, layout))
        self._queries: OrderedDict[str, QueryRepresentation] = OrderedDict()
        self._lock = threading.RLock()

    @classmethod
    def from_pretrained(
        cls, name: str, device: str = "cpu", dtype: str | None = None, **overrides: Any
    ) -> DiffRetriever:
        """Load ``name``: a prebuilt name, YAML file, checkpoint folder or hub id.

        Parameters
        ----------
        device : ``cpu``, ``cuda`` (torch's current device), ``cuda:1``, ``mps`` ...
        dtype : ``float32`` (default on the CPU), ``bfloat16`` (default elsewhere) or ``float16`` (default on a GPU
            without bfloat16).
        overrides : any field of :class:`RetrieverConfig`, for example ``k_passage=16, max_length=128``.

        Raises
        ------
        ConfigError, ModelNotFoundError
        """
        config = resolve_config(str(name), **overrides)
        model_cache.say_what_is_loaded(config)
        return cls(config, device=device, dtype=dtype)

    @property
    def dimension(self) -> int:
        """Width H of every vector."""
        return self._backbone.hidden_size

    @property
    def vocab_size(self) -> int:
        """Rows V of the output head: columns of ``Representations.weights``."""
        return self._backbone.vocab_size

    @property
    def device(self) -> str:
        """Device of the model."""
        return str(self._backbone.device)

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the weights."""
        return self._backbone.dtype

    @cached_property
    def provenance(self) -> Provenance:
        """Everything that decides a representation. Raises ConfigError if the checkpoint on disk has changed."""
        if stamps(self.config) != self._files:
            raise ConfigError(f"{self.config.name}: the checkpoint's files changed since it was loaded; load it again.")
        return provenance_of(self.config, self.prepare)

    @property
    def fingerprint(self) -> str:
        """16 hex digits over what decides a representation. Equal fingerprints mean comparable representations."""
        return self.provenance.fingerprint

    @property
    def passage_fingerprint(self) -> str:
        """16 hex digits over what decides passage vectors; this model can search an index with the same digits.

        It does not depend on query settings, lexical settings and ``max_length`` (Pyserini may shorten queries).
        """
        return self.provenance.passage_fingerprint

    @cached_property
    def term_names(self) -> TermNames:
        """Lucene names of the vocabulary's rows."""
        return TermNames(self.tokenizer, self.vocab_size)

    def layout(self, side: str, max_length: int | None = None) -> Layout:
        """Token layout of ``side``; ``max_length`` can only shorten it. Raises ConfigError if it leaves no text."""
        return self.prepare.layout(side, max_length)

    def __repr__(self) -> str:
        config = self.config
        return (
            f"DiffRetriever({config.name!r}, k_query={config.k_query}, k_passage={config.k_passage}, "
            f"dimension={self.dimension}, vocab_size={self.vocab_size}, device={self.device!r}, dtype={self.dtype})"
        )

    def encode_query(self, texts: Sequence[str], **options: Any) -> Representations:
        """:meth:`encode` of queries: with their prompt and K_q mask positions."""
        return self.encode(texts, side="query", **options)

    def encode_document(self, texts: Sequence[str], **options: Any) -> Representations:
        """:meth:`encode` of passages: with their prompt and K_p mask positions."""
        return self.encode(texts, side="passage", **options)

    def encode(
        self,
        texts: Sequence[str],
        side: str | None = None,
        max_length: int | None = None,
        batch_size: int = 32,
        progress: bool | None = None,
    ) -> Representations:
        """Both representations of ``texts``, in their order (docs/method.md §3, §4).

        Parameters
        ----------
        side : ``query`` or ``passage``; where it is left out the texts are passages, and a warning says so.
        max_length : can only shorten texts; None is the model's own.
        batch_size : changes no result beyond float rounding.
        progress : whether to show a bar after two seconds; None shows it on a terminal only.

        Raises
        ------
        InputError
            For anything but a list of texts.
        NumericalError
            When the model returns NaN or infinity.
        """
        from tqdm.auto import tqdm

        if side is None:
            warnings.warn(_SIDE_LEFT_OUT, stacklevel=2)
            side = "passage"
        texts, batch_size = _checked(texts, batch_size)
        quiet = None if progress is None else not progress
        with tqdm(total=len(texts), desc=f"Encoding ({side})", delay=2, disable=quiet) as bar:
            try:
                return self.represent(self.prepare(texts, side, max_length), batch_size, tick=bar.update)
            except NumericalError as error:
                raise _with_quote(error, texts) from error

    def represent(
        self,
        prepared: Prepared,
        batch_size: int = 32,
        token_budget: int | None = None,
        tick: Callable[[int], object] | None = None,
        pooled: bool = False,
    ) -> Representations:
        """Both representations of texts that :attr:`prepare` prepared, in this process or another.

        Parameters
        ----------
        token_budget : most tokens per batch (with padding, if the model pads); ``batch_size`` is then ignored.
        tick : called with the size of each finished batch.
        pooled : whether to return only the pooled vectors, as ``vectors`` [N, 1, H], in 1/K of the memory.

        Raises
        ------
        NumericalError
            When the model returns NaN or infinity; its ``index`` is the number of the text.
        """
        import scipy.sparse

        n, k = len(prepared), 1 if pooled else prepared.layout.k
        vectors = np.zeros((n, k, self.dimension), dtype=np.float32)
        order: list[int] = []
        parts = [scipy.sparse.csr_matrix((0, self.vocab_size), dtype=np.int32)]
        for rows, (batch_vectors, weights) in self._batch_results(prepared, batch_size, token_budget):
            vectors[rows] = pool(batch_vectors)[:, None] if pooled else batch_vectors
            order += rows
            parts.append(weights)
            if tick is not None:
                tick(len(rows))
        back = np.argsort(np.array(order, dtype=np.int64))
        return Representations(vectors, scipy.sparse.vstack(parts, format="csr", dtype=np.int32)[back], self.term_names)

    def _batch_results(
        self, prepared: Prepared, batch_size: int, token_budget: int | None
    ) -> Iterator[tuple[list[int], Batch]]:
        """Rows and representations per batch; a batch is fetched from the device after the next one has started."""
        started: tuple[list[int], Callable[[], Batch]] | None = None
        for rows in self.reader.batches(prepared, batch_size, token_budget):
            next_ = rows, self.reader.represent(prepared, rows)
            if started is not None:
                yield started[0], started[1]()
            started = next_
        if started is not None:
            yield started[0], started[1]()

    def forward_masks(
        self, texts: Sequence[str], side: str = "query", max_length: int | None = None, batch_size: int = 32
    ) -> MaskOutputs:
        """The model's outputs at the K positions, before normalisation, filter and cut: ``hidden``, ``logits``."""
        texts, batch_size = _checked(texts, batch_size)
        prepared = self.prepare(texts, side, max_length)
        k = prepared.layout.k
        hidden = np.zeros((len(texts), k, self.dimension), dtype=np.float32)
        logits = np.zeros((len(texts), k, self.vocab_size), dtype=np.float32)
        for rows in self.reader.batches(prepared, batch_size):
            try:
                reading = self.reader.read(prepared, rows)
            except NumericalError as error:
                raise _with_quote(error, texts) from error
            hidden[rows] = reading.hidden.float().cpu().numpy()
            logits[rows] = reading.logits.float().cpu().numpy()
        return MaskOutputs(hidden, logits)

    def encode_queries_cached(self, texts: Sequence[str], batch_size: int = 32) -> list[QueryRepresentation]:
        """Representations of queries; each is computed once, however many searchers need it."""
        with self._lock:
            new = [text for text in dict.fromkeys(texts) if text not in self._queries]
            if new:
                reps = self.encode(new, side="query", batch_size=batch_size)
                for text, pooled, impacts, vectors in zip(new, reps.pooled, reps.impacts, reps.vectors, strict=True):
                    self._queries[text] = QueryRepresentation(pooled, impacts, vectors, text)
            queries = [self._queries[text] for text in texts]
            for text in dict.fromkeys(texts):
                self._queries.move_to_end(text)
            while len(self._queries) > max(_CACHED_QUERIES, len(texts)):
                self._queries.popitem(last=False)
            return queries

    def _check_fit(self) -> None:
        """Raise ConfigError if the token layout does not fit the model: too long, or ids that it lacks."""
        rows, limit = self._backbone.input_rows, self._backbone.max_positions
        for side, layout in self._layouts.items():
            subject, block = f"{self.config.name}, {side} side", layout.block
            fixed = (*layout.prefix, *layout.suffix, *layout.masks, *layout.tail)
            highest = max(*fixed, *self.tokenizer.get_vocab().values())
            if highest >= rows:
                raise ConfigError(
                    f"{subject}: token id {highest} is beyond the model's {rows} ids; use the tokenizer of this model."
                )
            if limit is not None and layout.max_length + block > limit:
                raise ConfigError(
                    f"{subject}: max_length={layout.max_length} and {block} tokens of masks and tail exceed the "
                    f"model's {limit} positions; use a max_length of at most {limit - block}."
                )


_shared: weakref.WeakValueDictionary[tuple[RetrieverConfig, model_cache.Weights, str, str], DiffRetriever]
_shared = weakref.WeakValueDictionary()


def load_shared(name: str, device: str | None = None, dtype: str | None = None, **overrides: Any) -> DiffRetriever:
    """Like :meth:`DiffRetriever.from_pretrained`, but the same request returns the same object, with its query cache.

    ``device=None`` is the device where these weights are already loaded, else the CPU.
    """
    config = resolve_config(name, **overrides)
    weights = model_cache.say_what_is_loaded(config)
    with model_cache.lock:
        if device is None:
            dtype = dtype_name(dtype, "cpu") if dtype else None
            same = [key[2:] for key in list(_shared) if key[:2] == (config, weights)]
            usable = [pair for pair in (*same, *model_cache.loaded(weights)) if dtype in (None, pair[0])]
            dtype, device = usable[0] if usable else (dtype, "cpu")
        device = device_name(device)
        dtype = dtype_name(dtype, device)
        model = _shared.get((config, weights, dtype, device))
        if model is None:
            model = _shared[config, weights, dtype, device] = DiffRetriever(config, device=device, dtype=dtype)
        return model


def _with_quote(error: NumericalError, texts: Sequence[str]) -> NumericalError:
    """``error`` with the beginning of the text after its number."""
    assert error.index is not None
    number = f"text {error.index}"
    return NumericalError(str(error).replace(number, f"{number} ({texts[error.index]!r:.60})", 1))


def _checked(texts: Sequence[str], batch_size: int) -> tuple[list[str], int]:
    """``texts`` as a list and ``batch_size`` as an int. Raises InputError."""
    if isinstance(texts, str):
        raise InputError("encode takes a list of texts; put a single text in brackets: [text].")
    if isinstance(texts, Mapping | bytes) or not hasattr(texts, "__len__"):
        raise InputError(
            f"encode takes a list of texts, not {type(texts).__name__}; for a mapping, pass list(texts.values())."
        )
    if isinstance(texts, Set) and not isinstance(texts, KeysView):
        raise InputError(
            "encode takes a list of texts, not a set: a set has no order, so results could not be matched to texts."
        )
    texts = list(texts)
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"text {i} is {type(text).__name__}, not a string: {text!r:.60}.")
    size: int = parsed(batch_size, Count, InputError, "batch_size")
    return texts, size
