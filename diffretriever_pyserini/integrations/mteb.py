"""A retriever as a model of mteb (https://github.com/embeddings-benchmark/mteb): dense, multi, lexical or hybrid.

mteb gives a corpus and queries. They are encoded, indexed and searched as by ``diffretriever encode``, ``index`` and
``search``, through a store on disk, so memory does not grow with the corpus except for FAISS's vectors.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from hashlib import file_digest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

from ..corpora.corpus import Corpus, Passage, RawRow, parse_row, write_corpus
from ..corpora.topics import checked_topics
from ..encoding.job import encode_corpus
from ..encoding.options import EncodeOptions
from ..encoding.progress import Progress
from ..errors import InputError
from ..files.jsonl import text_field
from ..indexes.build import build_index
from ..indexes.options import DENSE, LEXICAL, MULTI, DenseKind, IndexOptions
from ..model.encoder_names import EncoderName
from ..model.readouts import no_terms
from ..model.retriever import DiffRetriever
from ..searching.encoder import QueryEncoder
from ..searching.folder import IndexFolder
from ..searching.index import SearchIndex
from ..searching.opening import Opener
from ..searching.options import SearchOptions
from .mteb_meta import model_meta

if TYPE_CHECKING:
    from datasets import Dataset
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.models.model_meta import ModelMeta

_COLUMNS = ("id", "title", "text")
_KNOWN = {"batch_size", "show_progress_bar"}


class MtebModel:
    """A model for ``mteb.evaluate``, which searches each corpus whole (mteb's SearchProtocol).

    Parameters
    ----------
    model : the retriever. Its own prompt is used, not those that mteb has for its tasks.
    mode : ``dense``, ``multi`` (exact MaxSim), ``lexical``, ``hybrid`` (dense and lexical), or a comma-separated list
        of signals, which are fused.
    folder : keeps the store and the indexes of each corpus and model, so that another mode does not encode it again,
        and a run continues after a kill; None uses a temporary folder until the next corpus.
    options : how to search. The number of hits and the batch size are mteb's.
    metadata : fields of mteb's ModelMeta that the model cannot know, such as ``languages`` or ``training_datasets``.

    Attributes
    ----------
    mteb_model_meta : mteb's ModelMeta. The revision is the model's fingerprint; the mode and other options are in
        ``experiment_kwargs``, so that mteb keeps their results apart.

    Raises
    ------
    InputError
        For an unknown mode, metadata that mteb does not know, and when mteb is not installed.

    Examples
    --------
    >>> from diffretriever_pyserini import DiffRetriever
    >>> from diffretriever_pyserini.integrations import MtebModel
    >>> model = MtebModel(DiffRetriever.from_pretrained("diffretriever"), mode="dense")
    >>> model.mteb_model_meta.name
    'diffretriever/diffretriever-mini'
    """

    def __init__(
        self,
        model: DiffRetriever,
        mode: str = "hybrid",
        *,
        folder: str | Path | None = None,
        options: SearchOptions | None = None,
        metadata: Mapping[str, Any] | None = None,
    ):
        self.model = model
        self.mode = mode
        self.folder = None if folder is None else Path(folder).expanduser()
        self.options = options or SearchOptions()
        self.signals = self._index_folder("a corpus of mteb", Path()).signals(self._mode)
        if LEXICAL in self.signals and (why := no_terms(model.config.name, model.config.readout)):
            raise InputError(f"{why}.")
        self.options.check_signals(mode, self.signals)
        self.mteb_model_meta: ModelMeta = model_meta(model, self.signals, self.options, metadata or {})
        self._index: SearchIndex | None = None
        self._open = ExitStack()

    @property
    def _mode(self) -> str:
        return f"{DENSE},{LEXICAL}" if self.mode == "hybrid" else self.mode

    def __repr__(self) -> str:
        return f"MtebModel({self.model!r}, mode={self.mode!r})"

    def index(
        self,
        corpus: Dataset,
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        encode_kwargs: Mapping[str, Any],
        num_proc: int | None = None,
        **_: Any,
    ) -> None:
        """Encode and index ``corpus``, in place of the one before it.

        Parameters
        ----------
        corpus : rows with ``id``, ``text`` and perhaps ``title``, which precedes the text.
        task_metadata, hf_split, hf_subset : name the task in messages.
        encode_kwargs : mteb's ``show_progress_bar`` and ``batch_size``; the latter is that of queries.
        num_proc : processes that prepare texts; None decides by the device.

        Raises
        ------
        InputError
            For a corpus without passages, an id that occurs twice or that a run file cannot hold, a row that is not
            text, and ``encode_kwargs`` that would have no effect.
        """
        self.close()
        where = _where(task_metadata, hf_subset, hf_split)
        quiet = not _checked(encode_kwargs).get("show_progress_bar", True)
        temporary = Path(self._open.enter_context(TemporaryDirectory(prefix="diffretriever-mteb-")))
        rows = temporary / "corpus.jsonl"
        if not write_corpus(rows, _passages(corpus, f"{where}, corpus")):
            raise InputError(f"{where}: no passages in this corpus.")
        with rows.open("rb") as file:  # the corpus may change under the same name
            digest = file_digest(file, "sha256").hexdigest()[:16]
        vectors: Literal["all", "pooled"] = "all" if MULTI in self.signals else "pooled"
        dtype = str(self.model.dtype).removeprefix("torch.")
        name = re.sub(r"[^\w.-]", "_", f"{task_metadata.name}-{digest}-{vectors}-{dtype}-{self.model.fingerprint}")
        folder = (self.folder or temporary) / name
        workers = num_proc if num_proc is None or num_proc > 1 else 0
        options = EncodeOptions(vectors=vectors, workers=workers)
        figures = encode_corpus(self.model, Corpus(rows), folder / "store", options, Progress(self.model, quiet=quiet))
        if self.signals != (MULTI,):  # which is searched in the store itself
            dense: DenseKind | None = "flat" if DENSE in self.signals else None
            build_index(
                folder / "store",
                folder / "index",
                IndexOptions(dense=dense, lexical=LEXICAL in self.signals, quiet=quiet),
                self.model.term_names,
            )
        encoder = QueryEncoder(EncoderName(self.model.config.name), self.model)
        opener = Opener(encoder.identity, device=self.model.device)
        opened = replace(self._index_folder(where, folder), passages=int(figures["passages"]))
        self._index = self._open.enter_context(SearchIndex(opened, encoder, opener))

    def search(
        self,
        queries: Dataset,
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        top_k: int,
        encode_kwargs: Mapping[str, Any],
        top_ranked: Mapping[str, list[str]] | None = None,
        num_proc: int | None = None,
        **_: Any,
    ) -> dict[str, dict[str, float]]:
        """Search the indexed corpus.

        Parameters
        ----------
        queries : rows with ``id`` and ``text``. An ``instruction`` follows the text after a space, as in mteb itself.
        task_metadata, hf_split, hf_subset : name the task in messages.
        top_k : passages per query.
        encode_kwargs : mteb's ``batch_size`` and ``show_progress_bar``.
        top_ranked : the candidates of a reranking task, which is refused.
        num_proc : not used.

        Returns
        -------
        Query id → {docid: score}, best first.

        Raises
        ------
        InputError
            Before a corpus was indexed, for a reranking task, no queries, an empty query, one that is not text, and an
            id that occurs twice.
        """
        where = _where(task_metadata, hf_subset, hf_split)
        if top_ranked is not None:
            raise InputError(
                f"{where}: a reranking task, which gives candidates for each query. This model searches a whole "
                "corpus; choose retrieval tasks."
            )
        if self._index is None:
            raise InputError(f"{where}: no corpus is indexed; call index first.")
        topics = checked_topics(_queries(queries, f"{where}, queries"), where)
        batch_size = _checked(encode_kwargs).get("batch_size", self.options.batch_size)
        options = replace(self.options, hits=top_k, batch_size=batch_size)
        results: dict[str, dict[str, float]] = {}
        for batch in self._index.batches(topics, self._mode, options):
            results |= {qid: dict(hits) for qid, hits in batch.items()}
        return results

    def close(self) -> None:
        """Close the index and remove temporary files; ``folder`` stays."""
        self._index = None
        self._open.close()

    def __enter__(self) -> MtebModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @staticmethod
    def _index_folder(name: str, folder: Path) -> IndexFolder:
        index = folder / "index"
        return IndexFolder(name, index / DENSE, index / LEXICAL, multi=folder / "store")


def _where(task_metadata: TaskMetadata, subset: str, split: str) -> str:
    return f"{task_metadata.name} ({subset}, {split})"


def _checked(encode_kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    if unknown := sorted(encode_kwargs.keys() - _KNOWN):
        raise InputError(
            f"encode_kwargs: {', '.join(unknown)} would have no effect; {' and '.join(sorted(_KNOWN))} are used. "
            "Load the model with other settings instead."
        )
    return encode_kwargs


def _passages(corpus: Dataset, where: str) -> Iterator[Passage]:
    columns = [name for name in _COLUMNS if name in corpus.column_names]
    seen: set[str] = set()
    for number, row in enumerate(corpus.select_columns(columns), start=1):
        passage = parse_row(RawRow("record", f"{where}, row {number}", dict(row)))
        if passage.docid in seen:
            raise InputError(f"{where}, row {number}: passage id {passage.docid!r} occurs twice; ids must be unique.")
        seen.add(passage.docid)
        yield passage


def _queries(queries: Dataset, where: str) -> Iterator[tuple[str, object, str]]:
    for number, row in enumerate(queries, start=1):
        here = f"{where}, row {number}"
        text, instruction = text_field(row, "text", here), text_field(row, "instruction", here)
        yield here, row.get("id"), f"{text} {instruction}" if instruction else text
