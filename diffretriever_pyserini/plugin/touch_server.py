"""Touch points of ``pyserini.server``: our indexes in its REST and MCP servers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ..errors import DiffRetrieverError, InputError, sentence
from ..model.encoder_names import WORD, is_ours
from ..runtime import java
from ..scoring.fusion import RankedList, fuse_lists
from ..scoring.ranking import ranked
from ..searching.folder import FILE_NAME, MODES
from ..store.index_record import read_index_record
from ..store.spec import SPEC

PyseriniFunction = Callable[..., Any]
_MODES: dict[str, str | None] = {WORD: None} | {f"{WORD}-{mode}": mode for mode in MODES}
index_types: dict[str, dict[str, Any]] = {name: {} for name in _MODES}  # with the prebuilt indexes of each: none


def ensure_index(original: PyseriniFunction) -> PyseriniFunction:
    """Open a configured index of ours as with ``--no-prebuilt-indexes``, and say why one cannot be opened."""

    def ensure(
        self: Any,
        index_name: str,
        *,
        allow_local: bool = False,
        ef_search: int | None = None,
        encoder: str | None = None,
    ) -> Any:
        from pyserini.server.errors import BadSearchRequestError, IndexNotAvailableError

        backend, configured = self, self._local_indexes.get(index_name) if allow_local else None
        if configured is not None and _ours(configured):
            backend = _only_configured(self)
            if configured.index_type in _MODES:
                ef_search = configured.ef_search  # the MCP server sends one for every index
                if encoder not in (None, configured.encoder):
                    raise BadSearchRequestError(
                        f"encoder={encoder} has no effect: {index_name} is searched with the encoder that made it; "
                        "leave it out."
                    )
        try:
            return original(backend, index_name, allow_local=allow_local, ef_search=ef_search, encoder=encoder)
        except IndexNotAvailableError as error:
            if isinstance(error.__cause__, DiffRetrieverError):
                raise IndexNotAvailableError(f"{error}: {sentence(error.__cause__)}") from error
            raise

    return ensure


def build_searcher(original: PyseriniFunction) -> PyseriniFunction:
    """Open our index types; refuse folders of ours without texts as Lucene indexes of texts."""

    def build(self: Any, config: Any, *, index_type: str, local_path: str | None = None) -> Any:
        if index_type in _MODES and local_path is not None:
            from ..pyserini_api.served import IndexSearcher

            return IndexSearcher(local_path, _MODES[index_type], config.encoder, config.ef_search)
        if index_type == "tf" and local_path is not None:
            _check_texts(Path(local_path))
        from pyserini.server.errors import IndexNotAvailableError

        try:
            return original(self, config, index_type=index_type, local_path=local_path)
        except IndexNotAvailableError as error:  # Pyserini takes every ValueError for an unknown type of index
            if isinstance(error.__cause__, DiffRetrieverError):
                raise error.__cause__ from None
            raise

    return build


def _check_texts(folder: Path) -> None:
    """Raise InputError where ``folder`` is an index of ours that holds no texts."""
    if (folder / FILE_NAME).is_file() or (folder / SPEC).is_file():
        raise InputError(
            f"{folder} is not a Lucene index of texts: name it in the server's configuration, with index_type: {WORD}."
        )
    if read_index_record(folder) is not None:
        raise InputError(
            f"{folder} holds a model's term weights or vectors, and BM25 needs texts: name it in the server's "
            "configuration, with index_type impact or faiss and its encoder."
        )


def document_searcher(original: PyseriniFunction) -> PyseriniFunction:
    """Take the texts of our index types from the index itself, if the configuration names no ``base_index``."""

    def searcher(self: Any, start_index_name: str, *, allow_local_index: bool) -> Any:
        config = self._ensure_index(start_index_name, allow_local=allow_local_index)
        if config.index_type in _MODES and not config.base_index:
            return config.searcher.texts
        return original(self, start_index_name, allow_local_index=allow_local_index)

    return searcher


def answer(original: PyseriniFunction) -> PyseriniFunction:
    """Answer one request at a time where an index of ours is configured, and make our errors those of the server."""

    def answer(self: Any, *args: Any, **kwargs: Any) -> Any:
        from pyserini.server.errors import IndexNotAvailableError

        try:
            with java.calls if _serves_ours(self) else nullcontext():
                return original(self, *args, **kwargs)
        except DiffRetrieverError as error:
            raise IndexNotAvailableError(sentence(error)) from error

    return answer


def list_indexes(original: PyseriniFunction) -> PyseriniFunction:
    """List the configured indexes before the prebuilt ones, if one of them is ours."""

    def indexes(self: Any, index_type: str) -> list[str]:
        names = original(self, index_type)
        if not _serves_ours(self):
            return names
        return list(dict.fromkeys([*original(_only_configured(self), index_type), *names]))

    return indexes


def index_status(original: PyseriniFunction) -> PyseriniFunction:
    """Describe a configured index by its configuration, if one of the configured ones is ours."""

    def status(self: Any, index_name: str) -> Any:
        if index_name not in self._local_indexes or not _serves_ours(self):
            return original(self, index_name)
        described = original(_only_configured(self), index_name)
        return described | {"no_prebuilt_indexes": self._no_prebuilt_indexes}

    return status


def fuse_results(original: PyseriniFunction) -> PyseriniFunction:
    """Fuse two lists, of unknown signals, by docs/method.md §5 in a server with an index of ours."""

    def fuse(self: Any, results1: list[Any], results2: list[Any], hits: int = 10) -> list[Any]:
        if not _serves_ours(self.controller):
            return original(self, results1, results2, hits)
        from pyserini.search.faiss import DenseSearchResult

        lists = (
            RankedList(name, ranked({hit.docid: float(hit.score) for hit in results}), 1.0)
            for name, results in (("first", results1), ("second", results2))
        )
        return [DenseSearchResult(docid, score) for docid, score in fuse_lists(list(lists)).hits[:hits]]

    return fuse


def _ours(configured: Any) -> bool:
    """Whether a configured index has one of our types or encoders."""
    return configured.index_type in _MODES or is_ours(configured.encoder or "")


def _serves_ours(backend: Any) -> bool:
    return any(map(_ours, backend._local_indexes.values()))


def _only_configured(backend: Any) -> Any:
    """``backend`` as with ``--no-prebuilt-indexes``, which shares its open indexes and locks."""
    view = copy.copy(backend)
    view._no_prebuilt_indexes = True
    return view
