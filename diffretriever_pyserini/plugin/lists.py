"""The topics and judgements that Pyserini knows by name: up to 2.3 a list in its code, from 2.4 on one to download."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, Protocol

from ..errors import InputError
from ..runtime import java

USED = {
    "2.3": {
        "topics_mapping": "the names of topics, and the file of each",
        "qrels_mapping": "the names of judgements, and the file of each",
        "JTopicReader.getTopicsWithStringIds": "reads topics; `get_topics` would change the id 007 into 7",
        "get_qrels_file": "downloads judgements, and says where they are",
        "JRelevanceJudgments.getNewQrelAbsPath": "says in an error where a missing file is kept",
        "JPath.of": "as above",
    },
    "2.4": {
        "_get_topics_mapping": "downloads the names of topics, and the file of each",
        "_get_qrels_mapping": "downloads the names of judgements, and the file of each",
        "_download_and_cache": "downloads topics",
        "JTopicReader.getTopicsWithStringIdsFromFileWithTopicReaderClass": "reads topics without changing ids",
        "get_qrels_file": "downloads judgements, and says where they are",
        "_get_topics_cache_path": "says where topics are kept",
        "_get_qrels_cache_path": "says where judgements are kept",
        "EVAL_BASE_URL": "says in an error which list could not be downloaded",
        "TOPICS_BASE_URL": "the folder from which topics are downloaded",
        "QRELS_BASE_URL": "says in an error from where judgements are downloaded",
    },
}
"""What this module uses of ``pyserini.search._base`` in which version, and why; nothing there is changed."""

WORDS = {"topics": "topics", "qrels": "judgements"}
_SERVER = "https://raw.githubusercontent.com/castorini/anserini-tools/master/topics-and-qrels"  # Anserini's


class PyseriniList(Protocol):
    """One of Pyserini's two lists."""

    @property
    def names(self) -> Collection[str]:
        """All names."""

    def topics(self, name: str) -> Any:
        """Download and read topics: a Java map of query id → fields."""

    def qrels(self, name: str) -> Path:
        """Download judgements; returns the file."""

    def kept(self, name: str) -> tuple[Path, str]:
        """Where the file of ``name`` is kept, and the address from which it is downloaded."""


def pyserini_list(kind: str, name: str) -> PyseriniList:
    """Pyserini's list of ``kind`` (topics or qrels), in which ``name`` is to be looked up.

    Raises
    ------
    InputError
        When the list has to be downloaded and cannot be; the message begins with ``name``.
    """
    from pyserini.search import _base

    return _InCode(_base, kind) if hasattr(_base, f"{kind}_mapping") else _Downloaded(_base, kind, name)


class _InCode:
    """Of Pyserini 2.3, read by Anserini, which downloads a file when it is first used."""

    def __init__(self, base: Any, kind: str):
        self._base = base
        self.names: dict[str, Any] = getattr(base, f"{kind}_mapping")

    def topics(self, name: str) -> Any:
        return self._base.JTopicReader.getTopicsWithStringIds(self.names[name])

    def qrels(self, name: str) -> Path:
        return Path(self._base.get_qrels_file(name))

    def kept(self, name: str) -> tuple[Path, str]:
        file = self._base.JPath.of(self.names[name].path)
        path = Path(self._base.JRelevanceJudgments.getNewQrelAbsPath(file).toString())
        return path, f"{_SERVER}/{path.name}"


class _Downloaded:
    """Of Pyserini 2.4, which downloads the list in each process, and a file when it is first used."""

    def __init__(self, base: Any, kind: str, name: str):
        self._base, self._kind = base, kind
        try:
            self.names: dict[str, Any] = getattr(base, f"_get_{kind}_mapping")()
        except OSError as error:
            raise InputError(
                f"{name}: no such file or folder, and Pyserini could not download its list of {WORDS[kind]} "
                f"({base.EVAL_BASE_URL}{kind}.json, {java.said(error)}). Without a connection, use a file or folder."
            ) from error

    def topics(self, name: str) -> Any:
        path, url = self.kept(name)
        file = self._base._download_and_cache(url, path.name, path.parent)
        read = self._base.JTopicReader.getTopicsWithStringIdsFromFileWithTopicReaderClass
        return read(str(file), self.names[name]["reader_class"])

    def qrels(self, name: str) -> Path:
        return Path(self._base.get_qrels_file(name))

    def kept(self, name: str) -> tuple[Path, str]:
        entry = self.names[name]
        file = entry["path"] if self._kind == "topics" else entry
        folder = getattr(self._base, f"_get_{self._kind}_cache_path")()
        return Path(folder, Path(file).name), f"{getattr(self._base, f'{self._kind.upper()}_BASE_URL')}{file}"
