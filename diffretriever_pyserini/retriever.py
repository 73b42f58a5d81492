"""DiffRetriever: texts in, K vectors and K vocabulary distributions each out, from one bidirectional forward pass.

The method, top to bottom: lay out the tokens (prompts.py), read the K mask places (denoising.py), normalise the hidden
states, turn the logits of the text's own words into impacts (lexical.py).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .backbones.loading import load_backbone, load_tokenizer
from .config import RetrieverConfig, check_side, resolve_config
from .denoising import kept_places, read_places
from .errors import ConfigError, InputError, NumericalError
from .fingerprint import fingerprint, passage_fingerprint
from .lexical import ContentTokens, TermNames, place_impacts
from .prompts import Layout, build_layout, tokenize_texts
from .representations import Representations

if TYPE_CHECKING:
    import torch

_LOGIT_BYTES = 1 << 28  # a batch's logits stay below 256 MiB
_CACHED_QUERIES = 4096


class MaskOutputs(NamedTuple):
    """Raw read-out at the K places: float32 ``hidden`` [N, K, H] after the final norm, float32 ``logits`` [N, K, V]."""

    hidden: np.ndarray
    logits: np.ndarray


@dataclass(frozen=True, slots=True)
class QueryRepresentation:
    """One query for both searchers: pooled ``vector`` float32 [H] and ``impacts`` {term: int}."""

    vector: np.ndarray
    impacts: dict[str, int]


class DiffRetriever:
    """One loaded model. Make it with :meth:`from_pretrained`; it is safe to share between threads."""

    def __init__(self, config: RetrieverConfig, device: str = "cpu", dtype: str | None = None):
        self.config = config
        self.dtype = _dtype(dtype, device)
        self.place = _place(device)
        self.tokenizer = load_tokenizer(config)
        self._layouts = {side: build_layout(config, self.tokenizer, side) for side in ("query", "passage")}
        self._backbone = load_backbone(config, self.dtype, self.place)
        self._check_fit()
        mask_id = self._layouts["query"].mask_id
        self._stop_ids = frozenset(self.tokenizer.all_special_ids) - {mask_id}
        self._content = ContentTokens(
            self.tokenizer, [mask_id], max_chars=config.max_lexical_chars, stems=config.lexical_terms == "stems"
        )
        self._queries: OrderedDict[str, QueryRepresentation] = OrderedDict()
        self._lock = threading.RLock()

    @classmethod
    def from_pretrained(
        cls, name: str, device: str = "cpu", dtype: str | None = None, **overrides: Any
    ) -> DiffRetriever:
        """Load ``name``: a prebuilt name, YAML file, checkpoint folder or hub id.

        Parameters
        ----------
        device : ``cpu``, ``cuda``, ``cuda:1``, ``mps`` ...
        dtype : ``float32`` (default on the CPU), ``bfloat16`` (default elsewhere) or ``float16`` (default on a GPU that
            has no bfloat16).
        overrides : any field of :class:`RetrieverConfig`, for example ``k_passage=16, max_length=128``.

        Raises
        ------
        ConfigError, ModelNotFoundError
        """
        return cls(resolve_config(str(name), **overrides), device=device, dtype=dtype)

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
        """Where the model runs."""
        return str(self._backbone.device)

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of what decides a representation: weights, layout, read-out. Equal means comparable."""
        return fingerprint(self.config, self._layouts)

    @cached_property
    def passage_fingerprint(self) -> str:
        """Hex digest of what decides a passage's vectors: an index made under it can be searched with this model."""
        return passage_fingerprint(self.config, self._layouts)

    @cached_property
    def term_names(self) -> TermNames:
        """Lucene names of the vocabulary's rows."""
        return TermNames(self.tokenizer, self.vocab_size)

    def layout(self, side: str, max_length: int | None = None) -> Layout:
        """Token layout of ``side``; ``max_length`` can only shorten it. Raises ConfigError if no text fits."""
        return self._layouts[check_side(side)].shortened(max_length, f"{self.config.name}, {side} side")

    def encode(
        self,
        texts: Sequence[str],
        side: str = "passage",
        max_length: int | None = None,
        batch_size: int = 32,
        progress: bool | None = None,
    ) -> Representations:
        """Both representations of ``texts``, in their order (METHOD sections 3 and 4).

        ``batch_size`` never changes a result beyond float rounding; ``max_length`` can only shorten. ``progress`` shows
        a bar after two seconds; None shows it on a terminal only. Raises InputError for what is not text and
        NumericalError for a model that answers NaN.
        """
        import scipy.sparse
        from tqdm import tqdm

        _check_texts(texts, batch_size)
        n, k = len(texts), self.config.k(side)
        vectors = np.zeros((n, k, self.dimension), dtype=np.float32)
        rows: list[tuple[np.ndarray, np.ndarray]] = [_NO_TERMS] * n
        bar = tqdm(total=n, desc=f"Encoding ({side})", delay=2, disable=None if progress is None else not progress)
        for places, hidden, logits in self._read(texts, side, max_length, batch_size):
            bar.update(len(places))
            kept = [k] * len(places)
            if self.config.cut_at_stop:
                kept = kept_places(logits.argmax(dim=2), self._stop_ids)
            unit = _unit(hidden)
            for j, (i, count) in enumerate(zip(places, kept, strict=True)):
                vectors[i, :count] = unit[j, :count]
                rows[i] = self._impacts(texts[i], logits[j, :count])
        bar.close()
        columns = np.concatenate([ids for ids, _ in rows]) if n else _NO_TERMS[0]
        values = np.concatenate([impacts for _, impacts in rows]) if n else _NO_TERMS[1]
        bounds = np.cumsum([0, *(len(ids) for ids, _ in rows)])
        weights = scipy.sparse.csr_matrix((values, columns, bounds), shape=(n, self.vocab_size), dtype=np.int32)
        return Representations(vectors, weights, self.term_names)

    def forward_masks(
        self, texts: Sequence[str], side: str = "query", max_length: int | None = None, batch_size: int = 32
    ) -> MaskOutputs:
        """What the model says at the K masks, before any normalisation, filter or cut. See :class:`MaskOutputs`."""
        _check_texts(texts, batch_size)
        k = self.config.k(side)
        hidden = np.zeros((len(texts), k, self.dimension), dtype=np.float32)
        logits = np.zeros((len(texts), k, self.vocab_size), dtype=np.float32)
        for places, batch_hidden, batch_logits in self._read(texts, side, max_length, batch_size):
            hidden[places] = batch_hidden.float().cpu().numpy()
            logits[places] = batch_logits.float().cpu().numpy()
        return MaskOutputs(hidden, logits)

    def encode_queries_cached(self, texts: Sequence[str], batch_size: int = 32) -> list[QueryRepresentation]:
        """Representations of queries, each computed once however many searchers ask for it."""
        with self._lock:
            new = [text for text in dict.fromkeys(texts) if text not in self._queries]
            if new:
                reps = self.encode(new, side="query", batch_size=batch_size)
                for text, vector, impacts in zip(new, reps.pooled, reps.impacts, strict=True):
                    self._queries[text] = QueryRepresentation(vector, impacts)
            found = [self._queries[text] for text in texts]
            for text in dict.fromkeys(texts):
                self._queries.move_to_end(text)
            while len(self._queries) > max(_CACHED_QUERIES, len(texts)):
                self._queries.popitem(last=False)
            return found

    def _check_fit(self) -> None:
        """Raise ConfigError where the token layout cannot pass through the model: too long, or ids that it lacks."""
        rows, limit = self._backbone.input_rows, self._backbone.max_positions
        for side, layout in self._layouts.items():
            what, block = f"{self.config.name}, {side} side", layout.k + len(layout.tail)
            highest = max(
                *layout.prefix, *layout.suffix, *layout.tail, layout.mask_id, *self.tokenizer.get_vocab().values()
            )
            if highest >= rows:
                raise ConfigError(
                    f"{what}: token id {highest} is beyond the model's {rows}: a tokenizer of another model?"
                )
            if limit is not None and layout.max_length + block > limit:
                raise ConfigError(
                    f"{what}: max_length={layout.max_length} and {block} places for masks and tail exceed the model's "
                    f"{limit} positions; use a max_length of at most {limit - block}"
                )

    def _read(
        self, texts: Sequence[str], side: str, max_length: int | None, batch_size: int
    ) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor]]:
        """Batches of texts of like length: (positions in ``texts``, hidden [B, K, H], logits [B, K, V])."""
        import torch

        layout = self.layout(side, max_length)
        # A batch must also fit the logits: at K = 16 and 152k terms 32 texts are 311 MB in float32.
        batch_size = min(batch_size, max(1, _LOGIT_BYTES // (4 * layout.k * self.vocab_size)))
        sequences = [layout.assemble(ids) for ids in tokenize_texts(self.tokenizer, texts, layout.text_budget)]
        order = sorted(range(len(texts)), key=lambda i: -len(sequences[i]))
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            with torch.inference_mode():
                hidden, logits = self._forward([sequences[i] for i in places], layout)
            bad = ~(torch.isfinite(hidden).all(dim=(1, 2)) & torch.isfinite(logits).all(dim=(1, 2)))
            if bad.any():
                i = places[int(bad.nonzero()[0])]
                raise NumericalError(
                    f"{self.config.name} answered NaN or infinity for text {i} ({texts[i]!r:.60}): the weights are "
                    f"damaged or {self.dtype} is too narrow for them; try dtype='float32'"
                )
            yield places, hidden, logits

    def _forward(self, sequences: list[list[int]], layout: Layout) -> tuple[torch.Tensor, torch.Tensor]:
        """Pad, run, and read the K places of one batch; the output head sees those rows only."""
        import torch

        width = max(map(len, sequences))
        left = self._backbone.pad_left
        ids = torch.full((len(sequences), width), layout.pad_id)
        mask = torch.zeros_like(ids)
        for i, sequence in enumerate(sequences):
            span = slice(width - len(sequence), width) if left else slice(0, len(sequence))
            ids[i, span], mask[i, span] = torch.tensor(sequence), 1
        ends = torch.full((len(sequences), 1), width) if left else mask.sum(dim=1, keepdim=True)
        block = layout.k + len(layout.tail)
        places = (ends - block + torch.arange(layout.k)).to(self.device)
        mask = mask.to(self.device)

        def forward(ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            states = self._backbone.hidden_states(ids, mask, block)
            rows = states.gather(1, places.unsqueeze(2).expand(-1, -1, states.shape[2]))
            return rows, self._backbone.head(rows)

        config = self.config
        return read_places(forward, ids.to(self.device), places, config.denoising_steps, config.denoising_schedule)

    def _impacts(self, text: str, logits: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Rising token ids and impacts of one text from the logits [K, V] of its kept places."""
        config = self.config
        if config.lexical_terms != "vocabulary":
            content: list[int] | None = self._content(text)
        else:
            content = None
            logits = logits.clone()
            logits[:, self._layouts["query"].mask_id] = float("-inf")
        ids, impacts = place_impacts(logits, content, config.top_terms, config.impact_scale, config.impact_rounding)
        return ids.numpy(), impacts.numpy()


_NO_TERMS = (np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int32))
_shared: list[DiffRetriever] = []
_shared_lock = threading.Lock()


def load_shared(name: str, device: str | None = None, dtype: str | None = None, **overrides: Any) -> DiffRetriever:
    """:meth:`DiffRetriever.from_pretrained`, but one model a process: the same request gives the same object.

    ``device=None`` takes the model wherever it was loaded before, else the CPU.
    """
    config = resolve_config(name, **overrides)
    if dtype is not None or device is not None:
        # Asked for a place, a model that somebody else loaded in half precision there is not the same one.
        dtype = str(_dtype(dtype, device or "cpu")).removeprefix("torch.")
    with _shared_lock:
        for model in _shared:
            here = device is None or model.place == _place(device)
            if here and model.config == config and dtype in (None, str(model.dtype).removeprefix("torch.")):
                return model
        _shared.append(DiffRetriever(config, device=device or "cpu", dtype=dtype))
        return _shared[-1]


def _unit(hidden: torch.Tensor) -> np.ndarray:
    """Rows [B, K, H] at unit length in float32 (METHOD section 4)."""
    import torch

    return torch.nn.functional.normalize(hidden.float(), dim=-1).cpu().numpy()


def _place(device: str) -> str:
    """``device`` with its number, so that "cuda" and "cuda:0" are one place. Raises ConfigError."""
    import torch

    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"device {device!r} is not one that torch knows, such as cpu, cuda or cuda:1") from error
    if place.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device {device!r}: torch sees no CUDA device here; use cpu")
    return "cuda:0" if str(place) == "cuda" else str(place)


def half_precision(device: str | None) -> str:
    """The 16-bit type for ``device``: bfloat16, but float16 on a GPU that has no bfloat16."""
    import torch

    if device and device.startswith("cuda") and torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    return "bfloat16"


def _dtype(name: str | None, device: str) -> torch.dtype:
    import torch

    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    name = name or ("float32" if device.startswith("cpu") else half_precision(device))
    if str(name).removeprefix("torch.") not in known:
        raise ConfigError(f"dtype {name!r} is not one of {', '.join(known)}")
    return known[str(name).removeprefix("torch.")]


def _check_texts(texts: Sequence[str], batch_size: int) -> None:
    if isinstance(texts, str) or not hasattr(texts, "__len__"):
        raise InputError("encode takes a list of texts; put the one text in brackets: [text]")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"text {i} is {type(text).__name__}, not a string: {text!r:.60}")
    if not isinstance(batch_size, int) or batch_size < 1:
        raise InputError(f"batch_size={batch_size!r} must be a whole number of at least 1")
