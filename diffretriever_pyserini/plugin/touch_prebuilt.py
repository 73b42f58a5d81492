"""The touch point of ``pyserini.prebuilt_index_info``: importing Pyserini 2.4.0 downloads nothing.

Its body looks up the targets of two aliases in a mapping that is downloaded when it is first read. Here the download is
answered by empty records, and afterwards the aliases are names, as all others of that file are.
docs/upstream/ has the change that makes this unnecessary.
"""

from __future__ import annotations

import io
import json
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from .attach import PyseriniMismatch, Undo, nothing

_URL = "https://raw.githubusercontent.com/castorini/prebuilt-indexes/"
_TARGETS = ("msmarco-v1-passage.unicoil", "msmarco-v2-passage.unicoil-0shot")
_FIELDS = ("name", "description", "filename", "urls", "md5", "size")
_RECORDS = json.dumps([dict.fromkeys(_FIELDS, name) for name in _TARGETS]).encode()


def load_without_download(execute: Callable[[ModuleType], None], module: ModuleType) -> Undo:
    """Execute the body of ``module``; what it then downloads for its aliases is downloaded when they are used.

    Raises
    ------
    PyseriniMismatch
        When the body asks for anything else; it must be executed again then.
    """
    asked: list[str] = []
    try:
        with _answered(asked) as (answer, urlopen):
            execute(module)
        if asked:
            _make_lazy(module, asked)
            if vars(module).get("urlopen") is answer:
                module.urlopen = urlopen  # type: ignore[attr-defined]
    except PyseriniMismatch:
        raise
    except Exception as error:
        if not asked:  # Pyserini's own
            raise
        raise PyseriniMismatch(f"{type(error).__name__}: {error}") from error
    return nothing  # a download that was saved needs no undoing


@contextmanager
def _answered(asked: list[str]) -> Iterator[tuple[Any, Any]]:
    """Answer this thread's downloads of lists of prebuilt indexes, and note their addresses in ``asked``."""
    urlopen, thread = urllib.request.urlopen, threading.get_ident()

    def answer(url: Any, *args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() != thread or not isinstance(url, str) or not url.startswith(_URL):
            return urlopen(url, *args, **kwargs)
        asked.append(url)
        return io.BytesIO(_RECORDS)

    urllib.request.urlopen = answer  # the body imports it from there
    try:
        yield answer, urlopen
    finally:
        if urllib.request.urlopen is answer:
            urllib.request.urlopen = urlopen


def _make_lazy(module: Any, asked: list[str]) -> None:
    """Let the mapping forget the records that were no download, and its aliases be names."""
    mapping, catalogue = module.IMPACT_INDEX_INFO_MSMARCO, module.IMPACT_INDEX_INFO
    aliases = module.IMPACT_INDEX_INFO_MSMARCO_ALIASES
    sources = tuple(source for source in catalogue._sources if source is not aliases)
    if asked != list(mapping._urls) or len(sources) + 1 != len(catalogue._sources) or catalogue._aliases:
        raise PyseriniMismatch(f"it downloads {len(asked)} files, and not only for the aliases of one mapping")
    names = {alias: record["description"] for alias, record in aliases.items()}
    mapping._info = None
    aliases.update(names)
    catalogue._sources, catalogue._aliases = sources, aliases
